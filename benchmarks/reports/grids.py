"""One measure of retrieval at a time: a row for each distortion, a column for each duration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Cells = Sequence[Mapping[str, Any]]
"""Cells as results hold them: label, duration_s, and the metrics of both halves or None."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A value, its 95 % interval, and how good it is, from 0 to 1, None for neither."""

    value: str
    interval: str = ""
    goodness: float | None = None

    def __str__(self) -> str:
        return f"{self.value} ({self.interval})" if self.interval else self.value


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A measure by distortion and duration.

    Parameters
    ----------
    title, note : str
        What is measured, with its unit, and what that means.
    durations_s : tuple of float
        The columns.
    rows : mapping of sequence of (Entry or None)
        By label; None where nothing was measured.
    """

    title: str
    note: str
    durations_s: tuple[float, ...]
    rows: Mapping[str, Sequence[Entry | None]]


def grids(cells: Cells) -> list[Grid]:
    """Lay out all measures that anything was measured of."""
    found = [_grid(cells, *measure) for measure in _MEASURES]
    return [grid for grid in found if any(entry for row in grid.rows.values() for entry in row)]


def _grid(cells: Cells, title: str, note: str, entry: Callable[[Any], Entry | None]) -> Grid:
    labels = list(dict.fromkeys(cell["label"] for cell in cells))
    durations_s = tuple(sorted({cell["duration_s"] for cell in cells}))
    there = {(cell["label"], cell["duration_s"]): entry(cell) for cell in cells}
    rows = {label: [there.get((label, s)) for s in durations_s] for label in labels}
    return Grid(title=title, note=note, durations_s=durations_s, rows=rows)


def share_entry(share: Mapping[str, Any], *, is_good: bool = True) -> Entry | None:
    """Show a share in per cent; None if nothing was counted."""
    if share["value"] is None:
        return None
    value, low, high = (100 * share[key] for key in ("value", "low", "high"))
    goodness = share["value"] if is_good else 1 - share["value"]
    return Entry(value=f"{value:.1f}", interval=f"{low:.1f}–{high:.1f}", goodness=goodness)


def _share(half: str, key: str, *, is_good: bool = True) -> Callable[[Any], Entry | None]:
    return lambda cell: cell[half] and share_entry(cell[half][key], is_good=is_good)


def _reciprocal(cell: Mapping[str, Any]) -> Entry | None:
    if not cell["present"]:
        return None
    value, (low, high) = (
        cell["present"][key] for key in ("mean_reciprocal_rank", "mean_reciprocal_rank_interval")
    )
    return Entry(value=f"{value:.3f}", interval=f"{low:.3f}–{high:.3f}", goodness=value)


def _error(cell: Mapping[str, Any]) -> Entry | None:
    present = cell["present"]
    if not present or present["median_offset_error_s"] is None:
        return None
    low_s, high_s = present["median_offset_error_interval_s"]
    value_ms = 1000 * present["median_offset_error_s"]
    return Entry(value=f"{value_ms:.0f}", interval=f"{1000 * low_s:.0f}–{1000 * high_s:.0f}")


_MEASURES: tuple[tuple[str, str, Callable[[Any], Entry | None]], ...] = (
    (
        "Hit rate, %",
        "The best answer is the right track, whatever its confidence.",
        _share("present", "hit_rate"),
    ),
    (
        "Exact hit rate, %",
        "And its time is right within 0.25 s. A passage that comes again in the track counts as "
        "wrong when its other occurrence is the answer.",
        _share("present", "exact"),
    ),
    ("Near hit rate, %", "And its time is right within 0.5 s.", _share("present", "near")),
    (
        "Mean reciprocal rank",
        "1 over the rank of the right track, 0 where it is not among the first five.",
        _reciprocal,
    ),
    ("Median offset error, ms", "Of the right tracks, without sign.", _error),
    (
        "Kept, %",
        "Of the right tracks, those that pass the default threshold.",
        _share("present", "kept"),
    ),
    (
        "False accepts, %",
        "Queries of music that is not in the catalog and get a match at the default threshold.",
        _share("absent", "false_accept_rate", is_good=False),
    ),
)
