"""How sure a catalog's own music may make us: its confidence curve and threshold, fitted on clips.

Clips of its tracks are degraded as people meet music, and asked for twice: as the catalog is, and
without the tracks that hold them. What is told of the outcome is measured on tracks that the curve
it is measured with has not seen.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from engine.audio.decode import Waveform
from engine.errors import AudioError, StoreError
from engine.protocol import AudioFingerprinter, VectorIndex
from engine.records import Fingerprint
from engine.search.calibration import FALSE_ACCEPT_RATE, Answer, Calibration, learn
from engine.search.context import SearchContext, Stopwatch
from engine.search.speeds import SpeedSearch
from training.augment.config import AugmentConfig
from training.augment.pool import AudioPool
from training.augment.rng import Rng
from training.calibrate import DURATIONS_S, best_candidates, query_augmentation
from training.dataset import PairSampler

log = logging.getLogger(__name__)

N_QUERIES = 500

Fit: TypeAlias = Callable[[Sequence[Answer]], Calibration]

# Fewer say nothing about music that is not among them.
_LEAST_TRACKS = 8
# Clips of many tracks tell more than many clips of one; decoding takes little of the time.
_CLIPS_OF_TRACK = 2
_N_ATTEMPTS = 4


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """A calibration fitted on all clips, and what those like it do on tracks they have not seen.

    Parameters
    ----------
    calibration : Calibration
    false_accept_rate : float
        What was wished for.
    reliability : Reliability
        Of the best answers, half of them to queries whose music was left out.
    hits : Share
        Queries whose music was there that have it as their best answer.
    kept : Share
        Right best answers that pass the threshold.
    false_accepts : Share
        Queries whose music was left out that get a match all the same.
    n_tracks : int
        Tracks the clips were cut from; the same audio counts once.
    """

    calibration: Calibration
    false_accept_rate: float
    reliability: Reliability
    hits: Share
    kept: Share
    false_accepts: Share
    n_tracks: int


def calibrate(  # noqa: PLR0913 - each is a choice people make, by name
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
        Its tracks' files are needed, those that still exist.
    false_accept_rate : float
        Share of queries of music that is not in the catalog that may get a match, in (0, 1).
    n_queries : int
        Number of clips, of 1 to 10 seconds.
    noise, speech, rooms : Path, optional
        Folders of recorded noise, speech and room impulse responses; what has none is made up.
    seed : int
        Decides all that is random; not negative.
    on_progress : callable, optional
        Told how many of how many files are done.

    Returns
    -------
    CalibrationReport

    Raises
    ------
    StoreError
        Too few tracks have their file where it was.
    ConfigError
        A folder has no audio that can be read.
    """
    rate, context = catalog.fingerprinter.sample_rate, catalog.search_context()
    conditions = AcousticConditions.from_folders(
        rate, seed, noise=noise, speech=speech, rooms=rooms
    )
    examiner = _Examiner(catalog.fingerprinter, context, conditions, seed)
    n_sources = max(math.ceil(n_queries / _CLIPS_OF_TRACK), 2 * _LEAST_TRACKS)
    sources = excerpts.of_tracks(catalog.tracks(), n_sources, seed)
    tasks = excerpts.tasks(sources, n_queries)
    trials = list(excerpts.each(examiner.trials, tasks, on_progress))
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
    if report.n_tracks < _LEAST_TRACKS:
        raise StoreError(
            f"{catalog.folder}: {report.n_tracks} different tracks gave clips; to calibrate, "
            f"{_LEAST_TRACKS} are needed whose files can be read, and more clips than that"
        )
    return report


class _Trial(NamedTuple):
    """A clip asked for with and without its music; `holder` is the first track that holds it."""

    holder: int
    answers: tuple[Answer, Answer]


@dataclass(frozen=True)
class _Examiner:
    """Cuts clips from a source, degrades them, and asks for them."""

    fingerprinter: AudioFingerprinter
    context: SearchContext
    conditions: AcousticConditions
    seed: int

    def trials(self, task: Task) -> Iterator[_Trial]:
        rate = self.fingerprinter.sample_rate
        try:
            waveform = excerpts.read(task.source, rate)
        except AudioError as error:
            log.warning("left out: %s", error)
            return
        sampler = self._sampler(waveform)
        for k, number in enumerate(task.numbers, task.numbers.start):
            duration_s = DURATIONS_S[k % len(DURATIONS_S)]
            try:
                if duration_s * rate <= len(waveform):
                    yield from self._trial(sampler, task.source.track_id, number, duration_s)
            except AudioError as error:  # silence
                log.info("left out: %s: %s", task.source.path, error)

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
            clean, degraded, _ = sampler.draw(Rng((self.seed, number, attempt)), 1, n_drawn)
            held = set(self._holders(clean[0].numpy()))
            # Without its own track it goes over the end of the recording to its beginning.
            if track_id in held:
                first = (n_drawn - n_samples) // 2
                yield self._asked(degraded[0, first : first + n_samples].numpy(), held)
                return

    def _holders(self, clean: Waveform) -> Iterable[int]:
        return excerpts.tracks_containing(clean, self.fingerprinter, self.context)

    def _asked(self, clip: Waveform, held: set[int]) -> _Trial:
        context = self.context
        hop_s = self.fingerprinter.hop_within(context.search.query_hop_s, context.reference_hop_s)
        fingerprint = self.fingerprinter.fingerprint([clip], hop_s)
        known = self._answer(clip, fingerprint, context.index, held)
        others = excerpts.without(context.index, held)
        return _Trial(min(held), (known, self._answer(clip, fingerprint, others, set())))

    def _answer(
        self, clip: Waveform, fingerprint: Fingerprint, index: VectorIndex, held: set[int]
    ) -> Answer:
        context = replace(self.context, index=index, stopwatch=Stopwatch())
        candidates = best_candidates(fingerprint, clip, SpeedSearch(self.fingerprinter, context))
        right = tuple(one.track_id in held for one in candidates)
        return Answer(
            candidates=candidates,
            right=right,
            audible_s=fingerprint.audible_s,
            is_known=bool(held),
        )


class _Verdict(NamedTuple):
    """What a curve says of an answer that it was not fitted to."""

    confidence: float
    is_right: bool
    is_accepted: bool
    answer: Answer


def _verdicts(trials: Sequence[_Trial], fit: Fit) -> Iterator[_Verdict]:
    """Fit on one half of the music and judge the other, and the other way round."""
    holders = sorted({one.holder for one in trials})
    halves: list[list[Answer]] = [[], []]
    for one in trials:
        halves[holders.index(one.holder) % 2] += one.answers
    for judged, fitted in (halves, halves[::-1]):
        curve = fit(fitted)
        for answer in judged:
            confidence, is_right = answer.best(curve)
            yield _Verdict(confidence, is_right, confidence >= curve.min_confidence, answer)


def _report(trials: Sequence[_Trial], fit: Fit, false_accept_rate: float) -> CalibrationReport:
    verdicts = list(_verdicts(trials, fit))
    told = [one for one in verdicts if one.answer.candidates]
    return CalibrationReport(
        calibration=fit([x for one in trials for x in one.answers]),
        false_accept_rate=false_accept_rate,
        reliability=reliability(
            np.array([one.confidence for one in told]), np.array([one.is_right for one in told])
        ),
        hits=share(one.is_right for one in verdicts if one.answer.is_known),
        kept=share(one.is_accepted for one in verdicts if one.is_right),
        false_accepts=share(one.is_accepted for one in verdicts if not one.answer.is_known),
        n_tracks=len({one.holder for one in trials}),
    )
