"""A retrieval run as pages: Markdown, and one HTML page without external resources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.reports import plots, report
from benchmarks.reports.report import percent, table
from benchmarks.reports.templates import render

Results = Mapping[str, Any]
Rows = tuple[list[str], list[list[str]]]
"""Head and rows of a table."""


def markdown(results: Results) -> str:
    """Render a retrieval run as Markdown.

    Parameters
    ----------
    results : mapping
        Content of results.json.
    """
    values = _values(results)
    values["provenance"] |= {"command": f"`{results['command']}`"}
    return render("retrieval.md.j2", **values, table=table)


def html(results: Results) -> str:
    """Render a retrieval run as an HTML page.

    Parameters
    ----------
    results : mapping
        Content of results.json.
    """
    return render("retrieval.html.j2", **_values(results), plots=plots)


def _values(results: Results) -> dict[str, Any]:
    return {
        "results": results,
        "n_queries": _n_queries(results),
        "overall": _overall(results),
        "missing_options": _missing_options(results),
        "grids": grids(results["cells"]),
        "thresholds": results["open_set"] and thresholds(results["open_set"]),
        "reliability": reliability(results["calibration"]),
        "provenance": _provenance(results),
    }


def _n_queries(results: Results) -> int:
    halves = (
        (results["all"]["present"], "hit_rate"),
        (results["all"]["absent"], "false_accept_rate"),
    )
    return sum(half[key]["n"] for half, key in halves if half)


def _overall(results: Results) -> dict[str, Entry]:
    """Return the shares over all cells by their key; those without queries are left out."""
    halves = {"hit_rate": "present", "exact": "present", "false_accept_rate": "absent"}
    entries = {
        key: share_entry(results["all"][half][key])
        for key, half in halves.items()
        if results["all"][half]
    }
    return {key: entry for key, entry in entries.items() if entry}


def _missing_options(results: Results) -> list[str]:
    left_out = results.get("left_out") or {}
    return [
        f"--{option}" for option in sorted({name for names in left_out.values() for name in names})
    ]


# -- grids -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A value with its 95 % interval, and its quality from 0 to 1 if it has one."""

    value: str
    interval: str = ""
    goodness: float | None = None

    def __str__(self) -> str:
        return f"{self.value} ({self.interval})" if self.interval else self.value


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One measure: a row for each distortion, a column for each duration.

    Parameters
    ----------
    measure : str
        Key of its title and note in the templates.
    durations_s : tuple of float
        The columns.
    rows : mapping of sequence of (Entry or None)
        By label; None without a value.
    """

    measure: str
    durations_s: tuple[float, ...]
    rows: Mapping[str, Sequence[Entry | None]]

    @property
    def table(self) -> Rows:
        """Head and rows of a Markdown table."""
        head = ["", *(f"{duration_s:g} s" for duration_s in self.durations_s)]
        return head, [[label, *(str(e or "-") for e in row)] for label, row in self.rows.items()]


def grids(cells: Sequence[Mapping[str, Any]]) -> list[Grid]:
    """Make the grids of all measures that have a value.

    Parameters
    ----------
    cells : sequence of mapping
        Cells of results.json: label, duration_s, and the metrics of present and absent music.
    """
    found = [_grid(cells, measure, entry) for measure, entry in _MEASURES.items()]
    return [grid for grid in found if any(entry for row in grid.rows.values() for entry in row)]


def _grid(
    cells: Sequence[Mapping[str, Any]], measure: str, entry: Callable[[Any], Entry | None]
) -> Grid:
    labels = list(dict.fromkeys(cell["label"] for cell in cells))
    durations_s = tuple(sorted({cell["duration_s"] for cell in cells}))
    entries = {(cell["label"], cell["duration_s"]): entry(cell) for cell in cells}
    rows = {label: [entries.get((label, s)) for s in durations_s] for label in labels}
    return Grid(measure=measure, durations_s=durations_s, rows=rows)


def share_entry(share: Mapping[str, Any], *, is_good: bool = True) -> Entry | None:
    """Format a share in per cent; None if nothing was counted."""
    if share["value"] is None:
        return None
    value, _, interval = percent(share, dash="–").partition(" ")
    goodness = share["value"] if is_good else 1 - share["value"]
    return Entry(value=value, interval=interval.strip("()"), goodness=goodness)


def _share(half: str, key: str, *, is_good: bool = True) -> Callable[[Any], Entry | None]:
    return lambda cell: cell[half] and share_entry(cell[half][key], is_good=is_good)


def _reciprocal_rank(cell: Mapping[str, Any]) -> Entry | None:
    if not cell["present"]:
        return None
    value = cell["present"]["mean_reciprocal_rank"]
    low, high = cell["present"]["mean_reciprocal_rank_interval"]
    return Entry(value=f"{value:.3f}", interval=f"{low:.3f}–{high:.3f}", goodness=value)


def _offset_error(cell: Mapping[str, Any]) -> Entry | None:
    present = cell["present"]
    if not present or present["median_offset_error_s"] is None:
        return None
    low_s, high_s = present["median_offset_error_interval_s"]
    value_ms = 1000 * present["median_offset_error_s"]
    return Entry(value=f"{value_ms:.0f}", interval=f"{1000 * low_s:.0f}–{1000 * high_s:.0f}")


_MEASURES: Mapping[str, Callable[[Any], Entry | None]] = {
    "hit_rate": _share("present", "hit_rate"),
    "exact": _share("present", "exact"),
    "near": _share("present", "near"),
    "reciprocal_rank": _reciprocal_rank,
    "offset_error": _offset_error,
    "kept": _share("present", "kept"),
    "false_accept_rate": _share("absent", "false_accept_rate", is_good=False),
}


# -- tables ----------------------------------------------------------------------------------


def thresholds(open_set: Mapping[str, Any]) -> Rows:
    """Return the operating points as head and rows."""
    points = {"default": open_set["default"], "1 % of false accepts": open_set["one_percent"]}
    rows = [
        [
            name,
            f"{point['threshold']:.3f}",
            str(share_entry(point["false_accept_rate"])),
            str(share_entry(point["false_reject_rate"])),
        ]
        for name, point in points.items()
    ]
    return ["threshold", "confidence", "false accepts, %", "false rejects, %"], rows


def reliability(calibration: Mapping[str, Any]) -> Rows:
    """Return the bins of confidence and the expected calibration error as head and rows."""
    rows = [
        [
            f"{bin_['low']:.1f}–{bin_['high']:.1f}",
            str(bin_["n"]),
            f"{bin_['mean_confidence']:.3f}",
            f"{bin_['share_right']:.3f}",
        ]
        for bin_ in calibration["bins"]
        if bin_["n"]
    ]
    if calibration["expected_error"] is not None:
        rows.append(["expected calibration error", "", "", f"{calibration['expected_error']:.3f}"])
    return ["confidence", "answers", "mean confidence", "share right"], rows


def _provenance(results: Results) -> dict[str, str]:
    rooms = results["rooms"]
    return report.provenance_rows(results) | {
        "query tracks": ", ".join(f"{n} {k}" for k, n in results["n_tracks_asked_for"].items()),
        "rooms": f"{rooms['n_used']} used, {len(rooms['refused'])} rejected" if rooms else "none",
    }
