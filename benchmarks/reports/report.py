"""Results as JSON files and Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.metrics.outcomes import CellMetrics, PresentMetrics, Share
from benchmarks.queries.conditions import CellKey
from engine.files import atomic_write

_ACCURACY_HEAD = [
    "query", "n", "hit rate %", "exact %", "near %", "exact of hits %", "median offset error",
    "MRR", "accepted %", "wrong accepts %", "false accepts % (absent)",
]  # fmt: skip


def write(out: Path, results: Mapping[str, Any]) -> None:
    """Write results as one JSON object."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as partial:
        partial.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format rows as a Markdown table; all columns but the first are aligned right."""
    alignment = ["left", *["right"] * (len(head) - 1)]
    return tabulate(
        rows,
        headers=head,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=alignment if rows else None,
    )


def key_values(rows: Mapping[str, str]) -> str:
    """Format named values as a Markdown table."""
    return table(["what", "value"], [[what, value] for what, value in rows.items()])


def provenance_rows(results: Mapping[str, Any]) -> dict[str, str]:
    """Return what is needed to repeat a measurement, as named values."""
    machine = results["machine"]
    return {
        "command": results["command"],
        "commit": results["commit"] or "unknown",
        "recipe": results["recipe_id"],
        "seed": str(results["seed"]),
        "machine": f"{machine['n_cpus']} cores of {machine['cpu']}, {machine['system']}",
        "versions": ", ".join(f"{name} {machine[name]}" for name in ("python", "torch", "faiss")),
    }


def percent(
    share: Share | Mapping[str, Any], digits: int = 1, *, interval: bool = True, dash: str = "-"
) -> str:
    """Format a share in per cent with its 95 % interval; "-" if nothing was counted.

    Parameters
    ----------
    share : Share or mapping
        A share, or its JSON form.
    digits : int
        Digits after the point.
    interval : bool
        Whether to append the interval in brackets.
    dash : str
        Separator of the interval's ends.
    """
    fields = share if isinstance(share, Mapping) else vars(share)
    if fields["value"] is None:
        return "-"
    value, low, high = (f"{100 * fields[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low}{dash}{high})" if interval else value


# -- cells -----------------------------------------------------------------------------------


def accuracy_table(rows: Sequence[CellMetrics]) -> str:
    """Format cells as a Markdown table, shares in per cent with their 95 % intervals."""
    return table(_ACCURACY_HEAD, [_row(row) for row in rows])


def _row(row: CellMetrics) -> list[str]:
    present = _present_columns(row.present) if row.present else ["-"] * 9
    absent = percent(row.absent.false_accept_rate) if row.absent else "-"
    return [row.cell, *present, absent]


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


def hits_table(cells: Mapping[CellKey, CellMetrics]) -> str:
    """Format "hit rate / exact of hits": a row for each distortion, a column for each duration."""
    entries = {
        key: f"{_number(cell.present.hit_rate)} / {_number(cell.present.exact_of_hits)}"
        for key, cell in cells.items()
        if cell.present
    }
    return grid("hit rate / exact of hits, %", entries)


def acceptance_table(cells: Mapping[CellKey, CellMetrics]) -> str:
    """Format "kept / false accepts" with the same rows and columns.

    Kept are the right answers that pass the default threshold. False accepts are left out if there
    are no queries of absent music.
    """
    kept = {key: _number(cell.present.kept) for key, cell in cells.items() if cell.present}
    false = {
        key: _number(cell.absent.false_accept_rate) for key, cell in cells.items() if cell.absent
    }
    if not false:
        return grid("kept, %", kept)
    entries = {key: f"{kept.get(key, '-')} / {false.get(key, '-')}" for key in cells}
    return grid("kept / false accepts, %", entries)


def _number(share: Share) -> str:
    return percent(share, interval=False)


def grid(title: str, entries: Mapping[CellKey, str]) -> str:
    """Format a row for each label and a column for each duration; "-" without an entry."""
    labels = list(dict.fromkeys(label for label, _ in entries))
    durations_s = sorted({duration_s for _, duration_s in entries})
    rows = [
        [label, *(entries.get((label, duration_s), "-") for duration_s in durations_s)]
        for label in labels
    ]
    return table([title, *(f"{duration_s:g} s" for duration_s in durations_s)], rows)
