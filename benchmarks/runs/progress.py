"""How far a measurement is, on stderr: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

LINE_EVERY_S = 10.0


def followed(
    items: Iterable[T], what: str, n_all: int, n_before: int = 0, console: Console | None = None
) -> Iterator[T]:
    """Pass items on, and show how many there were and how long the rest will take.

    Parameters
    ----------
    items : iterable
    what : str
        What is counted, such as "questions".
    n_all, n_before : int
        How many there are altogether, and how many were done in an earlier run.
    console : Console, optional
        stderr by default.
    """
    console = console or Console(stderr=True)
    follow = _on_terminal if console.is_terminal else _elsewhere
    return follow(items, what, n_all, n_before, console)


def _on_terminal(
    items: Iterable[T], what: str, n_all: int, n_before: int, console: Console
) -> Iterator[T]:
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=n_all, completed=n_before)
        for item in items:
            yield item
            bar.advance(task)


def _elsewhere(
    items: Iterable[T], what: str, n_all: int, n_before: int, console: Console
) -> Iterator[T]:
    begun = last = time.monotonic()
    for n_done, item in enumerate(items, 1):
        yield item
        if (now := time.monotonic()) - last >= LINE_EVERY_S:
            last = now
            left_s = (now - begun) * (n_all - n_before - n_done) / n_done
            line = f"{n_before + n_done}/{n_all} {what}, about {left_s / 60:.0f} min left"
            console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
