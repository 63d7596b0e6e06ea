"""Measure how robust a catalog is against degradations, on clips of the user's own files.

Clips are also queried without the tracks that contain them, to count false accepts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple

from astound.catalog import Catalog, OnProgress
from astound.evaluation import excerpts
from astound.evaluation.degradations import (
    CONTEXT_S,
    MAX_SPEED,
    AcousticConditions,
    Degradation,
    degradations,
)
from astound.evaluation.excerpts import Source, Task
from astound.evaluation.statistics import Share, share
from engine.errors import AudioError, AudioTooShortError, ConfigError, SilentAudioError, printable
from engine.protocol import VectorIndex
from engine.records import Waveform
from engine.search.context import Stopwatch
from engine.search.searcher import Searcher
from indexer.discover import FoundFile, discover
from indexer.report import Failure
from training.augment.rng import Rng
from training.calibrate import DURATIONS_S

N_QUERIES = 20

_EDGE_S = 0.01  # read beyond either end by the change of speed


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Results for one degradation and length of the clips.

    Parameters
    ----------
    degradation : str
    duration_s : float
    hits : Share
        Clips whose best answer is the right track, whatever its confidence.
    found : Share
        Clips whose best match is the right track.
    median_offset_error_s : float or None
        Median absolute error of the hits' offsets in seconds; None without hits.
    """

    degradation: str
    duration_s: float
    hits: Share
    found: Share
    median_offset_error_s: float | None


@dataclass(frozen=True, kw_only=True)
class RobustnessReport:
    """Robustness of a catalog.

    Parameters
    ----------
    cells : tuple of Cell
        In the order of the degradations and lengths.
    false_accepts : Share
        Clips of music that is not in the catalog, or was left out, that get a match.
    failed : tuple of str
        One line for each file that gave no clips.
    """

    cells: tuple[Cell, ...]
    false_accepts: Share
    failed: tuple[str, ...]


def robustness(  # noqa: PLR0913 - keywords of the public API
    catalog: Catalog,
    paths: Iterable[str | os.PathLike[str]] = (),
    *,
    durations_s: Sequence[float] = DURATIONS_S,
    n_queries: int = N_QUERIES,
    noise: Path | None = None,
    rooms: Path | None = None,
    seed: int = 0,
    on_progress: OnProgress = lambda n_done, n_all: None,
) -> RobustnessReport:
    """Degrade clips in several ways, query them, and count the results.

    Parameters
    ----------
    catalog : Catalog
    paths : iterable of path-like
        Files and folders to cut clips from; the files of the catalog's tracks by default. Files
        that no track contains count as music that is not in the catalog.
    durations_s : sequence of float
        Lengths of the clips, in seconds.
    n_queries : int
        Clips for each degradation and length.
    noise, rooms : Path, optional
        Folders of recorded noise and room impulse responses; synthesised by default.
    seed : int
        Random seed, at least 0.
    on_progress : callable, optional
        Called with the number of files done and in total.

    Returns
    -------
    RobustnessReport

    Raises
    ------
    ConfigError
        A length is shorter than a segment, or a folder contains no readable audio.
    StoreError
        The files of all tracks are missing.
    """
    searcher = catalog.searcher()
    min_s = searcher.fingerprinter.segment_s
    if not durations_s or not all(duration_s >= min_s for duration_s in durations_s):
        raise ConfigError.invalid(
            "durations", list(durations_s), f"must all be at least {min_s:.2f} s"
        )
    rate = searcher.fingerprinter.sample_rate
    conditions = AcousticConditions.from_folders(rate, seed, noise=noise, rooms=rooms)
    evaluator = _Evaluator(searcher, conditions, tuple(sorted(durations_s)), seed)
    failures, sources = _select_sources(catalog, paths, n_queries, seed)
    tasks = excerpts.split_clips(sources, n_queries)
    outcomes: list[_Outcome] = []
    for result in excerpts.run_tasks(evaluator.run, tasks, on_progress):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            outcomes.append(result)
    return RobustnessReport(
        cells=tuple(
            _cell(degradation.name, duration_s, outcomes)
            for degradation, duration_s in product(evaluator.degradations, evaluator.durations_s)
        ),
        false_accepts=share(one.is_accepted for one in outcomes if not one.is_known),
        failed=tuple(printable(f"{failure.path}: {failure.reason}") for failure in failures),
    )


def _select_sources(
    catalog: Catalog, paths: Iterable[str | os.PathLike[str]], n: int, seed: int
) -> tuple[list[Failure], list[Source]]:
    """Select files from the paths, or from the catalog's tracks if there are no paths."""
    tracks, files = catalog.tracks(), list(discover(paths))
    if not files:
        return [], excerpts.select_tracks(tracks, n, seed)
    ids = {os.path.realpath(track.path): track.id for track in tracks}
    sources = [
        Source(file.path, ids.get(os.path.realpath(file.path)))
        for file in files
        if isinstance(file, FoundFile)
    ]
    failures = [file for file in files if isinstance(file, Failure)]
    return failures, excerpts.select(sources, n, seed)


