from __future__ import annotations

from typing import Any

from benchmarks.reports.peer_tables import tables
from tests.benchmarks.markdown import rows


def share(value: float | None) -> dict[str, Any]:
    return {"value": value, "low": value, "high": value}


def test_tables_show_accuracy_costs_and_systems() -> None:
    present = {"hit_rate": share(0.9), "near": share(0.8), "exact": share(0.7)}
    cells = [
        {
            "cell": "clean 5 s",
            "present": present | {"wrong_accept": share(0.05)},
            "absent": {"false_accept_rate": share(0.02)},
        },
        {"cell": "noise0 5 s", "present": None, "absent": None},
    ]
    system = {
        "version": "1.2", "asked": "in-process", "options": "defaults", "cells": cells,
        "ingest_realtime_factor": 300.4, "ingest_peak_rss_bytes": 2**30,
        "ask_peak_rss_bytes": 2**29,
        "batch_s": [0.02, 0.03, None], "bytes_per_audio_s": 289.0,
        "latency": {"n": 4, "mean_ms": 20.0, "median_ms": 15.0},
    }  # fmt: skip
    results = {"systems": {"ours": system}, "left_out": {"olaf": "not found"}}
    accuracy, costs, systems = (rows(table) for table in tables(results).split("\n\n"))
    assert accuracy[0][1:] == ["ours"]
    assert accuracy[1:] == [["clean 5 s", "90 / 80 / 70 / 5; 2"], ["noise0 5 s", "-; -"]]
    assert costs[1:] == [["ours", "300", "15 / - / 20", "20 / 30 / -", "1024 / 512", "289"]]
    assert systems[1:] == [
        ["ours", "1.2", "in-process", "defaults"],
        ["olaf", "-", "not measured", "not found"],
    ]
