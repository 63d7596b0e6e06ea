"""A pool of processes with one thread each, so that answers do not depend on their number.

joblib does not fit: with one worker it runs in the calling process, with all its threads.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import chain
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_N_WAITING = 2
"""Number of waiting items per process; bounds memory."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def map_in_order(
    make: Callable[..., Callable[[T], R]],
    arguments: tuple[Any, ...],
    items: Iterable[T],
    n_processes: int,
) -> Iterator[R]:
    """Process items in child processes and yield the results in order.

    Even a single process is a child: with one thread in each, sums are added in the same order
    for any number of processes.

    Parameters
    ----------
    make : callable
        Called once in each process with `arguments`; returns the function to apply to items.
    arguments : tuple
    items : iterable
        Read as needed. Without any item no process is started.
    n_processes : int

    Raises
    ------
    AstoundError
        The function raised one.
    """
    rest = iter(items)
    for first in rest:
        with _pool(make, arguments, n_processes) as pool:
            waiting: deque[Future[R]] = deque()
            for item in chain([first], rest):
                waiting.append(_submit(pool, item))
                if len(waiting) > _N_WAITING * n_processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


@contextmanager
def _pool(
    make: Callable[..., Any], arguments: tuple[Any, ...], n_processes: int
) -> Iterator[ProcessPoolExecutor]:
    context = get_context("spawn")  # fork would copy the locks of other threads
    pool = ProcessPoolExecutor(n_processes, context, _initialise, (make, arguments))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, item: Any) -> Future[Any]:
    """Submit an item; a process that this starts inherits the limit of one thread."""
    before = {key: os.environ.get(key) for key in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        return pool.submit(_apply, item)
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


# -- in the child ------------------------------------------------------------------------------

_functions: list[Callable[[Any], Any]] = []


def _initialise(make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _functions.append(make(*arguments))


def _exit_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _apply(item: Any) -> Any:
    return _functions[0](item)
