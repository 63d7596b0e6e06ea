"""Measurements as JSON files and Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.metrics import CellMetrics, PresentMetrics, Share

Place = tuple[str, float]
"""Label of a row and seconds of a column."""


_ACCURACY_HEAD = [
    "query", "n", "hit rate %", "exact %", "near %", "exact of hits %", "median offset error",
    "MRR", "accepted %", "wrong accepts %", "false accepts % (absent)",
]  # fmt: skip


def write(out: Path, results: Mapping[str, Any]) -> None:
    """Write results as one JSON object."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")


def key_values(rows: Mapping[str, str]) -> str:
    """Show named values as a Markdown table."""
    return table(["what", "value"], [[what, value] for what, value in rows.items()])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Show rows as a Markdown table, all columns but the first flush right."""
    rule = "|---|" + "---:|" * (len(head) - 1)
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]])


def accuracy_table(rows: Sequence[CellMetrics]) -> str:
    """Show cells as a Markdown table, shares in per cent with their 95 % intervals."""
    return table(_ACCURACY_HEAD, [_row(row) for row in rows])


def hits_table(cells: Mapping[Place, CellMetrics]) -> str:
    """Show a row for each distortion and a column for each duration: "hit rate / exact of hits".

    Parameters
    ----------
    cells : mapping of CellMetrics
        By label and duration in seconds.
    """
    entries = {
        place: f"{_number(cell.present.hit_rate)} / {_number(cell.present.exact_of_hits)}"
        for place, cell in cells.items()
        if cell.present
    }
    return _grid("hit rate / exact of hits, %", entries)


def acceptance_table(cells: Mapping[Place, CellMetrics]) -> str:
    """Show the same rows and columns with "kept / false accepts".

    Kept are the right answers that pass the default threshold. Without absent music, false accepts
    are left out.

    Parameters
    ----------
    cells : mapping of CellMetrics
        By label and duration in seconds.
    """
    kept = {place: _number(cell.present.kept) for place, cell in cells.items() if cell.present}
    false = {
        place: _number(cell.absent.false_accept_rate)
        for place, cell in cells.items()
        if cell.absent
    }
    if not false:
        return _grid("kept, %", kept)
    entries = {place: f"{kept.get(place, '-')} / {false.get(place, '-')}" for place in cells}
    return _grid("kept / false accepts, %", entries)


def _grid(title: str, entries: Mapping[Place, str]) -> str:
    labels = list(dict.fromkeys(label for label, _ in entries))
    durations_s = sorted({duration_s for _, duration_s in entries})
    rows = [
        [label, *(entries.get((label, duration_s), "-") for duration_s in durations_s)]
        for label in labels
    ]
    return table([title, *(f"{duration_s:g} s" for duration_s in durations_s)], rows)


def _row(row: CellMetrics) -> list[str]:
    known = _present_columns(row.present) if row.present else ["-"] * 9
    unknown = percent(row.absent.false_accept_rate) if row.absent else "-"
    return [row.cell, *known, unknown]


def _present_columns(present: PresentMetrics) -> list[str]:
    error_s, reciprocal = present.median_offset_error_s, present.mean_reciprocal_rank
    return [
        str(present.hit_rate.n),
        percent(present.hit_rate),
        percent(present.exact),
        percent(present.near),
        percent(present.exact_of_hits),
        "-" if error_s is None else f"{error_s * 1000:.0f} ms",
        "-" if reciprocal is None else f"{reciprocal:.3f}",
        percent(present.accepted),
        percent(present.wrong_accept),
    ]


def percent(share: Share) -> str:
    """Show a share in per cent with its 95 % interval."""
    if share.value is None or share.low is None or share.high is None:
        return "-"
    return f"{share.value * 100:.1f} ({share.low * 100:.1f}-{share.high * 100:.1f})"


def _number(share: Share) -> str:
    return "-" if share.value is None else f"{share.value * 100:.1f}"
