"""Made-up tracks, to pad a catalog to sizes for which there is no music at hand.

A mixture of Gaussians is fitted to the frame-level embeddings of real tracks. Each made-up track
wanders through the clusters the way one real track does, and drifts within them as real music does
on average, so that its segments resemble their neighbours.

Fitted to 381 tracks (98,000 segments), it was compared with them by queries from 104 tracks of
other projects, with :mod:`benchmarks.metrics.likeness`. Mean cosine of the 1st, 10th and 50th
neighbour in made-up music minus that in as much real music:

======== ====================== ======================
query    20,000 segments        98,000 segments
======== ====================== ======================
clean    +0.007  +0.006  +0.008 -0.007  -0.003  +0.002
noise0   +0.008  +0.006  +0.009 -0.004  -0.002  +0.002
noise-5  +0.007  +0.007  +0.009 -0.002  -0.000  +0.003
room5    +0.004  +0.005  +0.007 -0.001  -0.000  +0.003
======== ====================== ======================

Real music comes nearer a little faster as there is more of it. Fitted to a quarter of these tracks,
the same differences at 98,000 segments were -0.012 to -0.022, -0.008 to -0.015, -0.002 to -0.007:
where a catalog is many times as large as what the density has seen, it is somewhat too easy.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from engine.errors import ConfigError
from engine.records import Vectors

Integers = NDArray[np.int64]

TRACK_SEGMENTS = 400
"""Length of a made-up track, unless another is asked for."""

# Chosen on queries from other projects than those of the table above: fewer clusters, more of the
# common covariance and no tempering all leave made-up music farther off than real music.
_MAX_CLUSTERS = 512
_SEGMENTS_PER_CLUSTER = 150
_COMMON_SEGMENTS = 13
"""The covariance that all clusters have in common counts as much as so many segments of each."""
_TEMPER = 0.8
"""Deviations from the centres of clusters are drawn smaller by this."""

_N_FIT = 50_000
_N_ROUNDS = 10
_FAR = 32
"""Segments so far apart have in common what the whole track has."""
_BLOCK = 8192


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """A mixture of Gaussians.

    Parameters
    ----------
    means : float32 array of shape (n_clusters, dim)
    roots : float32 array of shape (n_clusters, dim, dim)
        Symmetric square roots of the covariances: of all roots those that change least from one
        cluster to another, so that what drifts goes on drifting the same way.
    """

    means: Vectors
    roots: NDArray[np.float32]

    @classmethod
    def fit(cls, embeddings: Vectors, seed: int) -> tuple[Clusters, Integers]:
        """Fit to embeddings of shape (n_segments, dim); also give the cluster of each."""
        labels = _labels(embeddings, seed)
        groups = [embeddings[labels == i] for i in range(labels.max() + 1)]
        means = np.stack([group.mean(axis=0) for group in groups])
        common = _covariance(embeddings - means[labels])
        roots = [_root(group, common) for group in groups]
        return cls(means=means, roots=np.stack(roots) * np.float32(_TEMPER)), labels

    def embeddings(self, labels: Integers, deviations: Vectors) -> Vectors:
        """Turn standard normal deviations of shape (n_segments, dim) into unit-norm embeddings."""
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
    """The chains of Markov that real tracks follow through the clusters, each its own.

    A step leads to any segment of the same track in the same cluster, and on to what follows it.

    Parameters
    ----------
    labels : int64 array of shape (n_segments,)
        Cluster of each real segment.
    following : int64 array of shape (n_segments,)
        What comes after each; the first one of the track after its last.
    order, first, n_alike : int64 arrays of shape (n_segments,)
        ``order[first[i] : first[i] + n_alike[i]]`` are the segments like segment i.
    """

    labels: Integers
    following: Integers
    order: Integers
    first: Integers
    n_alike: Integers

    @classmethod
    def along(cls, labels: Integers, lengths: Sequence[int]) -> Paths:
        """Follow tracks of some lengths, whose segments lie one after the other."""
        ends = np.cumsum(lengths)
        following = np.arange(1, len(labels) + 1)
        following[ends - 1] = ends - lengths
        kinds = np.repeat(np.arange(len(lengths)), lengths) * (labels.max() + 1) + labels
        order = np.argsort(kinds, kind="stable")
        first = np.searchsorted(kinds[order], kinds)
        n_alike = np.searchsorted(kinds[order], kinds, side="right") - first
        return cls(labels=labels, following=following, order=order, first=first, n_alike=n_alike)

    def walk(self, n_tracks: int, n_segments: int, rng: np.random.Generator) -> Integers:
        """Clusters that made-up tracks pass through, of shape (n_segments, n_tracks)."""
        places = np.empty((n_segments, n_tracks), np.int64)
        places[0] = rng.integers(len(self.labels), size=n_tracks)
        for before, after in pairwise(places):
            chosen = self.first[before] + rng.integers(self.n_alike[before])
            after[:] = self.following[self.order[chosen]]
        return self.labels[places]


@dataclass(frozen=True, kw_only=True)
class Distractors:
    """A source of made-up tracks.

    Parameters
    ----------
    clusters : Clusters
    paths : Paths
    constant : float
        Share of the variance within clusters that a whole track has in common, in [0, 1].
    drift : float
        Correlation of the rest from one segment to the next, in [0, 1].
    """

    clusters: Clusters
    paths: Paths
    constant: float
    drift: float

    @classmethod
    def fit(cls, tracks: Sequence[Vectors], seed: int) -> Distractors:
        """Learn what real tracks are like.

        Parameters
        ----------
        tracks : sequence of float32 arrays of shape (n_segments, dim)
            Silent segments are left out.
        seed : int

        Raises
        ------
        ConfigError
            There is too little music.
        """
        heard = [track[track.any(axis=1)] for track in tracks]
        heard = [track for track in heard if len(track) > _FAR]
        if sum(map(len, heard)) < 2 * _FAR:
            reason = f"{len(tracks)} tracks are too little to learn from; add music to its catalog"
            raise ConfigError("distractors_from", reason)
        embeddings, lengths = np.concatenate(heard), [len(track) for track in heard]
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
        """Make tracks up.

        Parameters
        ----------
        n_tracks, n_segments : int
            How many, and the length of each.
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
        """Draw what is standard normal at each place, of shape (n_segments, n_tracks, dim)."""
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
    """Cluster of each embedding, counted from 0 without gaps."""
    rng = np.random.default_rng(seed)
    chosen = embeddings[rng.permutation(len(embeddings))[:_N_FIT]]
    n_clusters = min(_MAX_CLUSTERS, max(len(embeddings) // _SEGMENTS_PER_CLUSTER, 1))
    with warnings.catch_warnings():  # of clusters that nothing is left in, which do no harm
        warnings.simplefilter("ignore", UserWarning)
        centres, _ = kmeans2(chosen, n_clusters, iter=_N_ROUNDS, minit="points", rng=rng)
    half = np.square(centres).sum(axis=1) / 2
    blocks = [embeddings[i : i + _BLOCK] for i in range(0, len(embeddings), _BLOCK)]
    nearest = np.concatenate([np.argmax(block @ centres.T - half, axis=1) for block in blocks])
    return np.unique(nearest, return_inverse=True)[1].astype(np.int64)


def _covariance(deviations: Vectors) -> NDArray[np.float64]:
    return np.asarray(deviations.T @ deviations, np.float64) / len(deviations)


def _root(group: Vectors, common: NDArray[np.float64]) -> NDArray[np.float32]:
    """Symmetric root of a group's covariance, shrunk towards what all have in common."""
    own = _covariance(group - group.mean(axis=0))
    shrunk = (len(group) * own + _COMMON_SEGMENTS * common) / (len(group) + _COMMON_SEGMENTS)
    values, axes = np.linalg.eigh(shrunk)
    return ((axes * np.sqrt(np.maximum(values, 0.0))) @ axes.T).astype(np.float32)


def _correlation(deviations: Vectors, labels: Integers, lengths: Sequence[int], lag: int) -> float:
    """Correlation of deviations with those some segments later, in the same track and cluster."""
    owners = np.repeat(np.arange(len(lengths)), lengths)
    alike = (owners[lag:] == owners[:-lag]) & (labels[lag:] == labels[:-lag])
    before, after = deviations[:-lag][alike], deviations[lag:][alike]
    powers = np.vdot(before, before) * np.vdot(after, after)
    return float(np.clip(np.vdot(before, after) / max(np.sqrt(powers), 1e-9), 0.0, 0.95))
