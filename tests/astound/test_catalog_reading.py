"""Whatever plays is identified, and at the right time."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import astound
from astound.batch import identify, timeline
from astound.catalog import Catalog
from astound.compare import compare
from engine.config import IngestConfig
from engine.errors import AudioError, SilentAudioError
from engine.records import QueryResult
from tests.audio_files import (
    CUT_FILES,
    Sound,
    Waveform,
    cached_tune,
    cut,
    stereo,
    write_audio,
    write_streams,
    write_wav,
)

RATE = 22050
TUNE_S = 30.0
CLIP_AT_S, CLIP_S = 10.0, 8.0


def tune(number: int, rate: int = RATE) -> Waveform:
    return cached_tune(number, TUNE_S, rate)


def clip(number: int = 1, rate: int = RATE) -> Waveform:
    """Eight seconds from the middle of a tune."""
    first = round(CLIP_AT_S * rate)
    return tune(number, rate)[first : first + round(CLIP_S * rate)]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """A catalog of the tunes 0.wav to 3.wav, made with the shipped encoder."""
    folder = tmp_path_factory.mktemp("reading")
    for number in range(4):
        write_wav(folder / f"{number}.wav", tune(number), RATE)
    with astound.open(folder / "catalog", device="cpu") as catalog:
        catalog.add([folder / f"{number}.wav" for number in range(4)])
        yield catalog


def check(result: QueryResult, number: int = 1, clip_starts_s: float = 0.0) -> None:
    """Require a tune as the answer, at the right place on the clip's clock."""
    best = result.best
    assert best is not None
    assert Path(best.path).name == f"{number}.wav"
    assert best.offset_s == pytest.approx(CLIP_AT_S - clip_starts_s, abs=0.1)


# -- files -------------------------------------------------------------------------------------


def film(folder: Path, sound: Sound, suffix: str = "mkv", codec: str = "flac") -> Path:
    return write_streams(folder / f"film.{suffix}", [sound], RATE, codec=codec, video_s=15.0)


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "flac"), ("mp4", "aac"), ("ts", "mp2")])
def test_query_film_whose_sound_begins_later(
    suffix: str, codec: str, catalog: Catalog, tmp_path: Path
) -> None:
    path = film(tmp_path, Sound(clip(), start_s=3.5), suffix, codec)
    result = catalog.query(path)
    check(result, clip_starts_s=3.5)
    assert result.warnings == ()
    assert result.best is not None
    assert result.best.query_start_s == pytest.approx(3.5, abs=1.0)
    check(catalog.query(path, start_s=5.0), clip_starts_s=3.5)


@pytest.mark.parametrize("gap_s", [1.5, 20.0])
def test_query_and_scan_film_with_a_gap_in_its_time_stamps(
    gap_s: float, catalog: Catalog, tmp_path: Path
) -> None:
    music = np.concatenate([clip(1), clip(2)])
    path = film(tmp_path, Sound(music, gap_s=(CLIP_S, gap_s)))
    after_s = CLIP_S + gap_s
    check(catalog.query(path, end_s=8.0), 1)
    check(catalog.query(path, start_s=after_s), 2, after_s)
    entries = {Path(entry.path).name: entry for entry in catalog.scan(path).entries}
    assert entries["1.wav"].offset_s == pytest.approx(CLIP_AT_S, abs=0.1)
    second = entries["2.wav"]
    lag_s = second.reference_end_s - second.query_end_s
    assert lag_s == pytest.approx(CLIP_AT_S - after_s, abs=0.3)


def test_query_film_whose_sound_ends_before_its_picture(catalog: Catalog, tmp_path: Path) -> None:
    result = catalog.query(film(tmp_path, Sound(clip())))
    check(result)
    assert result.warnings == ()
    assert result.duration_s == pytest.approx(CLIP_S, abs=0.1)


@pytest.mark.parametrize("suffix", [".wav", ".ogg", ".opus", ".mp3", ".flac", ".mka", ".webm"])
def test_query_cut_file_says_so(suffix: str, catalog: Catalog, tmp_path: Path) -> None:
    rate = 48000 if suffix in (".opus", ".webm") else RATE
    path = cut(write_audio(tmp_path / f"clip{suffix}", clip(1, rate), rate), 0.7)
    result = catalog.query(path)
    check(result)
    (warning,) = result.warnings
    assert warning.startswith("cut off: ")
    assert catalog.scan(path).warnings == result.warnings


