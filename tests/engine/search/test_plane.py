"""Why passages end: recordings whose pieces begin and end for known reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from engine.records import Candidate, Fingerprint
from engine.search.plane import CosinePlane, PassageEnd, Side, cosine_plane, passage_end, trace
from tests.engine.search.synthetic import HOP_S, SEGMENT_S, TICK_S, excerpt, query_of, reader, unit
from tests.engine.search.test_passages import (
    LENGTHS,
    UNKNOWN,
    Piece,
    Tracks,
    recording,
    starts_of,
)

MIN_S, MAX_S = 4.0, 12.0


@pytest.fixture(scope="module")
def tracks() -> Tracks:
    rng = np.random.default_rng(77)
    return {track_id: unit(rng, n) for track_id, n in LENGTHS.items()}


def length_of(track_id: int) -> float:
    """Length of a track in seconds."""
    return (LENGTHS[track_id] - 1) * HOP_S + SEGMENT_S


def random_pieces(rng: np.random.Generator) -> list[Piece]:
    """Two to five pieces: unknown, from the middle of a track, or with its start or end."""
    pieces: list[Piece] = []
    for _ in range(rng.integers(2, 6)):
        track_id = int(rng.choice([UNKNOWN, *LENGTHS]))
        if pieces and pieces[-1].track_id == track_id == UNKNOWN:
            continue
        length_s = float(rng.uniform(MIN_S, MAX_S))
        latest_s = 0.0 if track_id == UNKNOWN else length_of(track_id) - length_s
        places_s = [0.0, latest_s, float(rng.uniform(0.1, 0.9)) * latest_s]
        pieces.append(Piece(track_id, length_s, places_s[rng.integers(3)]))
    return pieces


def passages_of(pieces: Sequence[Piece]) -> list[Candidate | None]:
    """The passage of each piece; None if it is unknown."""
    return [
        None if piece.track_id == UNKNOWN else passage_at(piece, start_s)
        for piece, start_s in zip(pieces, starts_of(pieces), strict=True)
    ]


def passage_at(piece: Piece, start_s: float) -> Candidate:
    return Candidate(
        track_id=piece.track_id, offset_s=piece.reference_s - piece.speed * start_s, votes=9,
        evidence=1.0, score=0.9, coverage=1.0, query_start_s=start_s,
        query_end_s=start_s + piece.length_s, speed=piece.speed,
    )  # fmt: skip


def expected_end(pieces: Sequence[Piece], number: int, side: Side) -> tuple[str, int | None]:
    """Reason and rank by construction; the rank of a piece is its number from 1 on."""
    piece, beside = pieces[number], number + (1 if side == "end" else -1)
    if not 0 <= beside < len(pieces):
        return "clip", None
    edge_s = piece.reference_s + (piece.length_s if side == "end" else 0.0)
    if edge_s in (0.0, length_of(piece.track_id)):
        return "track", None
    if pieces[beside].track_id == UNKNOWN:
        return "disagreement", None
    return "passage", beside + 1


def ends_of(query: Fingerprint, passages: Sequence[Candidate | None], tracks: Tracks) -> dict:
    """Both ends of each passage, by number and side."""
    traces = {
        number: trace(one, query, reader(tracks)) for number, one in enumerate(passages) if one
    }
    return {
        (number, side): passage_end(
            one, side, [(other + 1, traces[other]) for other in traces if other != number]
        )
        for number, one in traces.items()
        for side in ("start", "end")
    }


@pytest.mark.parametrize("seed", range(40))
def test_reasons_are_those_of_the_construction(tracks: Tracks, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pieces = random_pieces(rng)
    ends = ends_of(recording(pieces, tracks, rng), passages_of(pieces), tracks)
    for (number, side), end in ends.items():
        assert (end.reason, end.rank) == expected_end(pieces, number, side), (pieces, number, side)
        assert end.side == side
        assert (end.similarity is None) == (end.reason in ("clip", "track", "silence"))
        if end.similarity is not None:
            assert end.similarity < 0.4


def test_all_reasons_are_constructed() -> None:
    reasons = set()
    for seed in range(40):
        pieces = random_pieces(np.random.default_rng(seed))
        known = [number for number, piece in enumerate(pieces) if piece.track_id != UNKNOWN]
        sides: tuple[Side, Side] = ("start", "end")
        reasons |= {expected_end(pieces, one, side)[0] for one in known for side in sides}
    assert reasons == {"clip", "track", "passage", "disagreement"}


def test_passage_between_silence_ends_there(tracks: Tracks, rng: np.random.Generator) -> None:
    pieces = [Piece(UNKNOWN, 5.0), Piece(1, 8.0, 20.0), Piece(UNKNOWN, 5.0)]
    query = recording(pieces, tracks, rng)
    silent = (query.starts_s < 5.0) | (query.starts_s > 12.5)
    query.embeddings[silent] = 0
    ends = ends_of(query, passages_of(pieces), tracks)
    assert [end.reason for end in ends.values()] == ["silence", "silence"]
    assert [end.text for end in ends.values()] == ["silence before", "silence after"]


def test_track_that_ends_in_silence_ends(tracks: Tracks, rng: np.random.Generator) -> None:
    length_s = length_of(6)
    pieces = [Piece(UNKNOWN, 5.0), Piece(6, length_s, 0.0), Piece(UNKNOWN, 5.0)]
    query = recording(pieces, tracks, rng)
    query.embeddings[(query.starts_s < 4.5) | (query.starts_s > length_s + 4.5)] = 0
    ends = ends_of(query, passages_of(pieces), tracks)
    assert [end.reason for end in ends.values()] == ["track", "track"]


def test_better_of_two_passages_beyond_is_named(tracks: Tracks, rng: np.random.Generator) -> None:
    """Beyond the first, another covers the same time by chance."""
    pieces = [Piece(1, 8.0, 20.0), Piece(2, 8.0, 30.0)]
    by_chance = replace(passage_at(Piece(3, 10.0, 15.0), 3.0), query_end_s=14.0)
    ends = ends_of(recording(pieces, tracks, rng), [*passages_of(pieces), by_chance], tracks)
    assert (ends[0, "end"].reason, ends[0, "end"].rank) == ("passage", 2)


def test_passage_that_agrees_less_beyond_is_not_named(
    tracks: Tracks, rng: np.random.Generator
) -> None:
    """The first ends early; the other covers what follows by chance."""
    early = passage_at(Piece(1, 5.0, 20.0), 0.0)
    by_chance = passage_at(Piece(3, 6.0, 15.0), 4.0)
    query = recording([Piece(1, 12.0, 20.0)], tracks, rng)
    end = ends_of(query, [early, by_chance], tracks)[0, "end"]
    assert (end.reason, end.rank) == ("disagreement", None)


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (PassageEnd(side="start", reason="clip"), "start of the clip"),
        (PassageEnd(side="end", reason="track"), "end of the track"),
        (PassageEnd(side="end", reason="passage", rank=3), "passage 3 agrees better"),
        (
            PassageEnd(side="start", reason="disagreement", similarity=0.1),
            "less agreement before (0.10)",
        ),
    ],
)
def test_reason_in_words(end: PassageEnd, text: str) -> None:
    assert end.text == text


# -- traces ------------------------------------------------------------------------------------


def test_trace_separates_the_passage_from_what_surrounds_it(
    tracks: Tracks, rng: np.random.Generator
) -> None:
    pieces = [Piece(UNKNOWN, 8.0), Piece(5, 20.0, 30.0, 1.02), Piece(UNKNOWN, 8.0)]
    candidate = passages_of(pieces)[1]
    assert candidate
    made = trace(candidate, recording(pieces, tracks, rng), reader(tracks))
    clear = (made.query_s > 8.0 + SEGMENT_S / 2) & (made.query_s < 28.0 - SEGMENT_S / 2)
    assert (made.similarity[clear] > made.min_similarity).mean() > 0.95
    beyond = (made.query_s < 8.0 - SEGMENT_S / 2) | (made.query_s > 28.0 + SEGMENT_S / 2)
    assert (made.similarity[beyond] < made.min_similarity).all()
    assert made.query_s[[0, -1]] == pytest.approx([5.0, 31.0], abs=TICK_S)
    assert made.reference_s == pytest.approx(30.0 + 1.02 * (made.query_s - 8.0))
    assert made.inside.sum() == pytest.approx(20.0 / TICK_S, abs=1)


def test_trace_of_another_speed_has_the_times_of_the_clip(
    tracks: Tracks, rng: np.random.Generator
) -> None:
    """Played 1.25 times as fast, the clip sounds as the track does."""
    query = excerpt(tracks[5], 12.0, 50, rng, noise=0.2)
    candidate = replace(
        passage_at(Piece(5, 1.25 * query.duration_s, 12.0, 0.8), 0.0), resampled=1.25
    )
    made = trace(candidate, query, reader(tracks))
    assert made.query_s == pytest.approx(1.25 * (np.arange(50) * TICK_S + SEGMENT_S / 2))
    assert made.reference_s == pytest.approx(12.0 + SEGMENT_S / 2 + np.arange(50) * TICK_S)
    assert made.similarity.min() > made.min_similarity
    ends = [passage_end(made, side, []).reason for side in ("start", "end")]
    assert ends == ["clip", "clip"]
    assert plane_of(query, [candidate], tracks).query_s == pytest.approx(made.query_s)


def test_later_moves_only_the_times_in_the_clip(tracks: Tracks, rng: np.random.Generator) -> None:
    candidate = passage_at(Piece(1, 8.0, 20.0), 0.0)
    query = recording([Piece(1, 8.0, 20.0)], tracks, rng)
    made, plane = trace(candidate, query, reader(tracks)), plane_of(query, [candidate], tracks)
    later = made.later(30.0)
    assert (later.start_s, later.end_s) == (30.0, 38.0)
    assert later.query_s == pytest.approx(made.query_s + 30.0)
    assert later.reference_s is made.reference_s
    assert plane.later(30.0).query_s == pytest.approx(plane.query_s + 30.0)


# -- planes ------------------------------------------------------------------------------------


def plane_of(query: Fingerprint, candidates: Sequence[Candidate], tracks: Tracks) -> CosinePlane:
    return cosine_plane(query, reader(tracks), candidates)


def test_plane_contains_all_passages_of_a_track(tracks: Tracks, rng: np.random.Generator) -> None:
    pieces = [Piece(5, 8.0, 20.0), Piece(5, 8.0, 70.0)]
    passages = [one for one in passages_of(pieces) if one]
    query = recording(pieces, tracks, rng)
    plane = plane_of(query, passages, tracks)
    assert plane.reference_s[0] < 20.0 - 4.0
    assert plane.reference_s[-1] > 78.0 + 4.0
    assert plane.query_s == pytest.approx(query.starts_s + SEGMENT_S / 2)
    stored = np.rint((plane.reference_s - SEGMENT_S / 2) / HOP_S).astype(int)
    assert plane.values == pytest.approx(query.embeddings @ tracks[5][stored].T, abs=1e-5)
    for passage in passages:
        middle_s = (passage.query_start_s + passage.query_end_s) / 2
        row = np.abs(plane.query_s - middle_s).argmin()
        column = plane.values[row].argmax()
        assert plane.reference_s[column] == pytest.approx(passage.offset_s + middle_s, abs=HOP_S)


def test_thinned_plane_keeps_the_line(rng: np.random.Generator) -> None:
    """Every cell is the greatest of the cosines it stands for."""
    tracks = {1: unit(rng, 1500)}
    query = excerpt(tracks[1], 10.0, 2600, rng, noise=0.2)
    candidate = passage_at(Piece(1, query.duration_s, 10.0), 0.0)
    plane = plane_of(query, [candidate], tracks)
    assert plane.values.shape == (len(plane.query_s), len(plane.reference_s)) == (600, 400)
    assert plane.values.max() == pytest.approx((query.embeddings @ tracks[1].T).max(), abs=1e-5)
    at_s = plane.reference_s[plane.values.argmax(axis=1)]
    assert np.abs(at_s - 10.0 - plane.query_s).max() < 2.0
    assert all(a < b for a, b in pairwise(plane.query_s))


@pytest.mark.parametrize("reference_s", [-4.0, 42.0])
def test_plane_ends_with_the_track(
    tracks: Tracks, rng: np.random.Generator, reference_s: float
) -> None:
    query = query_of(unit(rng, 60))
    plane = plane_of(query, [passage_at(Piece(6, 8.0, reference_s), 0.0)], tracks)
    assert plane.reference_s[0] >= SEGMENT_S / 2
    assert plane.reference_s[-1] <= length_of(6) - SEGMENT_S / 2 + 1e-9
