"""A file of vectors with 8 bits a component, of which a few rows are read at a time.

The file is read, not mapped: mapped pages count as memory in use, at least sixteen for each row,
which is the whole file after a few queries.
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

# Rows at most this far apart are read at once with those between them; one page holds as many.
_MAX_GAP_ROWS = 32
_HAS_FADVISE = hasattr(os, "posix_fadvise")


class VectorFile:
    """An open file of rows of signed bytes; any number of threads may read it.

    Parameters
    ----------
    path : Path
    n_rows, dim : int

    Raises
    ------
    ShardError
        The file is missing or has another size.
    """

    def __init__(self, path: Path, n_rows: int, dim: int) -> None:
        self.path, self.n_rows, self.dim = path, n_rows, dim
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ShardError(path, f"cannot be read ({error.strerror})") from error
        weakref.finalize(self, os.close, self._file)
        if (n_bytes := os.fstat(self._file).st_size) != n_rows * dim:
            raise ShardError(path, f"has {n_bytes} bytes, but the header states {n_rows * dim}")
        if _HAS_FADVISE:  # do not read ahead
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_RANDOM)

    def read(self, first: int, last: int) -> Codes:
        """Read the rows first..last, the last one excluded.

        Returns
        -------
        int8 array of shape (last - first, dim)

        Raises
        ------
        ShardError
            The file cannot be read.
        """
        return self._read(np.array([first]), np.array([last - first]))

    def read_rows(self, rows: NDArray[np.int64]) -> Codes:
        """Read some rows.

        Parameters
        ----------
        rows : int64 array of shape (n,), in rising order

        Returns
        -------
        int8 array of shape (n, dim)

        Raises
        ------
        ShardError
            The file cannot be read.
        """
        starts, lengths = _runs(rows)
        run = np.repeat(np.arange(len(starts)), np.diff([*starts, len(rows)]))
        firsts = rows[starts]
        n_before = np.cumsum(lengths) - lengths
        codes = self._read(firsts, lengths)
        return np.asarray(codes[n_before[run] + rows - firsts[run]])

    def _read(self, firsts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Codes:
        """Read runs of consecutive rows into one array."""
        sizes, offsets = (lengths * self.dim).tolist(), (firsts * self.dim).tolist()
        if _HAS_FADVISE and len(sizes) > 1:  # lets the disk read them together
            for size, offset in zip(sizes, offsets, strict=True):
                os.posix_fadvise(self._file, offset, size, os.POSIX_FADV_WILLNEED)
        try:
            content = b"".join(map(os.pread, repeat(self._file), sizes, offsets))
        except OSError as error:
            raise ShardError(self.path, f"cannot be read ({error.strerror})") from error
        if len(content) != lengths.sum() * self.dim:
            raise ShardError(self.path, "was truncated while open")
        return np.frombuffer(content, np.int8).reshape(-1, self.dim)


def _runs(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide rising rows where they are far apart: indices of the first, and rows each spans."""
    if not len(rows):
        return rows, rows
    ends = np.flatnonzero(np.diff(rows) > _MAX_GAP_ROWS)
    starts = np.array([0, *(ends + 1)], np.int64)
    return starts, rows[[*ends, len(rows) - 1]] + 1 - rows[starts]
