"""Several processes at work on one list, each with one thread: the answers are those of one."""

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

from engine.errors import AstoundError

T = TypeVar("T")
R = TypeVar("R")

_N_AHEAD = 2
"""Items that wait for each process: what bounds memory."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def in_order(
    make: Callable[..., Callable[[T], R]],
    arguments: tuple[Any, ...],
    items: Iterable[T],
    n_processes: int,
) -> Iterator[R]:
    """Answer items in child processes, in the order of the items.

    Even a single process is a child: with one thread each, sums are taken in the same order
    whatever their number.

    Parameters
    ----------
    make : callable
        Called once in each process with `arguments`; gives what answers an item.
    arguments : tuple
    items : iterable
        Taken as they are needed; no process is started when there are none.
    n_processes : int

    Raises
    ------
    AstoundError
        An item raised one; it is always of the root class.
    """
    rest = iter(items)
    for first in rest:  # without one, nothing is started
        with _opened(make, arguments, n_processes) as pool:
            waiting: deque[Future[R]] = deque()
            for item in chain([first], rest):
                waiting.append(_submit(pool, item))
                if len(waiting) > _N_AHEAD * n_processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


@contextmanager
def _opened(
    make: Callable[..., Any], arguments: tuple[Any, ...], n_processes: int
) -> Iterator[ProcessPoolExecutor]:
    context = get_context("spawn")  # a fork would copy the locks of other threads
    pool = ProcessPoolExecutor(n_processes, context, _begin, (make, arguments))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, item: Any) -> Future[Any]:
    """Hand an item in; a process that is started for it inherits one thread."""
    before = {key: os.environ.get(key) for key in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        return pool.submit(_answer, item)
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


# -- in the child ------------------------------------------------------------------------------

_made: list[Callable[[Any], Any]] = []


def _begin(make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _made.append(make(*arguments))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _answer(item: Any) -> Any:
    try:
        return _made[0](item)
    except AstoundError as error:
        # Its subclasses do not survive the way between processes.
        raise AstoundError(str(error)) from error