def test_query_chained_ogg_whose_parts_differ(catalog: Catalog, tmp_path: Path) -> None:
    first = write_audio(tmp_path / "1.ogg", clip(1), RATE).read_bytes()
    second = write_audio(tmp_path / "2.ogg", stereo(clip(2, 48000)), 48000).read_bytes()
    (tmp_path / "chained.ogg").write_bytes(first + second)
    check(catalog.query(tmp_path / "chained.ogg", end_s=CLIP_S), 1)
    check(catalog.query(tmp_path / "chained.ogg", start_s=CLIP_S), 2, CLIP_S)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0, 40_000])
def test_query_wav_whose_sizes_are_wrong(size: int, catalog: Catalog, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "streamed.wav", clip(), RATE)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = size.to_bytes(4, "little")
    path.write_bytes(content)
    result = catalog.query(path)
    check(result)
    assert result.duration_s == pytest.approx(CLIP_S, abs=0.01)
    (warning,) = result.warnings
    assert "read to the end of the file" in warning


def inverted(music: Waveform) -> Waveform:
    return np.stack([music, -music], axis=1)


def one_sided(music: Waveform) -> Waveform:
    return np.stack([0 * music, music], axis=1)


def with_bad_sample(music: Waveform) -> Waveform:
    music = music.copy()
    music[1000] = np.nan
    return music


@pytest.mark.parametrize(
    ("change", "subtype"),
    [
        (inverted, "PCM_16"),
        (one_sided, "PCM_16"),
        (with_bad_sample, "FLOAT"),
        (lambda music: music * np.float32(1e-4), "PCM_24"),
        (lambda music: one_sided(music) * np.float32(1e-4), "PCM_24"),
        (lambda music: music * np.float32(4e-6), "PCM_24"),
        (lambda music: music * np.float32(4e-6), "FLOAT"),
        (lambda music: music * np.float32(32768), "FLOAT"),
    ],
    ids=[
        *("inverted", "one channel", "not a number", "-80 dB", "one channel at -80 dB"),
        *("-108 dB", "-108 dB float", "integers as floats"),
    ],
)
def test_query_samples_that_are_unusual(
    change: Callable[[Waveform], Waveform], subtype: str, catalog: Catalog, tmp_path: Path
) -> None:
    check(catalog.query(write_wav(tmp_path / "clip.wav", change(clip()), RATE, subtype)))


# -- streams -----------------------------------------------------------------------------------


@pytest.fixture
def bilingual(tmp_path: Path) -> Path:
    """A film whose first, default sound is silent."""
    silent = Sound(0 * clip(), language="eng", is_default=True)
    sounds = [silent, Sound(clip(), language="ger", is_default=False)]
    return write_streams(tmp_path / "film.mkv", sounds, RATE, video_s=CLIP_S)


def test_query_silent_stream_names_the_others(bilingual: Path, catalog: Catalog) -> None:
    with pytest.raises(SilentAudioError, match=r"stream 1 \(eng, flac\) is silent; .* 2 \(ger"):
        catalog.query(bilingual)
    check(catalog.query(bilingual, stream=2))
    assert [Path(one.path).name for one in catalog.scan(bilingual, stream=2).entries] == ["1.wav"]
    assert catalog.explain(bilingual, stream=2).match is not None


def test_add_silent_stream_names_the_others(bilingual: Path, tmp_path: Path) -> None:
    with astound.open(tmp_path / "catalog", device="cpu") as catalog:
        (failure,) = catalog.add(bilingual, config=IngestConfig(n_jobs=1)).failed
    assert "2 (ger, flac)" in failure.reason


# -- pipes, open files, samples ----------------------------------------------------------------


def test_query_pipe(catalog: Catalog, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "clip.wav", clip(), RATE)
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(f"cat '{path}' > '{tmp_path}/pipe'", shell=True):
        check(catalog.query(tmp_path / "pipe"))


def test_query_open_files(catalog: Catalog, tmp_path: Path) -> None:
    path = write_audio(tmp_path / "clip.ogg", clip(), RATE)
    check(catalog.query(io.BytesIO(path.read_bytes())))
    with path.open("rb") as file:
        check(catalog.query(file))


