"""How what was measured on a catalog is written: as tables for people, as JSON, as CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import IO, TYPE_CHECKING

from rich import box
from rich.table import Table

from astound.evaluation.statistics import Share
from astound.output.matches import console

if TYPE_CHECKING:
    from astound.evaluation.calibrate import CalibrationReport
    from astound.evaluation.robustness import Cell, RobustnessReport


def write_calibration(report: CalibrationReport, out: IO[str]) -> None:
    """Write how far a calibration can be trusted."""
    table = _table("confidence", "answers", "mean", "right")
    for one in report.reliability.bins:
        mean, right = _percent(one.mean_confidence), _percent(one.share_right)
        table.add_row(f"{one.low:.1f} – {one.high:.1f}", str(one.n), mean, right)
    console(out).print(table)
    error, threshold = report.reliability.expected_error, report.calibration.min_confidence
    lines = (
        f"expected calibration error {'-' if error is None else f'{error:.3f}'}",
        f"best answer is right: {_interval(report.hits)}",
        f"right answers kept: {_interval(report.kept)}",
        f"false accepts: {_interval(report.false_accepts)}",
        f"threshold {threshold:.4f}, from clips of {report.n_tracks} tracks",
    )
    out.write("".join(f"{line}\n" for line in lines))


def write_robustness(report: RobustnessReport, form: str, out: IO[str]) -> None:
    """Write what to expect of a catalog in one of RECORD_FORMATS."""
    _ROBUSTNESS_FORMATS[form](report, out)


def _write_table(report: RobustnessReport, out: IO[str]) -> None:
    durations_s = sorted({one.duration_s for one in report.cells})
    table = _table("right / accepted, error", *(f"{one:g} s" for one in durations_s))
    for name in dict.fromkeys(one.degradation for one in report.cells):
        table.add_row(name, *(_shown(one) for one in report.cells if one.degradation == name))
    console(out).print(table)
    out.write("false accepts of music that is not in the catalog: ")
    out.write(f"{_interval(report.false_accepts)}\n")


def _shown(cell: Cell) -> str:
    error_s = cell.median_offset_error_s
    shares = f"{_percent(cell.hits.value)} / {_percent(cell.found.value)}"
    return shares if error_s is None else f"{shares}, {error_s:.2f} s"


def _write_json(report: RobustnessReport, out: IO[str]) -> None:
    out.write(json.dumps(asdict(report), ensure_ascii=False, indent=1) + "\n")


def _write_csv(report: RobustnessReport, out: IO[str]) -> None:
    columns = ["degradation", "duration_s", "n", "right", "accepted", "median_offset_error_s"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*columns, "false_accept_rate"])
    for one in report.cells:
        shares = one.hits.n, one.hits.value, one.found.value
        row = one.degradation, one.duration_s, *shares, one.median_offset_error_s
        writer.writerow([*row, report.false_accepts.value])


_ROBUSTNESS_FORMATS: dict[str, Callable[[RobustnessReport, IO[str]], None]] = {
    "table": _write_table,
    "json": _write_json,
    "csv": _write_csv,
}


def _table(*headers: str) -> Table:
    table = Table(*headers, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _interval(share: Share) -> str:
    """Show a share with its interval."""
    if share.value is None or share.low is None or share.high is None:
        return "none asked for"
    low, high = 100 * share.low, 100 * share.high
    return f"{_percent(share.value)} ({low:.1f}–{high:.1f} %) of {share.n}"
