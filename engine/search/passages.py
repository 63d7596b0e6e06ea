"""Find the passages that a recording shares with the tracks of a catalog.

Windows of the recording are searched, and their candidates are seeds that are extended to passages
(:mod:`engine.search.extension`). A passage is judged on its own stretch, as if only that had been
queried.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from engine.records import Candidate, Fingerprint
from engine.search.alignment import promising
from engine.search.calibration import MAX_DIRECTION, Calibration
from engine.search.candidates import find_candidates, find_seeds
from engine.search.context import SearchContext
from engine.search.decoder import NO_LINE, stretches
from engine.search.extension import Alignment, Extender, line_of
from engine.search.line import Line

# A recording of up to this length is one window. Longer ones are cut into windows, and what these
# do not explain into shorter ones.
_WHOLE_S, _WINDOW_S, _SHORT_WINDOW_S = 12.0, 8.0, 4.0
_MIN_REST_S, _REST_MARGIN_S = 1.5, 0.4
_N_SEEDS, _N_OTHER_PLACES = 5, 2
# A candidate farther than this from a passage is at another place.
_SAME_PLACE_S = 0.6
# A window judges a stretch if they share this much of the longer one. A longer stretch is judged by
# its middle, a shorter one with what surrounds it, and a passage of two such stretches by both.
_MIN_SHARED, _MAX_JUDGED_S, _MIN_JUDGED_S = 0.8, 16.0, 1.0
_MIN_COVERED = 0.5
# A window has as many chances of a wrong answer as so many whole recordings of its length, and more
# of one that agrees as well backwards.
_N_CHANCES, _N_CHANCES_BACKWARDS = 2, 5


class PassageFinder:
    """Finds the passages of one recording.

    Parameters
    ----------
    query : Fingerprint
    context : SearchContext
    calibration : Calibration
    """

    def __init__(
        self, query: Fingerprint, context: SearchContext, calibration: Calibration
    ) -> None:
        self.query, self.context, self.calibration = query, context, calibration
        self.extender = Extender(query, context.tracks)
        self.n_segments, self.hop_s = len(query.embeddings), query.segment_hop_s
        self._judged: dict[tuple[int, int], list[Candidate]] = {}

    def find(self) -> list[Candidate]:
        """Find all passages, and the candidates that no passage comes of.

        Returns
        -------
        list of Candidate
            The most confident first. Times are those of the recording.
        """
        found = self._passages(self._windows(0, self.n_segments))
        is_short = self.query.duration_s <= _SHORT_WINDOW_S / _MIN_SHARED
        rests = [] if is_short else self.unexplained(found)
        shorter = (self._cut_up(*rest, _SHORT_WINDOW_S) for rest in rests)
        found += self._passages([window for windows in shorter for window in windows])
        return ranked(found)

    def span_s(self, window: tuple[int, int]) -> tuple[float, float]:
        """Return where the segments first..last begin and end in the recording, in seconds."""
        first, last = window
        is_end = last == self.n_segments
        end_s = (last - 1) * self.hop_s + self.query.segment_s
        return first * self.hop_s, self.query.duration_s if is_end else end_s

    def unexplained(self, found: Iterable[Candidate]) -> list[tuple[int, int]]:
        """Return the longer stretches without an accepted passage, as segments first..last."""
        path = np.zeros(self.n_segments, np.int64)
        for one in self.calibration.accepted(found):
            path[self._rows(one.query_start_s, one.query_end_s)] = NO_LINE
        margin = round(_REST_MARGIN_S / self.hop_s)
        min_length = min(max(_MIN_REST_S / self.hop_s, 1), self.n_segments)
        rests = [one for one in stretches(path) if one.last - one.first >= min_length]
        return [
            (max(rest.first - margin, 0), min(rest.last + margin, self.n_segments))
            for rest in rests
        ]

    # -- windows -----------------------------------------------------------------------------

    def _windows(self, first: int, last: int) -> list[tuple[int, int]]:
        is_short = (last - first) * self.hop_s <= _WHOLE_S
        return [(first, last)] if is_short else self._cut_up(first, last, _WINDOW_S)

    def _cut_up(self, first: int, last: int, length_s: float) -> list[tuple[int, int]]:
        """Cut segments into windows that overlap by half."""
        size = round(length_s / self.hop_s)
        n_windows = int(np.ceil((last - first - size) / (size / 2))) + 1
        if n_windows <= 1:
            return [(first, last)]
        starts = np.linspace(first, last - size, n_windows).round().astype(int).tolist()
        return [(start, start + size) for start in starts]

    def _rows(self, start_s: float, end_s: float) -> slice:
        middles_s = self.extender.tracer.middles_s
        first, last = np.searchsorted(middles_s, (start_s, end_s))
        return slice(int(first), int(last))

    def cut(self, first: int, last: int, step: int = 1) -> Fingerprint:
        """Return the fingerprint of the segments first..last, or of every step-th of them."""
        embeddings = self.query.embeddings[first:last:step]
        hop_s = self.hop_s * step
        duration_s = (len(embeddings) - 1) * hop_s + self.query.segment_s
        is_whole = (first, last, step) == (0, self.n_segments, 1)
        return (
            self.query
            if is_whole
            else replace(
                self.query, embeddings=embeddings, segment_hop_s=hop_s, duration_s=duration_s
            )
        )

    # -- seeds ---------------------------------------------------------------------------------

    def _passages(self, windows: Sequence[tuple[int, int]]) -> list[Candidate]:
        """Find the passages that candidates of some windows lie on."""
        of_tracks: dict[int, list[Alignment]] = defaultdict(list)
        for window in windows:
            for line in self._seeds(*window):
                self.extender.add(of_tracks[line.track_id], line, window)
        for passages in of_tracks.values():
            self.extender.split(passages)
        found = [
            candidate
            for passages in of_tracks.values()
            for passage in self.extender.decode(passages)
            for candidate in self._judge(passage)
        ]
        if windows == [self._whole_window]:
            found += self._unplaced(found)
        return distinct(found)

    def _unplaced(self, found: Iterable[Candidate]) -> list[Candidate]:
        """Candidates of the whole recording of tracks without a passage that is as sure."""
        sure: dict[int, float] = {}
        for one in found:
            sure[one.track_id] = max(one.confidence, sure.get(one.track_id, 0.0))
        return [one for one in self.whole if one.confidence > sure.get(one.track_id, -1.0)]

    def _seeds(self, first: int, last: int) -> list[Line]:
        """Search a window for lines to start from."""
        if not self.cut(first, last).audible.any():
            return []
        if (first, last) == self._whole_window:
            candidates = promising(self.whole, _N_SEEDS)
        else:
            step = 2 if self._is_fine else 1
            candidates = find_seeds(self.cut(first, last, step), self.context, _N_SEEDS)
        return [
            line_of(candidate, first * self.hop_s, place_s)
            for candidate in candidates
            for place_s in (candidate.offset_s, *candidate.also[:_N_OTHER_PLACES])
        ]

    @property
    def _is_fine(self) -> bool:
        """Whether every second segment is enough for seeds."""
        ticks = round(self.context.reference_hop_s / self.hop_s)
        return ticks % 2 == 0 and ticks > 2

    # -- judgement -----------------------------------------------------------------------------

    @property
    def _whole_window(self) -> tuple[int, int]:
        return 0, self.n_segments

    @cached_property
    def whole(self) -> list[Candidate]:
        """Candidates of the whole recording with their confidences, most evidence first."""
        return self.judged(self._whole_window)

    def candidates(self, window: tuple[int, int]) -> list[Candidate]:
        """Search the segments first..last, once; times are those of the recording."""
        if window not in self._judged:
            cut, start_s = self.cut(*window), window[0] * self.hop_s
            found = find_candidates(cut, self.context) if cut.audible.any() else []
            self._judged[window] = [one.later(start_s) for one in found]
        return self._judged[window]

    def judged(self, window: tuple[int, int]) -> list[Candidate]:
        """Return the candidates of the segments first..last, judged as one window of many."""
        return [self._with_confidence(one, window) for one in self.candidates(window)]

    def _judge(self, passage: Alignment) -> list[Candidate]:
        """Return what a query of a passage's own stretch gives at its place, at most one.

        Both halves of a long passage are judged, and their doubts multiply, because they have no
        sound in common.
        """
        halves = [self._judged_at(passage, window) for window in self._windows_of(passage)]
        best = max(filter(None, halves), key=lambda one: one.confidence, default=None)
        if best is not None:
            doubts = [1 - one.confidence for one in halves if one is not None]
            best = replace(best, confidence=1 - math.prod(doubts))
        if self._whole_window in self._judged:
            judged = filter(None, (best, self._judged_at(passage, self._whole_window)))
            best = max(judged, key=lambda one: one.confidence, default=None)
        return [] if best is None else [self.extender.place(best, passage)]

    def _judged_at(self, passage: Alignment, window: tuple[int, int]) -> Candidate | None:
        """Return the most confident candidate of a window at the place of a passage."""
        judged = (
            self._with_confidence(one, window, passage.last - passage.first)
            for one in self.candidates(window)
            if self._is_at(one, passage, window)
        )
        return max(judged, key=lambda one: one.confidence, default=None)

    def _is_at(self, candidate: Candidate, passage: Alignment, window: tuple[int, int]) -> bool:
        """Whether a candidate of a window is at the place of a passage.

        They are compared in the middle of what window and passage share, because farther away a
        small error of the candidate's speed is a large one of its place.
        """
        if candidate.track_id != passage.line.track_id:
            return False
        shared = max(window[0], passage.first), min(window[1], passage.last)
        middle_s = self.extender.middle_s(*shared)
        places_s = np.array([candidate.offset_s, *candidate.also])
        at_s = places_s + candidate.speed * middle_s
        return bool((np.abs(at_s - passage.line.at(middle_s)) < _SAME_PLACE_S).any())

    def _windows_of(self, passage: Alignment) -> list[tuple[int, int]]:
        """Choose a window to judge a passage by, or two that do not overlap."""
        first, last = passage.first, passage.last
        if last - first < 2 * round(_MAX_JUDGED_S / self.hop_s):
            return [self._window_of(first, last)]
        middle = (first + last) // 2
        return [self._window_of(first, middle), self._window_of(middle, last)]

    def _window_of(self, first: int, last: int) -> tuple[int, int]:
        """Choose the segments to judge a stretch by; those of an earlier search if possible."""
        for start, end in self._judged:
            shared = min(end, last) - max(start, first)
            if shared >= _MIN_SHARED * max(end - start, last - first):
                return start, end
        least, most = (round(s / self.hop_s) for s in (_MIN_JUDGED_S, _MAX_JUDGED_S))
        size = min(int(np.clip(last - first, least, most)), self.n_segments)
        start = int(np.clip((first + last - size) // 2, 0, self.n_segments - size))
        return start, start + size

    def _with_confidence(
        self, candidate: Candidate, window: tuple[int, int], n_agreeing: int = 0
    ) -> Candidate:
        """Judge a candidate of a window: the more such windows there are, the less sure it is.

        If more segments agree than the window has, only as many chances count as the recording has
        stretches of this length.
        """
        audible_s = self.cut(*window).audible_s
        doubt = 1 - self.calibration.confidence(candidate, audible_s)
        if window != self._whole_window and candidate.margin < 0:
            doubt = 1.0  # other music agrees better with this very stretch
        n_chances = self.n_segments / max(window[1] - window[0], n_agreeing)
        if window != self._whole_window:
            is_backwards = candidate.direction < MAX_DIRECTION
            n_chances *= _N_CHANCES_BACKWARDS if is_backwards else _N_CHANCES
        return replace(candidate, confidence=max(1 - doubt * n_chances, 0.0), audible_s=audible_s)


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Sort distinct candidates by confidence, and equally confident ones by evidence.

    Confidences are equal if they differ by less than a thousandth.
    """
    return sorted(distinct(candidates), key=_rank)


def distinct(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Keep the best of the candidates of one track that share most of a stretch."""
    kept: list[Candidate] = []
    for one in sorted(candidates, key=_rank):
        if not any(_covers(better, one) for better in kept):
            kept.append(one)
    return kept


def _rank(candidate: Candidate) -> tuple[float, float]:
    return -round(candidate.confidence, 3), -candidate.evidence * candidate.audible_s


def _covers(better: Candidate, candidate: Candidate) -> bool:
    pair = better, candidate
    shared_s = min(one.query_end_s for one in pair) - max(one.query_start_s for one in pair)
    shorter_s = min(one.query_end_s - one.query_start_s for one in pair)
    is_same_track = better.track_id == candidate.track_id
    return is_same_track and shared_s > _MIN_COVERED * shorter_s
