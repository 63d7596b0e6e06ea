"""Writers for evaluations of a catalog: its calibration and its robustness."""

from __future__ import annotations

from dataclasses import asdict
from typing import IO, TYPE_CHECKING

from astound.evaluation.statistics import Share
from astound.output.terminal import Row, write_csv, write_json, write_table

if TYPE_CHECKING:
    from astound.evaluation.calibrate import CalibrationReport
    from astound.evaluation.robustness import Cell, RobustnessReport

_ROBUSTNESS_COLUMNS = ["degradation", "duration_s", "n", "right", "accepted"]
_ROBUSTNESS_COLUMNS += ["median_offset_error_s", "false_accept_rate"]


def write_calibration(report: CalibrationReport, out: IO[str]) -> None:
    """Write how reliable a calibration is, as a table and a few lines of text."""
    headers = ("confidence", "answers", "mean", "right")
    rows = (
        (
            f"{one.low:.1f} – {one.high:.1f}",
            one.n,
            _percent(one.mean_confidence),
            _percent(one.share_right),
        )
        for one in report.reliability.bins
    )
    write_table(headers, rows, out, right=headers[1:])
    error, threshold = report.reliability.expected_error, report.calibration.min_confidence
    lines = (
        f"expected calibration error {'-' if error is None else f'{error:.3f}'}",
        f"best answer is right: {_interval(report.hits)}",
        f"right answers accepted: {_interval(report.accepted)}",
        f"false accepts: {_interval(report.false_accepts)}",
        f"threshold {threshold:.4f}, from clips of {report.n_tracks} tracks",
    )
    out.write("".join(f"{line}\n" for line in lines))


def write_robustness(report: RobustnessReport, form: str, out: IO[str]) -> None:
    """Write the robustness of a catalog in one of RECORD_FORMATS."""
    if form == "json":
        write_json(asdict(report), out)
    elif form == "csv":
        rate = {"false_accept_rate": report.false_accepts.value}
        write_csv(_ROBUSTNESS_COLUMNS, (_csv_row(cell) | rate for cell in report.cells), out)
    else:
        _write_robustness_table(report, out)


def _csv_row(cell: Cell) -> Row:
    return {
        "degradation": cell.degradation,
        "duration_s": cell.duration_s,
        "n": cell.hits.n,
        "right": cell.hits.value,
        "accepted": cell.found.value,
        "median_offset_error_s": cell.median_offset_error_s,
    }


def _write_robustness_table(report: RobustnessReport, out: IO[str]) -> None:
    durations = [f"{s:g} s" for s in sorted({cell.duration_s for cell in report.cells})]
    rows: dict[str, list[str]] = {}
    for cell in report.cells:
        rows.setdefault(cell.degradation, [cell.degradation]).append(_cell_text(cell))
    write_table(("right / accepted, error", *durations), rows.values(), out, right=durations)
    out.write(f"false accepts of music not in the catalog: {_interval(report.false_accepts)}\n")


def _cell_text(cell: Cell) -> str:
    error_s = cell.median_offset_error_s
    shares = f"{_percent(cell.hits.value)} / {_percent(cell.found.value)}"
    return shares if error_s is None else f"{shares}, {error_s:.2f} s"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _interval(share: Share) -> str:
    """Format a share with its interval."""
    if share.value is None or share.low is None or share.high is None:
        return "no queries"
    low, high = 100 * share.low, 100 * share.high
    return f"{_percent(share.value)} ({low:.1f}–{high:.1f} %) of {share.n}"
