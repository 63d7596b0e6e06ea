"""Run a function in a process of its own and measure its time and memory."""

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
    """Time and memory of a function call.

    Parameters
    ----------
    wall_s : float
        Without the start of the process.
    peak_rss_bytes : int
        Resident memory of the process and its children together, sampled 20 times a second. Shared
        pages count for each process: an upper bound.
    """

    wall_s: float
    peak_rss_bytes: int


def run_in_process(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Cost]:
    """Call a function in a fresh process.

    Parameters
    ----------
    function : callable
        A function of a module. The arguments and the result must be picklable.

    Returns
    -------
    object, Cost

    Raises
    ------
    AstoundError
        The function raised one, or the process died.
    """
    context = get_context("spawn")  # fork would share this process's memory
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_call, args=(sender, function, arguments))
    child.start()
    sender.close()
    peak_bytes = _watch(receiver, psutil.Process(child.pid))
    try:
        returned, wall_s, error = receiver.recv()
    except EOFError:
        child.join()
        raise AstoundError(f"child process ended with exit code {child.exitcode}") from None
    child.join()
    if error is not None:
        raise error
    return returned, Cost(wall_s=wall_s, peak_rss_bytes=peak_bytes)


def _call(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    start = time.perf_counter()
    returned, error = None, None
    try:
        returned = function(*arguments)
    except AstoundError as raised:
        error = raised
    sender.send((returned, time.perf_counter() - start, error))


def _watch(receiver: Connection, process: psutil.Process) -> int:
    """Wait for a message; return the peak memory until then, in bytes."""
    peak_bytes = 0
    while not receiver.poll(_POLL_S):
        peak_bytes = max(peak_bytes, _tree_memory(process))
    return peak_bytes


def _tree_memory(process: psutil.Process) -> int:
    n_bytes = 0
    try:
        for member in (process, *process.children(recursive=True)):
            n_bytes += member.memory_info().rss
    except psutil.NoSuchProcess:  # a child ended after it was listed
        return 0
    return n_bytes
