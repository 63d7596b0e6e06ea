"""Synthetic tracks, queries and neighbours: random unit vectors, planted at known times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from engine.config import AlignConfig
from engine.records import Candidate, Fingerprint, Hits, TrackReader, Vectors, address
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


def embeddings_at(
    track: Vectors, times_s: np.ndarray, rng: np.random.Generator, noise: float = 0.0
) -> Vectors:
    """Embeddings at times of a track: blends of the two beside, random ones outside of it."""
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
    return query_of(embeddings_at(track, times_s, rng, noise))


def query_at_tempo(
    track: Vectors,
    middle_s: float,
    speed: float,
    n_segments: int,
    rng: np.random.Generator,
    noise: float = 0.5,
) -> Fingerprint:
    """A query whose middle lies at `middle_s` of a track, at another tempo."""
    from_middle_s = (np.arange(n_segments) - (n_segments - 1) / 2) * TICK_S
    starts_s = middle_s - SEGMENT_S / 2 + speed * from_middle_s
    return query_of(embeddings_at(track, starts_s, rng, noise))


def nearest(query: Fingerprint, catalog: Catalog, k: int = 20) -> Hits:
    addresses = np.array(
        [address(track, i) for track, vectors in catalog.items() for i in range(len(vectors))],
        np.int64,
    )
    cosines = query.embeddings @ np.concatenate(list(catalog.values())).T
    best = np.argsort(-cosines, axis=1)[:, :k]
    return Hits(addresses=addresses[best], cosines=np.take_along_axis(cosines, best, axis=1))


def reader(catalog: Catalog) -> TrackReader:
    return TrackReader(
        HOP_S,
        lambda track: len(catalog[track]),
        lambda track, first, last: catalog[track][first:last],
    )


def candidates(
    query: Fingerprint, catalog: Catalog, k: int = 20, config: AlignConfig = CONFIG
) -> list[Candidate]:
    hits = nearest(query, catalog, k)
    diagonals = vote(hits, TICKS_PER_HOP, config.max_candidates)
    tracks = reader(catalog)
    found = alignment.rescore(diagonals, query, query.embeddings, hits, tracks, config)
    return with_margins(found, query.duration_s, tracks)


def seeds(query: Fingerprint, catalog: Catalog, n_seeds: int) -> list[Candidate]:
    hits = nearest(query, catalog)
    diagonals = vote(hits, TICKS_PER_HOP, CONFIG.max_candidates)
    config = replace(CONFIG, max_tracks=n_seeds + 1, n_tilted=3)
    return alignment.rescore_seeds(
        diagonals, query, query.embeddings, hits, reader(catalog), config
    )
