"""A query played faster and slower: finds music whose speed or pitch was changed.

An embedding tells apart what differs by more than half a semitone, so a transposed query resembles
nothing until it is played back at the right pitch. That changes its tempo as well; where only the
pitch had been changed, what agrees then lies on a tilted line (:mod:`engine.align`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from engine import audio, query
from engine.audio import Waveform
from engine.config import AlignConfig, SearchConfig
from engine.errors import SilentAudioError
from engine.index import Index
from engine.margin import with_margins
from engine.protocol import AudioFingerprinter
from engine.query import Stopwatch
from engine.records import Candidate, Reference

# Diagonals looked at while choosing among speeds; the chosen one gets as many as any query.
_N_QUICK = 80
# At another speed a line is nearly as likely as a diagonal: only the pitch may have been changed.
_TILTED_WEIGHT = 0.97


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
    """

    fingerprinter: AudioFingerprinter
    index: Index
    reference_hop_s: float
    search: SearchConfig
    alignment: AlignConfig
    stopwatch: Stopwatch

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
        speed = self._best_speed(beginning)
        if speed is None:
            return candidates
        best = {one.track_id: one for one in candidates}
        for one in self._candidates(beginning, speed, self.search.query_hop_s, self.alignment):
            if one.track_id not in best or one.evidence > best[one.track_id].evidence:
                best[one.track_id] = one
        reference = Reference(self.reference_hop_s, self.index.n_positions, self.index.vectors)
        return with_margins(best.values(), len(waveform) / rate, reference)

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
            played = audio.change_speed(waveform, self.fingerprinter.sample_rate, speed)
            # A query that is just long enough must not be too short when it is played faster.
            needed = round(self.fingerprinter.segment_s * self.fingerprinter.sample_rate)
            missing = needed - len(played)
            try:
                fingerprint = self.fingerprinter.fingerprint(
                    [np.pad(played, (0, max(missing, 0)))],
                    self.fingerprinter.hop_within(hop_s, self.reference_hop_s),
                )
            except SilentAudioError:
                return []
        found = query.find(
            fingerprint,
            self.index,
            self.reference_hop_s,
            self.search,
            replace(alignment, tilted_weight=_TILTED_WEIGHT),
            self.stopwatch,
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
        )
