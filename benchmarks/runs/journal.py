"""Finished records on disk, so that an interrupted run resumes where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.metrics.outcomes import Outcome
from benchmarks.runs.progress import track
from engine.errors import ConfigError
from engine.files import atomic_write

Record = Mapping[str, Any]


class Journal:
    """A file of JSON lines: the settings of the run, then one finished record a line.

    Parameters
    ----------
    path : Path
    settings : mapping
        Plain values; everything that records depend on.
    n_per_group : int
        Number of records that are written together. An incomplete group is dropped.

    Attributes
    ----------
    records : list of dict
        Finished records, those of former runs first.

    Raises
    ------
    ConfigError
        The file belongs to a run with other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], n_per_group: int = 1) -> None:
        self.path, self.n_per_group = path, n_per_group
        self.header = json.dumps({"settings": settings}, sort_keys=True, allow_nan=False)
        self.records = self._read()
        self._is_open = False

    def _read(self) -> list[dict[str, Any]]:
        lines = self.path.read_text().split("\n") if self.path.exists() else [""]
        if lines == [""]:
            return []
        complete = lines[1:-1]  # the text after the last newline is torn
        if complete or not _settings(lines[0]):  # without any record there is nothing to protect
            self._require_same_settings(lines[0])
        n_kept = len(complete) - len(complete) % self.n_per_group
        return [json.loads(line) for line in complete[:n_kept]]

    def _require_same_settings(self, header: str) -> None:
        if header == self.header:
            return
        found, expected = _settings(header), _settings(self.header)
        differing = [
            f"{key} {found.get(key)}, now {expected.get(key)}"
            for key in sorted(found.keys() | expected.keys())
            if found.get(key) != expected.get(key)
        ]
        raise ConfigError(
            "out",
            f"{self.path.name} was written with other settings ({'; '.join(differing)}); "
            "delete it to start again, or write elsewhere",
        )

    @property
    def n_groups(self) -> int:
        """Number of finished groups."""
        return len(self.records) // self.n_per_group

    def append(self, *group: Record) -> None:
        """Write the records of a group to disk."""
        self.open()
        with self.path.open("a") as file:
            file.write("".join(map(_line, group)))
        self.records.extend(map(dict, group))

    def open(self) -> None:
        """Write the header and the finished records, without what was torn."""
        if not self._is_open:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path) as partial:
                partial.write_text("".join([self.header + "\n", *map(_line, self.records)]))
            self._is_open = True


def collect_outcomes(
    journal: Journal, answers: Iterable[Sequence[Outcome]], what: str, n_groups: int
) -> list[Outcome]:
    """Append outcomes to a journal as they come, showing progress.

    Parameters
    ----------
    journal : Journal
    answers : iterable of sequence of Outcome
        One group at a time.
    what : str
        What a group is, in the plural, for the progress line.
    n_groups : int
        Number of groups of this run and former ones.

    Returns
    -------
    list of Outcome
        Those of former runs first.
    """
    journal.open()
    for outcomes in track(answers, what, n_groups, journal.n_groups):
        journal.append(*map(asdict, outcomes))
    return [Outcome(**record) for record in journal.records]


def _line(record: Record) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _settings(header: str) -> dict[str, Any]:
    """Parse the first line; an invalid one has no settings."""
    try:
        found = json.loads(header)["settings"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
