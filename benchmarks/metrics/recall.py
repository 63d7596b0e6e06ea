"""Recall of catalogs of all sizes: the same queries for each, compared with an exact search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median

import numpy as np
import soundfile

from astound.catalog import Catalog
from benchmarks.metrics.exact import ExactIndex, share_found
from benchmarks.metrics.outcomes import Outcome, run_query, unanswered
from benchmarks.queries import datasets
from benchmarks.queries.conditions import CELL_SETS, Cell, make_cells
from benchmarks.queries.datasets import Sounds, Waveform
from benchmarks.queries.questions import Question, fingerprint, questions
from engine.config import MAX_MATCHES, SearchConfig
from engine.errors import AudioError
from engine.protocol import AudioFingerprinter
from engine.records import Vectors
from engine.search.alignment import remove_mean
from engine.search.candidates import find_candidates
from engine.search.context import SearchContext, Stopwatch

LABELS = ("noise0", "noise-5", "room5")
DURATIONS_S = (3.0, 5.0, 10.0)
COMPARED_S = 5.0
"""Duration of the queries that are compared with an exact search."""
TIMED = ("clean", "noise0")
TIMED_S = 5.0
N_PROBES = (4, 8, 16, 32, 64, 128)

_EMBEDDED = ("clean", "noise0", "noise-5", "room5")


class QuerySet:
    """The same queries for every catalog that contains some tracks.

    Parameters
    ----------
    paths : sequence of Path
        The tracks.
    sounds : Sounds
        Noises and room responses.
    n_questions, seed : int
    """

    def __init__(self, paths: Sequence[Path], sounds: Sounds, n_questions: int, seed: int) -> None:
        self.paths, self.n_questions, self.seed = paths, n_questions, seed
        cells = make_cells(CELL_SETS["full"], sounds.sources)
        self._all_cells = {cell.key: cell for cell in cells}

    @property
    def cells(self) -> list[Cell]:
        """The cells that recall is measured in."""
        return [self.cell(label, seconds) for label in LABELS for seconds in DURATIONS_S]

    def cell(self, label: str, duration_s: float) -> Cell:
        """Return one distortion at one query length."""
        return self._all_cells[label, duration_s]

    def questions(self, n_questions: int | None = None) -> Iterator[Question]:
        """Yield all questions, or the first `n_questions`."""
        n = self.n_questions if n_questions is None else n_questions
        return questions("present", self.paths, n, self.cells, self.seed)

    def waveform(self, question: Question, cell: Cell) -> Waveform:
        """Return the query of a question in a cell."""
        return question.waveform(cell, self.seed)

    def write_clips(self, folder: Path, n_clips: int) -> dict[str, list[Path]]:
        """Write clips to time queries with.

        Returns
        -------
        dict
            Paths by distortion.
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
        """Embed the audible segments of queries of five seconds, by distortion."""
        found: dict[str, list[Vectors]] = {label: [] for label in _EMBEDDED}
        for question in self.questions():
            for label, embeddings in found.items():
                waveform = self.waveform(question, self.cell(label, COMPARED_S))
                try:
                    query = fingerprint(fingerprinter, waveform, segment_hop_s)
                except AudioError:  # silent
                    continue
                embeddings.append(query.embeddings[query.audible])
        return {label: np.concatenate(arrays) for label, arrays in found.items() if arrays}


def answer(
    catalog: Catalog,
    question: Question,
    cell: Cell,
    seed: int,
    true_id: int | None,
    search: SearchConfig | None = None,
) -> Outcome:
    """Query a catalog with a question in a cell.

    Parameters
    ----------
    catalog : Catalog
    question : Question
    cell : Cell
    seed : int
    true_id : int or None
        Id of the true track; None if the catalog does not contain it.
    search : SearchConfig, optional
    """
    return run_query(
        unanswered(question, cell),
        lambda: catalog.query(
            question.waveform(cell, seed),
            sample_rate=datasets.RATE,
            max_matches=MAX_MATCHES,
            min_confidence=0.0,
            search=search,
        ),
        true_id,
        catalog.min_confidence,
    )


def outcomes(
    queries: QuerySet, catalog: Catalog, track_ids: Mapping[Path, int]
) -> Iterator[Outcome]:
    """Query a catalog with all questions in all cells."""
    for question in queries.questions():
        true_id = track_ids[question.excerpt.cut.path]
        for cell in queries.cells:
            yield answer(catalog, question, cell, queries.seed, true_id)


# -- comparison with an exact search -------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SearchComparison:
    """A search with some number of probed lists, compared with an exact one.

    Parameters
    ----------
    cell : str
    n_probe : int or None
        None for the number that the index chooses.
    n : int
        Number of queries, searched at their own speed only.
    neighbours_found : float
        Mean share of the exact neighbours that the search found too, in [0, 1].
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


def compare_with_exact(
    queries: QuerySet,
    catalog: Catalog,
    exact: ExactIndex,
    track_ids: Mapping[Path, int],
    n_questions: int,
    n_probes: Sequence[int | None],
) -> list[SearchComparison]:
    """Compare the search of a catalog with an exact one over the same vectors."""
    rows = []
    for label in LABELS:
        cell = queries.cell(label, COMPARED_S)
        results: dict[int | None, list[_SearchResult]] = {n_probe: [] for n_probe in n_probes}
        for question in queries.questions(n_questions):
            true_id = track_ids[question.excerpt.cut.path]
            query = _ExactQuery(catalog, exact, queries.waveform(question, cell), true_id)
            for n_probe, found in results.items():
                found.append(query.search(n_probe))
        rows += [_comparison(cell.name, n_probe, found) for n_probe, found in results.items()]
    return rows


@dataclass(frozen=True)
class _SearchResult:
    share_found: float
    is_right: bool
    is_right_exact: bool
    search_ms: float


class _ExactQuery:
    """A query that has been searched exactly."""

    def __init__(
        self, catalog: Catalog, exact: ExactIndex, waveform: Waveform, true_id: int
    ) -> None:
        searcher = catalog.searcher(SearchConfig(speeds=()))
        self.context = searcher.context
        self.fingerprint = fingerprint(catalog.fingerprinter, waveform, searcher.query_hop_s)
        self.vectors = remove_mean(self.fingerprint)
        self.true_id = true_id
        self.is_right_exact = self._is_right(replace(self.context, index=exact))
        self.exact_hits = exact.hits

    def search(self, n_probe: int | None) -> _SearchResult:
        search = SearchConfig(speeds=(), nprobe=n_probe)
        context = replace(self.context, search=search, stopwatch=Stopwatch())
        is_right = self._is_right(context)
        hits = context.index.search(self.vectors, search.k, nprobe=n_probe)
        share = share_found(self.exact_hits, hits)
        search_ms = context.stopwatch.timings_ms["search"]
        return _SearchResult(share, is_right, self.is_right_exact, search_ms)

    def _is_right(self, context: SearchContext) -> bool:
        found = find_candidates(self.fingerprint, context)
        return bool(found) and found[0].track_id == self.true_id


def _comparison(
    cell: str, n_probe: int | None, results: Sequence[_SearchResult]
) -> SearchComparison:
    return SearchComparison(
        cell=cell,
        n_probe=n_probe,
        n=len(results),
        neighbours_found=mean(result.share_found for result in results),
        n_right=sum(result.is_right for result in results),
        n_right_exact=sum(result.is_right_exact for result in results),
        search_ms=median(result.search_ms for result in results),
    )
