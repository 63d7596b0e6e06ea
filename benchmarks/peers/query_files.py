"""Queries as files, so that every system gets exactly the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import soundfile

from benchmarks.metrics.outcomes import Outcome, unanswered
from benchmarks.peers.peer import Answer
from benchmarks.queries import datasets
from benchmarks.queries.conditions import Cell
from benchmarks.queries.questions import Question, remaining_questions
from benchmarks.runs.journal import Journal
from benchmarks.runs.progress import track

JOURNAL = "queries.jsonl"


@dataclass(frozen=True, kw_only=True)
class QueryFile:
    """A query with its ground truth.

    Parameters
    ----------
    path : Path
    source : Path
        The recording it was cut from.
    unanswered : Outcome
        The query without an answer.
    """

    path: Path
    source: Path
    unanswered: Outcome

    def outcome(self, answer: Answer) -> Outcome:
        """Judge an answer."""
        if answer.reference is None:
            return replace(self.unanswered, error=answer.error)
        is_right = self.unanswered.present and answer.reference.resolve() == self.source
        error_s = (answer.offset_s or 0.0) - self.unanswered.true_start_s
        return replace(
            self.unanswered,
            rank=1 if is_right else None,
            answer=answer.reference.name,
            answer_offset_s=answer.offset_s,
            offset_error_s=error_s if is_right and answer.offset_s is not None else None,
            accepted=True,
        )


def write_queries(
    folder: Path,
    paths: Mapping[str, Sequence[Path]],
    n_questions: Mapping[str, int],
    cells: Sequence[Cell],
    seed: int,
    settings: Mapping[str, Any],
) -> list[QueryFile]:
    """Write all queries that an earlier run with the same settings has not written.

    Parameters
    ----------
    folder : Path
    paths : mapping
        Recordings to cut from, by "present" and "absent".
    n_questions : mapping
        Number of excerpts of each kind; each becomes a query in all cells.
    cells : sequence of Cell
    seed : int
    settings : mapping
        Plain values; everything that the queries depend on.

    Raises
    ------
    ConfigError
        The queries in the folder were written with other settings.
    """
    journal = Journal(folder / JOURNAL, settings, len(cells))
    n_done = Counter(row["kind"] for row in journal.records[:: len(cells)])
    questions = remaining_questions(paths, n_questions, cells, seed, n_done)
    n_all = sum(n for kind, n in n_questions.items() if paths[kind])
    for cell in cells:
        (folder / _folder_name(cell)).mkdir(parents=True, exist_ok=True)
    for question in track(questions, "excerpts", n_all, journal.n_groups):
        journal.append(*(_write(folder, question, cell, seed) for cell in cells))
    return [
        QueryFile(
            path=folder / row["file"],
            source=Path(row["source"]),
            unanswered=Outcome(**row["query"]),
        )
        for row in journal.records
    ]


def _write(folder: Path, question: Question, cell: Cell, seed: int) -> dict[str, Any]:
    file = f"{_folder_name(cell)}/{question.query_id}.wav"
    soundfile.write(folder / file, question.waveform(cell, seed), datasets.RATE)
    return {
        "file": file,
        "source": str(question.excerpt.cut.path),
        "kind": question.kind,
        "query": asdict(unanswered(question, cell)),
    }


def _folder_name(cell: Cell) -> str:
    return cell.name.replace(" ", "-")
