"""Markdown tables of `bench peers`: accuracy, costs, and how each system is queried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.reports.report import percent, table


def tables(results: Mapping[str, Any]) -> str:
    """Format all tables."""
    systems = results["systems"]
    parts = [_accuracy(systems), _costs(systems), _systems(systems, results["left_out"])]
    return "\n\n".join(parts)


def _accuracy(systems: Mapping[str, Any]) -> str:
    rows: dict[str, list[str]] = {}
    for system in systems.values():
        for cell in system["cells"]:
            rows.setdefault(cell["cell"], []).append(_right(cell))
    head = ["right / within 0.5 s / within 0.25 s / wrong; absent answered, %", *systems]
    return table(head, [[name, *entries] for name, entries in rows.items()])


def _right(cell: Mapping[str, Any]) -> str:
    present, absent = cell["present"], cell["absent"]
    shown = "-"
    if present:
        names = "hit_rate", "near", "exact", "wrong_accept"
        shown = " / ".join(_percent(present[name]) for name in names)
    return f"{shown}; {_percent(absent['false_accept_rate']) if absent else '-'}"


def _percent(share: Mapping[str, Any]) -> str:
    return percent(share, digits=0, interval=False)


def _costs(systems: Mapping[str, Any]) -> str:
    head = [
        "system", "ingest, × real time", "query, median / 95 % / mean, ms",
        "in a batch: clean / noise0 / absent, ms",
        "peak memory, ingest / queries, MiB", "index, bytes per second of audio",
    ]  # fmt: skip
    return table(head, [[name, *_cost(one)] for name, one in systems.items()])


def _cost(system: Mapping[str, Any]) -> list[str]:
    latency = system["latency"]
    latencies_ms = (latency.get(key) for key in ("median_ms", "p95_ms", "mean_ms"))
    memory = (system[f"{step}_peak_rss_bytes"] / 2**20 for step in ("ingest", "ask"))
    return [
        f"{system['ingest_realtime_factor']:.0f}",
        " / ".join(map(_ms, latencies_ms)),
        " / ".join(_ms(s and 1000 * s) for s in system["batch_s"]),
        " / ".join(f"{one:.0f}" for one in memory),
        f"{system['bytes_per_audio_s']:.0f}",
    ]


def _ms(duration_ms: float | None) -> str:
    return "-" if duration_ms is None else f"{duration_ms:.0f}"


def _systems(systems: Mapping[str, Any], left_out: Mapping[str, str]) -> str:
    rows = [[name, one["version"], one["asked"], one["options"]] for name, one in systems.items()]
    rows += [[name, "-", "not measured", reason] for name, reason in left_out.items()]
    return table(["system", "version", "queried by", "options"], rows)
