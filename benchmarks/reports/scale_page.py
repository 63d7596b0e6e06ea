"""The page docs/scale.md, from the results of `bench scale`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reports import extrapolation
from benchmarks.reports.extrapolation import Extrapolation
from benchmarks.reports.scale_plots import COST_PLOT, RECALL_PLOT, plot
from benchmarks.reports.scale_tables import (
    comparison_table,
    cost_table,
    estimate_table,
    limits_table,
    realism_table,
    recall_table,
)
from benchmarks.reports.templates import render

Results = Mapping[str, Any]


def publish(results: Results, folder: Path) -> None:
    """Write scale.md and its plots into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scale.md").write_text(page(results))
    plot(results, folder)


def page(results: Results) -> str:
    """Render the page as Markdown."""
    values: dict[str, Any] = {
        "results": results,
        "costs": cost_table(results),
        "recall": recall_table(results),
        "comparisons": comparison_table(results),
        "realism": realism_table(results["likeness"]["all"]),
        "realism_few": realism_table(_largest(results["likeness"]["few"])),
        "cost_plot": COST_PLOT,
        "recall_plot": RECALL_PLOT,
        "extrapolation": None,
    }
    if extrapolation.is_possible(results):
        values |= {
            "extrapolation": Extrapolation(results),
            "usable": f"{100 * extrapolation.USABLE:.0f} %",
            "widest": f"{extrapolation.WIDEST:,}",
            "estimates": estimate_table(results),
            "limits": limits_table(results),
        }
    return render("scale.md.j2", **values)


def _largest(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    n_segments = max(row["n_segments"] for row in rows)
    return [row for row in rows if row["n_segments"] == n_segments]
