from __future__ import annotations

from typing import Any

from benchmarks.reports import scale_tables
from benchmarks.reports.scale_page import page
from tests.benchmarks.markdown import rows


def catalog_results(name: str, n_segments: int) -> dict[str, Any]:
    """Results of one catalog."""
    latency = {"median_ms": 60.0, "p95_ms": 80.0, "median_step_ms": {"encode": 50.0, "search": 9.0}}
    memory = {"rss": 2**29, "anonymous": 2**28, "file": 2**27}
    share = {"value": 0.9, "low": 0.8, "high": 0.95}
    return {
        "name": name,
        "n_tracks": 9,
        "n_segments": n_segments,
        "duration_s": n_segments / 2,
        "n_shards": {"full": 2},
        "n_bytes": {"segments.faiss": 16 * n_segments, "catalog.db": n_segments},
        "build": {"n_segments": n_segments, "write_s": 1.0},
        "compact": {"compact_s": 2.0, "train_s": 1.0, "peak_rss_bytes": 2**30},
        "open_s": 0.5,
        "memory_bytes": {"before": memory, "asked": memory},
        "latency": {"clean": latency, "noise0": latency},
        "cells": [
            {"label": label, "duration_s": 5.0, "cell": f"{label} 5 s",
             "present": {"hit_rate": share}}
            for label in ("noise0", "room5")
        ],
        "efforts": [
            {"cell": cell, "n_probe": n_probe, "n": 5, "neighbours_found": 0.5 + 0.2 * i,
             "n_right": 4, "n_right_exact": 5, "search_ms": 3.0}
            for i, cell in enumerate(("noise0 5 s", "room5 5 s"))
            for n_probe in (None, 4)
        ],
        "change": {"audio_s": 60.0, "add_s": 3.0, "n_deleted": 9, "delete_s": 0.1},
    }  # fmt: skip


def scale_results() -> dict[str, Any]:
    row = {
        "query": "clean", "n_segments": 100, "rank": 1, "real": (0.7, 0.8, 0.9),
        "made_up": (0.6, 0.7, 0.8), "difference": -0.1,
    }  # fmt: skip
    return {
        "command": "python -m benchmarks scale",
        "machine": {"cpu": "a CPU", "n_cpus": 2, "load_average": [0.5, 0.4, 0.3]},
        "storage": "full",
        "n_queries": 10,
        "n_exact": 5,
        "references": {"n_tracks": 3, "n_segments": 90},
        "others": {"n_tracks": 8, "n_segments": 400},
        "likeness": {"all": [row], "few": [row]},
        "empty": {"audio_s": 60.0, "add_s": 2.0},
        "sizes": [
            catalog_results(name, n)
            for name, n in (("references", 90), ("real", 490), ("made-up", 5000))
        ],
    }  # fmt: skip


def test_page_contains_all_tables_and_marks_extrapolated_sizes() -> None:
    results = scale_results()
    shown = page(results)
    for table in (
        scale_tables.cost_table(results),
        scale_tables.recall_table(results),
        scale_tables.comparison_table(results),
        scale_tables.realism_table(results["likeness"]["all"]),
    ):
        assert table in shown
    costs = rows(scale_tables.cost_table(results))
    assert costs[0] == ["", "90 references", "490 real", "5,000 synthetic *"]
    assert "16 + 0 + 0 + 1" in [cell for row in costs for cell in row]
    expected = ["5,000 synthetic *", "4", "60.0%", "8", "10", "10", "3.0 ms"]
    assert expected in rows(scale_tables.comparison_table(results))
    assert "{" not in shown


def test_page_contains_note_and_estimates() -> None:
    results = scale_results()
    assert "Estimates for larger catalogs" in page(results)
    assert "\n\nThe machine was busy.\n\n## Real and synthetic" in page(
        results | {"note": "The machine was busy."}
    )
    flat = [one | {"n_shards": {"flat": 1}} for one in results["sizes"]]
    assert "Estimates for larger catalogs" not in page(results | {"sizes": flat})