class _Outcome(NamedTuple):
    """Result of one query; `is_known` unless no track in the index contains the clip."""

    degradation: str
    duration_s: float
    is_known: bool
    is_hit: bool
    is_accepted: bool
    offset_error_s: float | None


@dataclass(frozen=True)
class _Evaluator:
    """Cuts clips from a source, degrades them and queries them."""

    searcher: Searcher
    conditions: AcousticConditions
    durations_s: tuple[float, ...]
    seed: int

    @cached_property
    def degradations(self) -> tuple[Degradation, ...]:
        return degradations(self.conditions)

    def run(self, task: Task) -> Iterator[_Outcome | Failure]:
        try:
            rate = self.searcher.fingerprinter.sample_rate
            waveform = excerpts.read_source(task.source, rate)
            for number in task.numbers:
                yield from self._query_excerpt(task.source, waveform, number)
        except AudioError as error:
            yield Failure(task.source.path, error.reason)

    def _query_excerpt(self, source: Source, waveform: Waveform, number: int) -> Iterator[_Outcome]:
        """Query all clips with the same start, with and without the tracks that contain it."""
        rate = self.searcher.fingerprinter.sample_rate
        durations_s, start = self._choose_start(source, len(waveform) / rate, number)
        n_clean = round(max(durations_s[-1], excerpts.MIN_EXCERPT_S) * rate)
        try:
            offsets_s = self._tracks_containing(
                source, waveform[start : start + n_clean], start / rate
            )
        except SilentAudioError:
            return
        index = self.searcher.context.index
        others = excerpts.without_tracks(index, offsets_s)
        for (i, duration_s), (j, degradation) in product(
            enumerate(durations_s), enumerate(self.degradations)
        ):
            rng = Rng((self.seed, number, i, j))
            n_samples = round(duration_s * rate)
            clip = degradation.clip(waveform, start, n_samples, rng, self.conditions)
            cell = degradation.name, duration_s
            if offsets_s:
                yield from self._query(index, clip, offsets_s, *cell)
            if (number + j) % len(durations_s) == i:  # one length of each degradation suffices
                yield from self._query(others, clip, {}, *cell)

    def _choose_start(
        self, source: Source, length_s: float, number: int
    ) -> tuple[tuple[float, ...], int]:
        """Choose the first sample of the clips, and the lengths that fit behind it."""
        first_s = CONTEXT_S * MAX_SPEED + _EDGE_S
        spare_s = length_s - first_s - _EDGE_S
        durations_s = tuple(d for d in self.durations_s if d * MAX_SPEED <= spare_s)
        if not durations_s:
            needed_s = length_s - spare_s + self.durations_s[0] * MAX_SPEED
            raise AudioTooShortError(source.path, length_s, needed_s)
        slack_s = spare_s - durations_s[-1] * MAX_SPEED
        start_s = first_s + Rng((self.seed, number)).generator.random() * slack_s
        return durations_s, round(start_s * self.searcher.fingerprinter.sample_rate)

    def _tracks_containing(
        self, source: Source, clean: Waveform, start_s: float
    ) -> dict[int, float]:
        """Return the tracks that contain an excerpt, with its offset in each."""
        searcher = self.searcher
        offsets_s = excerpts.tracks_containing(clean, searcher.fingerprinter, searcher.context)
        return offsets_s | ({} if source.track_id is None else {source.track_id: start_s})

    def _query(
        self,
        index: VectorIndex,
        clip: Waveform,
        offsets_s: Mapping[int, float],
        degradation: str,
        duration_s: float,
    ) -> Iterator[_Outcome]:
        """Query a clip as `astound query` does; yield nothing if it is silent."""
        context = replace(self.searcher.context, index=index, stopwatch=Stopwatch())
        searcher = replace(self.searcher, context=context)
        try:
            found = searcher.passages(searcher.clip([clip], degradation))
        except SilentAudioError:
            return
        candidates = found[:1]
        accepted = searcher.calibration.accepted(candidates)
        hit = next((c for c in candidates if c.track_id in offsets_s), None)
        yield _Outcome(
            degradation=degradation,
            duration_s=duration_s,
            is_known=bool(offsets_s),
            is_hit=hit is not None,
            is_accepted=bool(accepted),
            offset_error_s=abs(hit.offset_s - offsets_s[hit.track_id]) if hit else None,
        )


def _cell(degradation: str, duration_s: float, outcomes: Iterable[_Outcome]) -> Cell:
    in_cell = [
        one
        for one in outcomes
        if one.is_known and (one.degradation, one.duration_s) == (degradation, duration_s)
    ]
    errors_s = [one.offset_error_s for one in in_cell if one.offset_error_s is not None]
    return Cell(
        degradation=degradation,
        duration_s=duration_s,
        hits=share(one.is_hit for one in in_cell),
        found=share(one.is_hit and one.is_accepted for one in in_cell),
        median_offset_error_s=round(median(errors_s), 3) if errors_s else None,
    )
