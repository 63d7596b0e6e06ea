"""Search a query at other playback speeds, to find music whose speed or pitch was changed.

The encoder tolerates about three quarters of a semitone. A query that was transposed further
resembles nothing until it is played at the right pitch. That changes its tempo as well: if only the
pitch was changed, query and track then agree along a tilted line (:mod:`engine.search.alignment`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from engine.audio.resample import change_speed
from engine.config import n_threads
from engine.errors import SilentAudioError
from engine.protocol import AudioFingerprinter, VectorIndex
from engine.records import Candidate, Fingerprint, Waveform
from engine.search.alignment import background, mean_cosine, remove_mean
from engine.search.candidates import find_candidates, with_margins
from engine.search.clips import Clip, refined
from engine.search.context import SearchContext
from engine.search.extension import follow, line_of
from engine.search.line import LineTracer, parabola_vertex, squared_angle

Item = TypeVar("Item")
Made = TypeVar("Made")

# Weight of tilted lines at another speed: only the pitch may have been changed, so a line is
# nearly as likely as a diagonal.
TILTED_WEIGHT = 0.97

# The speed is chosen by a few segments of the first seconds of a query, without any alignment,
# which makes unknown music faster to reject; docs/measurements.md#search.
_CHOOSING_S, _N_CHOOSING_SEGMENTS = 20.0, 40
_MIN_CHOOSING_HOP_S = 0.25
# The pitch between the steps is interpolated from this many semitones to either side of the chosen
# one, and again around what was found until it changes by less than the last of these numbers;
# docs/measurements.md#search.
_PITCH_STEP, _MAX_PITCH_ROUNDS, _MIN_PITCH_CHANGE = 0.5, 4, 0.125
_PITCH_S = 8.0
# Standard error of the speed that follows from the pitch, and of a tempo that a line has; that is
# large, because the line at the tempo of the track is better.
_SPEED_ERROR, _TEMPO_ERROR = 0.002, 0.02
# It takes three more encodings, so it is done for clear leads only.
_CLEAR_LEAD = 0.25
# A short passage is tuned if it agrees less than music at its own speed does, is transposed by so
# many semitones at least, and no tempo explains its slope. That must reduce the squared angle
# between query and track by some share. A larger change of the slope is one of the tempo: music is
# not found at another pitch without transposing it; docs/measurements.md#search.
_MAX_TUNED_S, _TUNED_SCORE, _MIN_PITCH, _MAX_TILT, _MIN_GAIN = 20.0, 0.98, 0.07, 0.03, 0.1
_MAX_SPEED_CHANGE, _MARGIN_S = 0.07, 1.0
# The tempo is measured with a finer hop. A short passage that noise does not mask has another one
# if its slope differs by more than so many standard errors, and at that tempo by no more than this
# share of the change; docs/measurements.md#search.
_TEMPO_HOP_S, _SHORT_S, _SHORT_TUNED_SCORE, _MIN_TEMPO_SCORE = 0.0625, 4.5, 0.99, 0.9
_MIN_TEMPO_CHANGE, _MIN_TEMPO_ERRORS, _MAX_TEMPO_REST = 0.1, 2.0, 0.5
# At another tempo the squared angle between query and track may be larger by this factor, because
# changing the tempo blurs.
_MAX_TEMPO_LOSS = 1.3


def fingerprint_at_speed(
    fingerprinter: AudioFingerprinter, waveform: Waveform, speed: float, segment_hop_s: float
) -> Fingerprint:
    """Fingerprint a query as it sounds when it is played faster or slower.

    Parameters
    ----------
    fingerprinter : AudioFingerprinter
    waveform : float32 array of shape (n_samples,)
    speed : float
        Factor of the playback speed.
    segment_hop_s : float

    Returns
    -------
    Fingerprint
        Its times are those of the query at that speed.

    Raises
    ------
    SilentAudioError
        No segment is audible.
    """
    resampled = change_speed(waveform, fingerprinter.sample_rate, speed)
    return _fingerprint_played(fingerprinter, resampled, segment_hop_s)


def _fingerprint_played(
    fingerprinter: AudioFingerprinter, played: Waveform, segment_hop_s: float
) -> Fingerprint:
    """Fingerprint a query that was made faster or slower."""
    # A query of one segment must not become too short when it is played faster.
    n_missing = round(fingerprinter.segment_s * fingerprinter.sample_rate) - len(played)
    return fingerprinter.fingerprint([np.pad(played, (0, max(n_missing, 0)))], segment_hop_s)


@dataclass(frozen=True)
class _Played:
    """A query at another speed."""

    speed: float
    waveform: Waveform
    fingerprint: Fingerprint


@dataclass(frozen=True)
class SpeedSearch:
    """Search queries at the speeds of `context.search.speeds`.

    Parameters
    ----------
    fingerprinter : AudioFingerprinter
    context : SearchContext
        Its stopwatch measures the steps "encode", "search" and "align".
    within : VectorIndex, optional
        The tracks that may be found, as in :func:`engine.search.candidates.find_candidates`.
    """

    fingerprinter: AudioFingerprinter
    context: SearchContext
    within: VectorIndex | None = None

    def extend(self, candidates: list[Candidate], waveform: Waveform) -> list[Candidate]:
        """Add the candidates found at the one other speed that brings most evidence.

        Parameters
        ----------
        candidates : list of Candidate
            Those of the query at its own speed.
        waveform : float32 array of shape (n_samples,)
            The query at the encoder's sample rate; its first `search.speeds_s` seconds are used.

        Returns
        -------
        list of Candidate
            One for each track, most evidence first, with margins over all of them. Times are those
            of the query at its own speed.
        """
        rate = self.fingerprinter.sample_rate
        beginning = waveform[: round(self.context.search.speeds_s * rate)]
        first = beginning[: round(_CHOOSING_S * rate)]
        played = self._best_played(first)
        if len(first) < len(beginning):
            played = self._played_further(played, beginning)
        if played is None:
            return candidates
        best = {one.track_id: one for one in candidates}
        for one in self._candidates(played, len(beginning)):
            if one.track_id not in best or one.evidence > best[one.track_id].evidence:
                best[one.track_id] = one
        ranked = with_margins(best.values(), len(waveform) / rate, self.context.tracks)
        if ranked and ranked[0].resampled != 1.0 and _has_clear_lead(ranked[0]):
            ranked[0], _ = self._at_best_pitch(ranked[0], beginning)
        return ranked

    def follow(self, candidate: Candidate, waveform: Waveform) -> Candidate:
        """Give a candidate the place of the passage it lies on, by the query at its speed.

        Parameters
        ----------
        candidate : Candidate
            Found at another speed; its times are those of the query at its own.
        waveform : float32 array of shape (n_samples,)

        Returns
        -------
        Candidate
        """
        speed = candidate.resampled
        with self.context.stopwatch.step("encode"):
            hop_s = self._hop_s(self.context.search.query_hop_s)
            query = fingerprint_at_speed(self.fingerprinter, waveform, speed, hop_s)
        return self._followed(candidate, query, speed, waveform, _SPEED_ERROR)

    def _follow_at_tempo(self, candidate: Candidate, waveform: Waveform) -> Candidate:
        """Give a candidate the place of its passage, by the query at the tempo of the track."""
        # Only this takes FFmpeg, which takes a tenth of a second to import.
        from engine.audio.tempo import TEMPO_RANGE, change_tempo

        rate = self.fingerprinter.sample_rate
        tempo = float(np.clip(1 / candidate.speed, *TEMPO_RANGE))
        with self.context.stopwatch.step("encode"):
            played = change_tempo(waveform, rate, tempo)
            query = _fingerprint_played(self.fingerprinter, played, self._hop_s(_TEMPO_HOP_S))
        followed = self._followed(candidate, query, tempo, waveform, _TEMPO_ERROR)
        with self.context.stopwatch.step("align"):
            return self._at_tempo(followed, query, tempo)[0]

    def _at_tempo(
        self, candidate: Candidate, query: Fingerprint, tempo: float
    ) -> tuple[Candidate, float]:
        """Measure the tempo of a candidate, with its standard error, in a query made faster."""
        tracer = LineTracer(query, self.context.tracks)
        half_s = query.segment_s / 2  # nearer to the ends, segments contain something else
        ends_s = candidate.query_start_s / tempo + half_s, candidate.query_end_s / tempo - half_s
        first, last = map(int, np.searchsorted(tracer.middles_s, ends_s))
        line = line_of(candidate)
        played = replace(line, query_s=line.query_s / tempo, speed=line.speed * tempo)
        fitted, error = tracer.fit_stored(played, first, last)
        speed = fitted.speed / tempo
        return replace(candidate, speed=speed, offset_s=fitted.at(0.0)), error / tempo

    def _followed(
        self,
        candidate: Candidate,
        query: Fingerprint,
        speed: float,
        waveform: Waveform,
        speed_error: float,
    ) -> Candidate:
        """Follow a candidate in a query that is played `speed` times as fast as the waveform."""
        with self.context.stopwatch.step("align"):
            played = replace(
                candidate,
                query_start_s=candidate.query_start_s / speed,
                query_end_s=candidate.query_end_s / speed,
                speed=candidate.speed * speed,
            )
            placed = follow(played, query, self.context.tracks, speed_error)
        end_s = min(placed.query_end_s * speed, len(waveform) / self.fingerprinter.sample_rate)
        return replace(
            placed,
            query_start_s=placed.query_start_s * speed,
            query_end_s=end_s,
            speed=placed.speed / speed,
            start_error_s=placed.start_error_s * speed,
            end_error_s=placed.end_error_s * speed,
        )

    def tune(self, candidate: Candidate, clip: Clip) -> Candidate:
        """Measure the speed of a short passage again, more precisely than by its line.

        A small change of speed is measured by the pitch, a change of the tempo by the query at the
        tempo of the track. The line of a short passage cannot tell its tempo, which is tested.

        Parameters
        ----------
        candidate : Candidate
            Found in the clip without a change of speed.
        clip : Clip

        Returns
        -------
        Candidate
            As it was if it is long or at its own speed.
        """
        length_s = candidate.query_end_s - candidate.query_start_s
        is_other_tempo = abs(math.log(candidate.speed)) > _MAX_SPEED_CHANGE
        exact_score = _SHORT_TUNED_SCORE if length_s < _SHORT_S else _TUNED_SCORE
        is_exact = candidate.score >= exact_score and not is_other_tempo
        if is_exact or length_s > _MAX_TUNED_S or not self.context.search.speeds:
            return candidate
        rate, start_s = self.fingerprinter.sample_rate, max(candidate.query_start_s - _MARGIN_S, 0)
        end_s = candidate.query_end_s + _MARGIN_S
        part = clip.waveform[round(start_s * rate) : round(end_s * rate)]
        here = candidate.later(-start_s)
        if is_other_tempo:
            return self._follow_at_tempo(here, part).later(start_s)
        if candidate.score < _TUNED_SCORE:
            score = self._own_score(candidate, clip.fingerprint)
            if (tuned := self._transposed(here, part, score)) is not None:
                return self.follow(tuned, part).later(start_s)
        is_clear = length_s < _SHORT_S and candidate.score >= _MIN_TEMPO_SCORE
        other = self._other_tempo(here, part) if is_clear else None
        return candidate if other is None else other.later(start_s)

    def _other_tempo(self, candidate: Candidate, waveform: Waveform) -> Candidate | None:
        """Measure the tempo of a short candidate, None if it is that of the track."""
        with self.context.stopwatch.step("encode"):
            hop_s = self._hop_s(_TEMPO_HOP_S)
            query = _fingerprint_played(self.fingerprinter, waveform, hop_s)
        with self.context.stopwatch.step("align"):
            turned, error = self._at_tempo(candidate, query, 1.0)
        change = abs(turned.speed - 1)
        if change < max(_MIN_TEMPO_CHANGE, _MIN_TEMPO_ERRORS * error):
            return None
        followed = self._follow_at_tempo(turned, waveform)
        rest = abs(math.log(followed.speed / turned.speed))
        is_confirmed = rest < _MAX_TEMPO_REST * abs(math.log(turned.speed))
        most = _MAX_TEMPO_LOSS * squared_angle(candidate.score)
        return followed if is_confirmed and squared_angle(followed.score) < most else None

    def _transposed(
        self, candidate: Candidate, waveform: Waveform, score: float
    ) -> Candidate | None:
        """Set the pitch of a candidate, and the speed with it, if that is clearly better."""
        pitch, _ = self._pitch(candidate, waveform, score)
        if abs(pitch) < _MIN_PITCH:
            return None
        near = _at_pitch(replace(candidate, resampled=1 / candidate.speed), pitch)
        tuned, tuned_score = self._at_best_pitch(near, waveform)
        is_tempo = (
            candidate.speed != 1.0 and abs(math.log(candidate.speed / tuned.speed)) > _MAX_TILT
        )
        is_better = squared_angle(tuned_score) <= (1 - _MIN_GAIN) * squared_angle(score)
        return tuned if is_better and not is_tempo else None

    def _best_played(self, waveform: Waveform) -> _Played | None:
        """Play a query at the speed at which its nearest neighbours stand out most.

        Each round keeps the better half of the speeds and doubles their segments (Karnin, Koren
        and Somekh 2013).

        Returns
        -------
        _Played or None
            None if all of it is silent.
        """
        speeds = self.context.search.speeds
        hop_s, playing = self._first_hop_s(waveform, len(speeds)), list[_Played]()
        while not playing and hop_s >= self._hop_s(_MIN_CHOOSING_HOP_S):
            playing = self._play(waveform, speeds, hop_s)
            hop_s /= 2
        while len(playing) > 1:
            leads = self._leads(playing)
            best_first = sorted(range(len(playing)), key=lambda n: -leads[n])
            playing = [playing[n] for n in best_first[: math.ceil(len(playing) / 2)]]
            if len(playing) > 1:
                finer_s = playing[0].fingerprint.segment_hop_s / 2
                playing = self._encode(partial(self._refined, hop_s=finer_s), playing)
        return playing[0] if playing else None

    def _first_hop_s(self, waveform: Waveform, n_speeds: int) -> float:
        """Choose the hop of the first round, so that the last one has about 40 segments."""
        length_s = len(waveform) / self.fingerprinter.sample_rate
        hop_s = max(length_s / _N_CHOOSING_SEGMENTS, _MIN_CHOOSING_HOP_S)
        n_reference_hops = max(int(hop_s / self.context.reference_hop_s), 1)
        whole_s = n_reference_hops * self.context.reference_hop_s
        n_doublings = max((n_speeds - 1).bit_length() - 1, 0)
        return float(self.fingerprinter.hop_within(hop_s, whole_s) * 2**n_doublings)

    def _play(self, waveform: Waveform, speeds: Iterable[float], hop_s: float) -> list[_Played]:
        """Fingerprint a query at some speeds; leave out those at which it is silent."""

        def play(speed: float) -> _Played | None:
            played = change_speed(waveform, self.fingerprinter.sample_rate, speed)
            with suppress(SilentAudioError):
                made = _fingerprint_played(self.fingerprinter, played, hop_s)
                return _Played(speed, played, made)
            return None

        return [one for one in self._encode(play, speeds) if one is not None]

    def _encode(self, encode: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
        """Encode a query at several speeds, each in a thread of its own."""
        with self.context.stopwatch.step("encode"), ThreadPoolExecutor(n_threads()) as threads:
            return list(threads.map(encode, items))

    def _played_further(self, played: _Played | None, waveform: Waveform) -> _Played | None:
        """Play more of a query at the chosen speed; choose it again if it begins in silence."""
        if played is None:
            return self._best_played(waveform)
        return self._play(waveform, [played.speed], played.fingerprint.segment_hop_s)[0]

    def _refined(self, played: _Played, hop_s: float) -> _Played:
        """Return a query with segments that are at most `hop_s` apart."""
        while played.fingerprint.segment_hop_s > hop_s:
            n_halvings = math.log2(played.fingerprint.segment_hop_s / hop_s)
            if math.isclose(n_halvings, round(n_halvings)):
                made = refined(played.fingerprint, played.waveform, self.fingerprinter)
            else:  # halving it leads to hops that the recipe need not have
                made = _fingerprint_played(self.fingerprinter, played.waveform, hop_s)
            played = replace(played, fingerprint=made)
        return played

    def _leads(self, playing: Sequence[_Played]) -> list[float]:
        """Mean lead of the nearest neighbours at each speed."""
        search, prints = self.context.search, [one.fingerprint for one in playing]
        vectors = [remove_mean(one)[one.audible] for one in prints]
        with self.context.stopwatch.step("search"):
            hits = self.context.index.search(
                np.concatenate(vectors),
                search.k,
                n_rescored=search.n_rescored,
                nprobe=search.nprobe,
            )
        leads = hits.cosines[:, 0] - background(hits)
        ends = np.cumsum([len(of_speed) for of_speed in vectors])
        return [float(of_speed.mean()) for of_speed in np.split(leads, ends[:-1])]

    def _candidates(self, played: _Played, n_samples: int) -> list[Candidate]:
        """Search a query at one speed."""
        with self.context.stopwatch.step("encode"):
            played = self._refined(played, self._hop_s(self.context.search.query_hop_s))
        alignment = replace(self.context.alignment, tilted_weight=TILTED_WEIGHT)
        context = replace(self.context, alignment=alignment)
        found = find_candidates(played.fingerprint, context, self.within)
        return [self._at_own_speed(one, played.speed, n_samples) for one in found]

    def _hop_s(self, hop_s: float) -> float:
        return self.fingerprinter.hop_within(hop_s, self.context.reference_hop_s)

    def _at_own_speed(self, candidate: Candidate, speed: float, n_samples: int) -> Candidate:
        """Convert a candidate's times to those of the query at its own speed."""
        end_s = min(candidate.query_end_s * speed, n_samples / self.fingerprinter.sample_rate)
        return replace(
            candidate,
            evidence=candidate.evidence * self.context.search.resampled_weight,
            query_start_s=candidate.query_start_s * speed,
            query_end_s=end_s,
            speed=candidate.speed / speed,
            resampled=speed,
            pitch=-12 * math.log2(speed),
        )

    def _at_best_pitch(self, candidate: Candidate, waveform: Waveform) -> tuple[Candidate, float]:
        """Set the pitch of most resemblance; return the mean cosine near it as well."""
        for _ in range(_MAX_PITCH_ROUNDS):
            pitch, score = self._pitch(candidate, waveform)
            change = abs(pitch - candidate.pitch)
            candidate = _at_pitch(candidate, pitch)
            if change < _MIN_PITCH_CHANGE:
                break
        return candidate, score

    def _pitch(
        self, candidate: Candidate, waveform: Waveform, score: float | None = None
    ) -> tuple[float, float]:
        """Pitch between the steps of most resemblance, and the mean cosine at the own one.

        It is at most a step away, and a whole step where the curve does not bend down.
        """
        own = self._score(candidate, waveform) if score is None else score
        below, above = (
            self._score(_at_pitch(candidate, candidate.pitch + step), waveform)
            for step in (_PITCH_STEP, -_PITCH_STEP)
        )
        # Squared angles, unlike cosines, lie on a parabola far from its top as well.
        heights = -squared_angle(np.array([below, own, above]))
        steps = parabola_vertex(heights, 1) or np.sign(heights[2] - heights[0])
        return candidate.pitch - float(np.clip(steps, -1, 1)) * _PITCH_STEP, own

    def _own_score(self, candidate: Candidate, query: Fingerprint) -> float:
        """Mean cosine along a candidate's line with the beginning of its passage."""
        start_s, hop_s = candidate.query_start_s, query.segment_hop_s
        end_s = min(start_s + _PITCH_S, candidate.query_end_s)
        first, last = math.ceil(start_s / hop_s), math.ceil((end_s - query.segment_s) / hop_s) + 1
        part = replace(query, embeddings=query.embeddings[first:last])
        with self.context.stopwatch.step("align"):
            return mean_cosine(candidate.later(-first * hop_s), part, self.context.tracks)

    def _score(self, candidate: Candidate, waveform: Waveform) -> float:
        """Mean cosine along a candidate's line with the query played at its speed; 0 if silent."""
        rate, start_s = self.fingerprinter.sample_rate, candidate.query_start_s
        end_s = min(start_s + _PITCH_S, candidate.query_end_s)
        part = waveform[round(start_s * rate) : round(end_s * rate)]
        with self.context.stopwatch.step("encode"):
            hop_s, speed = self._hop_s(_MIN_CHOOSING_HOP_S), candidate.resampled
            try:
                fingerprint = fingerprint_at_speed(self.fingerprinter, part, speed, hop_s)
            except SilentAudioError:
                return 0.0
        with self.context.stopwatch.step("align"):
            return mean_cosine(candidate.later(-start_s), fingerprint, self.context.tracks)


def _at_pitch(candidate: Candidate, pitch: float) -> Candidate:
    """Set a pitch between the steps, and the speed with it if the line is not tilted.

    An untilted line means that the speed was changed, but only to the precision of the steps: over
    five seconds a step is an eighth of a second at either end.
    """
    resampled, speed = 2 ** (-pitch / 12), candidate.speed
    if math.isclose(speed * candidate.resampled, 1.0):
        speed = 1 / resampled
    middle_s = (candidate.query_start_s + candidate.query_end_s) / 2
    offset_s = candidate.offset_s + (candidate.speed - speed) * middle_s
    return replace(candidate, pitch=pitch, speed=speed, resampled=resampled, offset_s=offset_s)


def _has_clear_lead(candidate: Candidate) -> bool:
    return candidate.margin >= _CLEAR_LEAD * candidate.evidence
