from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.queries import datasets, passages
from benchmarks.queries.datasets import RATE, Waveform
from benchmarks.queries.passages import SUITES, Case, CaseFolder, CaseSources, Spec, specs
from benchmarks.queries.timeline import Piece
from engine.audio import decode
from engine.audio.resample import change_speed
from engine.errors import AudioError, ConfigError

TRACK_S = 90.0
WINDOW_S = 0.5


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> CaseSources:
    """Noise below 1 kHz, which correlates with itself at the right time only."""
    folder = tmp_path_factory.mktemp("sources")
    found = {}
    for kind, n_files, seconds in (
        ("known", 5, TRACK_S), ("absent", 1, TRACK_S), ("speech", 4, 30.0), ("noise", 1, 8.0)
    ):  # fmt: skip
        (folder / kind).mkdir()
        for number in range(n_files):
            rng = datasets.generator(number, kind)
            white = rng.normal(0, 0.3, round(seconds * RATE))
            waveform = np.convolve(white, np.ones(16) / 16, "same").astype(np.float32)
            soundfile.write(folder / kind / f"{number}.wav", waveform, RATE)
        found[kind] = datasets.audio_files([folder / kind])
    return CaseSources(
        known=found["known"], absent=found["absent"], speech=found["speech"],
        noise=folder / "noise", seed=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(sources: CaseSources, tmp_path_factory: pytest.TempPathFactory) -> CaseFolder:
    return CaseFolder(tmp_path_factory.mktemp("cases"), sources)


def first_cases(folder: CaseFolder, suite: str) -> list[Case]:
    return [folder.case(spec) for spec in specs(suite, 1) if spec.number == 0]


def reference(case: Case, piece: Piece) -> Path:
    """The recording that a piece comes from; a repeat comes from its first occurrence."""
    if case.spec.suite != "repeats":
        return Path(piece.track)
    first = next(one for one in case.pieces if one.track == piece.track)
    return case.files[first.recording]


def window(path: Path, middle_s: float, speed: float) -> Waveform:
    """Half a second around a time, played at a speed; reversed if that is negative."""
    half_s = WINDOW_S / 2 * abs(speed) + 0.1
    cut = decode.read(path, RATE, start_s=middle_s - half_s, end_s=middle_s + half_s)
    cut = cut if speed > 0 else cut[::-1].copy()
    played = cut if abs(speed) == 1 else change_speed(cut, RATE, speed)
    first = (len(played) - round(WINDOW_S * RATE)) // 2
    return played[first : first + round(WINDOW_S * RATE)]


def correlation(one: Waveform, other: Waveform) -> float:
    n = min(len(one), len(other))
    products = np.fft.irfft(np.fft.rfft(one[:n]) * np.conj(np.fft.rfft(other[:n])))
    near = np.r_[products[:20], products[-20:]]  # rounding of times and resampling
    return float(near.max() / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("suite", [name for name in SUITES if name not in ("rejects", "speeds")])
def test_pieces_contain_the_audio_of_their_tracks(folder: CaseFolder, suite: str) -> None:
    cases = first_cases(folder, suite)
    assert all(case.pieces for case in cases)
    for case in cases:
        for piece in case.pieces:
            at_s = np.array([piece.query_start_s + 1.0, piece.query_end_s - 1.0])
            right_s = piece.reference_at(at_s)
            if suite == "repeats":
                first = next(one for one in case.pieces if one.track == piece.track)
                right_s = at_s + first.query_start_s - piece.query_start_s
            for time_s, reference_s in zip(at_s, right_s, strict=True):
                excerpt = window(case.files[piece.recording], time_s, 1.0)
                played = window(reference(case, piece), reference_s, piece.speed)
                is_mixed = case.spec.row == "noise10" or suite == "long"
                assert correlation(excerpt, played) > (0.4 if is_mixed else 0.9), case.spec


@pytest.mark.parametrize("suite", ["joins", "edits", "same"])
def test_pieces_follow_each_other_without_a_gap(folder: CaseFolder, suite: str) -> None:
    for case in first_cases(folder, suite):
        ends_s = [(piece.query_start_s, piece.query_end_s) for piece in case.pieces]
        assert all(end_s == start_s for (_, end_s), (start_s, _) in pairwise(ends_s))
        assert ends_s[0][0] == 0.0
        assert ends_s[-1][1] == pytest.approx(case.duration_s)


def test_edits_have_no_piece_that_continues_the_one_before(folder: CaseFolder) -> None:
    rows = {}
    for row in SUITES["edits"].rows:
        case = folder.case(Spec(suite="edits", row=row, number=3))
        assert all(piece.length_s >= 7.9 for piece in case.pieces)
        jumps_s = [
            later.reference_start_s - earlier.reference_at(np.array([earlier.query_end_s]))[0]
            for earlier, later in pairwise(case.pieces)
        ]
        assert all(abs(jump_s) > 4.9 for jump_s in jumps_s)
        rows[row] = jumps_s
    assert all(jump_s > 0 for jump_s in rows["cut out"])
    assert all(jump_s < 0 for jump_s in rows["repeated"])
    assert {np.sign(jump_s) for jump_s in rows["reordered"]} == {-1.0, 1.0}


def test_short_pieces_have_a_short_cut_between_them_or_unknown_music_around(
    folder: CaseFolder,
) -> None:
    for case in first_cases(folder, "short-pieces"):
        if case.spec.row == "in music":
            (piece,) = case.pieces
            assert 1.9 <= piece.length_s <= 4.0
            assert piece.query_start_s > 3.9
            assert case.duration_s - piece.query_end_s > 3.9
            continue
        first, second = case.pieces
        assert all(2.9 <= piece.length_s <= 8.1 for piece in case.pieces)
        left_out_s = second.reference_start_s - first.reference_at(np.array([first.query_end_s]))[0]
        assert 1.0 <= left_out_s <= 8.0


def test_jingle_is_whole_and_repeats_have_one_length(folder: CaseFolder) -> None:
    for case in first_cases(folder, "jingles"):
        (piece,) = case.pieces
        assert piece.length_s == pytest.approx(float(case.spec.row.split()[0]), abs=0.02)
        assert Path(piece.track) == case.files[1]
    (case,) = first_cases(folder, "repeats")
    assert [(p.recording, p.track) for p in case.pieces] == [
        (0, "intro"), (0, "advertisement"), (1, "intro"), (2, "intro"), (2, "advertisement")
    ]  # fmt: skip
    for name in ("intro", "advertisement"):
        lengths_s = [p.length_s for p in case.pieces if p.track == name]
        assert max(lengths_s) - min(lengths_s) < 0.001


def test_speeds_are_within_their_ranges(folder: CaseFolder) -> None:
    low_high = {"speed 5 s": (0.7, 1.4), "tempo 10 s": (0.5, 2.0)}
    for row, (low, high) in low_high.items():
        speeds = [
            folder.case(Spec(suite="speeds", row=row, number=i)).pieces[0].speed for i in range(3)
        ]
        assert len(set(speeds)) == 3
        assert low <= min(speeds) < max(speeds) <= high


def test_speed_change_is_audible_at_the_stated_place(folder: CaseFolder) -> None:
    case = folder.case(Spec(suite="speeds", row="speed 5 s", number=0))
    (piece,) = case.pieces
    middle_s = np.array([2.5])
    played = window(Path(piece.track), piece.reference_at(middle_s)[0], piece.speed)
    assert correlation(window(case.files[0], 2.5, 1.0), played) > 0.9


def test_identical_places_are_found() -> None:
    rng = np.random.default_rng(0)
    rate = passages._IDENTICAL_HZ
    loop = rng.normal(0, 0.1, 10 * rate).astype(np.float32)
    track = np.concatenate([loop, rng.normal(0, 0.1, 3 * rate).astype(np.float32), loop])
    assert list(passages._identical(track, 2.0, 3.0)) == [pytest.approx(15.0)]
    assert list(passages._identical(track, 10.0, 2.0)) == []


def test_pieces_of_a_loop_name_the_other_turns(sources: CaseSources, tmp_path: Path) -> None:
    rng = datasets.generator(1)
    loop = rng.normal(0, 0.1, 20 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "loop.wav", np.tile(loop, 3), RATE)
    looped = dataclasses.replace(sources, known=[tmp_path / "loop.wav"])
    case = CaseFolder(tmp_path, looped).case(Spec(suite="within", row="5 s", number=0))
    (piece,) = case.pieces
    turns = [(start_s - piece.reference_start_s) / 20 for start_s in piece.also_at_s]
    assert len(turns) >= 1
    assert turns == pytest.approx([round(turn) for turn in turns])


def test_only_reversed_music_among_rejects_has_a_track(folder: CaseFolder) -> None:
    for case in first_cases(folder, "rejects"):
        sound = decode.read(case.files[0], RATE)
        assert np.sqrt(np.mean(sound**2)) == pytest.approx(0.1, rel=0.1)
        assert len(case.pieces) == (case.spec.row == "reversed")
        for piece in case.pieces:
            (reference_s,) = piece.reference_at(np.array([3.0]))
            played = window(Path(piece.track), reference_s, piece.speed)
            assert piece.speed == -1.0
            assert correlation(window(case.files[0], 3.0, 1.0), played) > 0.9


def test_case_depends_on_the_seed_and_its_name_alone(
    folder: CaseFolder, sources: CaseSources, tmp_path: Path
) -> None:
    spec = Spec(suite="half-known", row="unknown before", number=0)
    case, again = folder.case(spec), CaseFolder(tmp_path, sources).case(spec)
    assert again.pieces == case.pieces
    assert again.files[0].read_bytes() == case.files[0].read_bytes()
    modified_ns = again.files[0].stat().st_mtime_ns
    assert CaseFolder(tmp_path, sources).case(spec) == again
    assert again.files[0].stat().st_mtime_ns == modified_ns
    other = folder.case(Spec(suite="half-known", row="unknown before", number=1))
    assert other.pieces != case.pieces


def test_too_short_music_and_too_little_speech_are_refused(
    sources: CaseSources, tmp_path: Path
) -> None:
    short = CaseSources(
        known=sources.speech[:1], absent=(), speech=sources.speech[:1], noise=sources.noise, seed=1
    )
    with pytest.raises(AudioError, match="no audible stretch of 35"):
        short.music.draw(datasets.generator(1), 35.0, 40.0)
    with pytest.raises(AudioError, match="no track is long enough for edits"):
        CaseFolder(tmp_path, short).case(Spec(suite="edits", row="reordered", number=0))
    with pytest.raises(ConfigError, match="two recordings are needed"):
        _ = short.speech_halves
