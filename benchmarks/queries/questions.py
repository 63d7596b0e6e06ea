"""Questions: numbered excerpts, each of which becomes one query in every cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from benchmarks.queries import datasets
from benchmarks.queries.conditions import Cell
from benchmarks.queries.datasets import Excerpt, Waveform
from engine.audio.resample import resample
from engine.protocol import AudioFingerprinter
from engine.records import Fingerprint


@dataclass(frozen=True, kw_only=True)
class Question:
    """An excerpt that becomes one query in every cell.

    Parameters
    ----------
    kind : str
        "present" or "absent": whether the catalog contains its track.
    number : int
        Index of the question among those of its kind.
    excerpt : Excerpt
    """

    kind: str
    number: int
    excerpt: Excerpt

    @property
    def query_id(self) -> str:
        """Kind and number, such as "present-00007"."""
        return f"{self.kind}-{self.number:05d}"

    def waveform(self, cell: Cell, seed: int) -> Waveform:
        """Distort the excerpt. The query's second 0 is the start of the cut.

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
    """Cut excerpts and number them. All cells use the same ones, so that cells are comparable.

    Parameters
    ----------
    kind : str
        "present" or "absent".
    paths : sequence of Path
        Tracks to cut from.
    n_questions : int
        Fewer are returned if files cannot be decoded or are silent.
    cells : sequence of Cell
    seed : int
    """
    spans_s = list(chain.from_iterable(cell.spans_s for cell in cells))
    cuts = datasets.excerpts(paths, n_questions, max(spans_s), seed, audible_s=min(spans_s))
    for number, excerpt in enumerate(cuts):
        yield Question(kind=kind, number=number, excerpt=excerpt)


def remaining_questions(
    paths: Mapping[str, Sequence[Path]],
    n_questions: Mapping[str, int],
    cells: Sequence[Cell],
    seed: int,
    n_done: Mapping[str, int],
) -> Iterator[Question]:
    """Yield the questions of a run that are not finished yet, those of present music first.

    Parameters
    ----------
    paths : mapping
        Tracks to cut from, by "present" and "absent". Absent ones may be missing.
    n_questions, n_done : mapping
        Number of questions of each kind, and of those that are finished.
    cells : sequence of Cell
    seed : int
    """
    for kind, n in n_questions.items():
        if n_done.get(kind, 0) < n and (kind == "present" or paths[kind]):
            all_questions = questions(kind, paths[kind], n, cells, seed)
            yield from islice(all_questions, n_done.get(kind, 0), None)


def fingerprint(
    fingerprinter: AudioFingerprinter, waveform: Waveform, segment_hop_s: float
) -> Fingerprint:
    """Fingerprint a query.

    Parameters
    ----------
    fingerprinter : AudioFingerprinter
    waveform : float32 array of shape (n_samples,) at datasets.RATE
    segment_hop_s : float

    Raises
    ------
    AudioError
        It is silent or shorter than one segment.
    """
    resampled = resample(waveform, datasets.RATE, fingerprinter.sample_rate)
    return fingerprinter.fingerprint([resampled], segment_hop_s)
