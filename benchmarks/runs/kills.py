"""Kill -9 of a process at one of the moments at which it changes a catalog."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

_EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")


def count_moments(folder: Path, fatal: int = 0) -> Callable[[], int]:
    """Count the moments of this process from now on, and kill it at one of them.

    A moment is whenever it touches a file below a folder, or has just committed a transaction or
    let go of the database.

    Parameters
    ----------
    folder : Path
    fatal : int
        Number of the moment, from 1, at which the process kills itself; none by default.

    Returns
    -------
    callable
        Returns the number of moments so far.
    """
    n_moments = 0

    def moment(*_: object) -> None:
        nonlocal n_moments
        n_moments += 1
        if n_moments == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS and str(arguments[0]).startswith(str(folder)):
            moment()

    sa.event.listen(sa.Engine, "commit", moment)
    sa.event.listen(sa.Pool, "checkin", moment)
    sys.addaudithook(audit)
    return lambda: n_moments
