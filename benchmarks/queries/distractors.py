"""Synthetic track embeddings, to pad a catalog to sizes for which there is no real music.

A mixture of Gaussians is fitted to the frame-level embeddings of real tracks. A synthetic track
follows the cluster sequence of one real track as a Markov chain, and drifts within clusters as real
tracks do on average, so that its segments resemble their neighbours.

`compare_with_real` measures how realistic the result is (docs/measurements.md#synthetic-tracks).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from engine.errors import ConfigError
from engine.records import Vectors

Integers = NDArray[np.int64]

TRACK_SEGMENTS = 400
"""Length of a synthetic track in segments."""

# Chosen with `compare_with_real`: fewer clusters, more of the shared covariance, and no scaling all
# make synthetic music easier to tell from queries than real music.
_MAX_CLUSTERS = 512
_SEGMENTS_PER_CLUSTER = 150
_SHARED_SEGMENTS = 13
"""Weight of the covariance shared by all clusters, in segments of each cluster."""
_DEVIATION_SCALE = 0.8
"""Factor for deviations from the cluster means."""

_N_FIT = 50_000
_N_ROUNDS = 10
_FAR = 32
"""Lag in segments at which only what the whole track has in common remains."""
_BLOCK = 8192

RANKS = (1, 10, 50)
"""Neighbours that `compare_with_real` compares; 50 is the number a search retrieves."""
SIZES = (20_000, 50_000, 100_000)
_PERCENTILES = (10, 50, 90)


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """A mixture of Gaussians.

    Parameters
    ----------
    means : float32 array of shape (n_clusters, dim)
    roots : float32 array of shape (n_clusters, dim, dim)
        Symmetric square roots of the covariances. Of all roots they change least between clusters,
        so that drift keeps its direction.
    """

    means: Vectors
    roots: NDArray[np.float32]

    @classmethod
    def fit(cls, embeddings: Vectors, seed: int) -> tuple[Clusters, Integers]:
        """Fit to embeddings of shape (n_segments, dim); also return the cluster of each."""
        labels = _labels(embeddings, seed)
        groups = [embeddings[labels == i] for i in range(labels.max() + 1)]
        means = np.stack([group.mean(axis=0) for group in groups])
        common = _covariance(embeddings - means[labels])
        roots = [_root(group, common) for group in groups]
        return cls(means=means, roots=np.stack(roots) * np.float32(_DEVIATION_SCALE)), labels

    def embeddings(self, labels: Integers, deviations: Vectors) -> Vectors:
        """Map standard normal deviations of shape (n_segments, dim) to unit-norm embeddings."""
        out = np.empty_like(deviations)
        order = np.argsort(labels, kind="stable")
        bounds = np.searchsorted(labels[order], np.arange(len(self.means) + 1))
        for i, (first, last) in enumerate(pairwise(bounds)):
            rows = order[first:last]
            out[rows] = deviations[rows] @ self.roots[i] + self.means[i]
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        return out


@dataclass(frozen=True, kw_only=True)
class Paths:
    """One Markov chain over clusters for each real track.

    A step moves to a random segment of the same track in the same cluster, then to its successor.

    Parameters
    ----------
    labels : int64 array of shape (n_segments,)
        Cluster of each real segment.
    following : int64 array of shape (n_segments,)
        Successor of each segment; the last segment of a track is followed by its first.
    order, first, n_alike : int64 arrays of shape (n_segments,)
        ``order[first[i] : first[i] + n_alike[i]]`` are the segments in the track and cluster of
        segment i.
    """

    labels: Integers
    following: Integers
    order: Integers
    first: Integers
    n_alike: Integers

    @classmethod
    def along(cls, labels: Integers, lengths: Sequence[int]) -> Paths:
        """Build the chains of concatenated tracks with these lengths in segments."""
        ends = np.cumsum(lengths)
        following = np.arange(1, len(labels) + 1)
        following[ends - 1] = ends - lengths
        kinds = np.repeat(np.arange(len(lengths)), lengths) * (labels.max() + 1) + labels
        order = np.argsort(kinds, kind="stable")
        first = np.searchsorted(kinds[order], kinds)
        n_alike = np.searchsorted(kinds[order], kinds, side="right") - first
        return cls(labels=labels, following=following, order=order, first=first, n_alike=n_alike)

    def walk(self, n_tracks: int, n_segments: int, rng: np.random.Generator) -> Integers:
        """Draw cluster sequences, int64 array of shape (n_segments, n_tracks)."""
        places = np.empty((n_segments, n_tracks), np.int64)
        places[0] = rng.integers(len(self.labels), size=n_tracks)
        for before, after in pairwise(places):
            chosen = self.first[before] + rng.integers(self.n_alike[before])
            after[:] = self.following[self.order[chosen]]
        return self.labels[places]


@dataclass(frozen=True, kw_only=True)
class Distractors:
    """A generative model of track embeddings.

    Parameters
    ----------
    clusters : Clusters
    paths : Paths
    constant : float
        Fraction of the variance within clusters that is constant over a track, in [0, 1].
    drift : float
        Correlation of the remaining deviation between consecutive segments, in [0, 1].
    """

    clusters: Clusters
    paths: Paths
    constant: float
    drift: float

    @classmethod
    def fit(cls, tracks: Sequence[Vectors], seed: int) -> Distractors:
        """Fit to real tracks.

        Parameters
        ----------
        tracks : sequence of float32 arrays of shape (n_segments, dim)
            Silent segments, which are zero, are ignored.
        seed : int

        Raises
        ------
        ConfigError
            There is too little music.
        """
        audible = [track[track.any(axis=1)] for track in tracks]
        audible = [track for track in audible if len(track) > _FAR]
        if sum(map(len, audible)) < 2 * _FAR:
            reason = f"{len(tracks)} tracks are too little to fit; add music to the catalog"
            raise ConfigError("distractors_from", reason)
        embeddings, lengths = np.concatenate(audible), [len(track) for track in audible]
        clusters, labels = Clusters.fit(embeddings, seed)
        deviations = embeddings - clusters.means[labels]
        near, far = (_correlation(deviations, labels, lengths, lag) for lag in (1, _FAR))
        return cls(
            clusters=clusters,
            paths=Paths.along(labels, lengths),
            constant=far,
            drift=max(near - far, 0.0) / (1 - far),
        )

    def tracks(self, n_tracks: int, n_segments: int, rng: np.random.Generator) -> Vectors:
        """Draw tracks.

        Parameters
        ----------
        n_tracks, n_segments : int
            Number of tracks, and length of each.
        rng : Generator

        Returns
        -------
        float32 array of shape (n_tracks, n_segments, dim), unit norm
        """
        labels = self.paths.walk(n_tracks, n_segments, rng)
        deviations = self._deviations(n_tracks, n_segments, rng)
        flat = self.clusters.embeddings(labels.ravel(), deviations.reshape(labels.size, -1))
        return flat.reshape(deviations.shape).swapaxes(0, 1)

    def _deviations(
        self, n_tracks: int, n_segments: int, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Draw correlated standard normal deviations of shape (n_segments, n_tracks, dim)."""
        shape = (n_segments, n_tracks, self.clusters.means.shape[1])
        out = rng.standard_normal(shape, dtype=np.float32)
        fresh, drift = np.float32((1 - self.drift**2) ** 0.5), np.float32(self.drift)
        for before, after in pairwise(out):
            after *= fresh
            after += drift * before
        out *= np.float32((1 - self.constant) ** 0.5)
        out += rng.standard_normal(shape[1:], dtype=np.float32) * np.float32(self.constant**0.5)
        return out


