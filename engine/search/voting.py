"""From hits to diagonals: voting over (track, offset).

Offsets are counted in ticks of one query hop. The query's own time is subtracted from the time of
each hit, so that all hits of one place vote for the same offset (Wang 2003, Chang et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.records import NO_ADDRESS, Diagonal, Hits, positions, track_ids

# A hit votes with its cosine to this power.
_VOTE_POWER = 4.0
# Weights of a hit for the diagonals one tick before it, at it, and one tick after it.
_KERNEL = np.array([0.5, 1.0, 0.5])
_REACH = len(_KERNEL) // 2
# Least distance of two diagonals of a track, in ticks; rescoring shifts each of them that far.
_MIN_DISTANCE = 2
_TICK_BITS = 32
_TICK_BIAS = 1 << (_TICK_BITS - 1)


def vote(hits: Hits, ticks_per_hop: int, max_diagonals: int) -> list[Diagonal]:
    """Find the diagonals with most votes.

    Parameters
    ----------
    hits : Hits
        Of shape (n_queries, k); row i belongs to the query segment that starts at tick i.
    ticks_per_hop : int
        Query hops in one hop of the catalog.
    max_diagonals : int

    Returns
    -------
    list of Diagonal
        Most votes first; diagonals of one track are more than two ticks apart.
    """
    # The nearest neighbours of a silent segment are arbitrary: all cosines are zero.
    valid = (hits.addresses != NO_ADDRESS) & (hits.cosines > 0)
    query, _ = np.nonzero(valid)
    addresses = hits.addresses[valid]
    ticks = positions(addresses) * ticks_per_hop - query
    keys = track_ids(addresses) << _TICK_BITS | (ticks + _TICK_BIAS)
    weights = hits.cosines[valid].astype(np.float64) ** _VOTE_POWER
    cells, cell_of = np.unique(keys, return_inverse=True)
    heights = _smooth(cells, np.bincount(cell_of, weights, minlength=len(cells)).astype(float))
    peaks = _peaks(cells, heights, max_diagonals)
    return [
        Diagonal(
            track_id=cell >> _TICK_BITS,
            ticks=(cell & ((1 << _TICK_BITS) - 1)) - _TICK_BIAS,
            votes=n_votes,
        )
        for cell, n_votes in zip(peaks, _count_votes(peaks, keys, query), strict=True)
    ]


def _count_votes(
    peaks: Sequence[int], keys: NDArray[np.int64], query: NDArray[np.int64]
) -> list[int]:
    """Count the query segments with a hit in each peak or beside it."""
    in_order = np.argsort(keys, kind="stable")
    centres = np.array(peaks, np.int64)
    first, beyond = np.searchsorted(keys[in_order], [centres - _REACH, centres + _REACH + 1])
    return [
        len(set(query[in_order[start:end]].tolist()))
        for start, end in zip(first.tolist(), beyond.tolist(), strict=True)
    ]


def _smooth(cells: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convolve the values of cells with the kernel; cells that do not exist are 0."""
    out = np.zeros(len(cells))
    for shift, weight in zip(range(-_REACH, _REACH + 1), _KERNEL, strict=True):
        at = np.searchsorted(cells, cells + shift).clip(max=max(len(cells) - 1, 0))
        out += np.where(cells[at] == cells + shift, weight * values[at], 0.0)
    return out


def _peaks(cells: NDArray[np.int64], heights: NDArray[np.float64], n: int) -> list[int]:
    """Choose the n highest cells that are not beside a higher one."""
    chosen: list[int] = []
    beside: set[int] = set()
    for cell in cells[np.argsort(-heights, kind="stable")].tolist():
        if cell in beside:
            continue
        chosen.append(cell)
        if len(chosen) == n:
            break
        beside.update(range(cell - _MIN_DISTANCE, cell + _MIN_DISTANCE + 1))
    return chosen
