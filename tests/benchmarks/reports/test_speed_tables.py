from __future__ import annotations

from typing import Any

from benchmarks.reports import speed_tables
from tests.benchmarks.markdown import rows


def test_ingest_table_shares_are_of_the_total() -> None:
    results: dict[str, Any] = {
        "machine": {"n_cpus": 2},
        "ingest": {"audio_s": 7200.0, "add_s": 20.0, "cpu_s": {"own": 20.0, "decoders": 12.0}},
        "parts": {
            "audio_s": 3600.0,
            "parts": {
                "decode": {"wall_s": 4.0, "cpu_s": 4.0},
                "network": {"wall_s": 3.0, "cpu_s": 6.0},
                "start, hash, tags": {"wall_s": None, "cpu_s": 1.0},
            },
        },
    }
    assert rows(speed_tables.ingest_table(results))[1:] == [
        ["decode", "decoders", "900", "4.00", "25.0"],
        ["network", "own", "1,200", "6.00", "37.5"],
        ["start, hash, tags", "decoders", "", "1.00", "6.2"],
        ["contention", "own", "", "4.00", "25.0"],
        ["contention", "decoders", "", "1.00", "6.2"],
        ["ingest, total", "", "360", "16.00", "100.0"],
        ["idle of 2 processors, or used by others", "", "", "4.00", "25.0"],
    ]


def test_query_table_shows_steps_with_their_share() -> None:
    latency = {"mean_ms": 50.0, "mean_step_ms": {"encode": 25.0, "search": 20.0, "rest": 5.0}}
    other = {"mean_ms": 40.0, "mean_step_ms": {"encode": 20.0, "rest": 20.0}}
    table = rows(speed_tables.query_table({"query_file": latency, "query_array": other}))
    assert ["encode", "25.0 ms, 50 %", "20.0 ms, 50 %"] in table
    assert ["search", "20.0 ms, 40 %", "0.0 ms, 0 %"] in table
    assert ["total", "50.0 ms", "40.0 ms"] in table
