"""Measurements as JSON files and Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.metrics import CellMetrics, Outcome, PresentMetrics, Share


def write(out: Path, results: Mapping[str, Any]) -> None:
    """Write results as one JSON object."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")


def noted(out: Path, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """Pass outcomes on, each written as a line of JSON at once: a run cut short leaves them."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", buffering=1) as file:
        for outcome in outcomes:
            file.write(json.dumps(asdict(outcome), allow_nan=False) + "\n")
            yield outcome


def key_values(rows: Mapping[str, str]) -> str:
    """Show named values as a Markdown table."""
    lines = [f"| {what} | {value} |" for what, value in rows.items()]
    return "\n".join(["| what | value |", "|---|---:|", *lines])


def accuracy_table(rows: Sequence[CellMetrics]) -> str:
    """Show cells as a Markdown table, shares in per cent with their 95 % intervals."""
    head = (
        "| query | n | hit rate % | exact % | near % | exact of hits % | median offset error | MRR"
        " | accepted % | wrong accepts % | false accepts % (absent) |"
    )
    rule = "|---|" + "---:|" * 10
    return "\n".join([head, rule, *(_row(row) for row in rows)])


def _row(row: CellMetrics) -> str:
    known = _present_columns(row.present) if row.present else ["-"] * 9
    unknown = _percent(row.absent.false_accept_rate) if row.absent else "-"
    return "| " + " | ".join([row.cell, *known, unknown]) + " |"


def _present_columns(present: PresentMetrics) -> list[str]:
    error_s, reciprocal = present.median_offset_error_s, present.mean_reciprocal_rank
    return [
        str(present.hit_rate.n),
        _percent(present.hit_rate),
        _percent(present.exact),
        _percent(present.near),
        _percent(present.exact_of_hits),
        "-" if error_s is None else f"{error_s * 1000:.0f} ms",
        "-" if reciprocal is None else f"{reciprocal:.3f}",
        _percent(present.accepted),
        _percent(present.wrong_accept),
    ]


def _percent(share: Share) -> str:
    if share.value is None or share.low is None or share.high is None:
        return "-"
    return f"{share.value * 100:.1f} ({share.low * 100:.1f}-{share.high * 100:.1f})"
