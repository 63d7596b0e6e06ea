"""A fixed piece of work, so that what is timed can be told in its lengths on any machine.

Times are those of one core at work, not those of the clock: what else the machine is busy with
hardly matters, and neither does waiting. A loss by waiting shows in ``bench speed`` only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import numpy as np

_N_TIMES = 3


def costs(works: Mapping[str, Callable[[], object]], n_rounds: int) -> dict[str, float]:
    """Time pieces of work in turns, each between two yardsticks.

    Parameters
    ----------
    works : mapping of callable
        By name. Each is done once before anything is timed.
    n_rounds : int

    Returns
    -------
    dict
        The median, over the rounds, of how many yardsticks each takes.
    """
    for work in (_yardstick, *works.values()):
        work()
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(n_rounds):
        before_s = _seconds(_yardstick)
        for name, work in works.items():
            work_s, after_s = _seconds(work), _seconds(_yardstick)
            found[name].append(2 * work_s / (before_s + after_s))
            before_s = after_s
    return {name: median(ratios) for name, ratios in found.items()}


def _seconds(work: Callable[[], object]) -> float:
    begun_s = time.process_time()
    work()
    return time.process_time() - begun_s


def _yardstick() -> None:
    """Multiply, transform, sort and gather, as encoding and searching do."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 640, 640), np.float32)
    for _ in range(_N_TIMES):
        product = a @ b
        spectrum = np.abs(np.fft.rfft(product, axis=1))
        order = np.argsort(spectrum[:256], axis=1)
        np.take_along_axis(spectrum[:256], order, axis=1).cumsum()
        np.exp(-np.square(product)).sum()
