from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.audio import child, decode
from engine.audio.resample import resample
from engine.audio.source import AudioSource, open_source
from engine.errors import AudioError, AudioTooLongError, ConfigError, SilentAudioError
from tests.audio_files import Sound, Tune, Waveform, stereo, write_streams, write_wav

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


@pytest.mark.parametrize(
    ("start_s", "end_s", "max_s", "is_allowed"),
    [
        (0.0, None, 3.0, True),
        (0.0, None, 2.9, False),
        (1.0, 2.0, 2.0, True),
        (2.0, None, 2.0, False),
    ],
)
def test_open_source_longer_than_allowed_is_refused(
    tmp_path: Path, tune: Tune, start_s: float, end_s: float | None, max_s: float, is_allowed: bool
) -> None:
    path = write_wav(tmp_path / "tune.wav", tune(1, 3.0), RATE)
    part: dict[str, Any] = {"start_s": start_s, "end_s": end_s}
    audio: dict[str, Any]
    for audio in ({"source": path}, {"source": tune(1, 3.0), "array_rate": RATE}):
        if is_allowed:
            plain = open_source(**audio, sample_rate=RATE, **part).read()
            found = open_source(**audio, sample_rate=RATE, **part, max_s=max_s).read()
            np.testing.assert_array_equal(found, plain)
        else:
            with pytest.raises(AudioTooLongError, match=f"longer than {max_s:g} s"):
                open_source(**audio, sample_rate=RATE, **part, max_s=max_s).read()


def test_open_source_decodes_nothing_behind_the_longest(
    tmp_path: Path, tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_wav(tmp_path / "tune.wav", tune(1, 30.0), RATE)
    ends_s = []

    def no_blocks(*_: object, end_s: float, **__: object) -> Iterator[Waveform]:
        ends_s.append(end_s)
        yield from ()

    monkeypatch.setattr(child, "blocks", no_blocks)
    open_source(path, RATE, max_s=5.0).read()
    open_source(path, RATE, max_s=5.0, end_s=4.0).read()
    assert ends_s == [6.0, 4.0]


def test_open_source_name_replaces_the_path(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"not audio")
    source = open_source(path, RATE, name="clip.wav")
    with pytest.raises(AudioError) as caught:
        source.read()
    assert source.name == "clip.wav"
    assert str(caught.value).startswith("clip.wav: ")
    assert "secret" not in str(caught.value)


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


def test_open_source_reports_warnings_after_the_last_block(broken_file: BrokenFile) -> None:
    source = open_source(broken_file("truncated wav"), RATE)
    assert not source.report.warnings
    source.read()
    (warning,) = source.warnings
    assert warning.startswith("cut off: ")
    assert source.report.cut_off == warning


@pytest.mark.parametrize("kind", ["BytesIO", "open file"])
def test_open_source_binary_file_is_read_from_its_beginning(
    kind: str, tmp_path: Path, tune: Tune
) -> None:
    path = write_wav(tmp_path / "tune.wav", tune(1, 3.0), RATE)
    with path.open("rb") as file:
        given = file if kind == "open file" else io.BytesIO(path.read_bytes())
        given.seek(100)
        source = open_source(given, RATE)
        np.testing.assert_array_equal(source.read(), decode.read(path, RATE))
    assert source.name == (str(path) if kind == "open file" else "open file")


def test_open_source_file_opened_as_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tune.wav").write_text("RIFF")
    with (tmp_path / "tune.wav").open() as file, pytest.raises(AudioError, match="mode 'rb'"):
        open_source(file, RATE)


@pytest.mark.parametrize("source", [b"RIFF", bytearray(10), memoryview(b"RIFF")])
def test_open_source_bytes_are_refused(source: object) -> None:
    with pytest.raises(AudioError, match=r"io\.BytesIO"):
        open_source(source, RATE)


def test_open_source_pipe_is_read(tmp_path: Path, tune: Tune) -> None:
    path = write_wav(tmp_path / "tune.wav", tune(1, 30.0), RATE)
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(f"cat '{path}' > '{tmp_path}/pipe'", shell=True):
        source = open_source(tmp_path / "pipe", RATE)
        np.testing.assert_array_equal(source.read(), decode.read(path, RATE))
    assert source.name == str(tmp_path / "pipe")


def test_open_source_error_names_the_file_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("music").mkdir()
    Path("text.mp3").write_text("no music")
    os.mkfifo("pipe")
    for name in ("missing.wav", "music", "text.mp3", "pipe", "music\0.wav"):
        with pytest.raises(AudioError) as caught:
            open_source(name, RATE).read()
        assert caught.value.source == name


def test_open_source_stream_is_chosen(tmp_path: Path, tune: Tune) -> None:
    sounds = [Sound(tune(seed, 3.0)) for seed in (1, 2)]
    path = write_streams(tmp_path / "two.mka", sounds, RATE)
    for number, sound in enumerate(sounds, 1):
        samples = open_source(path, RATE, stream=number).read()
        np.testing.assert_allclose(samples, sound.waveform, atol=1e-4)
    with pytest.raises(ConfigError, match="invalid stream=0: must be 1 or more"):
        open_source(path, RATE, stream=0)


def test_explaining_silence_adds_the_warnings() -> None:
    source = AudioSource("film", [], RATE)
    with pytest.raises(SilentAudioError, match=r"^film: silent$"), source.explaining_silence():
        raise SilentAudioError("film", "silent")
    source.report.warn("choose another stream")
    with (
        pytest.raises(SilentAudioError, match=r"^film: silent; choose another stream$"),
        source.explaining_silence(),
    ):
        raise SilentAudioError("film", "silent")


@pytest.mark.parametrize("rate", [0, -8000, 10, 10_000_000])
def test_open_source_array_of_absurd_rate_is_refused(rate: int) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source(np.zeros(RATE, np.float32), RATE, array_rate=rate)
    assert caught.value.key == "sample_rate"


@pytest.mark.parametrize("rate", [8000, 11025, 48000])
def test_open_source_array_is_resampled_and_made_mono(rate: int, tune: Tune) -> None:
    waveform = tune(2, 2.0, rate)
    source = open_source(stereo(waveform), RATE, array_rate=rate)
    assert source.name == "array"
    samples = source.read()
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(2 * RATE, abs=2)
    music = slice(0, -RATE // 2)  # it fades out, and leaves what differs between the channels
    expected = resample(waveform, rate, RATE)
    np.testing.assert_allclose(samples[music], expected[music], atol=1e-5)


def test_open_source_part_of_an_array_is_cut_at_its_own_rate(tune: Tune) -> None:
    waveform = tune(2, 2.0, 16000)
    part = open_source(waveform, 16000, array_rate=16000, start_s=0.5, end_s=1.25).read()
    np.testing.assert_array_equal(part, waveform[8000:20000])


def test_open_source_array_without_its_rate_is_refused() -> None:
    with pytest.raises(ConfigError, match="in Hz") as caught:
        open_source(np.zeros(RATE, np.float32), RATE)
    assert caught.value.key == "sample_rate"


@pytest.mark.parametrize(
    ("start_s", "end_s", "key"), [(-1.0, None, "start_s"), (2.0, 2.0, "end_s"), (2.0, 1.0, "end_s")]
)
def test_open_source_empty_part_is_refused(start_s: float, end_s: float | None, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source("tune.wav", RATE, start_s=start_s, end_s=end_s)
    assert caught.value.key == key
