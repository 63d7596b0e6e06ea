from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from benchmarks.runs.workers import in_order
from engine.errors import AstoundError, AudioError

N_ITEMS = 12


def make_square(power: int) -> Callable[[int], tuple[int, str | None]]:
    """Give what is quicker with odd numbers, and tells how many threads it may use."""

    def square(number: int) -> tuple[int, str | None]:
        time.sleep(0.02 * (number % 2 == 0))
        return number**power, os.environ.get("OMP_NUM_THREADS")

    return square


def make_refusing() -> Callable[[int], int]:
    def refuse(number: int) -> int:
        raise AudioError("clip.wav", f"number {number}")

    return refuse


def test_answers_come_in_order_from_processes_of_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    taken = []

    def items() -> Iterator[int]:
        for number in range(N_ITEMS):
            taken.append(number)
            yield number

    answers = in_order(make_square, (2,), items(), 2)
    assert next(answers) == (0, "1")
    assert len(taken) < N_ITEMS / 2  # not all of them wait in memory
    assert list(answers) == [(number**2, "1") for number in range(1, N_ITEMS)]
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_error_of_a_child_reaches_the_parent() -> None:
    with pytest.raises(AstoundError, match=r"clip\.wav: number 3"):
        list(in_order(make_refusing, (), [3], 1))


def test_nothing_to_do_starts_nothing() -> None:
    assert list(in_order(make_square, (), [], 10**6)) == []
