from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from engine.config import AlignConfig
from engine.records import NO_ADDRESS, Candidate, Fingerprint, Hits, Reference, Vectors, address
from engine.search import alignment
from engine.search.candidates import with_margins
from engine.search.voting import vote

CONFIG = AlignConfig()
DIM = 64
HOP_S = 0.5
TICK_S = 0.125
TICKS_PER_HOP = 4
SEGMENT_S = 1.0

Catalog = Mapping[int, Vectors]


def normalised(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(lengths > 0, vectors / np.maximum(lengths, 1e-9), 0).astype(np.float32)


def unit(rng: np.random.Generator, n: int) -> Vectors:
    return normalised(rng.standard_normal((n, DIM)).astype(np.float32))


def heard_at(
    track: Vectors, times_s: np.ndarray, rng: np.random.Generator, noise: float = 0.0
) -> Vectors:
    """What lies at times of a track: between two segments a blend, beyond its ends anything."""
    at = times_s / HOP_S
    low = np.floor(at).astype(int)
    share = (at - low)[:, None]
    first, second = (track[np.clip(low + k, 0, len(track) - 1)] for k in (0, 1))
    vectors = normalised((1 - share) * first + share * second)
    outside = (at < 0) | (at > len(track) - 1)
    vectors[outside] = unit(rng, int(outside.sum()))
    return normalised(vectors + noise * unit(rng, len(vectors)))


def query_of(vectors: Vectors) -> Fingerprint:
    return Fingerprint(
        embeddings=vectors,
        clip_embeddings=vectors[:1],
        segment_hop_s=TICK_S,
        segment_s=SEGMENT_S,
        duration_s=(len(vectors) - 1) * TICK_S + SEGMENT_S,
        recipe_id="recipe",
    )


def excerpt(
    track: Vectors,
    offset_s: float,
    n_segments: int,
    rng: np.random.Generator,
    noise: float = 0.7,
) -> Fingerprint:
    times_s = offset_s + np.arange(n_segments) * TICK_S
    return query_of(heard_at(track, times_s, rng, noise))


def nearest(query: Fingerprint, catalog: Catalog, top_k: int = 20) -> Hits:
    addresses = np.array(
        [address(track, i) for track, vectors in catalog.items() for i in range(len(vectors))],
        np.int64,
    )
    cosines = query.embeddings @ np.concatenate(list(catalog.values())).T
    best = np.argsort(-cosines, axis=1)[:, :top_k]
    return Hits(addresses=addresses[best], cosines=np.take_along_axis(cosines, best, axis=1))


def candidates(
    query: Fingerprint, catalog: Catalog, top_k: int = 20, config: AlignConfig = CONFIG
) -> list[Candidate]:
    hits = nearest(query, catalog, top_k)
    diagonals = vote(hits, TICKS_PER_HOP, config)
    reference = Reference(
        HOP_S,
        lambda track: len(catalog[track]),
        lambda track, first, last: catalog[track][first:last],
    )
    found = alignment.rescore(diagonals, query, query.embeddings, hits, reference, config)
    return with_margins(found, query.duration_s, reference)


@pytest.fixture
def catalog(rng: np.random.Generator) -> dict[int, Vectors]:
    """Six tracks of unrelated segments; the last has a single one."""
    sizes = {5: 120, 6: 90, 7: 200, 8: 40, 20: 60, 21: 1}
    return {track: unit(rng, n) for track, n in sizes.items()}


@pytest.mark.parametrize("offset_s", [0.0, 3.0, 7.125, 10.3, 12.19, 25.06, 31.44])
@pytest.mark.parametrize("track", [5, 7])
def test_planted_offset_is_found_below_the_hop(
    catalog: dict[int, Vectors], rng: np.random.Generator, track: int, offset_s: float
) -> None:
    query = excerpt(catalog[track], offset_s, 40, rng)
    best = candidates(query, catalog)[0]
    assert best.track_id == track
    assert best.offset_s == pytest.approx(offset_s, abs=0.06)
    assert best.coverage > 0.9
    assert best.score > 0.5
    assert best.margin > 0.2


@pytest.mark.parametrize("offset_s", [-1.5, -0.8, 0.0, 57.0])
def test_query_that_reaches_beyond_the_track_keeps_its_offset(
    catalog: dict[int, Vectors], rng: np.random.Generator, offset_s: float
) -> None:
    best = candidates(excerpt(catalog[5], offset_s, 40, rng), catalog)[0]
    assert best.track_id == 5
    assert best.offset_s == pytest.approx(offset_s, abs=0.06)
    assert best.query_start_s == pytest.approx(max(-offset_s, 0), abs=0.3)
    assert best.query_end_s == pytest.approx(min(60.5 - offset_s, 40 * TICK_S + 0.875), abs=0.3)


def test_query_longer_than_the_track_covers_it(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = excerpt(catalog[8], -10.0, 400, rng)  # 50 s around a track of 20
    best = candidates(query, catalog)[0]
    assert best.track_id == 8
    assert best.offset_s == pytest.approx(-10.0, abs=0.06)
    assert best.query_start_s == pytest.approx(10.0, abs=0.3)
    assert best.query_end_s == pytest.approx(10.0 + 39 * HOP_S + SEGMENT_S, abs=0.3)
    assert best.coverage == pytest.approx(39 * TICKS_PER_HOP / 400, abs=0.02)


def test_track_of_one_segment_is_found(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    vectors = unit(rng, 9)
    vectors[4] = catalog[21][0]
    best = candidates(query_of(vectors), catalog)[0]
    assert best.track_id == 21
    assert best.offset_s == pytest.approx(-4 * TICK_S, abs=2 * TICK_S)


def test_query_of_one_segment_is_found(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    best = candidates(excerpt(catalog[6], 20.0, 1, rng, noise=0.3), catalog)[0]
    assert best.track_id == 6
    assert best.offset_s == pytest.approx(20.0, abs=2 * TICK_S)


def test_silence_within_the_query_does_no_harm(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = excerpt(catalog[5], 12.0, 60, rng)
    query.embeddings[20:45] = 0
    best = candidates(query, catalog)[0]
    assert best.track_id == 5
    assert best.coverage == pytest.approx(1.0, abs=0.05)
    assert best.offset_s == pytest.approx(12.0, abs=0.06)
    assert best.score > 0.5
    assert best.query_end_s == query.duration_s


def test_silence_within_the_track_does_no_harm(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = excerpt(catalog[5], 12.0, 60, rng)
    catalog[5][28:33] = 0
    best = candidates(query, catalog)[0]
    assert best.track_id == 5
    assert best.offset_s == pytest.approx(12.0, abs=0.06)
    assert 0.5 < best.coverage < 0.8


def test_repeated_passage_gives_one_of_its_places(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    catalog[7][100:140] = catalog[7][20:60]
    best = candidates(excerpt(catalog[7], 14.0, 40, rng), catalog)[0]
    assert best.track_id == 7
    assert min(abs(best.offset_s - place) for place in (14.0, 54.0)) < 0.06


def test_two_halves_of_two_tracks_give_two_candidates(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    first = excerpt(catalog[5], 10.0, 40, rng).embeddings
    second = excerpt(catalog[6], 30.0, 40, rng).embeddings
    found = candidates(query_of(np.concatenate([first, second])), catalog)[:2]
    by_track = {one.track_id: one for one in found}
    assert by_track.keys() == {5, 6}
    assert by_track[5].offset_s == pytest.approx(10.0, abs=0.06)
    assert by_track[6].offset_s == pytest.approx(25.0, abs=0.06)
    assert by_track[5].query_end_s == pytest.approx(40 * TICK_S + SEGMENT_S, abs=0.3)
    assert by_track[6].query_start_s == pytest.approx(40 * TICK_S, abs=0.3)
    assert all(one.coverage == pytest.approx(0.5, abs=0.05) for one in found)


def test_candidates_are_one_per_track_by_falling_evidence(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    found = candidates(excerpt(catalog[5], 10.0, 40, rng), catalog)
    assert len({one.track_id for one in found}) == len(found) > 2
    assert all(a.evidence >= b.evidence for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("max_pairs", [1, 3_000, 10_000])
def test_diagonals_weighed_together_weigh_what_they_do_alone(
    catalog: dict[int, Vectors],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    max_pairs: int,
) -> None:
    query = excerpt(catalog[5], 10.0, 40, rng)
    together = candidates(query, catalog)
    monkeypatch.setattr(alignment, "_MAX_PAIRS", max_pairs)
    alone = candidates(query, catalog)
    assert [one.track_id for one in alone] == [one.track_id for one in together]
    for one, other in zip(alone, together, strict=True):
        assert one.evidence == pytest.approx(other.evidence, abs=1e-5)
        assert one.offset_s == pytest.approx(other.offset_s, abs=1e-4)


def test_no_more_tracks_than_asked_for_and_those_with_most_evidence(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = excerpt(catalog[5], 10.0, 40, rng)
    every = candidates(query, catalog)
    few = candidates(query, catalog, config=AlignConfig(max_tracks=2))
    assert [one.track_id for one in few] == [one.track_id for one in every[:2]]


def test_few_clear_segments_outweigh_many_dull_ones(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    """Noise drowns three quarters of a query; another track resembles all of it a little."""
    query = excerpt(catalog[5], 10.0, 40, rng, noise=0.1)
    query.embeddings[10:] = unit(rng, 30)
    catalog[6][40:50] = normalised(0.6 * query.embeddings[::4] + unit(rng, 10))
    first, second = candidates(query, catalog)[:2]
    assert (first.track_id, second.track_id) == (5, 6)
    assert first.offset_s == pytest.approx(10.0, abs=0.06)
    assert first.score < second.score


def test_evidence_of_unrelated_music_is_small(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    known = candidates(excerpt(catalog[5], 10.0, 40, rng), catalog)[0]
    unknown = candidates(query_of(unit(rng, 40)), catalog)
    assert unknown
    assert all(0 <= one.evidence < 0.4 * known.evidence for one in unknown)


def test_margin_is_evidence_above_the_best_other_track(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    found = candidates(excerpt(catalog[5], 10.0, 40, rng), catalog)
    first, second = found[:2]
    assert first.margin == pytest.approx(first.evidence - second.evidence)
    for other in found[1:]:
        assert other.margin == pytest.approx(other.evidence - first.evidence)


def test_margin_without_another_track_is_the_evidence(rng: np.random.Generator) -> None:
    alone = {5: unit(rng, 100)}
    (only,) = candidates(excerpt(alone[5], 10.0, 40, rng), alone)
    assert only.margin == only.evidence


def test_margin_is_not_lessened_by_a_copy_of_the_track(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = excerpt(catalog[5], 10.0, 40, rng)
    alone = candidates(query, catalog)[0]
    copies = candidates(query, catalog | {30: catalog[5]})[:2]
    assert {one.track_id for one in copies} == {5, 30}
    assert all(one.margin > 0.7 * alone.margin for one in copies)


@pytest.mark.parametrize("n_queries", [0, 10])
def test_no_hits_give_no_candidates(n_queries: int) -> None:
    nothing = Hits(
        addresses=np.full((n_queries, 20), NO_ADDRESS, np.int64),
        cosines=np.full((n_queries, 20), -np.inf, np.float32),
    )
    assert vote(nothing, TICKS_PER_HOP, CONFIG) == []


def test_silent_query_gives_nothing(catalog: dict[int, Vectors]) -> None:
    assert candidates(query_of(np.zeros((20, DIM), np.float32)), catalog) == []


def diagonal_hits(n_queries: int, *tracks: int, cosine: float = 0.9) -> Hits:
    """Every query segment i hits position i of each track."""
    addresses = np.array([[address(one, i) for one in tracks] for i in range(n_queries)], np.int64)
    return Hits(addresses=addresses, cosines=np.full(addresses.shape, cosine, np.float32))


def test_vote_two_tracks_never_blend() -> None:
    both = {one.track_id: one for one in vote(diagonal_hits(8, 5, 6), 1, CONFIG)}
    (alone,) = vote(diagonal_hits(8, 5), 1, CONFIG)
    assert both.keys() == {5, 6}
    assert both[5] == alone
    assert (alone.ticks, alone.votes) == (0, 8)


def test_vote_ticks_beside_each_other_add_up() -> None:
    """Three hits one tick apart outvote two on the same tick."""
    addresses = np.array([[address(1, 20)], [address(1, 22)], [address(1, 21)]], np.int64)
    scattered = vote(Hits(addresses=addresses, cosines=np.ones((3, 1), np.float32)), 1, CONFIG)
    assert [one.votes for one in scattered] == [3]
    assert scattered[0].ticks in range(19, 22)


def test_vote_diagonals_of_a_track_lie_apart() -> None:
    hits = Hits(
        addresses=np.array([[address(1, i) for i in range(40)]], np.int64),
        cosines=np.linspace(1, 0.5, 40, dtype=np.float32)[None],
    )
    ticks = sorted(one.ticks for one in vote(hits, 1, CONFIG))
    assert len(ticks) > 5
    assert all(b - a > 2 for a, b in itertools.pairwise(ticks))


def test_vote_strong_hit_outweighs_weak_ones() -> None:
    addresses = np.array([[address(1, 10), address(2, 10)], [address(1, 90), address(2, 11)]])
    cosines = np.array([[0.95, 0.3], [0.1, 0.3]], np.float32)
    assert vote(Hits(addresses=addresses, cosines=cosines), 1, CONFIG)[0].track_id == 1


@pytest.mark.parametrize("max_candidates", [1, 3])
def test_vote_gives_no_more_than_asked_for(max_candidates: int) -> None:
    config = AlignConfig(max_candidates=max_candidates)
    assert len(vote(diagonal_hits(4, 1, 2, 3, 4, 5), 1, config)) == max_candidates


def test_vote_far_positions_and_large_ids_are_kept() -> None:
    track, position = 2**30, 2**24 - 1
    hits = Hits(
        addresses=np.array([[address(track, position)]], np.int64),
        cosines=np.ones((1, 1), np.float32),
    )
    (one,) = vote(hits, TICKS_PER_HOP, CONFIG)
    assert (one.track_id, one.ticks) == (track, position * TICKS_PER_HOP)


def test_votes_segment_with_two_hits_side_by_side_counts_once() -> None:
    addresses = np.array([[address(1, 20), address(1, 21)], [address(1, 21), address(1, 22)]])
    hits = Hits(addresses=addresses, cosines=np.full((2, 2), 0.9, np.float32))
    assert vote(hits, 1, CONFIG)[0].votes == 2


def test_votes_silence_has_none(catalog: dict[int, Vectors], rng: np.random.Generator) -> None:
    query = excerpt(catalog[5], 10.0, 40, rng)
    query.embeddings[10:] = 0
    assert candidates(query, catalog)[0].votes <= 10


UPRIGHT = AlignConfig(n_tilted=0)


def bent(
    track: Vectors,
    middle_s: float,
    speed: float,
    n_segments: int,
    rng: np.random.Generator,
    noise: float = 0.5,
) -> Fingerprint:
    """A query whose middle sounds like `middle_s` of a track, at another tempo."""
    from_middle_s = (np.arange(n_segments) - (n_segments - 1) / 2) * TICK_S
    starts_s = middle_s - SEGMENT_S / 2 + speed * from_middle_s
    return query_of(heard_at(track, starts_s, rng, noise))


@pytest.mark.parametrize(
    ("n_segments", "speed"),
    [(33, 0.8), (33, 1.2), (73, 0.8), (73, 0.93), (73, 1.08), (73, 1.2), (300, 0.95), (300, 1.08)],
)
def test_planted_line_is_found_with_its_speed_and_offset(
    catalog: dict[int, Vectors], rng: np.random.Generator, speed: float, n_segments: int
) -> None:
    query = bent(catalog[7], 47.3, speed, n_segments, rng)
    best = candidates(query, catalog)[0]
    assert best.track_id == 7
    assert best.speed == pytest.approx(speed, abs=0.25 / query.duration_s)
    assert best.offset_s + best.speed * query.duration_s / 2 == pytest.approx(47.3, abs=0.08)
    assert best.coverage > 0.85
    assert (best.query_start_s, best.query_end_s) == pytest.approx((0, query.duration_s), abs=0.3)


def test_line_collects_the_evidence_a_diagonal_loses(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = bent(catalog[7], 47.3, 1.15, 73, rng)
    upright = candidates(query, catalog, config=UPRIGHT)[0]
    tilted = candidates(query, catalog)[0]
    assert upright.speed == 1.0
    assert tilted.evidence > 1.3 * upright.evidence
    assert tilted.margin > 1.3 * upright.margin


@pytest.mark.parametrize("offset_s", [3.0, 10.3, 31.44])
def test_unchanged_query_keeps_its_candidates_and_speed(
    catalog: dict[int, Vectors], rng: np.random.Generator, offset_s: float
) -> None:
    query = excerpt(catalog[7], offset_s, 73, rng)
    upright, free = (candidates(query, catalog, config=one)[0] for one in (UPRIGHT, CONFIG))
    assert free.speed == 1.0
    assert (free.offset_s, free.evidence) == (upright.offset_s, upright.evidence)


def test_query_too_short_for_a_line_is_left_upright(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = bent(catalog[7], 47.3, 1.2, 9, rng)
    assert candidates(query, catalog) == candidates(query, catalog, config=UPRIGHT)


def test_line_that_brings_hardly_more_is_not_preferred(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = bent(catalog[7], 47.3, 1.08, 73, rng)
    assert candidates(query, catalog)[0].speed != 1.0
    strict = AlignConfig(tilted_weight=0.2)
    assert candidates(query, catalog, config=strict)[0].speed == 1.0


def test_longer_query_is_believed_more_of_a_line(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    strict = AlignConfig(tilted_weight=0.75)
    told = [
        candidates(bent(catalog[7], 20.3, 1.08, n, rng), catalog, config=strict)[0].speed
        for n in (40, 160)
    ]
    assert told == [1.0, pytest.approx(1.08, abs=0.01)]


@pytest.mark.parametrize("offset_s", [-1.5, 10.3, 57.0])
def test_evidence_is_the_sum_over_all_pairs_near_a_diagonal(
    catalog: dict[int, Vectors], rng: np.random.Generator, offset_s: float
) -> None:
    """Against a loop over all pairs and all offsets of the track."""
    query = excerpt(catalog[5], offset_s, 40, rng)
    query.embeddings[7:12] = 0
    hits = nearest(query, catalog)
    background = np.maximum(hits.cosines[:, -1], CONFIG.least_background)
    cosines = query.embeddings @ catalog[5].T
    sums: dict[int, float] = {}
    for i in np.flatnonzero(query.audible):
        for position in range(len(catalog[5])):
            surprise = np.log1p(np.exp((cosines[i, position] - background[i]) / 0.2))
            for miss, weight in ((-1, 0.5), (0, 1.0), (1, 0.5)):
                ticks = position * TICKS_PER_HOP - int(i) + miss
                sums[ticks] = sums.get(ticks, 0.0) + weight * float(surprise)
    best = max(sums, key=sums.__getitem__)
    found = candidates(query, catalog, config=UPRIGHT)[0]
    assert found.evidence == pytest.approx(sums[best] / (query.audible.sum() / 2), rel=1e-4)
    assert found.offset_s == pytest.approx(best * TICK_S, abs=TICK_S / 2)
