"""Markdown table of `bench service`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.reports.report import table

Results = Mapping[str, Any]

_MB = 1e6


def summary_table(results: Results) -> str:
    """Format the key figures, beside what they are to be."""
    answers, health, clients = results["answers"], results["health"], results["clients"]
    at_once, upload, oversized = results["at_once"], results["upload"], results["oversized"]
    end, too_long = results["end"], results["end_too_long"]
    added_ms = answers["served_median_ms"] - answers["local_median_ms"]
    refused, mb = at_once["refused"], oversized["limit_bytes"] / _MB
    shown = "none" if refused is None else f"{refused['p50_ms']:.0f} / {refused['p95_ms']:.0f} ms"
    n_clients, n_each = clients["n_clients"], clients["n"] // clients["n_clients"]
    counts = ", ".join(f"{n} × {status}" for status, n in at_once["statuses"].items())
    rows = [
        (
            "answers that differ from the Python API",
            f"{answers['n_different']} of {results['n_clips']}",
            "0",
        ),
        (
            "5-s clip, median: Python API; service",
            f"{answers['local_median_ms']:.0f} ms; {added_ms:+.0f} ms",
            "+10 ms",
        ),
        (
            f"`/healthz` while {health['n_clients']} clients query, p99",
            f"{health['p99_ms']:.0f} ms",
            "50 ms",
        ),
        (f"{n_clients} clients × {n_each} queries: errors", str(clients["n_errors"]), "0"),
        (
            "latency p50 / p95 / p99",
            " / ".join(f"{clients[f'p{q}_ms']:.0f}" for q in (50, 95, 99)) + " ms",
            "",
        ),
        ("queries per second", f"{clients['queries_per_s']:.1f}", ""),
        (f"{at_once['n_clients']} clients at once: answers", counts, "200, 429, 503"),
        ("refusals, p50 / p95", shown, "100 ms"),
        (
            f"memory that an upload of {upload['n_bytes'] / _MB:.0f} MB takes",
            f"{upload['risen_bytes'] / _MB:.0f} MB",
            "64 MB",
        ),
        (
            f"written of an upload beyond {mb:.0f} MB",
            f"{oversized['n_written'] / _MB:.1f} MB ({oversized['status']})",
            f"{mb + 1:.0f} MB",
        ),
        (
            f"SIGTERM with {end['n_streams']} streams of events and a query",
            f"query {end['status']}, exit {end['exit_code']} after {end['elapsed_s']:.1f} s",
            "200, 0, 10 s",
        ),
        (
            "SIGTERM with a query that takes too long",
            f"query {too_long['status']}, exit {too_long['exit_code']} after "
            f"{too_long['elapsed_s']:.1f} s",
            "503, 0, 10 s",
        ),
    ]
    return table(["what", "measured", "goal"], rows)
