"""A function in a process of its own, and what that costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import psutil

from engine.errors import AstoundError

_POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a process cost.

    Parameters
    ----------
    wall_s : float
        Of the function; the process itself was there already.
    peak_rss_bytes : int
        Resident memory of it and its children together, looked at twenty times a second. Pages
        they share are counted for each of them: an upper bound.
    """

    wall_s: float
    peak_rss_bytes: int


def measured(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Cost]:
    """Call a function in a fresh process.

    Parameters
    ----------
    function : callable
        Of a module; it and its arguments go from process to process, as does what it returns.

    Returns
    -------
    object, Cost

    Raises
    ------
    AstoundError
        The function raised one (it is always of the root class), or the process died.
    """
    context = get_context("spawn")  # a fork would have this process's memory
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_call, args=(sending, function, arguments))
    child.start()
    sending.close()
    peak_bytes = _watch(receiving, psutil.Process(child.pid))
    try:
        returned, wall_s, error = receiving.recv()
    except EOFError:
        child.join()
        raise AstoundError(f"its process ended with {child.exitcode}") from None
    child.join()
    if error is not None:
        raise AstoundError(error)
    return returned, Cost(wall_s=wall_s, peak_rss_bytes=peak_bytes)


def _call(sending: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    began = time.perf_counter()
    try:
        returned, error = function(*arguments), None
    except AstoundError as raised:  # its subclasses do not survive the way between processes
        returned, error = None, str(raised)
    sending.send((returned, time.perf_counter() - began, error))


def _watch(receiving: Connection, process: psutil.Process) -> int:
    """Wait until there is something to receive; give the peak of the memory until then."""
    peak_bytes = 0
    while not receiving.poll(_POLL_S):
        peak_bytes = max(peak_bytes, _tree_memory(process))
    return peak_bytes


def _tree_memory(process: psutil.Process) -> int:
    n_bytes = 0
    try:
        for member in (process, *process.children(recursive=True)):
            n_bytes += member.memory_info().rss
    except psutil.NoSuchProcess:  # one that ends between being listed and being asked
        return 0
    return n_bytes
