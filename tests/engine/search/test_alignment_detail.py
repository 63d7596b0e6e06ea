from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.records import NO_ADDRESS, Candidate, Hits, Vectors, address
from engine.search.alignment_detail import alignment_detail
from tests.engine.search.synthetic import (
    CONFIG,
    HOP_S,
    TICK_S,
    candidates,
    excerpt,
    nearest,
    reader,
    unit,
)

SURE = Candidate(
    track_id=1, offset_s=3.0, votes=20, evidence=1.1, score=0.95, coverage=1.0,
    query_start_s=0.0, query_end_s=8.0, margin=0.9, others=0.2,
)  # fmt: skip


@pytest.fixture
def tracks(rng: np.random.Generator) -> dict[int, Vectors]:
    return {5: unit(rng, 120), 6: unit(rng, 90)}


def test_segments_that_agree_are_distinguished_from_the_others(
    tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = excerpt(tracks[5], 12.0, 60, rng, noise=0.3)
    query.embeddings[20:30] = unit(rng, 10)
    query.embeddings[40:44] = 0
    best = candidates(query, tracks)[0]
    detail = alignment_detail(best, query, nearest(query, tracks), reader(tracks), CONFIG)
    strange = np.arange(60)[20:30]
    assert np.isnan(detail.similarity[40:44]).all()
    assert not detail.agrees[strange].any()
    assert not detail.agrees[40:44].any()
    assert detail.agrees[[*range(20), *range(30, 40), *range(44, 60)]].all()
    assert not detail.votes[strange].any()
    assert detail.votes[[0, 4, 8, 12]].all()
    assert detail.query_s == pytest.approx(np.arange(60) * TICK_S)
    assert detail.reference_s == pytest.approx(12.0 + np.arange(60) * TICK_S, abs=0.06)


def test_similarity_is_the_cosine_of_the_nearest_stored_segment(
    tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = excerpt(tracks[5], -1.3, 40, rng)
    best = candidates(query, tracks)[0]
    detail = alignment_detail(best, query, nearest(query, tracks), reader(tracks), CONFIG)
    for i in range(40):
        at = (best.offset_s + i * TICK_S) / HOP_S
        near = [k for k in range(120) if abs(k - at) <= 0.5 + 1e-9]
        cosines = [float(query.embeddings[i] @ tracks[5][k]) for k in near]
        if near:
            assert detail.similarity[i] == pytest.approx(max(cosines), abs=1e-5)
        else:
            assert np.isnan(detail.similarity[i])


def test_votes_are_counted_by_their_offset(tracks: dict[int, Vectors]) -> None:
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
    detail = alignment_detail(best, query, hits, reader(tracks), CONFIG)
    assert dict(zip(detail.votes_near.offsets_s, detail.votes_near.counts, strict=True))[10.0] == 3
    assert detail.votes_near.counts.sum() == 3
    assert (detail.votes_near.bin_s, len(detail.votes_near.counts)) == (TICK_S, 33)
    assert detail.votes_in_track.counts.sum() == 5
    for offset_s, count in ((10.0, 3), (30.0, 2)):
        beside = np.abs(detail.votes_in_track.offsets_s - offset_s).argmin()
        assert detail.votes_in_track.counts[beside] == count
    assert np.flatnonzero(detail.votes).tolist() == [0, 4, 8]
    assert detail.n_neighbours.tolist() == [3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]


def test_times_are_those_of_the_clip_at_its_own_speed(
    tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    """Played 1.25 times as fast, the clip sounds as the track does."""
    query = excerpt(tracks[5], 12.0, 50, rng, noise=0.2)
    best = candidates(query, tracks)[0]
    at_own_speed = replace(best, speed=best.speed / 1.25, resampled=1.25)
    hits = nearest(query, tracks)
    detail = alignment_detail(at_own_speed, query, hits, reader(tracks), CONFIG, start_s=3.0)
    assert detail.query_s == pytest.approx(3.0 + np.arange(50) * TICK_S * 1.25)
    assert detail.reference_s == pytest.approx(12.0 + np.arange(50) * TICK_S, abs=0.06)
    assert detail.agrees.all()
    peak_s = detail.votes_near.offsets_s[detail.votes_near.counts.argmax()]
    assert peak_s == pytest.approx(12.0 - 3.0 / 1.25, abs=0.15)


@pytest.mark.parametrize("offset_s", [-30.0, 100.0])
def test_line_outside_of_the_track_agrees_nowhere(
    tracks: dict[int, Vectors], rng: np.random.Generator, offset_s: float
) -> None:
    query = excerpt(tracks[5], 10.0, 40, rng)
    lost = replace(SURE, track_id=5, offset_s=offset_s)
    detail = alignment_detail(lost, query, nearest(query, tracks), reader(tracks), CONFIG)
    assert np.isnan(detail.similarity).all()
    assert not detail.agrees.any()
    assert not detail.votes.any()
