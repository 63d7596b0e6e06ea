"""Queries as files, so that every system is asked exactly the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import soundfile

from benchmarks.metrics.outcomes import Outcome
from benchmarks.peers.peer import Answer
from benchmarks.queries import datasets
from benchmarks.queries.cells import Cell
from benchmarks.queries.questions import questions
from benchmarks.runs.progress import followed
from engine.errors import ConfigError
from engine.files import atomic_write

_TRUTH = "queries.json"


@dataclass(frozen=True, kw_only=True)
class QueryFile:
    """A query and the truth about it.

    Parameters
    ----------
    path : Path
    source : Path
        The recording it was cut from.
    asked : Outcome
        The question, without an answer.
    """

    path: Path
    source: Path
    asked: Outcome

    def outcome(self, answer: Answer) -> Outcome:
        """Hold an answer against the truth."""
        if answer.reference is None:
            return replace(self.asked, error=answer.error)
        right = self.asked.present and answer.reference.resolve() == self.source
        known_s = right and answer.offset_s is not None
        error_s = (answer.offset_s or 0.0) - self.asked.true_start_s
        return replace(
            self.asked,
            rank=1 if right else None,
            answer=answer.reference.name,
            answer_offset_s=answer.offset_s,
            offset_error_s=error_s if known_s else None,
            accepted=True,
        )


def written(
    folder: Path,
    asked_for: Mapping[str, Sequence[Path]],
    n_questions: Mapping[str, int],
    cells: Sequence[Cell],
    seed: int,
    settings: Mapping[str, Any],
) -> list[QueryFile]:
    """Write all queries, or read which an earlier run with the same settings has written.

    Parameters
    ----------
    folder : Path
    asked_for : mapping
        Recordings to cut from, by "present" and "absent".
    n_questions : mapping
        How many excerpts of each; each is asked in all cells.
    cells : sequence of Cell
    seed : int
    settings : mapping
        Plain values; all that the queries depend on.

    Raises
    ------
    ConfigError
        Those in the folder were written with other settings.
    """
    plain = json.loads(json.dumps(settings))
    truth = folder / _TRUTH
    if not truth.exists():
        rows = _write(folder, asked_for, n_questions, cells, seed)
        with atomic_write(truth) as partial:
            partial.write_text(json.dumps({"settings": plain, "queries": rows}, indent=1) + "\n")
    found = json.loads(truth.read_text())
    if found["settings"] != plain:
        raise ConfigError(
            "out", f"{folder.name} has queries of other settings; delete it or write elsewhere"
        )
    return [
        QueryFile(
            path=folder / row["file"], source=Path(row["source"]), asked=Outcome(**row["asked"])
        )
        for row in found["queries"]
    ]


def _write(
    folder: Path,
    asked_for: Mapping[str, Sequence[Path]],
    n_questions: Mapping[str, int],
    cells: Sequence[Cell],
    seed: int,
) -> list[dict[str, Any]]:
    rows = []
    folders = {cell: cell.name.replace(" ", "-") for cell in cells}
    for each in folders.values():
        (folder / each).mkdir(parents=True, exist_ok=True)
    for kind, paths in asked_for.items():
        n = n_questions[kind] if paths else 0
        asked = questions(kind, paths, n, cells, seed)
        for question in followed(asked, f"{kind} excerpts", n):
            cut = question.excerpt.cut
            for cell, each in folders.items():
                file = f"{each}/{question.query_id}.wav"
                soundfile.write(folder / file, question.waveform(cell, seed), datasets.RATE)
                outcome = Outcome(
                    query_id=question.query_id,
                    cell=cell.name,
                    present=kind == "present",
                    true_track=cut.path.name,
                    true_start_s=cut.start_s,
                )
                rows.append({"file": file, "source": str(cut.path), "asked": asdict(outcome)})
    return rows
