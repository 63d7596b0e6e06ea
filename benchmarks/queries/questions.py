"""What is asked: excerpts with a number, and the query that each of them becomes in a cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from benchmarks.queries import datasets
from benchmarks.queries.cells import Cell
from benchmarks.queries.datasets import Excerpt, Waveform


@dataclass(frozen=True, kw_only=True)
class Question:
    """An excerpt that becomes one query in every cell.

    Parameters
    ----------
    kind : str
        "present" or "absent": whether the catalog knows its track.
    number : int
        Counts the questions of a kind from 0.
    excerpt : Excerpt
    """

    kind: str
    number: int
    excerpt: Excerpt

    @property
    def query_id(self) -> str:
        """Kind and number."""
        return f"{self.kind}-{self.number:05d}"

    def waveform(self, cell: Cell, seed: int) -> Waveform:
        """Distort the excerpt; its second 0 is where the cut begins.

        Returns
        -------
        float32 array of shape (n_samples,) at datasets.RATE
        """
        return cell.distortion(self.number).query(
            self.excerpt.waveform,
            datasets.RATE,
            datasets.generator(seed, cell.name, self.query_id),
            context_s=datasets.CONTEXT_S,
            duration_s=cell.duration_s,
            tail_s=datasets.TAIL_S,
        )


def questions(
    kind: str, paths: Sequence[Path], n_questions: int, cells: Sequence[Cell], seed: int
) -> Iterator[Question]:
    """Cut the excerpts that are asked for in all cells, so that cells differ by nothing else.

    Parameters
    ----------
    kind : str
    paths : sequence of Path
    n_questions : int
        There are fewer when files cannot be decoded or are silent.
    cells : sequence of Cell
    seed : int
    """
    spans_s = list(chain.from_iterable(cell.spans_s for cell in cells))
    cuts = datasets.excerpts(paths, n_questions, max(spans_s), seed, audible_s=min(spans_s))
    for number, excerpt in enumerate(cuts):
        yield Question(kind=kind, number=number, excerpt=excerpt)
