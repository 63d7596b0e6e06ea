from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.audio import decode
from engine.audio.source import AudioSource, open_source
from engine.errors import AudioError, ConfigError
from tests.audio_files import Tune, Waveform, stereo, write_wav

RATE = 8000
BrokenFile = Callable[[str], Path]


def test_audio_source_counts_the_samples_read_so_far() -> None:
    blocks = [np.zeros(3000, np.float32), np.zeros(1000, np.float32)]
    source = AudioSource("tune", blocks, RATE)
    assert (source.n_samples, source.duration_s) == (0, 0.0)
    lengths = [(len(block), source.n_samples) for block in source]
    assert lengths == [(3000, 3000), (1000, 4000)]
    assert source.duration_s == 0.5


def test_audio_source_reads_blocks_only_when_asked() -> None:
    n_read = 0

    def blocks() -> Iterator[Waveform]:
        nonlocal n_read
        for _ in range(3):
            n_read += 1
            yield np.zeros(10, np.float32)

    source = AudioSource("live", blocks(), RATE)
    assert n_read == 0
    next(iter(source))
    assert (n_read, source.n_samples) == (1, 10)


def test_audio_source_read_joins_all_blocks() -> None:
    blocks = [np.full(2, 0.5, np.float32), np.full(1, -0.5, np.float32)]
    assert AudioSource("tune", blocks, RATE).read().tolist() == [0.5, 0.5, -0.5]
    assert AudioSource("nothing", [], RATE).read().shape == (0,)


def test_audio_source_without_samples_after_its_start_is_refused() -> None:
    with pytest.raises(AudioError, match=r"^tune: it ends before 2 s; use an earlier start$"):
        list(AudioSource("tune", [np.zeros(0, np.float32)], RATE, start_s=2.0))
    assert list(AudioSource("tune", [], RATE, start_s=0.0)) == []


def test_open_source_file_gives_its_path_and_resampled_blocks(tmp_path: Path, tune: Tune) -> None:
    path = write_wav(tmp_path / "tune.wav", tune(1, 3.0, 44100), 44100)
    source = open_source(path, RATE)
    assert (source.name, source.sample_rate) == (str(path), RATE)
    np.testing.assert_array_equal(source.read(), decode.read(path, RATE))
    assert source.duration_s == pytest.approx(3.0)


def test_open_source_part_of_a_file(tmp_path: Path, tune: Tune) -> None:
    path = write_wav(tmp_path / "tune.wav", tune(1, 3.0), RATE)
    source = open_source(path, RATE, start_s=1.0, end_s=1.5)
    np.testing.assert_array_equal(source.read(), decode.read(path, RATE)[RATE : RATE * 3 // 2])


def test_open_source_start_behind_the_end_is_refused(tmp_path: Path, tune: Tune) -> None:
    path = write_wav(tmp_path / "tune.wav", tune(1, 3.0), RATE)
    for source in (
        open_source(path, RATE, start_s=4.0),
        open_source(tune(1, 3.0), RATE, array_rate=RATE, start_s=4.0),
    ):
        with pytest.raises(AudioError, match="it ends before 4 s"):
            source.read()


def test_open_source_file_errors_come_when_it_is_read(broken_file: BrokenFile) -> None:
    path = broken_file("empty")
    source = open_source(path, RATE)
    with pytest.raises(AudioError) as caught:
        source.read()
    assert Path(caught.value.source) == path


@pytest.mark.parametrize("rate", [8000, 11025, 48000])
def test_open_source_array_is_resampled_and_made_mono(rate: int, tune: Tune) -> None:
    waveform = tune(2, 2.0, rate)
    source = open_source(stereo(waveform), RATE, array_rate=rate)
    assert source.name == "array"
    samples = source.read()
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(2 * RATE, abs=2)
    np.testing.assert_allclose(samples, decode.resample(waveform, rate, RATE), atol=1e-5)


def test_open_source_part_of_an_array_is_cut_at_its_own_rate(tune: Tune) -> None:
    waveform = tune(2, 2.0, 16000)
    part = open_source(waveform, 16000, array_rate=16000, start_s=0.5, end_s=1.25).read()
    np.testing.assert_array_equal(part, waveform[8000:20000])


def test_open_source_array_without_its_rate_is_refused() -> None:
    with pytest.raises(ConfigError, match="in Hz") as caught:
        open_source(np.zeros(RATE, np.float32), RATE)
    assert caught.value.key == "sample_rate"


@pytest.mark.parametrize(("start_s", "end_s"), [(-1.0, None), (2.0, 2.0), (2.0, 1.0)])
def test_open_source_empty_part_is_refused(start_s: float, end_s: float | None) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source("tune.wav", RATE, start_s=start_s, end_s=end_s)
    assert caught.value.key == "(start_s, end_s)"
