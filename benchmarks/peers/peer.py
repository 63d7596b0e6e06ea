"""Interface of a system that recognises recordings: it builds an index and answers queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class About:
    """Description of a system for tables.

    Parameters
    ----------
    version : str
    options : str
        Options that differ from its defaults, as typed in a shell.
    asked : str
        How it is queried, which decides what its latency includes.
    """

    version: str
    options: str
    asked: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Answer of a system to a query, as its user gets it: nothing below its threshold.

    Parameters
    ----------
    reference : Path or None
        The best reference; None without a match.
    offset_s : float or None
        Position in the reference of the query's second 0.
    taken_s : float or None
        Time taken; None if the system answers all queries in one call.
    error : str or None
        Why the query failed.
    """

    reference: Path | None = None
    offset_s: float | None = None
    taken_s: float | None = None
    error: str | None = None


class Peer(Protocol):
    """A system. It is sent between processes; its only state is what it writes to a folder."""

    def about(self) -> About:
        """Describe the system.

        Raises
        ------
        ProgramError
            It is not installed.
        """
        ...

    def build(self, references: Sequence[Path], folder: Path, n_jobs: int) -> None:
        """Build an index of recordings in an empty folder, with at most `n_jobs` processes."""
        ...

    def query(self, queries: Sequence[Path], folder: Path) -> Iterator[Answer]:
        """Answer queries, given as files, in order."""
        ...

    def answer_batch(self, queries: Sequence[Path], folder: Path, n_jobs: int) -> None:
        """Answer all queries in one command, as fast as `n_jobs` processes or threads can."""
        ...
