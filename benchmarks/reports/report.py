"""Measurements as JSON files and Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.metrics.outcomes import CellMetrics, PresentMetrics, Share
from benchmarks.reports.grids import Grid, grids, share_entry
from engine.files import atomic_write

Place = tuple[str, float]
"""Label of a row and seconds of a column."""

Rows = tuple[list[str], list[list[str]]]
"""Head and rows of a table."""

_ACCURACY_HEAD = [
    "query", "n", "hit rate %", "exact %", "near %", "exact of hits %", "median offset error",
    "MRR", "accepted %", "wrong accepts %", "false accepts % (absent)",
]  # fmt: skip


def write(out: Path, results: Mapping[str, Any]) -> None:
    """Write results as one JSON object."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as partial:
        partial.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")


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
    return grid("hit rate / exact of hits, %", entries)


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
        return grid("kept, %", kept)
    entries = {place: f"{kept.get(place, '-')} / {false.get(place, '-')}" for place in cells}
    return grid("kept / false accepts, %", entries)


def grid(title: str, entries: Mapping[Place, str]) -> str:
    """Show a row for each label and a column for each duration, "-" where nothing was measured."""
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


# -- a run of retrieval ----------------------------------------------------------------------


def markdown(results: Mapping[str, Any]) -> str:
    """Write a run of retrieval down: what came out, and how it was measured."""
    parts = ["# Retrieval", summary(results)]
    for grid in grids(results["cells"]):
        parts += [f"## {grid.title}", grid.note, _grid_table(grid)]
    if results["open_set"]:
        parts += ["## Known or unknown", OPEN_SET_NOTE, table(*thresholds(results["open_set"]))]
    parts += ["## Calibration", CALIBRATION_NOTE, table(*reliability(results["calibration"]))]
    parts += ["## How it was measured", table(["what", ""], recipe(results))]
    return "\n\n".join(parts) + "\n"


INTERVALS_NOTE = (
    "Intervals hold 95 %; tracks were drawn again, with all their queries. Where all queries of a "
    "cell agree they are Wilson's, of as many queries as tracks."
)
OPEN_SET_NOTE = (
    "False accepts: queries of music that is not in the catalog and get a match. False rejects: "
    "queries of music that is, and do not get the right match. Both are those of this mixture of "
    "degradations."
)
CALIBRATION_NOTE = "What answers of similar confidence promise, and how many of them are right."


def summary(results: Mapping[str, Any]) -> str:
    """Say in a paragraph what was asked of what, and what came out."""
    catalog, every = results["catalog"], results["all"]
    said = [
        f"{_n_queries(results)} queries of a catalog of {catalog['n_tracks']} tracks, "
        f"{catalog['duration_s'] / 3600:.1f} hours."
    ]
    for half, key, words in (
        ("present", "hit_rate", "Right track"),
        ("present", "exact", "Right track within 0.25 s"),
        ("absent", "false_accept_rate", "False accepts"),
    ):
        if every[half] and (entry := share_entry(every[half][key])):
            said.append(f"{words}: {entry.value} % ({entry.interval}).")
    if left_out := results.get("left_out"):
        lacking = {option for lacks in left_out.values() for option in lacks}
        without = " and ".join(f"--{option}" for option in sorted(lacking))
        said.append(f"Left out without {without}: {', '.join(left_out)}.")
    return " ".join([*said, INTERVALS_NOTE])


def _n_queries(results: Mapping[str, Any]) -> int:
    halves = (
        (results["all"]["present"], "hit_rate"),
        (results["all"]["absent"], "false_accept_rate"),
    )
    return sum(half[key]["n"] for half, key in halves if half)


def _grid_table(grid: Grid) -> str:
    head = ["", *(f"{duration_s:g} s" for duration_s in grid.durations_s)]
    return table(head, [[label, *(str(e or "-") for e in row)] for label, row in grid.rows.items()])


def thresholds(found: Mapping[str, Any]) -> Rows:
    """Show the operating points as head and rows."""
    points = {"default": found["default"], "1 % of false accepts": found["one_percent"]}
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


def reliability(found: Mapping[str, Any]) -> Rows:
    """Show the bins of confidence, and the expected calibration error, as head and rows."""
    rows = [
        [
            f"{one['low']:.1f}–{one['high']:.1f}",
            str(one["n"]),
            f"{one['mean_confidence']:.3f}",
            f"{one['share_right']:.3f}",
        ]
        for one in found["bins"]
        if one["n"]
    ]
    if found["expected_error"] is not None:
        rows.append(["expected calibration error", "", "", f"{found['expected_error']:.3f}"])
    return ["confidence", "answers", "mean confidence", "share right"], rows


def recipe(results: Mapping[str, Any]) -> list[list[str]]:
    """List what is needed to measure the same again."""
    machine = results["machine"]
    rooms = results["rooms"]
    rows = {
        "command": f"`{results['command']}`",
        "commit": results["commit"] or "not known",
        "recipe": results["recipe_id"],
        "seed": str(results["seed"]),
        "tracks asked for": ", ".join(f"{n} {k}" for k, n in results["n_tracks_asked_for"].items()),
        "rooms": f"{rooms['n_used']} used, {len(rooms['refused'])} refused" if rooms else "none",
        "machine": f"{machine['n_cpus']} cores of {machine['cpu']}, {machine['system']}",
        "versions": ", ".join(f"{name} {machine[name]}" for name in ("python", "torch", "faiss")),
    }
    return [[what, value] for what, value in rows.items()]
