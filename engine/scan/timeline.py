"""From the matches of windows to the tracks of a recording, each with its start and end.

A window match starts a follower (:mod:`engine.scan.follower`) or updates one. Of several spans that
explain the same stretch the best one is reported: a track also agrees with itself along other
lines, and with copies of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from engine.config import ScanConfig
from engine.scan.follower import MAX_DISTANCE_S, TrackFollower
from engine.scan.records import HISTORY_S, WINDOW_S, LineTracer, TrackSpan, WindowMatch

# Lines of one track that are followed at a time: music made of loops agrees with itself along many.
_MAX_LINES = 3
# Mean cosine from which two tracks have the same music along two lines; unrelated tracks reach 0.3.
_MIN_SAME_MUSIC = 0.5
# Share of a span that another one must cover to be the better explanation of it.
_MIN_COVERED = 0.5


class TrackFollowers:
    """Follows the tracks that match windows until they end.

    It works on recordings without an end: in memory are tracks that have not ended, and those of
    the last minute.

    Parameters
    ----------
    tracer : LineTracer
    config : ScanConfig
    """

    def __init__(self, tracer: LineTracer, config: ScanConfig) -> None:
        self.tracer, self.config = tracer, config
        self._followers: list[TrackFollower] = []
        self._ended: list[TrackSpan] = []
        self._reported: list[TrackSpan] = []

    @property
    def n_held(self) -> int:
        """Number of followers and spans in memory."""
        return len(self._followers) + len(self._ended) + len(self._reported)

    def active(self) -> list[TrackSpan]:
        """Return the spans of the tracks that have not ended, best first."""
        spans = (follower.span() for follower in self._followers)
        return sorted(filter(self._is_accepted, spans), key=lambda span: -span.gain)

    def update(self, matches: Iterable[WindowMatch], position_s: float) -> list[TrackSpan]:
        """Add the matches of the next window, and return the tracks that have ended.

        Parameters
        ----------
        matches : iterable of WindowMatch
        position_s : float
            Seconds of the recording received so far; never less than in the last call.

        Returns
        -------
        list of TrackSpan
            By their start. Each track is returned once, some time after it has ended.
        """
        for match in matches:
            self._add(match, position_s)
        for follower in self._followers:
            follower.extend(position_s)
        for follower in [one for one in self._followers if one.has_ended]:
            self._followers.remove(follower)
            self._end(follower)
        return self._report(position_s)

    def finish(self) -> list[TrackSpan]:
        """Return the remaining tracks at the end of the recording."""
        for follower in self._followers:
            self._end(follower)
        self._followers = []
        return self._report(float("inf"))

    def _add(self, match: WindowMatch, position_s: float) -> None:
        """Update the follower whose line the match lies on, or start one."""
        if match.confidence < self.config.min_seed_confidence:
            return
        line = match.line
        same_track = [one for one in self._followers if one.line.track_id == line.track_id]
        nearest = min(same_track, key=lambda one: one.distance(line), default=None)
        if nearest is not None and nearest.distance(line) <= 1:
            nearest.update(match)
            return
        follower = TrackFollower(match, self.tracer, self.config, position_s)
        follower.extend(position_s)
        self._followers.append(follower)
        if len(same_track) >= _MAX_LINES:
            self._followers.remove(min([*same_track, follower], key=lambda one: one.gain))

    # -- which spans are reported --------------------------------------------------------------

    def _is_accepted(self, span: TrackSpan) -> bool:
        is_plausible = abs(span.speed - 1) <= self.config.max_speed_change
        return is_plausible and span.gain > 0 and span.confidence >= self.config.min_confidence

    def _end(self, follower: TrackFollower) -> None:
        """Keep the span of a follower, joined with those that it continues."""
        if follower.gain <= 0:
            return
        follower.trim()
        ended = follower.span()
        for other in list(self._ended):
            if (joined := self._joined(other, ended)) is not None:
                self._ended.remove(other)
                ended = joined
        self._ended.append(ended)

    def _joined(self, span: TrackSpan, other: TrackSpan) -> TrackSpan | None:
        """Join two spans of which one continues the other; None if it does not."""
        first, second = sorted((span, other), key=lambda one: (one.start_s, one.end_s))
        apart_s = second.start_s - first.end_s
        distance_s = abs(first.line.at(second.start_s) - second.reference_start_s)
        if span.track_id != other.track_id or apart_s > self.config.max_gap_s:
            return None
        if distance_s > MAX_DISTANCE_S * (1 + max(apart_s, 0) / self.config.max_gap_s):
            return None
        last = max(span, other, key=lambda one: one.end_s)
        lengths_s = [max(one.end_s - one.start_s, 1e-9) for one in (span, other)]
        return replace(
            first,
            end_s=last.end_s,
            reference_end_s=last.reference_end_s,
            score=float(np.average([span.score, other.score], weights=lengths_s)),
            confidence=1 - (1 - span.confidence) * (1 - other.confidence),
            gain=span.gain + other.gain if apart_s >= 0 else max(span.gain, other.gain),
        )

    def _report(self, position_s: float) -> list[TrackSpan]:
        """Remove the settled spans, and return the best explanations among them."""
        settled = [span for span in self._ended if self._is_settled(span, position_s)]
        self._ended = [span for span in self._ended if span not in settled]
        reported: list[TrackSpan] = []
        for span in sorted(filter(self._is_accepted, settled), key=lambda one: -one.gain):
            better = [other for other in self._ended if other.gain >= span.gain]
            others = [*self._reported, *reported, *filter(self._is_accepted, better)]
            if not any(self._is_explained_by(span, other) for other in others):
                reported.append(span)
        self._reported = [
            span for span in (*self._reported, *reported) if span.end_s > position_s - HISTORY_S
        ]
        return sorted(reported, key=lambda span: span.start_s)

    def _is_settled(self, span: TrackSpan, position_s: float) -> bool:
        """Whether no active track can explain a span better, or continue it."""
        rivals = [follower.span() for follower in self._followers]
        return position_s - span.end_s > self.config.max_gap_s + WINDOW_S and not any(
            self._is_same_music(span, rival) or self._joined(span, rival) for rival in rivals
        )

    def _is_explained_by(self, span: TrackSpan, other: TrackSpan) -> bool:
        """Whether another line of the track, or of a copy of it, covers most of a span."""
        covered = span.shared_s(other) / max(span.end_s - span.start_s, 1e-9)
        return covered > _MIN_COVERED and self._is_same_music(span, other)

    def _is_same_music(self, span: TrackSpan, other: TrackSpan) -> bool:
        start_s, end_s = max(span.start_s, other.start_s), min(span.end_s, other.end_s)
        if end_s <= start_s:
            return False
        if span.track_id == other.track_id:
            return True
        similarity = self.tracer.track_similarity(span.line, other.line, start_s, end_s)
        return similarity >= _MIN_SAME_MUSIC
