"""A query played faster and slower: finds music whose speed or pitch was changed.

An embedding tells apart what differs by more than half a semitone, so a transposed query resembles
nothing until it is played back at the right pitch. That changes its tempo as well; where only the
pitch had been changed, what agrees then lies on a tilted line (:mod:`engine.search.alignment`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from engine.audio import decode
from engine.audio.decode import Waveform
from engine.config import AlignConfig, SearchConfig
from engine.errors import SilentAudioError
from engine.protocol import AudioFingerprinter
from engine.records import Candidate, Fingerprint, Reference
from engine.search import alignment, candidates
from engine.search.candidates import Stopwatch, with_margins
from engine.vectors.index import Index

# Diagonals looked at while choosing among speeds; the chosen one gets as many as any query.
_N_QUICK = 80
# The pitch is where the angle to the track is least, judged from so many semitones to either side
# of the chosen speed; at most so many such steps away. Of 15 clips of real music transposed by 0.7
# to 2.4 semitones half were told to 0.01 and the worst to 0.2; the steps alone: 0.22 and 0.5.
# Three more encodings: without a clear lead it is not worth the time.
_FINE, _MAX_FINE = 0.5, 1.5
_FINE_S = 8.0
_CLEAR_LEAD = 0.25
# The speed is chosen by so much of a query, so that unknown music is told sooner. Of 30 clips of
# half a minute at other speeds, in noise at -5 dB, 27 were found so, as by all of them; by 10 s 24.
_CHOOSING_S = 20.0
# At another speed a line is nearly as likely as a diagonal: only the pitch may have been changed.
_TILTED_WEIGHT = 0.97


def played(
    fingerprinter: AudioFingerprinter, waveform: Waveform, speed: float, segment_hop_s: float
) -> Fingerprint:
    """Fingerprint a query as it is when it is played faster or slower.

    Parameters
    ----------
    fingerprinter : AudioFingerprinter
    waveform : float32 array of shape (n_samples,)
    speed : float
        How many times as fast.
    segment_hop_s : float

    Returns
    -------
    Fingerprint
        Its times are those of the query as it is played.

    Raises
    ------
    SilentAudioError
        No audible segment.
    """
    faster = decode.change_speed(waveform, fingerprinter.sample_rate, speed)
    # A query that is just long enough must not be too short when it is played faster.
    missing = round(fingerprinter.segment_s * fingerprinter.sample_rate) - len(faster)
    return fingerprinter.fingerprint([np.pad(faster, (0, max(missing, 0)))], segment_hop_s)


@dataclass(frozen=True)
class Variants:
    """What searching a query at other speeds takes.

    Parameters
    ----------
    fingerprinter : AudioFingerprinter
    index : Index
    reference_hop_s : float
        The catalog's hop.
    search : SearchConfig
    alignment : AlignConfig
    stopwatch : Stopwatch
        Is told the time of the steps "encode", "search" and "align".
    within : Index, optional
        The tracks that may be found, as :func:`engine.search.candidates.find` has it.
    """

    fingerprinter: AudioFingerprinter
    index: Index
    reference_hop_s: float
    search: SearchConfig
    alignment: AlignConfig
    stopwatch: Stopwatch
    within: Index | None = None

    def widen(self, candidates: list[Candidate], waveform: Waveform) -> list[Candidate]:
        """Add what a query resembles at the one other speed that fits it best.

        Parameters
        ----------
        candidates : list of Candidate
            What it resembles as it is.
        waveform : float32 array of shape (n_samples,)
            The query, at the encoder's sample rate; no more than its first `search.speeds_s`
            seconds are looked at.

        Returns
        -------
        list of Candidate
            One for each track, best first, with margins over all of them. All times are those of
            the query as it is.
        """
        rate = self.fingerprinter.sample_rate
        beginning = waveform[: round(self.search.speeds_s * rate)]
        first = beginning[: round(_CHOOSING_S * rate)]
        speed = self._best_speed(first)
        if speed is None and len(first) < len(beginning):  # it may begin in silence
            speed = self._best_speed(beginning)
        if speed is None:
            return candidates
        best = {one.track_id: one for one in candidates}
        for one in self._candidates(beginning, speed, self.search.query_hop_s, self.alignment):
            if one.track_id not in best or one.evidence > best[one.track_id].evidence:
                best[one.track_id] = one
        ranked = with_margins(best.values(), len(waveform) / rate, self._reference)
        if ranked and ranked[0].resampled != 1.0 and _leads(ranked[0]):
            ranked[0] = _tuned(ranked[0], self._pitch(ranked[0], beginning))
        return ranked

    @property
    def _reference(self) -> Reference:
        return Reference(self.reference_hop_s, self.index.n_positions, self.index.vectors)

    def _pitch(self, candidate: Candidate, waveform: Waveform) -> float:
        """Pitch between the steps: where the query would resemble the track best."""
        factors = [2 ** (step * _FINE / 12) for step in (-1, 0, 1)]
        scores = [self._score(candidate, waveform, candidate.resampled * one) for one in factors]
        # The squares of the angles, unlike the cosines, lie on a parabola far from its top as well.
        angles = np.arccos(np.clip(scores, -1, 1))
        top = np.clip(alignment.vertex(-(angles**2), 1), -_MAX_FINE, _MAX_FINE)
        return candidate.pitch - float(top) * _FINE

    def _score(self, candidate: Candidate, waveform: Waveform, speed: float) -> float:
        """Mean cosine along a line of a query played at another speed."""
        rate, start_s = self.fingerprinter.sample_rate, candidate.query_start_s
        part = waveform[round(start_s * rate) : round((start_s + _FINE_S) * rate)]
        offset_s = candidate.offset_s + candidate.speed * start_s
        hop_s = self.fingerprinter.hop_within(self.search.speeds_hop_s, self.reference_hop_s)
        with self.stopwatch.step("encode"):
            heard = played(self.fingerprinter, part, speed, hop_s)
        with self.stopwatch.step("align"):
            beginning = replace(candidate, offset_s=offset_s, resampled=speed)
            return alignment.mean_cosine(beginning, heard, self._reference)

    def _best_speed(self, waveform: Waveform) -> float | None:
        """Speed at which a quick look finds most evidence, None if none finds any."""
        n_candidates = min(self.alignment.max_candidates, _N_QUICK)
        quick = replace(self.alignment, max_candidates=n_candidates)
        most = {}
        for speed in self.search.speeds:
            found = self._candidates(waveform, speed, self.search.speeds_hop_s, quick)
            if found:
                most[speed] = found[0].evidence
        return max(most, key=most.__getitem__, default=None)

    def _candidates(
        self, waveform: Waveform, speed: float, hop_s: float, alignment: AlignConfig
    ) -> list[Candidate]:
        """Search a query at one speed."""
        with self.stopwatch.step("encode"):
            hop_s = self.fingerprinter.hop_within(hop_s, self.reference_hop_s)
            try:
                fingerprint = played(self.fingerprinter, waveform, speed, hop_s)
            except SilentAudioError:
                return []
        found = candidates.find(
            fingerprint,
            self.index,
            self.reference_hop_s,
            self.search,
            replace(alignment, tilted_weight=_TILTED_WEIGHT),
            self.stopwatch,
            self.within,
        )
        return [self._as_it_is(one, speed, len(waveform)) for one in found]

    def _as_it_is(self, candidate: Candidate, speed: float, n_samples: int) -> Candidate:
        """Tell the times of the query as it is, not as it was played."""
        end_s = min(candidate.query_end_s * speed, n_samples / self.fingerprinter.sample_rate)
        return replace(
            candidate,
            evidence=candidate.evidence * self.search.resampled_weight,
            query_start_s=candidate.query_start_s * speed,
            query_end_s=end_s,
            speed=candidate.speed / speed,
            resampled=speed,
            pitch=-12 * math.log2(speed),
        )


def _tuned(candidate: Candidate, pitch: float) -> Candidate:
    """Take over a pitch between the steps, and the speed with it unless only one was changed.

    A line that agrees best untilted tells that the speed was changed, and not how much between the
    steps: in five seconds a step is an eighth of a second at either end.
    """
    if not math.isclose(candidate.speed * candidate.resampled, 1.0):
        return replace(candidate, pitch=pitch)
    speed = 2 ** (pitch / 12)
    middle_s = (candidate.query_start_s + candidate.query_end_s) / 2
    offset_s = candidate.offset_s + (candidate.speed - speed) * middle_s
    return replace(candidate, pitch=pitch, speed=speed, offset_s=offset_s)


def _leads(candidate: Candidate) -> bool:
    return candidate.margin >= _CLEAR_LEAD * candidate.evidence
