"""Passages of recordings that are put together from pieces of tracks and unknown sound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

from engine.config import AlignConfig, SearchConfig
from engine.records import Candidate, Fingerprint, Vectors
from engine.search.calibration import Calibration
from engine.search.context import SearchContext
from engine.search.extension import Extender, follow, line_of
from engine.search.line import Line
from engine.search.passages import PassageFinder, distinct, ranked
from tests.engine.search.synthetic import (
    HOP_S,
    SEGMENT_S,
    TICK_S,
    embeddings_at,
    normalised,
    query_of,
    reader,
    unit,
)
from tests.engine.search.test_alignment_properties import indexed

CURVE = Calibration(
    recipe_id="recipe",
    weights=(-9.1, 5.4, 7.5, -9.6, -1.6, 2.6, -1.5, 0.0, 0.0),
    min_confidence=0.75,
)
LENGTHS = {1: 200, 2: 160, 3: 240, 4: 120, 5: 300, 6: 90}  # segments of each track
UNKNOWN = 0
BORDER_S, LINE_S = 0.5, 0.1


@dataclass(frozen=True)
class Piece:
    """A stretch of a track, or of unknown sound, in a recording."""

    track_id: int
    length_s: float
    reference_s: float = 10.0
    speed: float = 1.0

    def at(self, s: float) -> float:
        """Time in the track at a time since the piece began."""
        return self.reference_s + self.speed * s


Tracks = Mapping[int, Vectors]


@pytest.fixture(scope="module")
def tracks() -> Tracks:
    rng = np.random.default_rng(1005)
    return {track_id: unit(rng, n) for track_id, n in LENGTHS.items()}


@pytest.fixture(scope="module")
def context(tracks: Tracks, tmp_path_factory: pytest.TempPathFactory) -> SearchContext:
    return context_of(tmp_path_factory.mktemp("shards"), tracks)


def context_of(folder: Path, tracks: Tracks) -> SearchContext:
    return SearchContext(
        index=indexed(folder, list(tracks.items())),
        reference_hop_s=HOP_S,
        search=SearchConfig(query_hop_s=TICK_S, k=20, speeds=()),
        alignment=AlignConfig(),
    )


def starts_of(pieces: Sequence[Piece]) -> list[float]:
    return list(accumulate((piece.length_s for piece in pieces), initial=0.0))[:-1]


def recording(
    pieces: Sequence[Piece], tracks: Tracks, rng: np.random.Generator, noise: float = 0.4
) -> Fingerprint:
    """Fingerprint pieces one after the other; a segment mixes what sounds in it."""
    duration_s = sum(piece.length_s for piece in pieces)
    starts_s = np.arange(0, duration_s - SEGMENT_S + 1e-6, TICK_S)
    mixed = np.zeros((len(starts_s), tracks[1].shape[1]), np.float32)
    for piece, begins_s in zip(pieces, starts_of(pieces), strict=True):
        is_unknown = piece.track_id == UNKNOWN
        track = unit(rng, 400) if is_unknown else tracks[piece.track_id]
        # A stored segment is in the middle of what its vector says.
        middles_s = starts_s + SEGMENT_S / 2 - begins_s
        places_s = piece.reference_s + piece.speed * middles_s
        sounding = embeddings_at(track, places_s - SEGMENT_S / 2, rng)
        ends_s = np.minimum(starts_s + SEGMENT_S, begins_s + piece.length_s)
        shares = (ends_s - np.maximum(starts_s, begins_s)).clip(0, None)
        mixed += shares[:, None].astype(np.float32) * sounding
    return query_of(normalised(normalised(mixed) + noise * unit(rng, len(mixed))))


def find(query: Fingerprint, context: SearchContext) -> list[Candidate]:
    """Accepted passages, by their start."""
    finder = PassageFinder(query, context, CURVE)
    return sorted(CURVE.accepted(finder.find()), key=lambda one: one.query_start_s)


def check(found: Sequence[Candidate], pieces: Sequence[Piece], border_s: float = BORDER_S) -> None:
    """Check that the passages are the known pieces, with their borders and lines."""
    known = [
        (piece, start_s)
        for piece, start_s in zip(pieces, starts_of(pieces), strict=True)
        if piece.track_id != UNKNOWN
    ]
    assert [one.track_id for one in found] == [piece.track_id for piece, _ in known]
    for one, (piece, start_s) in zip(found, known, strict=True):
        assert one.query_start_s == pytest.approx(start_s, abs=border_s)
        assert one.query_end_s == pytest.approx(start_s + piece.length_s, abs=border_s)
        for time_s in (one.query_start_s, one.query_end_s):
            at_s = one.offset_s + one.speed * time_s
            assert at_s == pytest.approx(piece.at(time_s - start_s), abs=LINE_S)


# -- pieces one after the other -----------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.2, 0.9])
@pytest.mark.parametrize("seed", range(6))
def test_joins_are_taken_apart(
    tracks: Tracks, context: SearchContext, seed: int, noise: float
) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.permutation(list(LENGTHS))[: rng.integers(2, 5)].tolist()
    pieces = [Piece(one, float(rng.uniform(5, 20)), float(rng.uniform(1, 24))) for one in ids]
    check(find(recording(pieces, tracks, rng, noise), context), pieces)


@pytest.mark.parametrize("cut_s", [5.0, 30.0])
@pytest.mark.parametrize("lengths_s", [(8.0, 8.0), (20.0, 10.3), (9.0, 40.0)])
def test_line_never_crosses_a_cut(
    tracks: Tracks,
    context: SearchContext,
    rng: np.random.Generator,
    lengths_s: tuple[float, float],
    cut_s: float,
) -> None:
    first, second = lengths_s
    pieces = [Piece(3, first, 5.0), Piece(3, second, 5.0 + first + cut_s)]
    check(find(recording(pieces, tracks, rng), context), pieces)


def test_two_cuts_leave_three_passages(
    tracks: Tracks, context: SearchContext, rng: np.random.Generator
) -> None:
    pieces = [Piece(5, 9.0, 10.0), Piece(5, 8.0, 35.0), Piece(5, 12.0, 73.5)]
    check(find(recording(pieces, tracks, rng), context), pieces)


def loop(rng: np.random.Generator, period_s: float) -> Vectors:
    """A track of 100 s that repeats itself, and that changes as slowly as music does."""
    phases = np.linspace(0, 1, 40, endpoint=False)
    apart = np.abs(phases[:, None] - phases)
    weights = np.exp(-((np.minimum(apart, 1 - apart) * period_s / 0.35) ** 2))
    once = normalised((weights @ unit(rng, len(phases))).astype(np.float32))
    at = np.arange(200) * HOP_S / period_s % 1 * len(phases)
    share = (at % 1)[:, None].astype(np.float32)
    first, second = (once[(at.astype(int) + k) % len(once)] for k in (0, 1))
    return normalised((1 - share) * first + share * second)


@pytest.mark.parametrize(("step_s", "seed"), [(-0.35, 0), (-0.35, 3), (0.3, 1), (0.3, 3)])
def test_no_tilted_line_crosses_a_cut_in_a_loop(
    tracks: Tracks, tmp_path: Path, step_s: float, seed: int
) -> None:
    """It cuts out almost a whole number of rounds, so that both sides are near one line."""
    period_s, rng = 2.03, np.random.default_rng(seed)
    looped = {**tracks, 7: loop(rng, period_s)}
    pieces = [Piece(7, 8.0, 10.0), Piece(7, 8.0, 18.0 + 8 * period_s + step_s)]
    found = find(recording(pieces, looped, rng, noise=0.2), context_of(tmp_path, looped))
    assert [one.speed for one in found] == [1.0, 1.0]
    assert found[0].query_end_s == pytest.approx(8.0, abs=BORDER_S)
    assert found[1].query_start_s == pytest.approx(8.0, abs=BORDER_S)
    step = found[1].offset_s - found[0].offset_s - step_s
    assert (step + period_s / 2) % period_s == pytest.approx(period_s / 2, abs=LINE_S)


def smooth(rng: np.random.Generator, n_segments: int) -> Vectors:
    """A track that changes as slowly as music does, so that lines beside the right one agree."""
    distances_s = (np.arange(n_segments)[:, None] - np.arange(n_segments)) * HOP_S
    return normalised(
        np.exp(-((distances_s / 0.7) ** 2)).astype(np.float32) @ unit(rng, n_segments)
    )


@pytest.fixture(scope="module")
def smooth_tracks(tracks: Tracks) -> Tracks:
    return {**tracks, 7: smooth(np.random.default_rng(7), 200)}


@pytest.fixture(scope="module")
def smooth_context(
    smooth_tracks: Tracks, tmp_path_factory: pytest.TempPathFactory
) -> SearchContext:
    return context_of(tmp_path_factory.mktemp("smooth"), smooth_tracks)


@pytest.mark.parametrize("cut_s", [1.3, 2.1])
@pytest.mark.parametrize("lengths_s", [(3.0, 3.0), (4.0, 4.0), (3.5, 5.0), (7.0, 7.0)])
def test_short_cut_is_no_other_tempo(
    smooth_tracks: Tracks,
    smooth_context: SearchContext,
    rng: np.random.Generator,
    lengths_s: tuple[float, float],
    cut_s: float,
) -> None:
    first_s, second_s = lengths_s
    pieces = [Piece(7, first_s, 20.0), Piece(7, second_s, 20.0 + first_s + cut_s)]
    found = find(recording(pieces, smooth_tracks, rng, noise=0.3), smooth_context)
    assert [one.speed for one in found] == [1.0, 1.0]
    check(found, pieces)


@pytest.mark.parametrize("lengths_s", [(3.3, 3.3, 3.3), (4.0, 5.5, 4.5), (5.0, 4.0, 5.0, 4.5)])
def test_several_short_cuts_are_no_other_tempo(
    smooth_tracks: Tracks,
    smooth_context: SearchContext,
    rng: np.random.Generator,
    lengths_s: tuple[float, ...],
) -> None:
    starts_s = accumulate((length_s + 1.3 for length_s in lengths_s), initial=20.0)
    pieces = [Piece(7, *pair) for pair in zip(lengths_s, starts_s, strict=False)]
    found = find(recording(pieces, smooth_tracks, rng, noise=0.3), smooth_context)
    assert [one.speed for one in found] == [1.0] * len(pieces)
    check(found, pieces)


@pytest.mark.parametrize("length_s", [6.0, 9.0])
@pytest.mark.parametrize("speed", [0.75, 0.9, 1.15, 1.4])
def test_other_tempo_is_no_short_cut(
    smooth_tracks: Tracks,
    smooth_context: SearchContext,
    rng: np.random.Generator,
    speed: float,
    length_s: float,
) -> None:
    query = recording([Piece(7, length_s, 20.0, speed)], smooth_tracks, rng, noise=0.3)
    (found,) = find(query, smooth_context)
    assert found.speed == pytest.approx(speed, abs=0.03)


def test_part_that_is_repeated_is_two_passages(
    tracks: Tracks, context: SearchContext, rng: np.random.Generator
) -> None:
    pieces = [Piece(2, 22.0, 8.0), Piece(2, 25.0, 15.0)]
    check(find(recording(pieces, tracks, rng), context), pieces)


def test_parts_in_another_order_are_passages_in_that_order(
    tracks: Tracks, context: SearchContext, rng: np.random.Generator
) -> None:
    pieces = [Piece(1, 12.0, 40.0), Piece(1, 10.0, 5.0), Piece(1, 15.0, 60.0)]
    check(find(recording(pieces, tracks, rng), context), pieces)


def test_track_on_two_lines_with_unknown_sound_between(
    tracks: Tracks, context: SearchContext, rng: np.random.Generator
) -> None:
    pieces = [Piece(1, 10.0, 5.0), Piece(UNKNOWN, 6.0), Piece(1, 10.0, 60.0)]
    check(find(recording(pieces, tracks, rng), context), pieces)


@pytest.mark.parametrize("speed", [0.97, 0.99, 1.01, 1.03])
def test_passage_has_its_speed_over_its_whole_length(
    tracks: Tracks, context: SearchContext, rng: np.random.Generator, speed: float
) -> None:
    pieces = [Piece(UNKNOWN, 8.0), Piece(5, 60.0, 20.0, speed), Piece(UNKNOWN, 6.0)]
    found = find(recording(pieces, tracks, rng), context)
    check(found, pieces)
    assert found[0].speed == pytest.approx(speed, abs=0.002)


@pytest.mark.parametrize("length_s", [6.0, 12.0, 45.0, 100.0])
def test_straight_passage_has_the_speed_1(
    tracks: Tracks, context: SearchContext, length_s: float
) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        query = recording([Piece(5, length_s, 20.3)], tracks, rng, noise=0.8)
        (found,) = find(query, context)
        assert found.speed == 1.0
        assert found.offset_s == pytest.approx(20.3, abs=0.05)


# -- unknown sound ------------------------------------------------------------------------------


@pytest.mark.parametrize("known_s", [5.0, 10.0])
@pytest.mark.parametrize("unknown_s", [5.0, 20.0])
@pytest.mark.parametrize("is_first", [True, False])
def test_unknown_sound_beside_a_passage_does_not_make_it_less_sure(
    tracks: Tracks,
    context: SearchContext,
    known_s: float,
    unknown_s: float,
    is_first: bool,
) -> None:
    rng = np.random.default_rng(2)
    piece = Piece(2, known_s, 31.2)
    (alone,) = find(recording([piece], tracks, rng, noise=0.7), context)
    pieces = [piece, Piece(UNKNOWN, unknown_s)] if is_first else [Piece(UNKNOWN, unknown_s), piece]
    found = find(recording(pieces, tracks, rng, noise=0.7), context)
    check(found, pieces)
    assert found[0].confidence == pytest.approx(alone.confidence, abs=0.02)
    assert found[0].audible_s <= 1.6 * known_s


@pytest.mark.parametrize(
    ("known_s", "speed", "n_windows"),
    [(8.0, 1.0, 1), (24.0, 1.0, 1), (40.0, 1.0, 2), (130.0, 1.02, 2)],
)
def test_doubt_grows_with_the_number_of_stretches_that_a_wrong_answer_may_agree_in(
    tracks: Tracks,
    context: SearchContext,
    rng: np.random.Generator,
    known_s: float,
    speed: float,
    n_windows: int,
) -> None:
    """A long passage is judged by a part of it, or by two parts, whose doubts multiply.

    Each part measures the speed with an error, which is no reason to leave it out.
    """
    doubt, length_s = 0.01, max(known_s + 8.0, 80.0)
    always = replace(CURVE, weights=(math.log(1 / doubt - 1), *[0.0] * 8))
    unknown = Piece(UNKNOWN, (length_s - known_s) / 2)
    query = recording([unknown, Piece(5, known_s, 7.2, speed), unknown], tracks, rng)
    found = PassageFinder(query, context, always).find()
    best = max((one for one in found if one.track_id == 5), key=lambda one: one.confidence)
    of_one = 2 * doubt * length_s / known_s
    assert 1 - best.confidence == pytest.approx(of_one**n_windows, rel=0.25)


def test_unknown_sound_has_no_passage(tracks: Tracks, context: SearchContext) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        assert find(recording([Piece(UNKNOWN, 10.0 + 8 * seed)], tracks, rng), context) == []


def test_silence_has_no_candidate(tracks: Tracks, context: SearchContext) -> None:
    for n_segments in (8, 400):
        query = query_of(np.zeros((n_segments, tracks[1].shape[1]), np.float32))
        assert PassageFinder(query, context, CURVE).find() == []


def test_silence_in_a_passage_does_not_end_it(
    tracks: Tracks, context: SearchContext, rng: np.random.Generator
) -> None:
    pieces = [Piece(UNKNOWN, 5.0), Piece(3, 30.0, 12.0), Piece(UNKNOWN, 5.0)]
    query = recording(pieces, tracks, rng)
    query.embeddings[120:150] = 0
    check(find(query, context), pieces)


@pytest.mark.parametrize("length_s", [2.0, 3.0, 6.0])
@pytest.mark.parametrize("unknown_s", [4.0, 15.0])
def test_short_track_is_found_whole_in_unknown_sound(
    tracks: Tracks, tmp_path: Path, rng: np.random.Generator, length_s: float, unknown_s: float
) -> None:
    jingle = {9: unit(rng, round((length_s - SEGMENT_S) / HOP_S) + 1)}
    around = [Piece(UNKNOWN, unknown_s), Piece(9, length_s, 0.0), Piece(UNKNOWN, unknown_s)]
    query = recording(around, {**tracks, **jingle}, rng, noise=0.3)
    found = find(query, context_of(tmp_path, {**tracks, **jingle}))
    check(found, around)
    assert found[0].speed == 1.0


def test_track_that_begins_and_ends_in_the_recording_does_so_in_the_passage(
    tracks: Tracks, context: SearchContext, rng: np.random.Generator
) -> None:
    length_s = (LENGTHS[6] - 1) * HOP_S + SEGMENT_S
    pieces = [Piece(UNKNOWN, 7.0), Piece(6, length_s, 0.0), Piece(UNKNOWN, 9.0)]
    found = find(recording(pieces, tracks, rng), context)
    check(found, pieces)
    assert found[0].offset_s + found[0].query_start_s == pytest.approx(0.0, abs=1e-6)
    assert found[0].offset_s + found[0].query_end_s == pytest.approx(length_s, abs=1e-6)


@pytest.mark.parametrize("reference_s", [-4.0, 42.0])
def test_recording_that_exceeds_a_track_has_its_end(
    tracks: Tracks, context: SearchContext, rng: np.random.Generator, reference_s: float
) -> None:
    """The piece begins before the track, or ends after it."""
    length_s = (LENGTHS[6] - 1) * HOP_S + SEGMENT_S
    (found,) = find(recording([Piece(6, 14.0, reference_s)], tracks, rng), context)
    places_s = [found.offset_s + t for t in (found.query_start_s, found.query_end_s)]
    expected = [max(reference_s, 0.0), min(reference_s + 14.0, length_s)]
    assert places_s == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("n_segments", [1, 2, 7])
def test_recording_of_few_segments_is_one_window(
    tracks: Tracks, context: SearchContext, n_segments: int
) -> None:
    query = query_of(tracks[3][20 : 20 + n_segments].copy())
    finder = PassageFinder(query, context, CURVE)
    assert finder.find()[0].track_id == 3


# -- what is not explained -----------------------------------------------------------------------


def test_unexplained_is_what_no_accepted_passage_covers(
    tracks: Tracks, context: SearchContext, rng: np.random.Generator
) -> None:
    pieces = [Piece(UNKNOWN, 9.0), Piece(3, 20.0), Piece(UNKNOWN, 7.0), Piece(1, 10.0)]
    finder = PassageFinder(recording(pieces, tracks, rng), context, CURVE)
    found = finder.find()
    spans = [border_s for rest in finder.unexplained(found) for border_s in finder.span_s(rest)]
    assert spans == pytest.approx([0.0, 9.0, 29.0, 36.0], abs=1.2)
    (whole,) = finder.unexplained([])
    assert finder.span_s(whole) == (0.0, finder.query.duration_s)


def test_track_that_repeats_itself_has_one_passage_with_both_places(
    tracks: Tracks, tmp_path: Path, rng: np.random.Generator
) -> None:
    twice = tracks[5].copy()
    twice[200:240] = twice[40:80]
    looped = {**tracks, 5: twice}
    pieces = [Piece(UNKNOWN, 6.0), Piece(5, 14.0, 23.0), Piece(UNKNOWN, 6.0)]
    query = recording(pieces, looped, rng)
    (found,) = find(query, context_of(tmp_path, looped))
    at_s = sorted(one + found.query_start_s for one in (found.offset_s, *found.also))
    assert at_s == pytest.approx([23.0, 103.0], abs=0.6)


# -- lines -------------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [0.985, 1.0, 1.02])
@pytest.mark.parametrize("window_s", [(40.0, 44.0), (10.0, 18.0), (60.0, 68.0)])
def test_seed_is_extended_to_the_whole_passage(
    tracks: Tracks, rng: np.random.Generator, window_s: tuple[float, float], speed: float
) -> None:
    """From a straight line through a window of it."""
    piece = Piece(5, 70.0, 22.0, speed)
    pieces = [Piece(UNKNOWN, 8.0), piece, Piece(UNKNOWN, 6.0)]
    extender = Extender(recording(pieces, tracks, rng), reader(tracks))
    middle_s = sum(window_s) / 2
    seed = Line(track_id=5, query_s=middle_s, reference_s=piece.at(middle_s - 8.0) + 0.1)
    first, last = (round(s / TICK_S) for s in window_s)
    passage = extender.extend(seed, first, last)
    assert passage is not None
    assert passage.first * TICK_S == pytest.approx(8.0 - SEGMENT_S / 2, abs=BORDER_S)
    assert passage.last * TICK_S == pytest.approx(78.0 - SEGMENT_S / 2, abs=BORDER_S)
    for time_s in (8.0, 43.0, 78.0):
        assert passage.line.at(time_s) == pytest.approx(piece.at(time_s - 8.0), abs=LINE_S)
    assert (passage.line.speed == 1.0) == (speed == 1.0)


def test_seed_by_chance_is_no_passage(tracks: Tracks, rng: np.random.Generator) -> None:
    extender = Extender(recording([Piece(UNKNOWN, 30.0)], tracks, rng), reader(tracks))
    for reference_s in rng.uniform(0, 90, 20).tolist():
        seed = Line(track_id=1, query_s=8.0, reference_s=reference_s)
        passage = extender.extend(seed, 32, 96)
        assert passage is None or passage.length * TICK_S < 2.0


def test_seeds_of_one_line_are_one_passage(tracks: Tracks, rng: np.random.Generator) -> None:
    extender = Extender(recording([Piece(5, 60.0, 20.0)], tracks, rng), reader(tracks))
    passages: list = []
    for first in range(0, 400, 32):
        query_s = (first + 32) * TICK_S
        seed = Line(track_id=5, query_s=query_s, reference_s=20.05 + query_s)
        extender.add(passages, seed, (first, first + 64))
    assert len(passages) == 1
    assert passages[0].length == extender.n_segments


def test_candidate_follows_the_longest_passage_on_its_line(
    tracks: Tracks, rng: np.random.Generator
) -> None:
    pieces = [Piece(UNKNOWN, 6.0), Piece(4, 20.0, 15.0), Piece(UNKNOWN, 4.0)]
    query = recording(pieces, tracks, rng)
    near = Candidate(
        track_id=4, offset_s=9.1, votes=3, evidence=0.5, score=0.5, coverage=0.5,
        query_start_s=0.0, query_end_s=30.0,
    )  # fmt: skip
    check([follow(near, query, reader(tracks), 0.0)], pieces)
    elsewhere = replace(near, offset_s=30.0)
    assert follow(elsewhere, query, reader(tracks), 0.0) == elsewhere


@pytest.mark.parametrize("start_s", [0.0, 12.5])
def test_line_of_a_candidate_has_its_times(start_s: float) -> None:
    candidate = Candidate(
        track_id=4, offset_s=9.0, votes=3, evidence=0.5, score=0.5, coverage=0.5,
        query_start_s=2.0, query_end_s=8.0, speed=1.1, also=(40.0,),
    )  # fmt: skip
    line, other = line_of(candidate, start_s), line_of(candidate, start_s, 40.0)
    for time_s in (0.0, 5.0, 30.0):
        assert line.at(start_s + time_s) == pytest.approx(9.0 + 1.1 * time_s)
        assert other.at(start_s + time_s) == pytest.approx(40.0 + 1.1 * time_s)


# -- candidates ----------------------------------------------------------------------------------


def candidate(track_id: int, start_s: float, end_s: float, confidence: float) -> Candidate:
    return Candidate(
        track_id=track_id, offset_s=0.0, votes=1, evidence=1.0, score=0.8, coverage=1.0,
        query_start_s=start_s, query_end_s=end_s, confidence=confidence,
    )  # fmt: skip


def test_distinct_keeps_the_best_of_what_shares_most_of_a_stretch() -> None:
    best, shorter = candidate(1, 0.0, 20.0, 0.9), candidate(1, 12.0, 24.0, 0.8)
    beside, other = candidate(1, 16.0, 30.0, 0.7), candidate(2, 0.0, 20.0, 0.6)
    everything = [shorter, other, best, beside]
    assert distinct(everything) == [best, beside, other]
    assert ranked(everything) == [best, beside, other]


def test_candidate_with_more_evidence_of_equally_sure_ones_is_kept() -> None:
    shorter, longer = (
        replace(candidate(1, *times_s, 0.9), audible_s=audible_s)
        for times_s, audible_s in (((5.0, 15.0), 9.0), ((0.0, 20.0), 16.0))
    )
    assert distinct([shorter, longer]) == [longer]
