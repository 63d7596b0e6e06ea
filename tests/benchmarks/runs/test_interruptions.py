from __future__ import annotations

import os
import signal
import time

import pytest

from benchmarks.runs.interruptions import call_apart


def _spin() -> int:
    while True:
        pass


def _sleep() -> int:
    time.sleep(600)
    return 0


def _die() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def test_processes_that_hang_are_killed() -> None:
    with pytest.raises(TimeoutError, match="1 s of processor time"):
        call_apart(_spin, processor_s=1)
    with pytest.raises(TimeoutError, match=r"0\.5 s"):
        call_apart(_sleep, wall_s=0.5)


def test_result_of_another_process_is_returned_unless_it_dies() -> None:
    assert call_apart(abs, -3) == 3
    assert call_apart(_die) is None
