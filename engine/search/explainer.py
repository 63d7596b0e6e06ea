"""An answer looked into: what decided it, and how one track agrees, found or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from engine.audio.decode import Waveform
from engine.records import Candidate, Fingerprint, Reference
from engine.search import alignment, candidates
from engine.search.alignment_detail import Agreement, agreement
from engine.search.candidates import Stopwatch, with_margins
from engine.search.explanation import Verdict, judge
from engine.search.searcher import Searcher
from engine.search.speeds import Variants, played

# Enough for all diagonals of tracks of a few minutes.
_MAX_CANDIDATES = 2000
# Matches that a query gives unless asked for more: one of them may be surer than the first.
_N_BEST = 5


@dataclass(frozen=True)
class Explainer:
    """A query that was listened to, and what answers it.

    Parameters
    ----------
    searcher : Searcher
    fingerprint : Fingerprint
    beginning : float32 array of shape (n_samples,)
        As :meth:`Searcher.listen` gives them.
    stopwatch : Stopwatch
        Is told the time of the steps "encode", "search" and "align".
    """

    searcher: Searcher
    fingerprint: Fingerprint
    beginning: Waveform
    stopwatch: Stopwatch

    @cached_property
    def found(self) -> list[Candidate]:
        """The candidates a query is answered with, best first."""
        return self.searcher.candidates(self.fingerprint, self.beginning, self.stopwatch)

    @property
    def best(self) -> Candidate | None:
        """The first match; the first candidate if there is none."""
        threshold = self.searcher.calibration.min_confidence
        sure = self.searcher.sure(self.found[:_N_BEST], self.fingerprint.heard_s, threshold)
        return next((one for one, _ in sure), self.found[0] if self.found else None)

    def verdict(self, candidate: Candidate | None) -> Verdict:
        """Say whether a candidate is a match, and what decided."""
        calibration = self.searcher.calibration
        return judge(candidate, self.fingerprint.heard_s, calibration, calibration.min_confidence)

    def in_track(self, track_id: int) -> Candidate | None:
        """Find the best line in one track, whether it is among the candidates or not.

        All segments of the track are compared, with the query as it is and at the speed that suits
        it best; what any music reaches is still what it is in the whole catalog.

        Parameters
        ----------
        track_id : int

        Returns
        -------
        Candidate or None
            With its margin over the candidates; None if nothing in the track resembles the query.
        """
        asked = self.searcher
        within = asked.index.among([track_id])
        thorough = replace(asked.alignment, max_candidates=_MAX_CANDIDATES)
        settings = (asked.index, asked.reference_hop_s, asked.search, thorough, self.stopwatch)
        plain = candidates.find(self.fingerprint, *settings, within)
        widened = Variants(asked.fingerprinter, *settings, within).widen(plain, self.beginning)
        known = [one for one in self.found if one.track_id == track_id]
        own = max(known + widened, key=lambda one: one.evidence, default=None)
        if own is None:
            return None
        rivals = [one for one in self.found if one.track_id != track_id]
        ranked = with_margins([own, *rivals], self.fingerprint.duration_s, self._reference)
        return next(one for one in ranked if one.track_id == track_id)

    def rank(self, candidate: Candidate) -> int:
        """Where a candidate stands among those of other tracks, from 1 on."""
        rivals = (one for one in self.found if one.track_id != candidate.track_id)
        return 1 + sum(one.evidence > candidate.evidence for one in rivals)

    def agreement(self, candidate: Candidate, start_s: float = 0.0) -> Agreement:
        """Follow a candidate's line, at the speed at which it was found.

        Parameters
        ----------
        candidate : Candidate
        start_s : float
            Where in the clip the query begins.

        Returns
        -------
        Agreement
        """
        asked = self.searcher
        heard = self._heard(candidate.resampled)
        with self.stopwatch.step("search"):
            sharp = alignment.sharpen(heard, asked.alignment)
            top_k, n_rescored = asked.search.top_k, asked.search.n_rescored
            n_probe = asked.search.n_probe
            hits = asked.index.search(sharp, top_k, n_rescored=n_rescored, n_probe=n_probe)
        with self.stopwatch.step("align"):
            return agreement(candidate, heard, hits, self._reference, asked.alignment, start_s)

    @property
    def _reference(self) -> Reference:
        index = self.searcher.index
        return Reference(self.searcher.reference_hop_s, index.n_positions, index.vectors)

    def _heard(self, speed: float) -> Fingerprint:
        if speed == 1.0:
            return self.fingerprint
        with self.stopwatch.step("encode"):
            hop_s = self.fingerprint.segment_hop_s
            return played(self.searcher.fingerprinter, self.beginning, speed, hop_s)
