"""The outline of a waveform, for drawing it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from engine.records import Waveform


def peaks(blocks: Iterable[Waveform], n_samples: int, n_bins: int) -> NDArray[np.float32]:
    """Find the largest absolute sample in each of some equal parts of a recording.

    Parameters
    ----------
    blocks : iterable of float32 arrays of shape (n_samples,)
        Consecutive; each is used up before the next one is read.
    n_samples : int
        Length of the recording, `n_bins` or more. Samples behind it belong to the last part.
    n_bins : int
        Number of parts.

    Returns
    -------
    float32 array of shape (n_bins,)
        0 or greater.
    """
    found = np.zeros(n_bins, np.float32)
    edges = -(-np.arange(n_bins) * n_samples // n_bins)  # the first sample of each part
    position = 0
    for block in blocks:
        if len(block):
            first = int(np.searchsorted(edges, position, "right")) - 1
            end = int(np.searchsorted(edges, position + len(block), "left"))
            starts = np.maximum(edges[first:end] - position, 0)
            largest = np.maximum.reduceat(np.abs(block), starts)
            found[first:end] = np.maximum(found[first:end], largest)
        position += len(block)
    return found


def coarser(fine: NDArray[np.float32], n_bins: int) -> NDArray[np.float32]:
    """Join the parts of :func:`peaks` to fewer ones.

    Parameters
    ----------
    fine : float32 array of shape (n_fine,)
    n_bins : int
        From 1 to `n_fine`.

    Returns
    -------
    float32 array of shape (n_bins,)
        Borders are those of `fine` that are nearest below.
    """
    return np.maximum.reduceat(fine, np.arange(n_bins) * len(fine) // n_bins)
