"""Progress on stderr: a bar on a terminal, a line every ten seconds on other streams."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.status import Status

from astound.output.terminal import amount, cell
from indexer.report import IngestReport

LINE_EVERY_S = 10.0


def spinner(doing: str) -> Status:
    """Show a spinner on stderr while the ``with`` block runs."""
    return Console(stderr=True).status(doing)


@contextmanager
def progress_bar(
    doing: str, console: Console | None = None, *, n_before: int = 0
) -> Iterator[Callable[[int, int], None]]:
    """Show the progress of a task while the ``with`` block runs.

    Parameters
    ----------
    doing : str
        The task, such as "merging".
    console : Console, optional
        stderr by default.
    n_before : int
        Number of items done in an earlier run.

    Yields
    ------
    callable
        To be called with the number of items done, those of earlier runs included, and in total.
    """
    with _open_bar(doing, console) as bar:
        start_s = time.monotonic()

        def update(n_done: int, n_all: int) -> None:
            elapsed_s = time.monotonic() - start_s
            left = _left(elapsed_s, n_done - n_before, n_all - n_before)
            bar.update(f"{doing}: {n_done}/{n_all}{left}", n_done, n_all)

        yield update


@contextmanager
def ingest_progress(console: Console | None = None) -> Iterator[Callable[[IngestReport], None]]:
    """Show the progress of an ingest while the ``with`` block runs.

    Parameters
    ----------
    console : Console, optional
        stderr by default.

    Yields
    ------
    callable
        To be called with the report so far after every file. Prints each failure and warning once.
    """
    with _open_bar("finding files", console) as bar:
        estimate, n_failures, n_warnings = _IngestEstimate(), 0, 0

        def update(report: IngestReport) -> None:
            nonlocal n_failures, n_warnings
            for warned in report.warned[n_warnings:]:
                bar.print(f"{warned.path}: {warned.reason}")
            for failure in report.failed[n_failures:]:
                bar.print(f"{failure.path}: {failure.reason}")
            n_failures, n_warnings = len(report.failed), len(report.warned)
            bar.update(estimate.describe(report), report.n_bytes_done, report.n_bytes)

        yield update


@contextmanager
def scan_progress(
    path: str, start_s: float, end_s: float | None, console: Console | None = None
) -> Iterator[Callable[[float], None]]:
    """Show the progress of a scan while the ``with`` block runs.

    Parameters
    ----------
    path : str
        The recording.
    start_s, end_s : float
        The part that is scanned, in seconds; to the end of the recording if `end_s` is None.
    console : Console, optional
        stderr by default.

    Yields
    ------
    callable
        To be called with the seconds scanned.
    """
    name, total_s = cell(path), None if end_s is None else end_s - start_s
    with _open_bar(name, console) as bar:
        began_s = time.monotonic()

        def update(scanned_s: float) -> None:
            factor = scanned_s / max(time.monotonic() - began_s, 1e-3)
            text = f"{name}: {amount(scanned_s)} scanned, {factor:.0f} × real time"
            bar.update(text, scanned_s, total_s)

        yield update


@contextmanager
def _open_bar(description: str, console: Console | None) -> Iterator[_Bar]:
    console = console or Console(stderr=True)
    columns = BarColumn(), TextColumn("{task.description}", markup=False)
    is_terminal = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not is_terminal) as progress:
        yield _Bar(progress, progress.add_task(description, total=None))


@dataclass
class _Bar:
    progress: Progress
    task: TaskID
    last_line_s: float = field(default_factory=time.monotonic)

    def update(self, description: str, done: float, total: float | None) -> None:
        if not self.progress.disable:
            self.progress.update(self.task, description=description, completed=done, total=total)
        elif time.monotonic() - self.last_line_s >= LINE_EVERY_S:
            self.last_line_s = time.monotonic()
            self.print(description)

    def print(self, line: str) -> None:
        line = cell(line)
        self.progress.console.print(
            line, markup=False, emoji=False, highlight=False, soft_wrap=True
        )


class _IngestEstimate:
    """Files done, speed and time left; files that were skipped unread do not count as speed."""

    def __init__(self) -> None:
        self._n_files = self._first_bytes = 0
        self._first_s: float | None = None

    def describe(self, report: IngestReport) -> str:
        if self._first_s is None:
            self._first_s, self._first_bytes = report.elapsed_s, report.n_bytes_done
            self._n_files = len(report.skipped) + len(report.failed)
        self._n_files = min(self._n_files + 1, report.n_files)
        n_done, n_all = (n - self._first_bytes for n in (report.n_bytes_done, report.n_bytes))
        speed = f", {report.realtime_factor:.0f} × real time" if report.audio_s else ""
        left = _left(report.elapsed_s - self._first_s, n_done, n_all)
        return f"{self._n_files}/{report.n_files} files{speed}{left}"


def _left(elapsed_s: float, n_done: float, n_all: float) -> str:
    """Estimate the time left, as ", 1:01 left"; "" before anything is done."""
    if n_done <= 0:
        return ""
    minutes, seconds = divmod(round(elapsed_s * (n_all - n_done) / n_done), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f", {clock} left"
