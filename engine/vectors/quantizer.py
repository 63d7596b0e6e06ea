"""Vectors made small: eight bits a component to keep, and the FAISS indexes that search them.

A flat index compares a query with every vector. A trained one rotates (OPQ, Ge et al. 2013), looks
into the lists nearest to the query only (IVF), and compares codes of a few bytes (PQ, Jégou et al.
2011); what it finds is looked up exactly afterwards.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Literal, cast

import faiss
import numpy as np
from numpy.typing import NDArray

from engine.records import Vectors
from engine.vectors.gpu import Gpu

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


def train(
    sample: Vectors, n_vectors: int, storage: Storage, seed: int = 0, gpu: Gpu | None = None
) -> faiss.Index:
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
    gpu : Gpu, optional
        Looks for the centroids of the lists; the CPU by default.
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
    with _clustering(lists, gpu):
        index.train(np.ascontiguousarray(sample))
    # The parts belong to Python until told otherwise, and would go with this function.
    parts: tuple[Any, ...] = (rotation, coarse, lists)
    for part in parts:
        part.this.disown()
    lists.own_fields = index.own_fields = True
    return index


def add(index: faiss.Index, vectors: Vectors, gpu: Gpu | None = None) -> None:
    """Add vectors to a trained index.

    Parameters
    ----------
    index : faiss.Index
        Of :func:`train`.
    vectors : float32 array of shape (n, dim), unit norm
    gpu : Gpu, optional
        Finds the list of each; the CPU by default.
    """
    if gpu is None:
        index.add(vectors)
        return
    inner, around = lists(index), cast("Any", index)
    rotated = faiss.downcast_VectorTransform(around.chain.at(0)).apply(vectors)
    coarse = faiss.downcast_index(inner.quantizer)
    with gpu.lock:
        nearest = gpu.flat(inner.d)
        nearest.add(coarse.reconstruct_n(0, inner.nlist))
        if storage(index) == "compact":
            chosen = nearest.assign(rotated, 1).ravel()
            inner.add_core(len(rotated), faiss.swig_ptr(rotated), None, faiss.swig_ptr(chosen))
        else:  # packs its codes as it adds, which it does for lists of its own choice alone
            inner.quantizer = nearest
            try:
                inner.add(rotated)
            finally:
                inner.quantizer = coarse
                nearest.this.acquire()
    around.ntotal = inner.ntotal


@contextlib.contextmanager
def _clustering(lists: Any, gpu: Gpu | None) -> Iterator[None]:
    """Have lists trained on a GPU."""
    if gpu is None:
        yield
        return
    with gpu.lock:
        lists.clustering_index = nearest = gpu.flat(lists.d)
        try:
            yield
        finally:
            lists.clustering_index = None
            nearest.this.acquire()  # lists take what they are given, but do not free it


def products(queries: Vectors, vectors: Vectors, at: NDArray[np.int64]) -> NDArray[np.float32]:
    """Multiply each query with some of the vectors.

    One thread does: many of them, for so little, would mostly wait for each other.

    Parameters
    ----------
    queries : float32 array of shape (n_queries, dim)
    vectors : float32 array of shape (n_vectors, dim)
    at : int64 array of shape (n_queries, n)
        Which of the vectors.

    Returns
    -------
    float32 array of shape (n_queries, n)
    """
    found = np.empty(at.shape, np.float32)
    arrays = [np.ascontiguousarray(one) for one in (queries, vectors, at)]
    pointers = [faiss.swig_ptr(one) for one in (found, *arrays)]
    multiply: Any = faiss.fvec_inner_products_by_idx  # type: ignore[attr-defined]
    n_threads = faiss.omp_get_max_threads()
    limit_threads(1)
    multiply(*pointers, vectors.shape[1], *at.shape)
    limit_threads(n_threads)
    return found


def limit_threads(n: int) -> None:
    """Let FAISS use so many threads when the calling thread asks it.

    More than there are cores wait for each other in turn: with two cores, three shards searched
    at once by two threads each take half as long again as by one.
    """
    faiss.omp_set_num_threads(n)


def lists(index: faiss.Index) -> Any:  # an IndexIVF of one kind or another
    """Get at the lists of a trained index; they live no longer than it."""
    return faiss.downcast_index(faiss.extract_index_ivf(index))


def storage(index: faiss.Index) -> Storage:
    """Tell what :func:`train` was asked for."""
    return "full" if lists(index).pq.nbits == _BITS["full"] else "compact"
