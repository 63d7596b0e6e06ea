from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.records import NO_ADDRESS, Fingerprint, QueryResult, address, positions, track_ids

TRACK_IDS = st.integers(0, 2**38)
POSITIONS = st.integers(0, 2**24 - 1)


@given(st.lists(st.tuples(TRACK_IDS, POSITIONS), max_size=20))
def test_address_any_track_and_position_come_back(pairs: list[tuple[int, int]]) -> None:
    addresses = np.array([address(*pair) for pair in pairs], np.int64)
    assert track_ids(addresses).tolist() == [track for track, _ in pairs]
    assert positions(addresses).tolist() == [position for _, position in pairs]


@given(TRACK_IDS, POSITIONS)
def test_address_is_never_the_sign_for_none(track: int, position: int) -> None:
    assert address(track, position) > NO_ADDRESS


def test_addresses_of_one_track_lie_side_by_side() -> None:
    assert address(7, 3) - address(7, 2) == 1
    assert address(8, 0) - address(7, 2**24 - 1) == 1


def test_fingerprint_zero_rows_are_not_audible() -> None:
    embeddings = np.array([[0, 0], [0, -1], [1, 0]], np.float32)
    fingerprint = Fingerprint(
        embeddings=embeddings,
        clip_embeddings=embeddings[:1],
        segment_hop_s=0.125,
        segment_s=1.0,
        duration_s=1.25,
        recipe_id="r",
    )
    assert fingerprint.audible.tolist() == [False, True, True]
    assert fingerprint.starts_s.tolist() == [0.0, 0.125, 0.25]


def test_query_result_without_matches_has_no_best() -> None:
    assert QueryResult(query="a.wav", status="no_match").best is None
