"""Fit the confidence curve and the threshold on clips of a catalog's own tracks.

Every clip is degraded and queried twice: in the whole catalog, and without the tracks that contain
it. Reversed clips, tones and noise, which no catalog contains, are queried too. The report is
cross-validated: each half of the music is scored with a curve of the other half.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from astound.catalog import Catalog, OnProgress
from astound.evaluation import excerpts
from astound.evaluation.degradations import AcousticConditions
from astound.evaluation.excerpts import Task
from astound.evaluation.statistics import Reliability, Share, reliability, share
from engine.errors import AudioError, StoreError
from engine.protocol import AudioFingerprinter, VectorIndex
from engine.records import Fingerprint, Waveform
from engine.search.calibration import FALSE_ACCEPT_RATE, Answer, Calibration, learn
from engine.search.context import SearchContext, Stopwatch
from engine.search.speeds import SpeedSearch
from training.augment.config import AugmentConfig
from training.augment.pool import AudioPool
from training.augment.rng import Rng
from training.calibrate import (
    DURATIONS_S,
    UnknownSound,
    best_candidates,
    query_augmentation,
    unknown_sounds,
)
from training.dataset import PairSampler

log = logging.getLogger(__name__)

N_QUERIES = 500

Fit: TypeAlias = Callable[[Sequence[Answer]], Calibration]

# Fewer tracks do not represent other music.
_MIN_TRACKS = 8
# Few, because clips of many tracks are more informative, and decoding takes little of the time.
_CLIPS_PER_TRACK = 2
_N_ATTEMPTS = 4


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """A calibration fitted on all clips, with cross-validated measurements.

    Parameters
    ----------
    calibration : Calibration
    false_accept_rate : float
        The target.
    reliability : Reliability
        Of the best answers; half of the queries are without the tracks that contain them.
    hits : Share
        Queries of music in the catalog whose best answer is right.
    accepted : Share
        Right best answers that reach the threshold.
    false_accepts : Share
        Queries of music not in the catalog that get a match.
    n_tracks : int
        Tracks the clips were cut from; the same audio counts once.
    """

    calibration: Calibration
    false_accept_rate: float
    reliability: Reliability
    hits: Share
    accepted: Share
    false_accepts: Share
    n_tracks: int


def calibrate(  # noqa: PLR0913 - keywords of the public API
    catalog: Catalog,
    *,
    false_accept_rate: float = FALSE_ACCEPT_RATE,
    n_queries: int = N_QUERIES,
    noise: Path | None = None,
    speech: Path | None = None,
    rooms: Path | None = None,
    seed: int = 0,
    on_progress: OnProgress = lambda n_done, n_all: None,
) -> CalibrationReport:
    """Fit the confidence curve and the threshold on clips of the catalog's own tracks.

    Nothing is stored; :meth:`Catalog.save_calibration` does that.

    Parameters
    ----------
    catalog : Catalog
        Clips are cut from the files of its tracks that still exist.
    false_accept_rate : float
        Fraction of queries of music not in the catalog that may get a match, in (0, 1).
    n_queries : int
        Number of clips, of 1 to 10 seconds.
    noise, speech, rooms : Path, optional
        Folders of recorded noise, speech and room impulse responses; synthesised by default.
    seed : int
        Random seed, at least 0.
    on_progress : callable, optional
        Called with the number of files done and in total.

    Returns
    -------
    CalibrationReport

    Raises
    ------
    StoreError
        Too few tracks have readable files.
    ConfigError
        A folder contains no readable audio.
    """
    rate, context = catalog.fingerprinter.sample_rate, catalog.search_context()
    conditions = AcousticConditions.from_folders(
        rate, seed, noise=noise, speech=speech, rooms=rooms
    )
    trial_runner = _TrialRunner(catalog.fingerprinter, context, conditions, seed)
    n_sources = max(math.ceil(n_queries / _CLIPS_PER_TRACK), 2 * _MIN_TRACKS)
    sources = excerpts.select_tracks(catalog.tracks(), n_sources, seed)
    if len(sources) < _MIN_TRACKS:
        raise _too_few(catalog, f"it has {len(sources)} tracks")
    tasks = excerpts.split_clips(sources, n_queries)
    trials = list(excerpts.run_tasks(trial_runner.run, tasks, on_progress))
    report = _report(
        trials,
        partial(
            learn,
            recipe_id=catalog.recipe_id,
            false_accept_rate=false_accept_rate,
            search=context.search,
            alignment=context.alignment,
        ),
        false_accept_rate,
    )
    if report.n_tracks < _MIN_TRACKS:
        raise _too_few(catalog, f"{report.n_tracks} different tracks gave clips")
    return report


def _too_few(catalog: Catalog, found: str) -> StoreError:
    return StoreError(
        f"{catalog.folder}: {found}; calibration needs {_MIN_TRACKS} tracks with readable files, "
        "and more clips than tracks"
    )


class _Trial(NamedTuple):
    """Answers to a clip with and without its music, and to a sound that no catalog contains.

    `track_id` is the first that contains the clip.
    """

    track_id: int
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class _TrialRunner:
    """Cuts clips from a source, degrades them and queries them."""

    fingerprinter: AudioFingerprinter
    context: SearchContext
    conditions: AcousticConditions
    seed: int

    def run(self, task: Task) -> Iterator[_Trial]:
        rate = self.fingerprinter.sample_rate
        try:
            waveform = excerpts.read_source(task.source, rate)
        except AudioError as error:
            log.warning("skipped: %s", error)
            return
        sampler = self._sampler(waveform)
        for k, number in enumerate(task.numbers, task.numbers.start):
            duration_s = DURATIONS_S[k % len(DURATIONS_S)]
            try:
                if duration_s * rate <= len(waveform):
                    yield from self._trial(sampler, task.source.track_id, number, duration_s)
            except AudioError as error:  # silence
                log.info("skipped: %s: %s", task.source.path, error)

    def _sampler(self, waveform: Waveform) -> PairSampler:
        conditions = self.conditions
        config = query_augmentation(
            AugmentConfig(), noise=conditions.has_noise, speech=conditions.has_speech
        )
        if not conditions.has_codecs:
            config = replace(config, codec_prob=0.0)
        pool, only = AudioPool.from_waveforms([waveform]), np.zeros(1, np.int64)
        return PairSampler(pool, only, conditions.noises, conditions.rooms, config)

    def _trial(
        self, sampler: PairSampler, track_id: int | None, number: int, duration_s: float
    ) -> Iterator[_Trial]:
        rate = self.fingerprinter.sample_rate
        n_samples = round(duration_s * rate)
        n_drawn = max(n_samples, round(excerpts.MIN_EXCERPT_S * rate))
        for attempt in range(_N_ATTEMPTS):
            rng = Rng((self.seed, number, attempt))
            clean, degraded, _ = sampler.draw(rng, 1, n_drawn)
            containing = set(
                excerpts.tracks_containing(clean[0].numpy(), self.fingerprinter, self.context)
            )
            # An excerpt that wraps around the end of the recording is not contained in it.
            if track_id in containing:
                first = (n_drawn - n_samples) // 2
                clips = degraded[:, first : first + n_samples]
                sounds = unknown_sounds(clips, sampler, rng)
                answers = self._answers(clips[0].numpy(), containing)
                unknown = self._answers_unknown(sounds[number % len(sounds)])
                yield _Trial(min(containing), (*answers, *unknown))
                return

    def _answers(self, clip: Waveform, containing: set[int]) -> Iterator[Answer]:
        """Query a clip with and without its music."""
        index, fingerprint = self.context.index, self._fingerprint(clip)
        yield self._answer(clip, fingerprint, index, containing)
        yield self._answer(clip, fingerprint, excerpts.without_tracks(index, containing), set())

    def _answers_unknown(self, sound: UnknownSound) -> Iterator[Answer]:
        """Query a sound that no catalog contains, unless it is silent."""
        clip = sound.waveform.numpy()
        with suppress(AudioError):
            answer = self._answer(clip, self._fingerprint(clip), self.context.index, set())
            yield replace(answer, is_reversed=sound.is_reversed)

    def _fingerprint(self, clip: Waveform) -> Fingerprint:
        context = self.context
        hop_s = self.fingerprinter.hop_within(context.search.query_hop_s, context.reference_hop_s)
        return self.fingerprinter.fingerprint([clip], hop_s)

    def _answer(
        self, clip: Waveform, fingerprint: Fingerprint, index: VectorIndex, containing: set[int]
    ) -> Answer:
        context = replace(self.context, index=index, stopwatch=Stopwatch())
        candidates = best_candidates(fingerprint, clip, SpeedSearch(self.fingerprinter, context))
        right = tuple(candidate.track_id in containing for candidate in candidates)
        return Answer(
            candidates=candidates,
            right=right,
            audible_s=fingerprint.audible_s,
            is_known=bool(containing),
        )


class _Scored(NamedTuple):
    """An answer, scored with a curve that was not fitted to it."""

    confidence: float
    is_right: bool
    is_accepted: bool
    answer: Answer


def _cross_validate(trials: Sequence[_Trial], fit: Fit) -> Iterator[_Scored]:
    """Fit on one half of the music and score the other, and vice versa."""
    track_ids = sorted({trial.track_id for trial in trials})
    halves: list[list[Answer]] = [[], []]
    for trial in trials:
        halves[track_ids.index(trial.track_id) % 2] += trial.answers
    for held_out, fitted in (halves, halves[::-1]):
        curve = fit(fitted)
        for answer in held_out:
            confidence, is_right = answer.best(curve)
            yield _Scored(confidence, is_right, confidence >= curve.min_confidence, answer)


def _report(trials: Sequence[_Trial], fit: Fit, false_accept_rate: float) -> CalibrationReport:
    scored = list(_cross_validate(trials, fit))
    answered = [one for one in scored if one.answer.candidates]
    return CalibrationReport(
        calibration=fit([answer for trial in trials for answer in trial.answers]),
        false_accept_rate=false_accept_rate,
        reliability=reliability(
            np.array([one.confidence for one in answered]),
            np.array([one.is_right for one in answered]),
        ),
        hits=share(one.is_right for one in scored if one.answer.is_known),
        accepted=share(one.is_accepted for one in scored if one.is_right),
        false_accepts=share(one.is_accepted for one in scored if one.answer.is_absent),
        n_tracks=len({trial.track_id for trial in trials}),
    )
