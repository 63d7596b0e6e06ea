from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from engine.config import AlignConfig
from engine.records import NO_ADDRESS, Candidate, Hits, Reference, Vectors, address
from engine.search.alignment_detail import agreement
from tests.engine.search.test_alignment import (
    HOP_S,
    SEGMENT_S,
    TICK_S,
    candidates,
    excerpt,
    nearest,
    unit,
)

CONFIG = AlignConfig()
SURE = Candidate(
    track_id=1, offset_s=3.0, votes=20, evidence=1.1, score=0.95, coverage=1.0,
    query_start_s=0.0, query_end_s=8.0, margin=0.9, others=0.2,
)  # fmt: skip


def reference(tracks: Mapping[int, Vectors]) -> Reference:
    return Reference(
        HOP_S,
        lambda track: len(tracks[track]),
        lambda track, first, last: tracks[track][first:last],
    )


@pytest.fixture
def tracks(rng: np.random.Generator) -> dict[int, Vectors]:
    return {5: unit(rng, 120), 6: unit(rng, 90)}


def test_seconds_that_agree_are_told_from_those_that_do_not(
    tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = excerpt(tracks[5], 12.0, 60, rng, noise=0.3)
    query.embeddings[20:30] = unit(rng, 10)
    query.embeddings[40:44] = 0
    best = candidates(query, tracks)[0]
    told = agreement(best, query, nearest(query, tracks), reference(tracks), CONFIG)
    strange = np.arange(60)[20:30]
    assert np.isnan(told.similarity[40:44]).all()
    assert not told.agrees[strange].any()
    assert not told.agrees[40:44].any()
    assert told.agrees[[*range(20), *range(30, 40), *range(44, 60)]].all()
    assert not told.votes[strange].any()
    assert told.votes[[0, 4, 8, 12]].all()
    assert told.starts_s == pytest.approx(np.arange(60) * TICK_S)
    assert told.reference_s == pytest.approx(12.0 + np.arange(60) * TICK_S, abs=0.06)


def test_similarity_is_the_cosine_of_the_nearest_stored_segment(
    tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = excerpt(tracks[5], -1.3, 40, rng)
    best = candidates(query, tracks)[0]
    told = agreement(best, query, nearest(query, tracks), reference(tracks), CONFIG)
    for i in range(40):
        at = (best.offset_s + i * TICK_S) / HOP_S
        near = [k for k in range(120) if abs(k - at) <= 0.5 + 1e-9]
        cosines = [float(query.embeddings[i] @ tracks[5][k]) for k in near]
        if near:
            assert told.similarity[i] == pytest.approx(max(cosines), abs=1e-5)
        else:
            assert np.isnan(told.similarity[i])


def test_votes_are_counted_where_they_point(tracks: dict[int, Vectors]) -> None:
    """Three segments vote for 10 s, two of them for 30 s as well, one for another track."""
    query = excerpt(tracks[5], 10.0, 12, np.random.default_rng(0), noise=0.1)
    hits = Hits(
        addresses=np.full((12, 3), NO_ADDRESS, np.int64), cosines=np.full((12, 3), 0.9, np.float32)
    )
    for i in (0, 4, 8):
        hits.addresses[i, 0] = address(5, 20 + i // 4)
    for i in (0, 4):
        hits.addresses[i, 1] = address(5, 60 + i // 4)
    hits.addresses[0, 2] = address(5, 60)  # votes no more than once
    hits.addresses[2, 2] = address(6, 20)
    best = replace(SURE, track_id=5, offset_s=10.0)
    told = agreement(best, query, hits, reference(tracks), CONFIG)
    assert dict(zip(told.near.offsets_s, told.near.counts, strict=True))[10.0] == 3
    assert told.near.counts.sum() == 3
    assert (told.near.bin_s, len(told.near.counts)) == (TICK_S, 33)
    assert told.whole.counts.sum() == 5
    for offset_s, count in ((10.0, 3), (30.0, 2)):
        beside = np.abs(told.whole.offsets_s - offset_s).argmin()
        assert told.whole.counts[beside] == count
    assert np.flatnonzero(told.votes).tolist() == [0, 4, 8]
    assert told.n_neighbours.tolist() == [3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]


def test_times_are_those_of_the_clip_and_not_of_what_was_played(
    tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    """Played 1.25 times as fast, what is 8 s long sounds as the track does."""
    query = excerpt(tracks[5], 12.0, 50, rng, noise=0.2)
    best = candidates(query, tracks)[0]
    as_it_is = replace(best, speed=best.speed / 1.25, resampled=1.25)
    hits = nearest(query, tracks)
    told = agreement(as_it_is, query, hits, reference(tracks), CONFIG, start_s=3.0)
    assert told.starts_s == pytest.approx(3.0 + np.arange(50) * TICK_S * 1.25)
    assert told.reference_s == pytest.approx(12.0 + np.arange(50) * TICK_S, abs=0.06)
    assert told.agrees.all()
    assert told.cosines.query_s[-1] == pytest.approx(told.starts_s[-1])
    peak_s = told.near.offsets_s[told.near.counts.argmax()]
    assert peak_s == pytest.approx(12.0 - 3.0 / 1.25, abs=0.15)


@pytest.mark.parametrize("offset_s", [-30.0, 100.0])
def test_line_outside_of_the_track_agrees_nowhere(
    tracks: dict[int, Vectors], rng: np.random.Generator, offset_s: float
) -> None:
    query = excerpt(tracks[5], 10.0, 40, rng)
    lost = replace(SURE, track_id=5, offset_s=offset_s)
    told = agreement(lost, query, nearest(query, tracks), reference(tracks), CONFIG)
    assert np.isnan(told.similarity).all()
    assert not told.agrees.any()
    assert not told.votes.any()


def test_cosines_of_a_long_query_are_thinned(rng: np.random.Generator) -> None:
    tracks = {5: unit(rng, 1000)}
    query = excerpt(tracks[5], 10.0, 900, rng)
    best = replace(SURE, track_id=5, offset_s=10.0)
    told = agreement(best, query, nearest(query, tracks), reference(tracks), CONFIG).cosines
    assert told.values.shape == (len(told.query_s), len(told.reference_s))
    assert len(told.query_s) <= 400
    assert told.reference_s[0] <= 10.0 - 4.0
    assert told.reference_s[-1] >= 10.0 + 900 * TICK_S + 4.0
    row, column = 100, int(np.abs(told.reference_s - 10.0 - told.query_s[100]).argmin())
    beside = told.query_s[row] + 10.0 - told.reference_s[column]
    assert abs(beside) < SEGMENT_S
    assert told.values[row, column] > told.values[row].mean() + 0.3
