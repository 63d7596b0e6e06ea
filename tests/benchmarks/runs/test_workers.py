from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from benchmarks.runs.workers import map_in_order
from engine.errors import AudioError

N_ITEMS = 12


def make_square(power: int) -> Callable[[int], tuple[int, str | None]]:
    """Return a function that is faster for odd numbers, and returns its limit of threads."""

    def square(number: int) -> tuple[int, str | None]:
        time.sleep(0.02 * (number % 2 == 0))
        return number**power, os.environ.get("OMP_NUM_THREADS")

    return square


def make_refusing() -> Callable[[int], int]:
    def refuse(number: int) -> int:
        raise AudioError("clip.wav", f"number {number}")

    return refuse


def test_results_are_in_order_and_use_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    taken = []

    def items() -> Iterator[int]:
        for number in range(N_ITEMS):
            taken.append(number)
            yield number

    answers = map_in_order(make_square, (2,), items(), 2)
    assert next(answers) == (0, "1")
    assert len(taken) < N_ITEMS / 2  # not all are read at once
    assert list(answers) == [(number**2, "1") for number in range(1, N_ITEMS)]
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_error_in_a_child_is_raised() -> None:
    with pytest.raises(AudioError, match=r"clip\.wav: number 3"):
        list(map_in_order(make_refusing, (), [3], 1))


def test_without_items_no_process_is_started() -> None:
    assert list(map_in_order(make_square, (), [], 10**6)) == []
