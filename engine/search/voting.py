"""Hits to diagonals: vote over (track, offset).

Offsets are counted in ticks of one query hop. Subtracting the query's own time from each hit and
voting is the idea of Wang (2003) and Chang et al. (2021).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.config import AlignConfig
from engine.records import NO_ADDRESS, Diagonal, Hits, positions, track_ids

# How much a hit says about a diagonal it misses by that many ticks.
_KERNEL = np.array([0.5, 1.0, 0.5])
_REACH = len(_KERNEL) // 2
# Ticks between the diagonals of a track; rescoring slides each that far.
_APART = 2
_TICK_BITS = 32
_TICK_BIAS = 1 << (_TICK_BITS - 1)


def vote(hits: Hits, ticks_per_hop: int, config: AlignConfig) -> list[Diagonal]:
    """Find the diagonals that most hits lie on.

    Parameters
    ----------
    hits : Hits
        Of shape (n_queries, top_k); row i belongs to the query segment that starts at tick i.
    ticks_per_hop : int
        Query hops in one hop of the catalog.
    config : AlignConfig

    Returns
    -------
    list of Diagonal
        At most `config.max_candidates`, most votes first; diagonals of one track lie apart.
    """
    # The nearest neighbours of silence are chance: its cosines are all zero.
    valid = (hits.addresses != NO_ADDRESS) & (hits.cosines > 0)
    query, _ = np.nonzero(valid)
    addresses = hits.addresses[valid]
    ticks = positions(addresses) * ticks_per_hop - query
    keys = track_ids(addresses) << _TICK_BITS | (ticks + _TICK_BIAS)
    weights = hits.cosines[valid].astype(np.float64) ** config.vote_power
    cells, cell_of = np.unique(keys, return_inverse=True)
    heights = _smooth(cells, np.bincount(cell_of, weights, minlength=len(cells)).astype(float))
    return [
        Diagonal(
            track_id=cell >> _TICK_BITS,
            ticks=(cell & ((1 << _TICK_BITS) - 1)) - _TICK_BIAS,
            votes=len(np.unique(query[np.abs(keys - cell) <= _REACH])),
        )
        for cell in _peaks(cells, heights, config.max_candidates)
    ]


def _smooth(cells: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add to each cell what lies in the cells a few ticks beside it, if they exist."""
    out = np.zeros(len(cells))
    for shift, weight in zip(range(-_REACH, _REACH + 1), _KERNEL, strict=True):
        at = np.searchsorted(cells, cells + shift).clip(max=max(len(cells) - 1, 0))
        out += np.where(cells[at] == cells + shift, weight * values[at], 0.0)
    return out


def _peaks(cells: NDArray[np.int64], heights: NDArray[np.float64], n: int) -> list[int]:
    """Choose the highest cells that are no slope of a higher one."""
    taken: dict[int, None] = {}  # a set that remembers its order
    for at in np.argsort(-heights, kind="stable"):
        cell = int(cells[at])
        if any(cell + shift in taken for shift in range(-_APART, _APART + 1)):
            continue
        taken[cell] = None
        if len(taken) == n:
            break
    return list(taken)
