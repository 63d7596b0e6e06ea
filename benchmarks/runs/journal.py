"""Outcomes on disk as they come in, so that a run that was cut short goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.metrics.outcomes import Outcome
from engine.errors import ConfigError
from engine.files import atomic_write


class Journal:
    """A file of JSON lines: the settings of the run, then one outcome a line.

    Parameters
    ----------
    path : Path
    settings : mapping
        Plain values; everything that outcomes depend on.
    n_per_question : int
        Outcomes of one question. They are kept together or not at all.

    Raises
    ------
    ConfigError
        The file is that of a run with other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], n_per_question: int) -> None:
        self.path = path
        self.header = json.dumps({"settings": settings}, sort_keys=True, allow_nan=False)
        self.outcomes = self._read(n_per_question)

    def _read(self, n_per_question: int) -> list[Outcome]:
        lines = self.path.read_text().split("\n") if self.path.exists() else [""]
        if lines == [""]:
            return []
        whole = lines[1:-1]  # what follows the last newline was cut off while it was written
        if whole or not _settings(lines[0]):  # nothing is lost of a run that got nowhere
            self._refuse_other(lines[0])
        n_kept = len(whole) - len(whole) % n_per_question
        return [Outcome(**json.loads(line)) for line in whole[:n_kept]]

    def _refuse_other(self, header: str) -> None:
        if header == self.header:
            return
        found, wanted = _settings(header), _settings(self.header)
        differing = [
            f"{key} {found.get(key)}, now {wanted.get(key)}"
            for key in sorted(found.keys() | wanted.keys())
            if found.get(key) != wanted.get(key)
        ]
        raise ConfigError(
            "out",
            f"{self.path.name} was written with other settings ({'; '.join(differing)}); "
            "delete it to begin anew, or write elsewhere",
        )

    def note(self, answers: Iterable[Sequence[Outcome]]) -> Iterator[Sequence[Outcome]]:
        """Pass on the outcomes of each question, written down first."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write_former()
        with self.path.open("a") as file:
            for outcomes in answers:
                file.write("".join(_line(outcome) for outcome in outcomes))
                file.flush()
                self.outcomes.extend(outcomes)
                yield outcomes

    def _write_former(self) -> None:
        """Write what is kept, without the rest of a question that was not finished."""
        with atomic_write(self.path) as partial:
            partial.write_text("".join([self.header + "\n", *map(_line, self.outcomes)]))


def _line(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome), allow_nan=False) + "\n"


def _settings(header: str) -> dict[str, Any]:
    """Read a first line; one that is none has no settings."""
    try:
        found = json.loads(header)["settings"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
