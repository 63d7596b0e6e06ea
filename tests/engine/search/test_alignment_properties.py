"""Properties of lines: places that sound the same, borders of tracks, both directions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import SearchConfig
from engine.records import Candidate, Fingerprint, Vectors
from engine.search.candidates import find_candidates
from engine.search.context import SearchContext
from engine.vectors.index import Index
from engine.vectors.shard import write_shard
from engine.vectors.storage import LocalStorage
from tests.engine.search.synthetic import (
    HOP_S,
    SEGMENT_S,
    TICK_S,
    candidates,
    embeddings_at,
    excerpt,
    query_at_tempo,
    query_of,
    unit,
)

# -- several places ---------------------------------------------------------------------------


def with_repeat(rng: np.random.Generator, n_same: int = 40) -> dict[int, Vectors]:
    """Two tracks; the first has the same segments from 10 s and from 50 s on."""
    track = unit(rng, 200)
    track[100 : 100 + n_same] = track[20 : 20 + n_same]
    return {7: track, 8: unit(rng, 150)}


@pytest.mark.parametrize("offset_s", [12.0, 14.3, 20.06])
def test_repeated_passage_has_both_places(rng: np.random.Generator, offset_s: float) -> None:
    tracks = with_repeat(rng)
    best = candidates(excerpt(tracks[7], offset_s, 40, rng), tracks)[0]
    assert len(best.also) == 1
    places = sorted((best.offset_s, *best.also))
    assert places == pytest.approx([offset_s, offset_s + 40.0], abs=0.08)


def test_repeated_passage_at_another_tempo_has_both_places(rng: np.random.Generator) -> None:
    tracks = with_repeat(rng, n_same=60)
    best = candidates(query_at_tempo(tracks[7], 24.0, 1.15, 73, rng), tracks)[0]
    assert best.speed != 1.0
    assert len(best.also) == 1
    middles_s = sorted(
        one + best.speed * (36 * TICK_S + 0.5) for one in (best.offset_s, *best.also)
    )
    assert middles_s == pytest.approx([24.0, 64.0], abs=0.1)


def test_passage_repeated_in_part_has_one_place(rng: np.random.Generator) -> None:
    tracks = with_repeat(rng, n_same=6)
    best = candidates(excerpt(tracks[7], 10.0, 40, rng), tracks)[0]
    assert best.offset_s == pytest.approx(10.0, abs=0.06)
    assert best.also == ()


@pytest.mark.parametrize("offset_s", [0.0, 7.125, 31.44, 80.0])
@pytest.mark.parametrize("n_segments", [12, 40, 120])
def test_music_that_repeats_nothing_has_one_place(
    rng: np.random.Generator, offset_s: float, n_segments: int
) -> None:
    tracks = {7: unit(rng, 260), 8: unit(rng, 150)}
    best = candidates(excerpt(tracks[7], offset_s, n_segments, rng), tracks)[0]
    assert (best.track_id, best.also) == (7, ())


# -- borders of tracks -------------------------------------------------------------------------


def stored(vectors: Vectors) -> Fingerprint:
    return Fingerprint(
        embeddings=vectors.astype(np.float16).astype(np.float32),
        clip_embeddings=vectors[:1],
        segment_hop_s=HOP_S,
        segment_s=SEGMENT_S,
        duration_s=(len(vectors) - 1) * HOP_S + SEGMENT_S,
        recipe_id="recipe",
    )


def indexed(folder: Path, *shards: Sequence[tuple[int, Vectors]]) -> Index:
    """Index tracks with their ids; each argument is a shard."""
    storage, placements = LocalStorage(folder), []
    for tracks in shards:
        written = write_shard(storage, [stored(vectors) for _, vectors in tracks])
        placements += written.placements(track for track, _ in tracks)
    return Index(storage, placements, "recipe")


def by_track(query: Fingerprint, index: Index) -> dict[int, Candidate]:
    search = SearchConfig(query_hop_s=TICK_S, k=20)
    context = SearchContext(index=index, reference_hop_s=HOP_S, search=search)
    return {one.track_id: one for one in find_candidates(query, context)}


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), n_before=st.integers(12, 50), n_after=st.integers(12, 50))
def test_line_never_runs_from_one_track_into_the_next(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n_before: int, n_after: int
) -> None:
    """The query is the end of a track and the beginning of the next one in the shard."""
    rng = np.random.default_rng(seed)
    first, second, third = (unit(rng, n) for n in (40, 50, 30))
    joined = np.concatenate([first, second])
    start_s = len(first) * HOP_S - n_before * TICK_S
    query = excerpt(joined, start_s, n_before + n_after, rng, noise=0.4)
    folder = tmp_path_factory.mktemp("shards")
    together = by_track(query, indexed(folder, [(1, first), (2, second), (3, third)]))
    apart = by_track(query, indexed(folder, [(2, second)], [(3, third)], [(1, first)]))
    for track in (1, 2):
        one, other = together[track], apart[track]
        assert one.evidence == pytest.approx(other.evidence, rel=1e-6)
        assert (one.offset_s, one.query_end_s) == (other.offset_s, other.query_end_s)
    border_s = n_before * TICK_S
    if together[1].offset_s == pytest.approx(start_s, abs=0.2):
        assert together[1].query_end_s <= border_s + SEGMENT_S + HOP_S
        assert together[1].coverage < 1
    if together[2].offset_s == pytest.approx(-border_s, abs=0.2):
        assert together[2].query_start_s >= border_s - HOP_S - TICK_S
        assert together[2].coverage < 1
    longer, offset_s = (1, start_s) if n_before >= n_after else (2, -border_s)
    assert together[longer].offset_s == pytest.approx(offset_s, abs=0.2)


# -- both directions ---------------------------------------------------------------------------


LENGTH_S = 20.0


def recording(
    music: Vectors, begins_s: float, tempo: float, duration_s: float, hop_s: float
) -> Vectors:
    """Embeddings of a recording of some music that begins in it at a time and has a tempo."""
    middles_s = np.arange(0, duration_s - SEGMENT_S, hop_s) + SEGMENT_S / 2
    rng = np.random.default_rng(1)
    return embeddings_at(music, begins_s + tempo * middles_s - SEGMENT_S / 2, rng)


@settings(max_examples=10)
@given(
    seed=st.integers(0, 10**6),
    offset_s=st.floats(-8.0, 8.0),
    tempo=st.one_of(st.just(1.0), st.floats(0.85, 0.95), st.floats(1.06, 1.18)),
)
def test_either_of_two_recordings_is_found_in_the_other(
    seed: int, offset_s: float, tempo: float
) -> None:
    """A time in B is offset_s + tempo times that in A, and the other way round."""
    rng = np.random.default_rng(seed)
    music, other = unit(rng, 200), unit(rng, 120)
    # A begins at 30 s of the music; B where its second offset_s is that.
    places = {1: (30.0, 1.0), 2: (30.0 - offset_s / tempo, 1 / tempo)}
    prints = {
        track: {hop_s: recording(music, *place, LENGTH_S, hop_s) for hop_s in (HOP_S, TICK_S)}
        for track, place in places.items()
    }
    ahead = candidates(query_of(prints[1][TICK_S]), {2: prints[2][HOP_S], 9: other})[0]
    back = candidates(query_of(prints[2][TICK_S]), {1: prints[1][HOP_S], 9: other})[0]
    assert (ahead.track_id, back.track_id) == (2, 1)
    shared_s = max(0.0, -offset_s / tempo), min(LENGTH_S, (LENGTH_S - offset_s) / tempo)
    longest = shared_s[1] - shared_s[0]
    assert ahead.speed == pytest.approx(tempo, abs=0.3 / longest)
    assert ahead.speed * back.speed == pytest.approx(1.0, abs=0.6 / longest)
    middle_s = sum(shared_s) / 2
    there_s = ahead.offset_s + ahead.speed * middle_s
    assert there_s == pytest.approx(offset_s + tempo * middle_s, abs=0.2)
    assert back.offset_s + back.speed * there_s == pytest.approx(middle_s, abs=0.3)
    if tempo == 1.0:
        assert ahead.offset_s == pytest.approx(-back.offset_s, abs=0.1)
