from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from engine.search.context import Stopwatch


def test_stopwatch_step_that_fails_is_counted() -> None:
    stopwatch = Stopwatch()
    for error in (None, KeyError()):
        with contextlib.suppress(KeyError), stopwatch.step("decode"):
            time.sleep(0.01)
            if error:
                raise error
    assert stopwatch.timings_ms["decode"] >= 20


def test_stopwatch_inner_step_is_not_counted_to_the_outer_one() -> None:
    stopwatch = Stopwatch()
    with stopwatch.step("encode"):
        with stopwatch.step("decode"):
            time.sleep(0.03)
        time.sleep(0.01)
    assert stopwatch.timings_ms["decode"] >= 30
    assert 10 <= stopwatch.timings_ms["encode"] < 30


def test_stopwatch_counts_the_producer_of_items_and_not_the_consumer() -> None:
    def slow_items() -> Iterator[int]:
        for item in range(3):
            time.sleep(0.01)
            yield item

    stopwatch = Stopwatch()
    items = []
    for item in stopwatch.watch("decode", slow_items()):
        time.sleep(0.02)
        items.append(item)
    assert items == [0, 1, 2]
    assert stopwatch.timings_ms == {"decode": pytest.approx(30, abs=25)}
    assert stopwatch.timings_ms["decode"] < 60
