"""Progress of a measurement on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console

from astound.output.progress import progress_bar

T = TypeVar("T")


def log(text: str) -> None:
    """Write a line to stderr."""
    print(text, file=sys.stderr, flush=True)


def track(
    items: Iterable[T], what: str, total: int, n_before: int = 0, console: Console | None = None
) -> Iterator[T]:
    """Yield items and show their number and the time left.

    Parameters
    ----------
    items : iterable
    what : str
        What is counted, such as "questions".
    total : int
        Number of items, including `n_before`.
    n_before : int
        Number of items finished in an earlier run.
    console : Console, optional
        stderr by default.
    """
    with progress_bar(what, console, n_before=n_before) as update:
        for n_done, item in enumerate(items, n_before + 1):
            yield item
            update(n_done, total)
