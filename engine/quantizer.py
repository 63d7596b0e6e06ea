"""Vectors made small: eight bits a component to keep, and the FAISS indexes that search them.

A flat index compares a query with every vector. A trained one rotates (OPQ, Ge et al. 2013), looks
into the lists nearest to the query only (IVF), and compares codes of a few bytes (PQ, Jégou et al.
2011); what it finds is looked up exactly afterwards.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from engine.records import Vectors

Storage = Literal["full", "compact"]
Codes = NDArray[np.int8]
"""int8 array of shape (n, dim)."""

LEVELS = 127
# Beyond so many standard deviations of a unit vector's components there is nothing to keep.
_WIDEST = 7.0

N_PER_LIST = 2048
_N_LISTS = (16, 1 << 16)
# Vectors to train on, for each list; fewer than FAISS's least of 39 make it complain.
N_TRAINING_PER_LIST = 48
_N_ITERATIONS = 10
_N_OPQ_VECTORS = 32_768
_OPQ_DIMS = 4  # components in one sub-vector; two where they do not divide the dimension
_BITS: dict[Storage, int] = {"full": 4, "compact": 8}
# Lists looked into: what finds as many of the true neighbours as are needed, measured in
# docs/scale.md.
_N_PROBES = (8, 64)
_PROBED_SHARE = 1 / 16


def scale(dim: int) -> float:
    """Component that the greatest code stands for."""
    return min(1.0, _WIDEST / math.sqrt(dim))


def encode(vectors: Vectors) -> Codes:
    """Round unit vectors to eight bits a component.

    Parameters
    ----------
    vectors : float32 array of shape (n, dim)

    Returns
    -------
    int8 array of shape (n, dim)
        Decoding and encoding it again gives the same codes. Its vectors' cosine with the true
        ones is 0.9998 and more at 128 dimensions.
    """
    steps = np.rint(vectors * np.float32(LEVELS / scale(vectors.shape[1])))
    return np.asarray(steps.clip(-LEVELS, LEVELS), np.int8)


def decode(codes: Codes) -> Vectors:
    """Undo :func:`encode`, up to its rounding.

    Returns
    -------
    float32 array of shape (n, dim)
    """
    return codes.astype(np.float32) * np.float32(scale(codes.shape[-1]) / LEVELS)


def flat(dim: int) -> faiss.IndexScalarQuantizer:
    """Make an empty index that compares with every vector; it takes vectors of whole steps."""
    index = faiss.IndexScalarQuantizer(
        dim, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
    )
    index.is_trained = True
    return index


def n_lists(n_vectors: int) -> int:
    """Choose how many lists an index of that many vectors has: a power of two."""
    wanted = max(n_vectors // N_PER_LIST, 1)
    return int(np.clip(1 << (wanted.bit_length() - 1), *_N_LISTS))


def n_probes(nlist: int) -> int:
    """Choose how many of its lists to look into."""
    return int(np.clip(round(nlist * _PROBED_SHARE), *_N_PROBES))


def train(sample: Vectors, n_vectors: int, storage: Storage, seed: int = 0) -> faiss.Index:
    """Train an index; it stays empty.

    Parameters
    ----------
    sample : float32 array of shape (n, dim), unit norm
        About N_TRAINING_PER_LIST for each of its lists.
    n_vectors : int
        How many it is going to hold.
    storage : {"full", "compact"}
        Codes of 4 bits for every 4 components, to be looked up exactly beside it; or of 8 bits,
        from which the vectors can be made again.
    seed : int
    """
    dim = sample.shape[1]
    n_subvectors = dim // (_OPQ_DIMS if dim % _OPQ_DIMS == 0 else 1)
    bits = _BITS[storage]
    rotation = faiss.OPQMatrix(dim, n_subvectors)
    rotation.niter, rotation.niter_pq, rotation.niter_pq_0 = 12, 2, 8
    rotation.max_train_points = _N_OPQ_VECTORS
    rotation.pq = faiss.ProductQuantizer(dim, n_subvectors, _BITS["full"])
    kind = faiss.IndexIVFPQFastScan if bits == _BITS["full"] else faiss.IndexIVFPQ
    coarse = faiss.IndexFlatIP(dim)
    lists = kind(coarse, dim, n_lists(n_vectors), n_subvectors, bits, faiss.METRIC_INNER_PRODUCT)
    for clustering in (lists.cp, lists.pq.cp):
        clustering.seed, clustering.niter = seed, _N_ITERATIONS
        clustering.min_points_per_centroid = 1
    index = faiss.IndexPreTransform(rotation, lists)
    index.train(np.ascontiguousarray(sample))
    # The parts belong to Python until told otherwise, and would go with this function.
    parts: tuple[Any, ...] = (rotation, coarse, lists)
    for part in parts:
        part.this.disown()
    lists.own_fields = index.own_fields = True
    return index


def lists(index: faiss.Index) -> Any:  # an IndexIVF of one kind or another
    """Get at the lists of a trained index; they live no longer than it."""
    return faiss.downcast_index(faiss.extract_index_ivf(index))


def storage(index: faiss.Index) -> Storage:
    """Tell what :func:`train` was asked for."""
    return "full" if lists(index).pq.nbits == _BITS["full"] else "compact"
