"""External programs, on the PATH or at a given command."""

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
    """A program is missing or failed.

    Parameters
    ----------
    name, reason : str
    """

    code = "program_failed"

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name}: {reason}")


@dataclass(frozen=True, kw_only=True)
class Program:
    """How to call a program.

    Parameters
    ----------
    name : str
    names : tuple of str
        Names to look for on the PATH, in order.
    command : str or None
        Command to use instead, as typed in a shell: "python tools/audfprint.py".
    hint : str
        How to install it.
    """

    name: str
    names: tuple[str, ...]
    command: str | None = None
    hint: str = ""

    @property
    def words(self) -> list[str]:
        """First words of its command line.

        Raises
        ------
        ProgramError
            The program does not exist.
        """
        if self.command is None:
            found = [path for name in self.names if (path := shutil.which(name))]
        else:
            found = shlex.split(self.command)
        if not found or shutil.which(found[0]) is None:
            missing = self.command or " or ".join(self.names)
            raise ProgramError(self.name, f"program {missing} not found; {self.hint}")
        return found if self.command else found[:1]

    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        success_codes: tuple[int, ...] = (0,),
    ) -> str:
        """Run it and return its stdout.

        Parameters
        ----------
        arguments : sequence of str or Path
        environment : mapping, optional
            Variables to add to the environment.
        success_codes : tuple of int
            Exit codes of success.

        Raises
        ------
        ProgramError
            It ended with another exit code. The reason contains the last line it wrote.
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
        if done.returncode not in success_codes:
            output = done.stderr.strip() or done.stdout.strip() or "no output"
            reason = f"ended with exit code {done.returncode}: {output.splitlines()[-1]}"
            raise ProgramError(self.name, reason)
        return done.stdout
