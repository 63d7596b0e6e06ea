"""How like real music made-up tracks are, to those who search: how near they come to queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.queries.distractors import TRACK_SEGMENTS, Distractors
from engine.records import Vectors

RANKS = (1, 10, 50)
"""Neighbours that are looked at: the nearest, and so on to the last one that a search asks for."""

SIZES = (20_000, 50_000, 100_000)
_PERCENTILES = (10, 50, 90)
_BLOCK = 1 << 14


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """Cosines of queries and their neighbours of one rank, in real and in made-up music.

    Parameters
    ----------
    query : str
        What was done to the queries.
    n_segments, rank : int
        Segments to choose from, and which of the nearest is looked at, from 1.
    real, made_up : tuple of float
        10th, 50th and 90th percentile of the cosines.
    difference : float
        Mean of made-up minus real; below 0 made-up music is farther off, and so too easy.
    """

    query: str
    n_segments: int
    rank: int
    real: tuple[float, ...]
    made_up: tuple[float, ...]
    difference: float


def likeness(
    queries: Mapping[str, Vectors],
    real: Sequence[Vectors],
    distractors: Distractors,
    seed: int,
    sizes: Sequence[int] = SIZES,
) -> list[Likeness]:
    """Compare made-up tracks with real ones that queries are no part of.

    Parameters
    ----------
    queries : mapping of float32 arrays of shape (n_queries, dim)
        By what was done to them.
    real : sequence of float32 arrays of shape (n_segments, dim)
        One for each track; they are taken in another order.
    distractors : Distractors
    seed : int
    sizes : sequence of int
        Segments to compare; those of which there are not as many real ones become all of them.
    """
    rng = np.random.default_rng(seed)
    music = np.concatenate([real[i] for i in rng.permutation(len(real))])
    n_tracks = -(-min(max(sizes), len(music)) // TRACK_SEGMENTS)
    made_up = distractors.tracks(n_tracks, TRACK_SEGMENTS, rng).reshape(-1, music.shape[1])
    return [
        row
        for n_segments in dict.fromkeys(min(size, len(music)) for size in sizes)
        for query, embeddings in queries.items()
        for row in _rows(query, embeddings, music[:n_segments], made_up[:n_segments])
    ]


def _rows(query: str, embeddings: Vectors, real: Vectors, made_up: Vectors) -> Iterator[Likeness]:
    ranks = [rank for rank in RANKS if rank <= len(real)]
    found = [nearest_cosines(embeddings, music, max(ranks)) for music in (real, made_up)]
    for rank in ranks:
        one, other = (cosines[:, rank - 1] for cosines in found)
        yield Likeness(
            query=query,
            n_segments=len(real),
            rank=rank,
            real=_percentiles(one),
            made_up=_percentiles(other),
            difference=round(float((other - one).mean()), 4),
        )


def nearest_cosines(queries: Vectors, embeddings: Vectors, n_nearest: int) -> Vectors:
    """Cosines of queries and what is nearest to each.

    Parameters
    ----------
    queries : float32 array of shape (n_queries, dim), unit norm
    embeddings : float32 array of shape (n_segments, dim), unit norm or zero
    n_nearest : int

    Returns
    -------
    float32 array of shape (n_queries, n_nearest)
        Falling along the second axis.
    """
    best = np.full((len(queries), n_nearest), -np.inf, np.float32)
    for first in range(0, len(embeddings), _BLOCK):
        cosines = queries @ embeddings[first : first + _BLOCK].T
        both = np.concatenate([best, cosines], axis=1)
        best = np.partition(both, -n_nearest, axis=1)[:, -n_nearest:]
    return np.sort(best, axis=1)[:, ::-1]


def _percentiles(cosines: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(round(float(one), 3) for one in np.percentile(cosines, _PERCENTILES))