def _labels(embeddings: Vectors, seed: int) -> Integers:
    """Return the cluster of each embedding, numbered from 0 without gaps."""
    rng = np.random.default_rng(seed)
    chosen = embeddings[rng.permutation(len(embeddings))[:_N_FIT]]
    n_clusters = min(_MAX_CLUSTERS, max(len(embeddings) // _SEGMENTS_PER_CLUSTER, 1))
    with warnings.catch_warnings():  # about empty clusters, which are harmless
        warnings.simplefilter("ignore", UserWarning)
        centres, _ = kmeans2(chosen, n_clusters, iter=_N_ROUNDS, minit="points", rng=rng)
    half = np.square(centres).sum(axis=1) / 2
    blocks = [embeddings[i : i + _BLOCK] for i in range(0, len(embeddings), _BLOCK)]
    nearest = np.concatenate([np.argmax(block @ centres.T - half, axis=1) for block in blocks])
    return np.unique(nearest, return_inverse=True)[1].astype(np.int64)


def _covariance(deviations: Vectors) -> NDArray[np.float64]:
    return np.asarray(deviations.T @ deviations, np.float64) / len(deviations)


def _root(group: Vectors, common: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the symmetric root of a group's covariance, shrunk towards the shared one."""
    own = _covariance(group - group.mean(axis=0))
    shrunk = (len(group) * own + _SHARED_SEGMENTS * common) / (len(group) + _SHARED_SEGMENTS)
    values, axes = np.linalg.eigh(shrunk)
    return np.asarray((axes * np.sqrt(np.maximum(values, 0.0))) @ axes.T, np.float32)


def _correlation(deviations: Vectors, labels: Integers, lengths: Sequence[int], lag: int) -> float:
    """Return the correlation of deviations at a lag, within the same track and cluster."""
    owners = np.repeat(np.arange(len(lengths)), lengths)
    alike = (owners[lag:] == owners[:-lag]) & (labels[lag:] == labels[:-lag])
    before, after = deviations[:-lag][alike], deviations[lag:][alike]
    powers = np.vdot(before, before) * np.vdot(after, after)
    return float(np.clip(np.vdot(before, after) / max(np.sqrt(powers), 1e-9), 0.0, 0.95))


# -- comparison with real music --------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NeighbourComparison:
    """Cosines between queries and their neighbours of one rank, in real and in synthetic music.

    Parameters
    ----------
    query : str
        Distortion of the queries.
    n_segments : int
        Number of segments searched.
    rank : int
        Rank of the neighbour, from 1.
    real, made_up : tuple of float
        10th, 50th and 90th percentile of the cosines.
    difference : float
        Mean of synthetic minus real. Below 0, synthetic music is too easy to tell from queries.
    """

    query: str
    n_segments: int
    rank: int
    real: tuple[float, ...]
    made_up: tuple[float, ...]
    difference: float


def compare_with_real(
    queries: Mapping[str, Vectors],
    real: Sequence[Vectors],
    distractors: Distractors,
    seed: int,
    sizes: Sequence[int] = SIZES,
) -> list[NeighbourComparison]:
    """Compare how near synthetic and real music come to queries that belong to neither.

    Parameters
    ----------
    queries : mapping of float32 arrays of shape (n_queries, dim)
        By distortion.
    real : sequence of float32 arrays of shape (n_segments, dim)
        One for each track.
    distractors : Distractors
    seed : int
    sizes : sequence of int
        Numbers of segments to search, each limited to the number of real ones.
    """
    rng = np.random.default_rng(seed)
    music = np.concatenate([real[i] for i in rng.permutation(len(real))])
    n_tracks = -(-min(max(sizes), len(music)) // TRACK_SEGMENTS)
    synthetic = distractors.tracks(n_tracks, TRACK_SEGMENTS, rng).reshape(-1, music.shape[1])
    return [
        row
        for n_segments in dict.fromkeys(min(size, len(music)) for size in sizes)
        for query, embeddings in queries.items()
        for row in _compare(query, embeddings, music[:n_segments], synthetic[:n_segments])
    ]


def _compare(
    query: str, embeddings: Vectors, real: Vectors, synthetic: Vectors
) -> Iterator[NeighbourComparison]:
    ranks = [rank for rank in RANKS if rank <= len(real)]
    in_real, in_synthetic = (
        nearest_cosines(embeddings, music, max(ranks)) for music in (real, synthetic)
    )
    for rank in ranks:
        real_cosines, synthetic_cosines = in_real[:, rank - 1], in_synthetic[:, rank - 1]
        yield NeighbourComparison(
            query=query,
            n_segments=len(real),
            rank=rank,
            real=_percentiles(real_cosines),
            made_up=_percentiles(synthetic_cosines),
            difference=round(float((synthetic_cosines - real_cosines).mean()), 4),
        )


def nearest_cosines(queries: Vectors, embeddings: Vectors, n_nearest: int) -> Vectors:
    """Return the cosines of each query's nearest embeddings.

    Parameters
    ----------
    queries : float32 array of shape (n_queries, dim), unit norm
    embeddings : float32 array of shape (n_segments, dim), unit norm or zero
    n_nearest : int

    Returns
    -------
    float32 array of shape (n_queries, n_nearest)
        Descending along the second axis.
    """
    best = np.full((len(queries), n_nearest), -np.inf, np.float32)
    for first in range(0, len(embeddings), _BLOCK):
        cosines = queries @ embeddings[first : first + _BLOCK].T
        both = np.concatenate([best, cosines], axis=1)
        best = np.partition(both, -n_nearest, axis=1)[:, -n_nearest:]
    return np.sort(best, axis=1)[:, ::-1]


def _percentiles(cosines: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(round(float(value), 3) for value in np.percentile(cosines, _PERCENTILES))
