"""How much of something is done, on stderr: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0


@contextmanager
def counted(doing: str, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """Show how far something is while the ``with`` block runs.

    Parameters
    ----------
    doing : str
        What is done, such as "merging".
    console : Console, optional
        stderr by default.

    Yields
    ------
    callable
        To be told how much is done, and how much there is.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(doing, console)
        return
    columns = TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda n_done, n_all: bar.update(task, completed=n_done, total=n_all)


class _Lines:
    def __init__(self, doing: str, console: Console) -> None:
        self._doing, self._console, self._last = doing, console, time.monotonic()

    def __call__(self, n_done: int, n_all: int) -> None:
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            self._console.print(f"{self._doing}: {n_done}/{n_all}", highlight=False)
