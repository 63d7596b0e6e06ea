from __future__ import annotations

from benchmarks.runs import cold_start


def test_memory_of_this_process_is_consistent() -> None:
    memory = cold_start.memory_bytes()
    assert 0 < memory["anonymous"] < memory["rss"] <= memory["peak_rss"]
