"""A program of someone else's, found on the PATH or where it was said to be."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import AstoundError


class ProgramError(AstoundError):
    """A program is not there, or did not do what it was asked for.

    Parameters
    ----------
    name, reason : str
    """

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name}: {reason}")


@dataclass(frozen=True, kw_only=True)
class Program:
    """How a program is called.

    Parameters
    ----------
    name : str
    names : tuple of str
        What it may be called on the PATH, the first first.
    command : str or None
        What to call instead, as one would type it: "python tools/audfprint.py".
    hint : str
        How to get it.
    """

    name: str
    names: tuple[str, ...]
    command: str | None = None
    hint: str = ""

    @property
    def words(self) -> list[str]:
        """The words a call of it begins with.

        Raises
        ------
        ProgramError
            There is no such program.
        """
        if self.command is None:
            found = [path for name in self.names if (path := shutil.which(name))]
        else:
            found = shlex.split(self.command)
        if not found or shutil.which(found[0]) is None:
            missing = self.command or " or ".join(self.names)
            raise ProgramError(self.name, f"no program {missing}; {self.hint}")
        return found if self.command else found[:1]

    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        works: tuple[int, ...] = (0,),
    ) -> str:
        """Call it and give what it writes to stdout.

        Parameters
        ----------
        arguments : sequence of str or Path
        environment : mapping, optional
            Variables to add to those there are.
        works : tuple of int
            Exit codes with which it has done its work.

        Raises
        ------
        ProgramError
            It ended with another exit code; the reason has its last line.
        """
        command = [*self.words, *map(str, arguments)]
        done = subprocess.run(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
        )
        if done.returncode not in works:
            said = (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()[-1]
            raise ProgramError(self.name, f"ended with {done.returncode}: {said}")
        return done.stdout