@pytest.mark.parametrize(
    "convert",
    [
        lambda music: (music * 32767).astype(np.int16),
        lambda music: (music * 32767).astype(np.int32),
        lambda music: (music * 32767).astype(np.int64),
        lambda music: [int(sample * 32767) for sample in music],
        lambda music: list(map(float, music)),
        lambda music: torch.from_numpy(music.copy()),
        lambda music: stereo(music).T,
        lambda music: stereo(music),
        lambda music: inverted(music).T,
        lambda music: music * 1e-5,
    ],
    ids=[
        *("int16", "int32", "int64", "integers", "floats", "tensor", "(channels, samples)"),
        *("(samples, channels)", "inverted", "-100 dB"),
    ],
)
def test_query_samples_in_memory(convert: Callable[[Waveform], Any], catalog: Catalog) -> None:
    check(catalog.query(convert(clip()), RATE))


@pytest.mark.parametrize("source", [None, object(), 7, np.zeros(RATE * 5, np.uint8), b"RIFF"])
def test_query_of_what_is_no_recording_is_one_clear_error(source: Any, catalog: Catalog) -> None:
    with pytest.raises(AudioError):
        catalog.query(source, RATE)


# -- batches -----------------------------------------------------------------------------------


def test_one_broken_file_costs_one_file(catalog: Catalog, tmp_path: Path) -> None:
    good = write_wav(tmp_path / "good.wav", clip(), RATE)
    content = good.read_bytes()
    for name, at, patch in (
        ("codec.wav", 20, b"\x34\x12"),
        ("rate.wav", 24, (10**8).to_bytes(4, "little")),
        ("slow.wav", 24, (1).to_bytes(4, "little")),
    ):
        broken = content[:at] + patch + content[at + len(patch) :]
        (tmp_path / name).write_bytes(broken)
    for answer in (identify, timeline):
        for name in ("codec.wav", "rate.wav", "slow.wav", "missing.wav"):
            result = answer(catalog, str(tmp_path / name))
            assert result.error is not None
            assert result.error["code"] == "unreadable_audio"
        assert answer(catalog, str(good)).error is None


def test_crash_of_a_decoder_costs_one_file(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.audio import child

    good = write_wav(tmp_path / "good.wav", clip(), RATE)
    check(catalog.query(good))
    monkeypatch.setattr(child._shared, "_idle", [decoder := child.Decoder()])
    decoder.start()
    assert decoder._child is not None
    monkeypatch.setattr(decoder, "start", decoder._child.kill)
    with pytest.raises(AudioError, match=r"good\.wav: the decoder crashed on it"):
        catalog.query(good)
    monkeypatch.undo()
    check(catalog.query(good))


# -- tracks that are cut off -------------------------------------------------------------------


def test_add_cut_file_is_marked_until_a_longer_one_replaces_it(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "tune.flac", tune(1), RATE)
    whole = path.read_bytes()
    cut(path)
    with astound.open(tmp_path / "catalog", device="cpu") as catalog:
        report = catalog.add(path, metadata={str(path): {"mood": "blue"}})
        (added,), (warned,) = report.added, report.warned
        assert (warned.path, report.failed) == (str(path), [])
        assert warned.reason.startswith("cut off: its header states 30.0 s")
        track = catalog.track(added.track_id)
        assert track.metadata == {"mood": "blue", "cut_off": warned.reason}
        assert 13.0 < track.duration_s < 17.0
        path.write_bytes(whole)
        report = catalog.add(path)
        assert (len(report.added), report.warned) == (1, [])
        (track,) = catalog.tracks()
        assert track.metadata == {}
        assert track.duration_s == pytest.approx(TUNE_S)


@pytest.mark.parametrize("name", CUT_FILES)
def test_add_cut_file_of_any_format(
    name: str, broken_file: Callable[[str], Path], tiny_model: Path, tmp_path: Path
) -> None:
    with astound.open(tmp_path / "catalog", model=tiny_model, device="cpu") as catalog:
        report = catalog.add(broken_file(name), config=IngestConfig(n_jobs=1))
        assert (len(report.added), len(report.warned), report.failed) == (1, 1, [])
        assert catalog.tracks()[0].metadata["cut_off"].startswith("cut off: ")


def test_compare_reads_cut_files_too(tmp_path: Path) -> None:
    first = write_wav(tmp_path / "whole.wav", tune(1), RATE)
    second = cut(write_audio(tmp_path / "cut.flac", tune(1), RATE))
    assert compare(first, second, device="cpu").passages
