"""Vectors in a file, eight bits a component, of which few are read at a time.

They are read, not mapped: mapped pages would count as memory in use, sixteen and more for each row
that is looked at, and the whole file after a few queries.
"""

from __future__ import annotations

import os
import weakref
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import ShardError
from engine.vectors.quantizer import Codes

# Rows this near to each other are read at once, with those between them: one page holds as many.
_NEAR_ROWS = 32
_HINTS = hasattr(os, "posix_fadvise")


class VectorFile:
    """An open file of rows of signed bytes; any number of threads may read it.

    Parameters
    ----------
    path : Path
    n_rows, dim : int

    Raises
    ------
    ShardError
        It is missing, or of another size.
    """

    def __init__(self, path: Path, n_rows: int, dim: int) -> None:
        self.path, self.n_rows, self.dim = path, n_rows, dim
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ShardError(path, f"cannot be read ({error.strerror})") from error
        weakref.finalize(self, os.close, self._file)
        if (found := os.fstat(self._file).st_size) != n_rows * dim:
            raise ShardError(path, f"has {found} bytes, its header promises {n_rows * dim}")
        if _HINTS:  # rows are read here and there
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_RANDOM)

    def read(self, first: int, last: int) -> Codes:
        """Read the rows first..last, the last one excluded.

        Returns
        -------
        int8 array of shape (last - first, dim)

        Raises
        ------
        ShardError
            They cannot be read.
        """
        return self._read(np.array([first]), np.array([last - first]))

    def pick(self, rows: NDArray[np.int64]) -> Codes:
        """Read rows here and there.

        Parameters
        ----------
        rows : int64 array of shape (n,), rising

        Returns
        -------
        int8 array of shape (n, dim)

        Raises
        ------
        ShardError
            They cannot be read.
        """
        starts, lengths = _stretches(rows)
        of = np.repeat(np.arange(len(starts)), np.diff([*starts, len(rows)]))
        firsts = rows[starts]
        before = np.cumsum(lengths) - lengths
        codes = self._read(firsts, lengths)
        return np.asarray(codes[before[of] + rows - firsts[of]])

    def _read(self, firsts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Codes:
        """Read stretches of rows, one behind the other."""
        sizes, offsets = (lengths * self.dim).tolist(), (firsts * self.dim).tolist()
        if _HINTS and len(sizes) > 1:  # a disk is quicker when it knows what else is wanted
            for size, offset in zip(sizes, offsets, strict=True):
                os.posix_fadvise(self._file, offset, size, os.POSIX_FADV_WILLNEED)
        try:
            found = b"".join(map(os.pread, repeat(self._file), sizes, offsets))
        except OSError as error:
            raise ShardError(self.path, f"cannot be read ({error.strerror})") from error
        if len(found) != lengths.sum() * self.dim:
            raise ShardError(self.path, "has become shorter since it was opened")
        return np.frombuffer(found, np.int8).reshape(-1, self.dim)


def _stretches(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide rising rows where they lie far apart: where stretches begin, and rows they span."""
    if not len(rows):
        return rows, rows
    ends = np.flatnonzero(np.diff(rows) > _NEAR_ROWS)
    starts = np.array([0, *(ends + 1)], np.int64)
    return starts, rows[[*ends, len(rows) - 1]] + 1 - rows[starts]
