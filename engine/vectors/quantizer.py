"""Vectors as 8-bit codes, and the FAISS indexes that search them.

A flat index compares a query with every vector. A trained index rotates vectors (OPQ, Ge et al.
2013), scans only the lists nearest to the query (IVF) and compares codes of a few bytes (PQ, Jégou
et al. 2011); its candidates are rescored exactly afterwards.
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

Storage = Literal["full", "codes"]
"""What large shards store: vectors beside the codes, or the codes alone."""

Codes = NDArray[np.int8]
"""int8 array of shape (n, dim)."""

MAX_CODE = 127
# Components of a unit vector beyond this many standard deviations are clipped.
_MAX_DEVIATIONS = 7.0

N_PER_LIST = 2048
"""Vectors in one list, on average."""

_NLIST_RANGE = (16, 1 << 16)

N_TRAINING_PER_LIST = 48
"""Training vectors for each list; FAISS warns below 39."""

_N_ITERATIONS = 10
_N_OPQ_VECTORS = 32_768
_OPQ_DIMS = 4  # components in one sub-vector; one if they do not divide the dimension
_BITS: dict[Storage, int] = {"full": 4, "codes": 8}
# Chosen by `astound bench scale`; docs/scale.md.
_NPROBE_RANGE = (8, 64)
_PROBED_FRACTION = 1 / 16


def scale(dim: int) -> float:
    """Return the component that the greatest code stands for."""
    return min(1.0, _MAX_DEVIATIONS / math.sqrt(dim))


def encode(vectors: Vectors) -> Codes:
    """Round unit vectors to 8 bits a component.

    Parameters
    ----------
    vectors : float32 array of shape (n, dim)

    Returns
    -------
    int8 array of shape (n, dim)
        Decoding and encoding again gives the same codes. The cosine of a decoded vector with the
        original is at least 0.9998 at 128 dimensions.
    """
    codes = np.rint(vectors * np.float32(MAX_CODE / scale(vectors.shape[1])))
    return np.asarray(codes.clip(-MAX_CODE, MAX_CODE), np.int8)


def decode(codes: Codes) -> Vectors:
    """Undo :func:`encode`, except for the rounding.

    Returns
    -------
    float32 array of shape (n, dim)
    """
    return codes.astype(np.float32) * np.float32(scale(codes.shape[-1]) / MAX_CODE)


def flat_index(dim: int) -> faiss.IndexScalarQuantizer:
    """Create an empty index that compares with every vector.

    It stores codes of :func:`encode` when these are added as float32.
    """
    index = faiss.IndexScalarQuantizer(
        dim, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
    )
    index.is_trained = True
    return index


def choose_nlist(n_vectors: int) -> int:
    """Choose the number of lists of an index of so many vectors; a power of two."""
    n_lists = max(n_vectors // N_PER_LIST, 1)
    return int(np.clip(1 << (n_lists.bit_length() - 1), *_NLIST_RANGE))


def choose_nprobe(nlist: int) -> int:
    """Choose how many of `nlist` lists a search scans."""
    return int(np.clip(round(nlist * _PROBED_FRACTION), *_NPROBE_RANGE))


def train(
    sample: Vectors, n_vectors: int, storage: Storage, seed: int = 0, gpu: Gpu | None = None
) -> faiss.Index:
    """Train an index and leave it empty.

    Parameters
    ----------
    sample : float32 array of shape (n, dim), unit norm
        About N_TRAINING_PER_LIST vectors for each list.
    n_vectors : int
        How many vectors the index will hold.
    storage : {"full", "codes"}
        Codes of 4 bits for every 4 components, beside which vectors are stored; or codes of 8
        bits, from which vectors are reconstructed.
    seed : int
    gpu : Gpu, optional
        Clusters the centroids of the lists; the CPU by default.
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
    nlist = choose_nlist(n_vectors)
    lists = kind(coarse, dim, nlist, n_subvectors, bits, faiss.METRIC_INNER_PRODUCT)
    for clustering in (lists.cp, lists.pq.cp):
        clustering.seed, clustering.niter = seed, _N_ITERATIONS
        clustering.min_points_per_centroid = 1
    index = faiss.IndexPreTransform(rotation, lists)
    with _clustering_on(gpu, lists):
        index.train(np.ascontiguousarray(sample))
    # Python would free the parts at the end of this function: the index owns them from here on.
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
        Index of :func:`train`.
    vectors : float32 array of shape (n, dim), unit norm
    gpu : Gpu, optional
        Assigns vectors to lists; the CPU by default.
    """
    if gpu is None:
        index.add(vectors)
        return
    lists, outer = lists_of(index), cast("Any", index)
    rotated = faiss.downcast_VectorTransform(outer.chain.at(0)).apply(vectors)
    coarse = faiss.downcast_index(lists.quantizer)
    with gpu.lock:
        centroids = gpu.flat_index(lists.d)
        centroids.add(coarse.reconstruct_n(0, lists.nlist))
        if storage_of(index) == "codes":
            assigned = centroids.assign(rotated, 1).ravel()
            lists.add_core(len(rotated), faiss.swig_ptr(rotated), None, faiss.swig_ptr(assigned))
        else:  # fast-scan lists pack codes while adding, and only with their own quantizer
            lists.quantizer = centroids
            try:
                lists.add(rotated)
            finally:
                lists.quantizer = coarse
                centroids.this.acquire()
    outer.ntotal = lists.ntotal


@contextlib.contextmanager
def _clustering_on(gpu: Gpu | None, lists: Any) -> Iterator[None]:
    """Train lists on a GPU, if there is one."""
    if gpu is None:
        yield
        return
    with gpu.lock:
        lists.clustering_index = nearest = gpu.flat_index(lists.d)
        try:
            yield
        finally:
            lists.clustering_index = None
            nearest.this.acquire()  # setting the attribute took ownership, but lists never free it


def inner_products(
    queries: Vectors, vectors: Vectors, at: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Multiply each query with some of the vectors.

    It runs in one thread: the work is too little for several.

    Parameters
    ----------
    queries : float32 array of shape (n_queries, dim)
    vectors : float32 array of shape (n_vectors, dim)
    at : int64 array of shape (n_queries, n)
        Rows of `vectors` for each query.

    Returns
    -------
    float32 array of shape (n_queries, n)
    """
    products = np.empty(at.shape, np.float32)
    arrays = [np.ascontiguousarray(array) for array in (queries, vectors, at)]
    pointers = [faiss.swig_ptr(array) for array in (products, *arrays)]
    multiply: Any = faiss.fvec_inner_products_by_idx  # type: ignore[attr-defined]
    n_threads = faiss.omp_get_max_threads()
    limit_threads(1)
    multiply(*pointers, vectors.shape[1], *at.shape)
    limit_threads(n_threads)
    return products


def limit_threads(n: int) -> None:
    """Set how many threads FAISS uses when it is called from this thread.

    More threads than cores wait for each other: on two cores, three shards searched at once by two
    threads each take half as long again as by one thread each.
    """
    faiss.omp_set_num_threads(n)


def lists_of(index: faiss.Index) -> Any:  # an IndexIVF of one kind or another
    """Return the lists of a trained index; they live no longer than the index."""
    return faiss.downcast_index(faiss.extract_index_ivf(index))


def storage_of(index: faiss.Index) -> Storage:
    """Return the storage that an index was trained for."""
    return "full" if lists_of(index).pq.nbits == _BITS["full"] else "codes"
