"""A fixed piece of reference work, as a unit for costs that depends little on the machine.

Times are processor times of this process, so other load on the machine hardly matters. They do not
contain waiting; that shows in ``bench speed`` only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import numpy as np

_N_REPEATS = 3


def costs(works: Mapping[str, Callable[[], object]], n_rounds: int) -> dict[str, float]:
    """Time pieces of work in turns, each between two runs of the reference work.

    Parameters
    ----------
    works : mapping of callable
        By name. Each is run once before timing starts.
    n_rounds : int

    Returns
    -------
    dict
        Median, over the rounds, of the time of each piece divided by that of the reference work.
    """
    for work in (reference_work, *works.values()):
        work()
    ratios: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(n_rounds):
        before_s = _seconds(reference_work)
        for name, work in works.items():
            work_s, after_s = _seconds(work), _seconds(reference_work)
            ratios[name].append(2 * work_s / (before_s + after_s))
            before_s = after_s
    return {name: median(values) for name, values in ratios.items()}


def _seconds(work: Callable[[], object]) -> float:
    start_s = time.process_time()
    work()
    return time.process_time() - start_s


def reference_work() -> None:
    """Multiply, transform, sort and gather, as encoding and search do."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 640, 640), np.float32)
    for _ in range(_N_REPEATS):
        product = a @ b
        spectrum = np.abs(np.fft.rfft(product, axis=1))
        order = np.argsort(spectrum[:256], axis=1)
        np.take_along_axis(spectrum[:256], order, axis=1).cumsum()
        np.exp(-np.square(product)).sum()
