"""Examine the answer to a query: what decided it, and how one track agrees, found or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from engine.records import Candidate, Fingerprint, Hits
from engine.search.alignment import remove_mean
from engine.search.alignment_detail import AlignmentDetail, alignment_detail
from engine.search.candidates import find_candidates, with_margins
from engine.search.clips import Clip
from engine.search.explanation import Decision, decide
from engine.search.passages import ranked
from engine.search.plane import CosinePlane, PassageEnd, Trace, cosine_plane, passage_end, trace
from engine.search.searcher import Searcher
from engine.search.speeds import SpeedSearch, fingerprint_at_speed

# Enough for all diagonals of tracks of a few minutes.
_MAX_CANDIDATES = 2000


@dataclass(frozen=True)
class Explainer:
    """A fingerprinted query with its answer and its other candidates.

    Parameters
    ----------
    searcher : Searcher
    clip : Clip
        The whole query.
    answer : sequence of Candidate
        The passages that the query is answered with, in that order.
    found : sequence of Candidate
        All candidates of its clips; those of the answer may be among them.
    """

    searcher: Searcher
    clip: Clip
    answer: Sequence[Candidate]
    found: Sequence[Candidate]
    _played: dict[float, Fingerprint] = field(default_factory=dict, init=False)
    _traces: dict[Candidate, Trace] = field(default_factory=dict, init=False)

    @property
    def fingerprint(self) -> Fingerprint:
        """Fingerprint of the query."""
        return self.clip.fingerprint

    @cached_property
    def candidates(self) -> list[Candidate]:
        """The answer, then the candidates that are no match, the most confident first."""
        rejected = [
            one
            for one in ranked([*self.answer, *self.found])
            if one not in self.answer and not self.searcher.calibration.accepted([one])
        ]
        return [*self.answer, *rejected]

    @property
    def best(self) -> Candidate | None:
        """The first match; the first candidate if there is no match."""
        return self.candidates[0] if self.candidates else None

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
            The first passage of the answer in the track, if there is one. Otherwise the best line
            with its margin over the candidates; None if nothing in the track resembles the query.
        """
        answered = [one for one in self.answer if one.track_id == track_id]
        if answered:
            return answered[0]
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
        """Rank of a candidate among `candidates`, from 1 on; after all of them if it is another."""
        listed = self.candidates
        return 1 + (listed.index(candidate) if candidate in listed else len(listed))

    def ends(self, candidate: Candidate) -> tuple[PassageEnd, PassageEnd]:
        """Find out why a candidate begins and ends where it does, beside the answer."""
        own = self.trace(candidate)
        others = [(rank, self.trace(one)) for rank, one in enumerate(self.answer, 1)]
        return passage_end(own, "start", others), passage_end(own, "end", others)

    def trace(self, candidate: Candidate) -> Trace:
        """Compare query and track along a candidate's line, near its passage."""
        if candidate not in self._traces:
            query = self._at_speed(candidate.resampled)
            with self.searcher.context.stopwatch.step("align"):
                self._traces[candidate] = trace(candidate, query, self.searcher.context.tracks)
        return self._traces[candidate]

    def plane(self, candidates: Sequence[Candidate]) -> CosinePlane:
        """Compare the query with the part of a track around some candidates of it."""
        query = self._at_speed(candidates[0].resampled)
        with self.searcher.context.stopwatch.step("align"):
            return cosine_plane(query, self.searcher.context.tracks, candidates)

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
        context, query = self.searcher.context, self._at_speed(candidate.resampled)
        hits = self._hits if query is self.fingerprint else self._search(query)
        with context.stopwatch.step("align"):
            tracks, alignment = context.tracks, context.alignment
            return alignment_detail(candidate, query, hits, tracks, alignment, start_s)

    @cached_property
    def _hits(self) -> Hits:
        return self._search(self.fingerprint)

    def _search(self, query: Fingerprint) -> Hits:
        context = self.searcher.context
        with context.stopwatch.step("search"):
            return context.index.search(
                remove_mean(query),
                context.search.k,
                n_rescored=context.search.n_rescored,
                nprobe=context.search.nprobe,
            )

    def _at_speed(self, speed: float) -> Fingerprint:
        if speed == 1.0:
            return self.fingerprint
        if speed not in self._played:
            with self.searcher.context.stopwatch.step("encode"):
                hop_s, fingerprinter = self.fingerprint.segment_hop_s, self.searcher.fingerprinter
                self._played[speed] = fingerprint_at_speed(
                    fingerprinter, self.clip.waveform, speed, hop_s
                )
        return self._played[speed]
