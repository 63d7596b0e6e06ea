"""Examine the answer to a query: what decided it, and how one track agrees, found or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from engine.config import MAX_MATCHES
from engine.records import Candidate, Fingerprint
from engine.search.alignment import remove_mean
from engine.search.alignment_detail import AlignmentDetail, alignment_detail
from engine.search.candidates import find_candidates, with_margins
from engine.search.clips import Clip
from engine.search.explanation import Decision, decide
from engine.search.searcher import Searcher
from engine.search.speeds import SpeedSearch, fingerprint_at_speed

# Enough for all diagonals of tracks of a few minutes.
_MAX_CANDIDATES = 2000


@dataclass(frozen=True)
class Explainer:
    """A fingerprinted query with its candidates.

    Parameters
    ----------
    searcher : Searcher
    clip : Clip
        The whole query.
    """

    searcher: Searcher
    clip: Clip

    @property
    def fingerprint(self) -> Fingerprint:
        """Fingerprint of the query."""
        return self.clip.fingerprint

    @cached_property
    def candidates(self) -> list[Candidate]:
        """The candidates the query is answered with, the most confident first."""
        return self.searcher.passages(self.clip)

    @property
    def best(self) -> Candidate | None:
        """The first match; the first candidate if there is no match."""
        searcher, first = self.searcher, self.candidates[:MAX_MATCHES]
        return next(iter(searcher.calibration.accepted(first)), first[0] if first else None)

    def decision(self, candidate: Candidate | None) -> Decision:
        """Decide whether a candidate is a match, and why."""
        calibration = self.searcher.calibration
        return decide(candidate, calibration, calibration.min_confidence)

    def in_track(self, track_id: int) -> Candidate | None:
        """Find the best line in one track, whether the track is among the candidates or not.

        The query is compared with all segments of the track, at its own speed and at the one that
        fits best. The background is still that of the whole catalog.

        Parameters
        ----------
        track_id : int

        Returns
        -------
        Candidate or None
            With its margin over the candidates; None if nothing in the track resembles the query.
        """
        context = self.searcher.context
        within = context.index.among([track_id])
        thorough = replace(
            context, alignment=replace(context.alignment, max_candidates=_MAX_CANDIDATES)
        )
        at_own_speed = find_candidates(self.fingerprint, thorough, within)
        speed_search = SpeedSearch(self.searcher.fingerprinter, thorough, within)
        extended = speed_search.extend(at_own_speed, self.clip.waveform)
        known = [one for one in self.candidates if one.track_id == track_id]
        best = max(known + extended, key=lambda one: one.evidence, default=None)
        if best is None or best in known:
            return best
        rivals = [one for one in self.candidates if one.track_id != track_id]
        ranked = with_margins([best, *rivals], self.fingerprint.duration_s, context.tracks)
        own = next(one for one in ranked if one.track_id == track_id)
        return own if own.audible_s else self.searcher.judged(own, self.fingerprint.audible_s)

    def rank(self, candidate: Candidate) -> int:
        """Rank of a candidate among those of other tracks, from 1 on."""
        rivals = (one for one in self.candidates if one.track_id != candidate.track_id)
        return 1 + sum(one.evidence > candidate.evidence for one in rivals)

    def alignment_detail(self, candidate: Candidate, start_s: float = 0.0) -> AlignmentDetail:
        """Compare query and track along a candidate's line, at the speed it was found at.

        Parameters
        ----------
        candidate : Candidate
        start_s : float
            Where in the clip the query begins, in seconds.

        Returns
        -------
        AlignmentDetail
        """
        context = self.searcher.context
        search, alignment = context.search, context.alignment
        query = self._at_speed(candidate.resampled)
        with context.stopwatch.step("search"):
            hits = context.index.search(
                remove_mean(query),
                search.k,
                n_rescored=search.n_rescored,
                nprobe=search.nprobe,
            )
        with context.stopwatch.step("align"):
            return alignment_detail(candidate, query, hits, context.tracks, alignment, start_s)

    def _at_speed(self, speed: float) -> Fingerprint:
        if speed == 1.0:
            return self.fingerprint
        with self.searcher.context.stopwatch.step("encode"):
            hop_s = self.fingerprint.segment_hop_s
            fingerprinter = self.searcher.fingerprinter
            return fingerprint_at_speed(fingerprinter, self.clip.waveform, speed, hop_s)
