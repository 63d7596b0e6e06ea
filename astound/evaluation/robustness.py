"""Measure accuracy on degraded clips of the user's own files.

Each clip is also searched without the tracks that contain it, as music outside of the catalog.
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
from engine.audio.decode import Waveform
from engine.errors import AudioError, AudioTooShortError, ConfigError, SilentAudioError
from engine.protocol import VectorIndex
from engine.search.context import Stopwatch
from engine.search.searcher import Searcher
from indexer.discover import FoundFile, discover
from indexer.report import Failure
from training.augment.rng import Rng

DURATIONS_S = (1.0, 2.0, 3.0, 5.0, 10.0)
N_QUERIES = 20

_EDGE_S = 0.01  # what the change of speed reads beyond either end


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What came back for one degradation and length of the clips.

    Parameters
    ----------
    degradation : str
    duration_s : float
    hits : Share
        Clips whose best answer is the right track, however sure.
    found : Share
        Clips that get a match, and the right one.
    median_offset_error_s : float or None
        Of the hits, without sign.
    """

    degradation: str
    duration_s: float
    hits: Share
    found: Share
    median_offset_error_s: float | None


@dataclass(frozen=True, kw_only=True)
class RobustnessReport:
    """What to expect of a catalog.

    Parameters
    ----------
    cells : tuple of Cell
        Degradation by degradation.
    false_accepts : Share
        Clips of music that is not in the catalog, or was left out, that get a match all the same.
    failed : tuple of str
        Why a file gave none, a sentence each.
    """

    cells: tuple[Cell, ...]
    false_accepts: Share
    failed: tuple[str, ...]


