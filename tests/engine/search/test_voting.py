from __future__ import annotations

import itertools

import numpy as np
import pytest

from engine.records import NO_ADDRESS, Hits, address
from engine.search.voting import vote

TICKS_PER_HOP = 4
MAX_DIAGONALS = 200


@pytest.mark.parametrize("n_queries", [0, 10])
def test_no_hits_give_no_diagonals(n_queries: int) -> None:
    nothing = Hits(
        addresses=np.full((n_queries, 20), NO_ADDRESS, np.int64),
        cosines=np.full((n_queries, 20), -np.inf, np.float32),
    )
    assert vote(nothing, TICKS_PER_HOP, MAX_DIAGONALS) == []


def diagonal_hits(n_queries: int, *tracks: int, cosine: float = 0.9) -> Hits:
    """Every query segment i hits position i of each track."""
    addresses = np.array([[address(one, i) for one in tracks] for i in range(n_queries)], np.int64)
    return Hits(addresses=addresses, cosines=np.full(addresses.shape, cosine, np.float32))


def test_vote_two_tracks_never_blend() -> None:
    both = {one.track_id: one for one in vote(diagonal_hits(8, 5, 6), 1, MAX_DIAGONALS)}
    (alone,) = vote(diagonal_hits(8, 5), 1, MAX_DIAGONALS)
    assert both.keys() == {5, 6}
    assert both[5] == alone
    assert (alone.ticks, alone.votes) == (0, 8)


def test_vote_ticks_beside_each_other_add_up() -> None:
    """Three hits one tick apart outvote two on the same tick."""
    addresses = np.array([[address(1, 20)], [address(1, 22)], [address(1, 21)]], np.int64)
    hits = Hits(addresses=addresses, cosines=np.ones((3, 1), np.float32))
    scattered = vote(hits, 1, MAX_DIAGONALS)
    assert [one.votes for one in scattered] == [3]
    assert scattered[0].ticks in range(19, 22)


def test_vote_diagonals_of_a_track_lie_apart() -> None:
    hits = Hits(
        addresses=np.array([[address(1, i) for i in range(40)]], np.int64),
        cosines=np.linspace(1, 0.5, 40, dtype=np.float32)[None],
    )
    ticks = sorted(one.ticks for one in vote(hits, 1, MAX_DIAGONALS))
    assert len(ticks) > 5
    assert all(b - a > 2 for a, b in itertools.pairwise(ticks))


def test_vote_strong_hit_outweighs_weak_ones() -> None:
    addresses = np.array([[address(1, 10), address(2, 10)], [address(1, 90), address(2, 11)]])
    cosines = np.array([[0.95, 0.3], [0.1, 0.3]], np.float32)
    assert vote(Hits(addresses=addresses, cosines=cosines), 1, MAX_DIAGONALS)[0].track_id == 1


@pytest.mark.parametrize("max_diagonals", [1, 3])
def test_vote_returns_at_most_max_diagonals(max_diagonals: int) -> None:
    assert len(vote(diagonal_hits(4, 1, 2, 3, 4, 5), 1, max_diagonals)) == max_diagonals


def test_vote_far_positions_and_large_ids_are_kept() -> None:
    track, position = 2**30, 2**24 - 1
    hits = Hits(
        addresses=np.array([[address(track, position)]], np.int64),
        cosines=np.ones((1, 1), np.float32),
    )
    (one,) = vote(hits, TICKS_PER_HOP, MAX_DIAGONALS)
    assert (one.track_id, one.ticks) == (track, position * TICKS_PER_HOP)


def test_votes_segment_with_two_hits_side_by_side_counts_once() -> None:
    addresses = np.array([[address(1, 20), address(1, 21)], [address(1, 21), address(1, 22)]])
    hits = Hits(addresses=addresses, cosines=np.full((2, 2), 0.9, np.float32))
    assert vote(hits, 1, MAX_DIAGONALS)[0].votes == 2
