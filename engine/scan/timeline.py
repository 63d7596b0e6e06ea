"""From the passages of consecutive clips to those of a whole recording."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.records import Candidate, TrackReader
from engine.search.clips import OVERLAP_S

# Greatest distance of the lines of two passages, of which one continues the other.
_MAX_DISTANCE_S = 0.5
# Two speeds that differ less are the same, as far as one clip can tell.
_SPEED_ERROR = 5e-4
_MIN_LENGTH_S = 1.0
# Mean cosine from which two tracks have the same music along two lines; unrelated tracks reach 0.3.
_MIN_SAME_MUSIC = 0.5
_MAX_COMPARED = 256
# Share of a passage that another one must cover to be the better explanation of it.
_MIN_COVERED = 0.5


class TimelineBuilder:
    """Joins the passages that continue in the next clip, and returns each when it has ended.

    In memory are the passages that may continue, and those returned that overlap with them.

    Parameters
    ----------
    tracks : TrackReader
    max_gap_s : float
        Longest gap between two parts of one passage.
    best_only : bool
        Whether to leave out passages whose music another track explains better.
    """

    def __init__(self, tracks: TrackReader, max_gap_s: float, *, best_only: bool) -> None:
        self.tracks, self.max_gap_s, self.best_only = tracks, max_gap_s, best_only
        self._open: list[Candidate] = []
        self._returned: list[Candidate] = []  # those that may explain an open one

    @property
    def n_held(self) -> int:
        """Number of passages in memory."""
        return len(self._open) + len(self._returned)

    @property
    def open(self) -> list[Candidate]:
        """The passages that may continue."""
        return list(self._open)

    def add(self, passages: Iterable[Candidate], end_s: float) -> list[Candidate]:
        """Add the passages of the next clip, and return those that have ended.

        Parameters
        ----------
        passages : iterable of Candidate
            Their times are those of the recording.
        end_s : float
            Where in the recording the clip ends.

        Returns
        -------
        list of Candidate
            By their start.
        """
        before = list(self._open)
        for passage in sorted(passages, key=lambda one: one.query_start_s):
            self._add(passage, before)
        return self._ended(end_s)

    def finish(self) -> list[Candidate]:
        """Return the remaining passages at the end of the recording."""
        return self._ended(float("inf"))

    def _add(self, passage: Candidate, before: list[Candidate]) -> None:
        """Join a passage with all that it continues; what is left of it otherwise is a new one."""
        continued = [other for other in self._open if self._continues(passage, other)]
        for other in continued:
            self._open.remove(other)
            passage = _joined(other, passage)
        # Music made of loops may go on along another line in the next clip. The shorter passage is
        # left out if hardly anything of it lies outside of the longer one.
        for other in [] if continued else before:
            shared_s = _shared_s(passage, other)
            if other.track_id != passage.track_id or shared_s <= 0:
                continue
            left_s = _length_s(other) - shared_s
            if left_s < _MIN_LENGTH_S and _length_s(other) < _length_s(passage):
                self._open = [one for one in self._open if one is not other]
                continue
            passage = replace(passage, query_start_s=other.query_end_s)
            if _length_s(passage) < _MIN_LENGTH_S:
                return
        self._open.append(passage)

    def _continues(self, passage: Candidate, other: Candidate) -> bool:
        start_s = max(passage.query_start_s, other.query_start_s)
        end_s = min(passage.query_end_s, other.query_end_s)
        apart_s, seam_s = start_s - end_s, (start_s + end_s) / 2
        if passage.track_id != other.track_id or apart_s > self.max_gap_s:
            return False
        distance_s = abs(_at(passage, seam_s) - _at(other, seam_s))
        return distance_s <= _MAX_DISTANCE_S * (1 + max(apart_s, 0) / max(self.max_gap_s, 1.0))

    def _ended(self, end_s: float) -> list[Candidate]:
        # The next clip finds once more what lies where it overlaps with this one.
        least_s = max(self.max_gap_s, OVERLAP_S)
        ended = [one for one in self._open if end_s - one.query_end_s > least_s]
        everything = self._open + self._returned
        self._open = [one for one in self._open if one not in ended]
        kept = [one for one in ended if not self._is_explained(one, everything)]
        self._returned = [
            one
            for one in self._returned + kept
            if any(_shared_s(one, other) > 0 for other in self._open)
        ]
        return sorted(kept, key=lambda one: one.query_start_s)

    # -- the better explanation ------------------------------------------------------------------

    def _is_explained(self, passage: Candidate, others: Iterable[Candidate]) -> bool:
        """Whether another passage of the same music covers most of one."""
        return self.best_only and any(
            _gain(other) > _gain(passage)
            and _shared_s(passage, other) > _MIN_COVERED * _length_s(passage)
            and self._is_same_music(passage, other)
            for other in others
        )

    def _is_same_music(self, passage: Candidate, other: Candidate) -> bool:
        """Whether two tracks store similar vectors where both passages are."""
        start_s = max(passage.query_start_s, other.query_start_s)
        end_s = min(passage.query_end_s, other.query_end_s)
        n_compared = int(np.clip((end_s - start_s) / self.tracks.hop_s, 1, _MAX_COMPARED))
        times_s = np.linspace(start_s, end_s, n_compared + 2)[1:-1]
        pair = [self._stored(one, times_s) for one in (passage, other)]
        cosines = [float(a @ b) for a, b in zip(*pair, strict=True) if a.any() and b.any()]
        return bool(cosines) and float(np.mean(cosines)) >= _MIN_SAME_MUSIC

    def _stored(
        self, passage: Candidate, times_s: NDArray[np.float64]
    ) -> list[NDArray[np.float32]]:
        """Vectors of the track at times of the recording, zeros outside of it."""
        n_stored = self.tracks.n_positions(passage.track_id)
        at = np.rint((passage.offset_s + passage.speed * times_s) / self.tracks.hop_s).astype(int)
        first, last = int(np.clip(at.min(), 0, n_stored)), int(np.clip(at.max() + 1, 0, n_stored))
        stored = self.tracks.vectors(passage.track_id, first, max(last, first))
        nothing = np.zeros(1, np.float32)
        return [stored[one - first] if first <= one < last else nothing for one in at]


def _at(passage: Candidate, query_s: float) -> float:
    return passage.offset_s + passage.speed * query_s


def _length_s(passage: Candidate) -> float:
    return passage.query_end_s - passage.query_start_s


def _shared_s(one: Candidate, other: Candidate) -> float:
    start_s = max(one.query_start_s, other.query_start_s)
    return min(one.query_end_s, other.query_end_s) - start_s


def _gain(passage: Candidate) -> float:
    return passage.score * _length_s(passage)


def _joined(first: Candidate, second: Candidate) -> Candidate:
    """Join two parts of one passage: the line runs through the middles of both.

    Where these are near each other, its slope is that of the longer part.
    """
    pair = first, second
    lengths_s = [max(_length_s(one), 1e-9) for one in pair]
    middles_s = [(one.query_start_s + one.query_end_s) / 2 for one in pair]
    speed = max(pair, key=_length_s).speed
    is_far = middles_s[1] - middles_s[0] > max(1.0, max(lengths_s) / 2)
    if abs(second.speed - first.speed) > _SPEED_ERROR and is_far:
        rise_s = _at(second, middles_s[1]) - _at(first, middles_s[0])
        speed = rise_s / (middles_s[1] - middles_s[0])
    # Both parts are right in their middles on average.
    offsets_s = [_at(one, at_s) - speed * at_s for one, at_s in zip(pair, middles_s, strict=True)]
    is_new = _shared_s(first, second) < min(lengths_s) / 2
    doubts = [1 - one.confidence for one in pair]
    return replace(
        max(pair, key=lambda one: one.confidence),
        offset_s=float(np.average(offsets_s, weights=lengths_s)),
        speed=speed,
        query_start_s=min(one.query_start_s for one in pair),
        query_end_s=max(one.query_end_s for one in pair),
        start_error_s=min(pair, key=lambda one: one.query_start_s).start_error_s,
        end_error_s=max(pair, key=lambda one: one.query_end_s).end_error_s,
        score=float(np.average([one.score for one in pair], weights=lengths_s)),
        votes=first.votes + second.votes,
        confidence=1 - doubts[0] * doubts[1] if is_new else 1 - min(doubts),
    )
