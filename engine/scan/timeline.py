"""Turn the matches of windows into tracks with a start and an end.

A match starts a follower (:mod:`engine.scan.follower`) or supports one that exists. If several
followers explain the same audio, only the best is reported: a track also agrees with itself on
other lines, and with its copies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from engine.config import ScanConfig
from engine.scan.follower import BESIDE_S, TrackFollower
from engine.scan.records import LineTracer, TrackSpan, WindowMatch

# Maximum number of lines followed per track: looped music agrees with itself on many.
_MAX_LINES = 3
# Two tracks contain the same music where their mean cosine along two lines reaches this; unrelated
# tracks reach 0.3.
_SAME_MUSIC = 0.5


class TrackFollowers:
    """Follows the tracks that windows match until they end.

    Only tracks that have not ended are kept, so the recording may have no end.

    Parameters
    ----------
    tracer : LineTracer
    config : ScanConfig
    """

    def __init__(self, tracer: LineTracer, config: ScanConfig) -> None:
        self.tracer, self.config = tracer, config
        self._open: list[TrackFollower] = []
        self._ended: list[TrackSpan] = []
        self._reported: list[TrackSpan] = []

    @property
    def n_held(self) -> int:
        """Number of followers and spans in memory."""
        return len(self._open) + len(self._ended) + len(self._reported)

    def active(self) -> list[TrackSpan]:
        """Return the spans of the tracks that have not ended, best first."""
        found = (follower.span() for follower in self._open)
        return sorted(filter(self._accepts, found), key=lambda one: -one.gain)

    def follow(self, matches: Iterable[WindowMatch], position_s: float) -> list[TrackSpan]:
        """Add the matches of the next window; return the tracks that have ended.

        Parameters
        ----------
        matches : iterable of WindowMatch
        position_s : float
            End of the audio received so far; never decreases.

        Returns
        -------
        list of TrackSpan
            Each one is returned once, some time after it has ended, ordered by start.
        """
        for match in matches:
            self._add(match, position_s)
        for follower in self._open:
            follower.extend(position_s)
        for follower in [one for one in self._open if one.has_ended]:
            self._open.remove(follower)
            self._end(follower)
        return self._settled(position_s)

    def finish(self) -> list[TrackSpan]:
        """End the recording; return the remaining tracks."""
        for follower in self._open:
            self._end(follower)
        self._open = []
        return self._settled(float("inf"))

    def _add(self, match: WindowMatch, position_s: float) -> None:
        """Update the follower whose line the match lies on, or start a new one."""
        if match.confidence < self.config.min_seed_confidence:
            return
        same = [one for one in self._open if one.line.track_id == match.line.track_id]
        nearest = min(same, key=lambda one: one.distance(match.line), default=None)
        if nearest is not None and nearest.distance(match.line) <= 1:
            nearest.update(match)
            return
        follower = TrackFollower(match, self.tracer, self.config, position_s)
        follower.extend(position_s)
        self._open.append(follower)
        if len(same) >= _MAX_LINES:
            self._open.remove(min([*same, follower], key=lambda one: one.gain))

    # -- what is reported ----------------------------------------------------------------------

    def _accepts(self, one: TrackSpan) -> bool:
        likely = abs(one.speed - 1) <= self.config.max_speed_change
        return likely and one.gain > 0 and one.confidence >= self.config.min_confidence

    def _end(self, follower: TrackFollower) -> None:
        if follower.gain <= 0:
            return
        follower.trim()
        ended = follower.span()
        for other in list(self._ended):
            if (joined := self._joined(other, ended)) is not None:
                self._ended.remove(other)
                ended = joined
        self._ended.append(ended)

    def _joined(self, one: TrackSpan, other: TrackSpan) -> TrackSpan | None:
        """Join two spans of which one continues the other; None if it does not."""
        first, second = sorted((one, other), key=lambda a: (a.start_s, a.end_s))
        apart_s = second.start_s - first.end_s
        beside_s = abs(first.line.at(second.start_s) - second.reference_start_s)
        if one.track_id != other.track_id or apart_s > self.config.max_gap_s:
            return None
        if beside_s > BESIDE_S * (1 + max(apart_s, 0) / self.config.max_gap_s):
            return None
        last = max(one, other, key=lambda a: a.end_s)
        lengths = [max(a.end_s - a.start_s, 1e-9) for a in (one, other)]
        return replace(
            first,
            end_s=last.end_s,
            reference_end_s=last.reference_end_s,
            score=float(np.average([one.score, other.score], weights=lengths)),
            confidence=1 - (1 - one.confidence) * (1 - other.confidence),
            gain=one.gain + other.gain if apart_s >= 0 else max(one.gain, other.gain),
        )

    def _settled(self, position_s: float) -> list[TrackSpan]:
        """Remove the spans that no active follower can change, and return the best of them."""
        settled = [one for one in self._ended if self._is_settled(one, position_s)]
        self._ended = [one for one in self._ended if one not in settled]
        reported: list[TrackSpan] = []
        for one in sorted(filter(self._accepts, settled), key=lambda one: -one.gain):
            better = [other for other in self._ended if other.gain >= one.gain]
            others = [*self._reported, *reported, *filter(self._accepts, better)]
            if not any(self._is_echo(one, other) for other in others):
                reported.append(one)
        first_s = position_s - self.config.history_s
        self._reported = [one for one in (*self._reported, *reported) if one.end_s > first_s]
        return sorted(reported, key=lambda one: one.start_s)

    def _is_settled(self, one: TrackSpan, position_s: float) -> bool:
        """Whether no active follower can explain the span better or continue it."""
        rivals = [follower.span() for follower in self._open]
        return position_s - one.end_s > self.config.max_gap_s + self.config.window_s and not any(
            self._same_music(one, rival) or self._joined(one, rival) for rival in rivals
        )

    def _is_echo(self, one: TrackSpan, other: TrackSpan) -> bool:
        """Whether another span explains most of this one: another line of the track, or a copy."""
        covered = one.shared_s(other) / max(one.end_s - one.start_s, 1e-9)
        return covered > 0.5 and self._same_music(one, other)

    def _same_music(self, one: TrackSpan, other: TrackSpan) -> bool:
        start_s, end_s = max(one.start_s, other.start_s), min(one.end_s, other.end_s)
        if end_s <= start_s:
            return False
        if one.track_id == other.track_id:
            return True
        return self.tracer.track_similarity(one.line, other.line, start_s, end_s) >= _SAME_MUSIC
