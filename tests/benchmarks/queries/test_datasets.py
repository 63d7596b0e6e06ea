from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.queries import datasets
from benchmarks.queries.datasets import CONTEXT_S, RATE, TAIL_S, Waveform
from engine.errors import AudioError


def white(seconds: float, seed: int = 0) -> Waveform:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


@pytest.fixture
def tracks(tmp_path: Path) -> list[Path]:
    for i, seconds in enumerate((20.0, 12.0, 4.0, 30.0)):
        soundfile.write(tmp_path / f"{i}.wav", white(seconds, i), RATE, subtype="FLOAT")
    return datasets.audio_files([tmp_path])


def test_audio_files_lists_nested_files_once(tracks: list[Path], tmp_path: Path) -> None:
    for name in ("cover.jpg", "._0.wav"):
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    soundfile.write(tmp_path / "more" / "z.flac", white(1), RATE)
    found = datasets.audio_files([tmp_path, tmp_path / "more", tmp_path / "0.wav"])
    assert [path.name for path in found] == ["0.wav", "1.wav", "2.wav", "3.wav", "z.flac"]


def test_excerpt_contains_the_context_of_the_cut(tracks: list[Path]) -> None:
    for excerpt in datasets.excerpts(tracks, 8, 10.0, seed=3):
        track = white(
            *{"0.wav": (20.0, 0), "1.wav": (12.0, 1), "3.wav": (30.0, 3)}[excerpt.cut.path.name]
        )
        padded = np.pad(track, (round(CONTEXT_S * RATE), RATE))
        first = round(excerpt.cut.start_s * RATE)
        n_samples = round((CONTEXT_S + 10.0 + TAIL_S) * RATE)
        np.testing.assert_array_equal(excerpt.waveform, padded[first : first + n_samples])


def test_cuts_lie_within_tracks_that_are_long_enough(tracks: list[Path]) -> None:
    durations_s = {"0.wav": 20.0, "1.wav": 12.0, "3.wav": 30.0}
    cuts = [excerpt.cut for excerpt in datasets.excerpts(tracks, 30, 10.0, seed=3)]
    assert len(cuts) == 30
    for cut in cuts:
        assert 0 <= cut.start_s <= durations_s[cut.path.name] - 10.0


def test_excerpts_use_all_tracks_equally(tracks: list[Path]) -> None:
    cuts = [excerpt.cut for excerpt in datasets.excerpts(tracks, 7, 10.0, seed=3)]
    assert sorted(sum(cut.path == track for cut in cuts) for track in tracks) == [0, 2, 2, 3]


def test_excerpts_depend_on_the_seed(tracks: list[Path]) -> None:
    def starts(seed: int) -> list[float]:
        return [e.cut.start_s for e in datasets.excerpts(tracks, 6, 10.0, seed=seed)]

    assert starts(1) == starts(1)
    assert starts(1) != starts(2)


def test_cuts_start_at_audible_positions(tmp_path: Path) -> None:
    track = white(40)
    track[: 32 * RATE] *= 1e-3  # -80 dBFS
    soundfile.write(tmp_path / "a.wav", track, RATE, subtype="FLOAT")
    found = list(datasets.excerpts([tmp_path / "a.wav"], 10, 2.0, seed=1))
    assert len(found) > 5
    assert min(excerpt.cut.start_s for excerpt in found) > 31


def test_silent_track_is_skipped_with_a_warning(
    tracks: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(20 * RATE, np.float32), RATE)
    with caplog.at_level(logging.WARNING):
        found = list(datasets.excerpts(datasets.audio_files([tmp_path]), 4, 10.0, seed=1))
    assert len(found) == 3
    assert "silent.wav" in caplog.text


def test_broken_file_is_skipped(tracks: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.mp3").write_bytes(b"not audio")
    found = list(datasets.excerpts(datasets.audio_files([tmp_path]), 3, 10.0, seed=1))
    assert len(found) == 3


def test_too_short_tracks_are_refused(tracks: list[Path]) -> None:
    with pytest.raises(AudioError, match="40 s"):
        list(datasets.excerpts(tracks, 3, 40.0, seed=1))


def test_hold_out_splits_without_overlap() -> None:
    paths = [Path(f"{i}.ogg") for i in range(40)]
    kept, held = datasets.hold_out(paths, 0.25, seed=1)
    assert (len(kept), len(held)) == (30, 10)
    assert sorted(kept + held) == sorted(paths)
    assert held == datasets.hold_out(paths, 0.25, seed=1)[1]
    assert held != datasets.hold_out(paths, 0.25, seed=2)[1]


def test_from_onset_cuts_at_the_direct_sound() -> None:
    response = np.zeros(RATE, np.float32)
    response[900] = 0.05
    response[1000:1100] = [0.3, *[1.0] * 99]
    assert len(datasets.from_onset(response)) == RATE - 1000


def test_rooms_reject_music(tmp_path: Path) -> None:
    t = np.arange(3 * RATE) / RATE
    soundfile.write(tmp_path / "hall.wav", white(3) * np.exp(-3 * t), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "song.wav", white(3), RATE, subtype="FLOAT")
    rooms = datasets.Rooms(tmp_path)
    assert len(rooms.responses) == 1
    assert [path.name for path in rooms.refused] == ["song.wav"]


def test_folder_without_sounds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="contains no audio files"):
        datasets.Noises(tmp_path)
    with pytest.raises(AudioError, match="contains no room responses"):
        datasets.Rooms(tmp_path)


def test_generator_depends_on_seed_and_names() -> None:
    first = datasets.generator(1, "a", "b").random()
    assert first == datasets.generator(1, "a", "b").random()
    assert (
        len(
            {
                first,
                datasets.generator(1, "a", "c").random(),
                datasets.generator(2, "a", "b").random(),
            }
        )
        == 3
    )
