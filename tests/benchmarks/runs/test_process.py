from __future__ import annotations

import os

import numpy as np
import pytest

from benchmarks.runs.process import run_in_process
from engine.errors import AstoundError, ConfigError

N_BYTES = 200 * 2**20


def _own_id(number: int) -> tuple[int, int]:
    return os.getpid(), number


def _hold() -> int:
    held = np.ones(N_BYTES, np.uint8)
    for _ in range(20):
        held += 1
    return int(held[0])


def _refuse() -> None:
    raise ConfigError.invalid("key", 0, "must be positive")


def _die() -> None:
    os._exit(7)


def test_function_runs_in_another_process() -> None:
    (process_id, number), cost = run_in_process(_own_id, 3)
    assert process_id != os.getpid()
    assert number == 3
    assert cost.wall_s >= 0


def test_peak_memory_is_measured() -> None:
    _, cost = run_in_process(_hold)
    assert cost.peak_rss_bytes > N_BYTES


def test_error_is_raised_in_the_parent() -> None:
    with pytest.raises(AstoundError, match=r"^invalid key=0: must be positive$"):
        run_in_process(_refuse)


def test_dead_process_is_an_error() -> None:
    with pytest.raises(AstoundError, match="ended with exit code 7"):
        run_in_process(_die)
