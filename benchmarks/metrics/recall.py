"""What catalogs of all sizes are asked, and how their search compares with an exact one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import soundfile

from astound.catalog import Catalog
from benchmarks.metrics.exact import Exact, share_found
from benchmarks.metrics.outcomes import Outcome, outcome
from benchmarks.queries import cells, conditions, datasets
from benchmarks.queries.cells import Cell
from benchmarks.queries.datasets import Waveform
from benchmarks.queries.questions import Question, questions
from engine.audio import decode
from engine.config import SearchConfig
from engine.errors import AudioError
from engine.protocol import AudioFingerprinter
from engine.records import Fingerprint, Vectors
from engine.search import alignment, candidates
from engine.search.candidates import Stopwatch

LABELS = ("noise0", "noise-5", "room5")
DURATIONS_S = (3.0, 5.0, 10.0)
EXACT_S = 5.0
"""Length of the queries whose search is compared with an exact one."""
TIMED = ("clean", "noise0")
TIMED_S = 5.0
N_PROBES = (4, 8, 16, 32, 64, 128)

_HEARD = ("clean", "noise0", "noise-5", "room5")
_MAX_MATCHES = 5


class Quiz:
    """The same questions for every catalog that holds some tracks.

    Parameters
    ----------
    paths : sequence of Path
        The tracks.
    noises, rooms : Recordings, Rooms
    n_questions, seed : int
    """

    def __init__(
        self,
        paths: Sequence[Path],
        noises: datasets.Recordings,
        rooms: datasets.Rooms,
        n_questions: int,
        seed: int,
    ) -> None:
        self.paths, self.n_questions, self.seed = paths, n_questions, seed
        draws = {conditions.NOISE: noises.draw, conditions.ROOMS: rooms.draw}
        every = cells.make(cells.SETS["full"], draws)
        self._every = {(cell.label, cell.duration_s): cell for cell in every}

    @property
    def cells(self) -> list[Cell]:
        """What is measured of every question."""
        return [self.cell(label, seconds) for label in LABELS for seconds in DURATIONS_S]

    def cell(self, label: str, duration_s: float) -> Cell:
        """Look up one distortion at one length."""
        return self._every[label, duration_s]

    def questions(self, n_questions: int | None = None) -> Iterator[Question]:
        """Ask them, or only the first few."""
        n = self.n_questions if n_questions is None else n_questions
        return questions("present", self.paths, n, self.cells, self.seed)

    def waveform(self, question: Question, cell: Cell) -> Waveform:
        """Distort a question."""
        return question.waveform(cell, self.seed)

    def write_clips(self, folder: Path, n_clips: int) -> dict[str, list[Path]]:
        """Write clips to time queries with; those that are there are left.

        Returns
        -------
        dict
            Paths by what was done to the clips.
        """
        written: dict[str, list[Path]] = {label: [] for label in TIMED}
        folder.mkdir(parents=True, exist_ok=True)
        for question in self.questions(n_clips):
            for label, paths in written.items():
                paths.append(folder / f"{label}-{question.number:03}.wav")
                clip = self.waveform(question, self.cell(label, TIMED_S))
                soundfile.write(paths[-1], clip, datasets.RATE)
        return written

    def embeddings(
        self, fingerprinter: AudioFingerprinter, segment_hop_s: float
    ) -> dict[str, Vectors]:
        """Embed questions of five seconds, audible segments only, by what was done to them."""
        found: dict[str, list[Vectors]] = {label: [] for label in _HEARD}
        for question in self.questions():
            for label, heard in found.items():
                waveform = self.waveform(question, self.cell(label, EXACT_S))
                try:
                    fingerprint = _fingerprint(fingerprinter, waveform, segment_hop_s)
                except AudioError:  # silent where it was cut
                    continue
                heard.append(fingerprint.embeddings[fingerprint.audible])
        return {label: np.concatenate(heard) for label, heard in found.items() if heard}


def outcomes(quiz: Quiz, catalog: Catalog, track_ids: Mapping[Path, int]) -> Iterator[Outcome]:
    """Ask a catalog everything, as users do."""
    for question in quiz.questions():
        for cell in quiz.cells:
            yield _outcome(quiz, catalog, track_ids, question, cell)


def _outcome(
    quiz: Quiz,
    catalog: Catalog,
    track_ids: Mapping[Path, int],
    question: Question,
    cell: Cell,
) -> Outcome:
    cut = question.excerpt.cut
    asked = Outcome(
        query_id=question.query_id,
        cell=cell.name,
        present=True,
        true_track=cut.path.name,
        true_start_s=cut.start_s,
    )
    result = catalog.query(
        quiz.waveform(question, cell),
        sample_rate=datasets.RATE,
        max_matches=_MAX_MATCHES,
        min_confidence=0.0,
    )
    return outcome(asked, result, track_ids[cut.path], catalog.min_confidence)


# -- against an exact search ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How a search fared against the exact one, looking into some number of lists.

    Parameters
    ----------
    cell : str
    n_probe : int or None
        None for as many as it chooses itself.
    n : int
        Queries, played at no other speed.
    neighbours_found : float
        Mean share of the exact neighbours that it found too, in [0, 1].
    n_right, n_right_exact : int
        Queries whose best candidate is the right track, by this search and by the exact one.
    search_ms : float
        Median.
    """

    cell: str
    n_probe: int | None
    n: int
    neighbours_found: float
    n_right: int
    n_right_exact: int
    search_ms: float


