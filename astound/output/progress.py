"""How far an ingest is, on stderr: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from indexer.report import IngestReport

LINE_EVERY_S = 10.0


@contextmanager
def shown(console: Console | None = None) -> Iterator[Callable[[IngestReport], None]]:
    """Show an ingest while the ``with`` block runs.

    Parameters
    ----------
    console : Console, optional
        stderr by default.

    Yields
    ------
    callable
        To be told the report so far after every file; each failure is shown as a line.
    """
    console = console or Console(stderr=True)
    follow = _on_terminal if console.is_terminal else _elsewhere
    with follow(console) as show:
        failures, estimate = _Failures(console), _Estimate()

        def tell(report: IngestReport) -> None:
            failures.tell(report)
            show(report, estimate.line(report))

        yield tell


_Show = Callable[[IngestReport, str], None]


@contextmanager
def _on_terminal(console: Console) -> Iterator[_Show]:
    columns = BarColumn(), TaskProgressColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("looking at the files", total=None)
        yield lambda report, line: bar.update(
            task, description=line, total=report.n_bytes, completed=report.n_bytes_done
        )


@contextmanager
def _elsewhere(console: Console) -> Iterator[_Show]:
    last = time.monotonic()

    def show(_: IngestReport, line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            _print(console, line)

    yield show


class _Failures:
    """Prints each failure once."""

    def __init__(self, console: Console) -> None:
        self._console, self._n_shown = console, 0

    def tell(self, report: IngestReport) -> None:
        for failure in report.failed[self._n_shown :]:
            _print(self._console, f"{failure.path}: {failure.reason}")
        self._n_shown = len(report.failed)


class _Estimate:
    """Words for how far it is; what was skipped unread says nothing about the time left."""

    def __init__(self) -> None:
        self._n_files = self._first_bytes = 0
        self._first_s: float | None = None

    def line(self, report: IngestReport) -> str:
        if self._first_s is None:
            self._first_s, self._first_bytes = report.elapsed_s, report.n_bytes_done
            self._n_files = len(report.skipped) + len(report.failed)
        self._n_files = min(self._n_files + 1, report.n_files)
        words = [f"{self._n_files}/{report.n_files} files"]
        if report.audio_s:
            words.append(f"{report.realtime_factor:.0f} × real time")
        if (left_s := self._left_s(report, self._first_s)) is not None:
            words.append(f"{_clock(left_s)} left")
        return ", ".join(words)

    def _left_s(self, report: IngestReport, first_s: float) -> float | None:
        n_bytes = report.n_bytes_done - self._first_bytes
        if n_bytes <= 0:
            return None
        return (report.elapsed_s - first_s) * (report.n_bytes - report.n_bytes_done) / n_bytes


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
