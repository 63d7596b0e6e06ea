"""The GPU that FAISS uses, if there is one: to train, fill and search.

FAISS has no GPU class for 4-bit codes. What compares many vectors at once is a flat index on the
GPU instead: of the centroids in training and in assignment to lists, and of all stored vectors in
a search.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from engine.device import torch_has_cuda
from engine.records import Vectors

MAX_K = 2048
"""Most neighbours of one vector that a GPU returns."""

PART_ROWS = 1 << 19
"""Rows copied to the GPU at once; 256 MB of float32 at 128 dimensions."""

# The rest of the free memory is for the encoder and for temporary memory of FAISS.
_USABLE_FRACTION = 0.8
_DEVICE = 0
_COMPONENT_BYTES = 2  # half precision
_NORM_BYTES = 4  # FAISS stores the norm of each row

log = logging.getLogger(__name__)

ReadRows = Callable[[int, int], Vectors]
"""Reads the rows first..last, the last one excluded, as float32 array of shape (n, dim)."""


class Gpu:
    """The first GPU.

    FAISS lets one thread at a time use it: hold `lock` while using an index of
    :meth:`flat_index`.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._faiss: Any = faiss  # builds without GPU lack the classes used here

    @cached_property
    def _resources(self) -> Any:
        return self._faiss.StandardGpuResources()

    def flat_index(self, dim: int, *, half_precision: bool = False) -> Any:  # a faiss.Index
        """Create an empty index on the GPU that compares with every vector by inner product.

        Parameters
        ----------
        dim : int
        half_precision : bool
            Store vectors in 16 bits a component. The error of a cosine is at most 0.001, and
            nearly always below 0.0001.
        """
        config = self._faiss.GpuIndexFlatConfig()
        config.device, config.useFloat16 = _DEVICE, half_precision
        return self._faiss.GpuIndexFlatIP(self._resources, dim, config)

    def usable_bytes(self) -> int:
        """Return how much of the memory that is free now may hold stored vectors."""
        import torch

        n_free, _ = torch.cuda.mem_get_info(_DEVICE)
        return int(n_free * _USABLE_FRACTION)


def find_gpu(device: str) -> Gpu | None:
    """Find the GPU for a device.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}

    Returns
    -------
    Gpu or None
        None for "cpu", and if FAISS has no GPU; with "cuda" a warning is logged then.
    """
    if device == "cpu":
        return None
    if faiss.get_num_gpus() > 0 and torch_has_cuda():
        return Gpu()
    if device == "cuda":
        log.warning(
            "FAISS finds no GPU, so vectors are trained and searched on the CPU; to use a GPU, "
            "install 'astound[gpu]' in an environment without faiss-cpu"
        )
    return None


class GpuIndex:
    """Exact search over rows on a GPU, in parts if they do not fit into its memory.

    Parts stay on the GPU while there is room. A search uses the parts there first; each other part
    then replaces the least recently used one.

    Parameters
    ----------
    gpu : Gpu
    n_rows, dim : int
    read : callable
        Reads rows first..last, the last one excluded, as float32 array of shape (n, dim).
    part_rows : int
        Rows in one part.
    """

    def __init__(
        self, gpu: Gpu, n_rows: int, dim: int, read: ReadRows, *, part_rows: int = PART_ROWS
    ) -> None:
        self._gpu, self._n_rows, self._dim, self._read = gpu, n_rows, dim, read
        self._part_rows = part_rows
        self._parts: OrderedDict[int, Any] = OrderedDict()  # by first row, least recent first
        self._max_parts: int | None = None  # known when the first part is copied

    def search(self, queries: Vectors, k: int) -> NDArray[np.int64]:
        """Find the nearest rows; safe to call from several threads.

        Parameters
        ----------
        queries : float32 array of shape (n_queries, dim), unit norm
        k : int
            At most MAX_K.

        Returns
        -------
        int64 array of shape (n_queries, k)
            Nearest first, by cosines in half precision; -1 if there are fewer rows.
        """
        nearest = faiss.ResultHeap(len(queries), k, keep_max=True)
        contiguous = np.ascontiguousarray(queries)
        with self._gpu.lock:
            for first in self._part_order():
                cosines, rows = self._part(first).search(contiguous, k)
                nearest.add_result(cosines, np.where(rows < 0, -1, rows + first))
        nearest.finalize()
        return np.asarray(nearest.I, np.int64)

    def _part_order(self) -> list[int]:
        """Return the first rows of all parts, those on the GPU before the others."""
        firsts = range(0, self._n_rows, self._part_rows)
        return sorted(firsts, key=lambda first: first not in self._parts)

    def _part(self, first: int) -> Any:
        """Return a part as an index on the GPU, and copy it there if it is missing."""
        if first not in self._parts:
            self._make_room()
            part = self._gpu.flat_index(self._dim, half_precision=True)
            part.add(self._read(first, min(first + self._part_rows, self._n_rows)))
            self._parts[first] = part
        self._parts.move_to_end(first)
        return self._parts[first]

    def _make_room(self) -> None:
        """Drop the least recently used parts until one more fits."""
        if self._max_parts is None:
            part_bytes = self._part_rows * (self._dim * _COMPONENT_BYTES + _NORM_BYTES)
            self._max_parts = max(self._gpu.usable_bytes() // part_bytes, 1)
        while len(self._parts) >= self._max_parts:
            self._parts.popitem(last=False)
