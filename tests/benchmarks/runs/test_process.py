from __future__ import annotations

import os

import numpy as np
import pytest

from benchmarks.runs.process import measured
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
    (process_id, number), cost = measured(_own_id, 3)
    assert process_id != os.getpid()
    assert number == 3
    assert cost.wall_s >= 0


def test_memory_of_the_process_is_seen() -> None:
    _, cost = measured(_hold)
    assert cost.peak_rss_bytes > N_BYTES


def test_error_comes_back_with_its_message() -> None:
    with pytest.raises(AstoundError, match=r"^invalid key=0: must be positive$"):
        measured(_refuse)


def test_death_is_an_error() -> None:
    with pytest.raises(AstoundError, match="ended with 7"):
        measured(_die)