def efforts(
    quiz: Quiz,
    catalog: Catalog,
    exact: Exact,
    track_ids: Mapping[Path, int],
    n_questions: int,
    n_probes: Sequence[int | None],
) -> list[Effort]:
    """Compare the search of a catalog with an exact one over the same vectors."""
    rows = []
    for label in LABELS:
        cell = quiz.cell(label, EXACT_S)
        looks: dict[int | None, list[_Look]] = {n_probe: [] for n_probe in n_probes}
        for question in quiz.questions(n_questions):
            right = track_ids[question.excerpt.cut.path]
            comparison = _Comparison(catalog, exact, quiz.waveform(question, cell), right)
            for n_probe, found in looks.items():
                found.append(comparison.look(n_probe))
        rows += [_effort(cell.name, n_probe, found) for n_probe, found in looks.items()]
    return rows


@dataclass(frozen=True)
class _Look:
    share: float
    right: bool
    right_exact: bool
    search_ms: float


class _Comparison:
    """One query, searched exactly."""

    def __init__(self, catalog: Catalog, exact: Exact, waveform: Waveform, right: int) -> None:
        self.searcher = catalog.searcher(SearchConfig(speeds=()))
        hop_s = self.searcher.query_hop_s
        self.fingerprint = _fingerprint(catalog.fingerprinter, waveform, hop_s)
        self.sharp = alignment.sharpen(self.fingerprint, self.searcher.alignment)
        self.right = right
        self.found_exactly = self._is_found(exact, self.searcher.search, Stopwatch())
        self.exact_hits = exact.hits

    def look(self, n_probe: int | None) -> _Look:
        search = SearchConfig(speeds=(), n_probe=n_probe)
        stopwatch = Stopwatch()
        right = self._is_found(self.searcher.index, search, stopwatch)
        hits = self.searcher.index.search(self.sharp, search.top_k, n_probe=n_probe)
        share = share_found(self.exact_hits, hits)
        return _Look(share, right, self.found_exactly, stopwatch.timings_ms["search"])

    def _is_found(self, index: Any, search: SearchConfig, stopwatch: Stopwatch) -> bool:
        searcher = self.searcher
        settings = search, searcher.alignment, stopwatch
        found = candidates.find(self.fingerprint, index, searcher.reference_hop_s, *settings)
        return bool(found) and found[0].track_id == self.right


def _effort(cell: str, n_probe: int | None, looks: Sequence[_Look]) -> Effort:
    return Effort(
        cell=cell,
        n_probe=n_probe,
        n=len(looks),
        neighbours_found=mean(one.share for one in looks),
        n_right=sum(one.right for one in looks),
        n_right_exact=sum(one.right_exact for one in looks),
        search_ms=median(one.search_ms for one in looks),
    )


def _fingerprint(
    fingerprinter: AudioFingerprinter, waveform: Waveform, segment_hop_s: float
) -> Fingerprint:
    played = decode.resample(waveform, datasets.RATE, fingerprinter.sample_rate)
    return fingerprinter.fingerprint([played], segment_hop_s)
