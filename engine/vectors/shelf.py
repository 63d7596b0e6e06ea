"""Vectors on a GPU, compared with every query; those that do not fit at once take turns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from engine.records import Vectors
from engine.vectors.gpu import Gpu

PART_ROWS = 1 << 19
"""Rows that are copied to the GPU at once: 256 MB of them on the host, half of it there."""

_VALUE_BYTES = 2  # of a component; in half precision
_NORM_BYTES = 4  # FAISS keeps one for each row

Read = Callable[[int, int], Vectors]
"""Given a first row and a last one, which is excluded, gives their vectors."""


class Shelf:
    """Rows that are searched on a GPU, in parts.

    Parts stay there while there is room. Those that are there are searched first; each of the
    others then takes the place of the one that was not used for longest.

    Parameters
    ----------
    gpu : Gpu
    n_rows, dim : int
    read : callable
        Reads rows, as float32 array of shape (n, dim).
    part_rows : int
    """

    def __init__(
        self, gpu: Gpu, n_rows: int, dim: int, read: Read, *, part_rows: int = PART_ROWS
    ) -> None:
        self._gpu, self._n_rows, self._dim, self._read = gpu, n_rows, dim, read
        self._part_rows = part_rows
        self._held: OrderedDict[int, Any] = OrderedDict()
        self._n_held: int | None = None  # at most; known when the first part is copied

    def search(self, queries: Vectors, n: int) -> NDArray[np.int64]:
        """Find the nearest rows of all, for any number of threads.

        Parameters
        ----------
        queries : float32 array of shape (n_queries, dim), unit norm
        n : int
            At most ``engine.vectors.gpu.MAX_FOUND``.

        Returns
        -------
        int64 array of shape (n_queries, n)
            Nearest first, as near as half precision tells; -1 where there are fewer.
        """
        nearest = faiss.ResultHeap(len(queries), n, keep_max=True)
        asked = np.ascontiguousarray(queries)
        with self._gpu.lock:
            for first in self._turns():
                cosines, rows = self._part(first).search(asked, n)
                nearest.add_result(cosines, np.where(rows < 0, -1, rows + first))
        nearest.finalize()
        return np.asarray(nearest.I, np.int64)

    def _turns(self) -> list[int]:
        """First rows of all parts; those of parts on the GPU come before the others."""
        firsts = range(0, self._n_rows, self._part_rows)
        return sorted(firsts, key=lambda one: one not in self._held)

    def _part(self, first: int) -> Any:
        """Give a part as an index on the GPU, copied if it is not there."""
        if first not in self._held:
            self._make_room()
            part = self._gpu.flat(self._dim, halved=True)
            part.add(self._read(first, min(first + self._part_rows, self._n_rows)))
            self._held[first] = part
        self._held.move_to_end(first)
        return self._held[first]

    def _make_room(self) -> None:
        """Drop what was not used for longest, or one part more would be too much."""
        if self._n_held is None:
            part_bytes = self._part_rows * (self._dim * _VALUE_BYTES + _NORM_BYTES)
            self._n_held = max(self._gpu.room_bytes() // part_bytes, 1)
        while len(self._held) >= self._n_held:
            self._held.popitem(last=False)
