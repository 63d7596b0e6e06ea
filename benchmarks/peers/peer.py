"""What a system that recognises recordings is here: it builds an index and answers queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class About:
    """What a table says of a system.

    Parameters
    ----------
    version : str
    options : str
        All that was not left as it comes, as one would type it.
    asked : str
        How it is asked, which is what its latency means.
    """

    version: str
    options: str
    asked: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a system says of one query, as its user would get it: below its threshold, nothing.

    Parameters
    ----------
    reference : Path or None
        The best reference, None where it names none.
    offset_s : float or None
        Where in the reference the query's second 0 lies.
    taken_s : float or None
        How long it took; None where it answers many queries at once.
    error : str or None
        Why there is no answer.
    """

    reference: Path | None = None
    offset_s: float | None = None
    taken_s: float | None = None
    error: str | None = None


class Peer(Protocol):
    """A system; it moves between processes and keeps nothing but what it writes to a folder."""

    def about(self) -> About:
        """Describe it.

        Raises
        ------
        ProgramError
            It is not installed.
        """
        ...

    def build(self, references: Sequence[Path], folder: Path, n_jobs: int) -> None:
        """Make an index of recordings in an empty folder, with some processes at most."""
        ...

    def ask(self, queries: Sequence[Path], folder: Path) -> Iterator[Answer]:
        """Answer files, in their order."""
        ...