def robustness(  # noqa: PLR0913 - each is a choice people make, by name
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
    """Degrade clips in ways people know, ask a catalog for them, and count what comes back.

    Parameters
    ----------
    catalog : Catalog
    paths : iterable of path-like
        Files and folders to cut clips from; the files of the catalog's tracks by default. What no
        track holds stands for music that is not in the catalog.
    durations_s : sequence of float
        Lengths of the clips, in seconds.
    n_queries : int
        Clips for each degradation and length.
    noise, rooms : Path, optional
        Folders of recorded noise and room impulse responses; what has none is made up.
    seed : int
        Decides all that is random; not negative.
    on_progress : callable, optional
        Told how many of how many files are done.

    Returns
    -------
    RobustnessReport

    Raises
    ------
    ConfigError
        A length is shorter than a segment, or a folder has no audio that can be read.
    StoreError
        No track has its file where it was.
    """
    searcher = catalog.searcher()
    least_s = searcher.fingerprinter.segment_s
    if not durations_s or not all(one >= least_s for one in durations_s):
        raise ConfigError.invalid(
            "durations", list(durations_s), f"must all be at least {least_s:.2f} s"
        )
    conditions = AcousticConditions.from_folders(
        searcher.fingerprinter.sample_rate, seed, noise=noise, rooms=rooms
    )
    examiner = _Examiner(searcher, conditions, tuple(sorted(durations_s)), seed)
    failures, sources = _sources(catalog, paths, n_queries, seed)
    outcomes: list[_Outcome] = []
    for one in excerpts.each(examiner.outcomes, excerpts.tasks(sources, n_queries), on_progress):
        if isinstance(one, Failure):
            failures.append(one)
        else:
            outcomes.append(one)
    return RobustnessReport(
        cells=tuple(
            _cell(degradation.name, duration_s, outcomes)
            for degradation, duration_s in product(examiner.degradations, examiner.durations_s)
        ),
        false_accepts=share(one.is_accepted for one in outcomes if not one.is_present),
        failed=tuple(f"{one.path}: {one.reason}" for one in failures),
    )


def _sources(
    catalog: Catalog, paths: Iterable[str | os.PathLike[str]], n: int, seed: int
) -> tuple[list[Failure], list[Source]]:
    """Select among the named files, or among those of the catalog's tracks."""
    tracks, found = catalog.tracks(), list(discover(paths))
    if not found:
        return [], excerpts.of_tracks(tracks, n, seed)
    ids = {one.path: one.id for one in tracks}
    named = [Source(one.path, ids.get(one.path)) for one in found if isinstance(one, FoundFile)]
    failures = [one for one in found if isinstance(one, Failure)]
    return failures, excerpts.chosen(named, n, seed)


class _Outcome(NamedTuple):
    """Outcome of one clip; `is_present` unless its tracks were excluded."""

    degradation: str
    duration_s: float
    is_present: bool
    is_hit: bool
    is_accepted: bool
    offset_error_s: float | None


@dataclass(frozen=True)
class _Examiner:
    """Cuts clips from a source, degrades them and searches them."""

    searcher: Searcher
    conditions: AcousticConditions
    durations_s: tuple[float, ...]
    seed: int

    @cached_property
    def degradations(self) -> tuple[Degradation, ...]:
        return degradations(self.conditions)

    def outcomes(self, task: Task) -> Iterator[_Outcome | Failure]:
        try:
            waveform = excerpts.read(task.source, self.searcher.fingerprinter.sample_rate)
            for number in task.numbers:
                yield from self._excerpt(task.source, waveform, number)
        except AudioError as error:
            yield Failure(task.source.path, error.reason)

    def _excerpt(self, source: Source, waveform: Waveform, number: int) -> Iterator[_Outcome]:
        """Search all clips of one start, with and without the tracks that contain it."""
        searcher, rate = self.searcher, self.searcher.fingerprinter.sample_rate
        durations_s, start = self._place(source, len(waveform) / rate, number)
        clean = waveform[start : start + round(max(durations_s[-1], excerpts.MIN_EXCERPT_S) * rate)]
        try:
            offsets_s = self._offsets(source, clean, start / rate)
        except SilentAudioError:
            return
        index = searcher.context.index
        absent = excerpts.without(index, offsets_s)
        for (i, duration_s), (j, degradation) in product(
            enumerate(durations_s), enumerate(self.degradations)
        ):
            rng = Rng((self.seed, number, i, j))
            clip = degradation.clip(waveform, start, round(duration_s * rate), rng, self.conditions)
            if offsets_s:
                yield from _searched(searcher, index, clip, offsets_s, degradation.name, duration_s)
            if (number + j) % len(durations_s) == i:  # once for each degradation is enough
                yield from _searched(searcher, absent, clip, {}, degradation.name, duration_s)

    def _place(self, source: Source, length_s: float, number: int) -> tuple[tuple[float, ...], int]:
        """Return the clip lengths that fit, and the first sample of the clips."""
        first_s = CONTEXT_S * MAX_SPEED + _EDGE_S
        spare_s = length_s - first_s - _EDGE_S
        durations_s = tuple(one for one in self.durations_s if one * MAX_SPEED <= spare_s)
        if not durations_s:
            needed_s = length_s - spare_s + self.durations_s[0] * MAX_SPEED
            raise AudioTooShortError(source.path, length_s, needed_s)
        slack_s = spare_s - durations_s[-1] * MAX_SPEED
        start_s = first_s + Rng((self.seed, number)).generator.random() * slack_s
        return durations_s, round(start_s * self.searcher.fingerprinter.sample_rate)

    def _offsets(self, source: Source, clean: Waveform, start_s: float) -> dict[int, float]:
        """Return the offset in seconds of an excerpt in each track that contains it."""
        found = excerpts.tracks_containing(
            clean, self.searcher.fingerprinter, self.searcher.context
        )
        return found | ({} if source.track_id is None else {source.track_id: start_s})


def _searched(
    searcher: Searcher,
    index: VectorIndex,
    clip: Waveform,
    offsets_s: Mapping[int, float],
    degradation: str,
    duration_s: float,
) -> Iterator[_Outcome]:
    """Search a clip as `astound query` does; a silent one has no outcome."""
    context = replace(searcher.context, index=index, stopwatch=Stopwatch())
    searcher = replace(searcher, context=context)
    try:
        fingerprint, beginning = searcher.fingerprint_query([clip], degradation)
    except SilentAudioError:
        return
    candidates = searcher.candidates(fingerprint, beginning)[:1]
    threshold = searcher.calibration.min_confidence
    hit = next((one for one in candidates if one.track_id in offsets_s), None)
    yield _Outcome(
        degradation=degradation,
        duration_s=duration_s,
        is_present=bool(offsets_s),
        is_hit=hit is not None,
        is_accepted=bool(searcher.above_threshold(candidates, fingerprint.audible_s, threshold)),
        offset_error_s=abs(hit.offset_s - offsets_s[hit.track_id]) if hit else None,
    )


def _cell(degradation: str, duration_s: float, outcomes: Iterable[_Outcome]) -> Cell:
    asked = [
        one
        for one in outcomes
        if one.is_present and (one.degradation, one.duration_s) == (degradation, duration_s)
    ]
    errors_s = [one.offset_error_s for one in asked if one.offset_error_s is not None]
    return Cell(
        degradation=degradation,
        duration_s=duration_s,
        hits=share(one.is_hit for one in asked),
        found=share(one.is_hit and one.is_accepted for one in asked),
        median_offset_error_s=round(median(errors_s), 3) if errors_s else None,
    )
