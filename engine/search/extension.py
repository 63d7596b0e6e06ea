"""Extend seeds to the passages of a recording that follow their lines.

A line is fitted to its seed, then to twice as much, for as long as recording and track agree to
both sides (seed and extend: Altschul et al. 1997). Of the lines of one track, a decoder chooses the
most likely one segment by segment, which gives the borders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from engine.records import Candidate, Fingerprint, TrackReader
from engine.search.decoder import (
    CORRELATION_S,
    NO_LINE,
    Stretch,
    best_stretch,
    decode,
    least_path,
    log_likelihoods,
    stretches,
)
from engine.search.line import (
    CHANCE,
    MIN_SQUARED_ANGLE,
    Floats,
    Line,
    LineTracer,
    snapped,
    squared_angle,
)

# Share of a window's best cosines that its level is estimated from, and the least level.
_BEST_SHARE, _MIN_LEVEL = 1 / 3, 0.35
# Least difference of the level on a line to that beside it.
_MIN_CONTRAST = 0.3
_N_DOUBLINGS = 12
_SAME_LINE_S, _SAME_SPEED = 0.3, 0.2
# Gain of a tilted line over a straight one, as a factor and in units of the log-likelihood.
_MIN_TILTED_GAIN, _MIN_TILTED_LEAD = 1.05, 2.0
# Logarithm of how much more likely straight lines are than the tilted one they replace, for each
# cut between them; docs/measurements.md#passages.
_MIN_SPLIT_GAIN, _MAX_CUTS = 2.0, 3
_MIN_PASSAGE_S = 0.8
_MAX_PASSES = 16
# Log-likelihood of a line that was found already.
_TAKEN = -100.0
# A passage that begins or ends this near to the end of a track begins or ends there.
_NEAR_EDGE_S = 0.9
# The best cosines beside a line are averaged over this time to trim a passage. What is trimmed is
# so much less likely on the line.
_BESIDE_S, _MIN_TRIMMED = 2.0, 1.0
# Expected errors of borders: at the ends of the recording, and in it if there is no doubt which
# segments agree. They hold in this share of cases.
_EDGE_ERROR_S, _BORDER_ERROR_S, _MAX_ERROR_S, _CERTAINTY = 0.1, 0.3, 5.0, 0.9


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Segments first..last of a recording that follow a line, the last one excluded.

    Parameters
    ----------
    line : Line
    first, last : int
    level, upper_level, chance : float
        Mean cosine on the line, that of the upper half, and the mean beside the line.
    """

    line: Line
    first: int
    last: int
    level: float
    upper_level: float
    chance: float

    @property
    def length(self) -> int:
        """Number of segments."""
        return self.last - self.first

    @property
    def is_straight(self) -> bool:
        """Whether its line has slope 1."""
        return self.line.speed == 1.0

    @property
    def level_beside(self) -> float:
        """Mean cosine expected beside the line, clearly below that on it."""
        return min(self.chance, max(self.upper_level - _MIN_CONTRAST, CHANCE))

    @property
    def min_cosine(self) -> float:
        """Cosine from which a segment is more likely on the line than beside it."""
        return (self.upper_level + self.level_beside) / 2


class Extender:
    """Extends seeds in one recording.

    Parameters
    ----------
    query : Fingerprint
    tracks : TrackReader
    speed_error : float
        Standard error of the query's speed; 0 if most recordings have exactly that of their track.
    """

    def __init__(self, query: Fingerprint, tracks: TrackReader, speed_error: float = 0.0) -> None:
        self.tracer, self.speed_error = LineTracer(query, tracks), speed_error
        self.n_segments, self.hop_s = len(query.embeddings), query.segment_hop_s

    def add(self, alignments: list[Alignment], seed: Line, window: tuple[int, int]) -> None:
        """Extend a seed, unless its line is known already."""
        first, last = window
        here = [one for one in alignments if one.first < last and one.last > first]
        if any(_is_same(one.line, seed) for one in here):
            return
        passage = self.extend(seed, first, last)
        if seed.speed != 1.0:
            straight = self.extend(replace(seed, speed=1.0), first, last)
            passage = self._simpler(passage, straight)
        if passage is None:
            return
        for other in here:
            if self._is_near(passage, other):
                if passage.length <= other.length:
                    return
                alignments.remove(other)
        alignments.append(passage)

    def split(self, alignments: list[Alignment]) -> None:
        """Replace the tilted lines of a track that lie across cuts between straight ones."""
        straight = [one.line for one in alignments if one.is_straight]
        for one in [one for one in alignments if not one.is_straight]:
            pieces = self._pieces(one, straight)
            if pieces:
                alignments.remove(one)
            for piece in pieces:
                if not any(self._is_near(piece, other) for other in alignments):
                    alignments.append(piece)

    def _pieces(self, tilted: Alignment, straight: Sequence[Line]) -> list[Alignment]:
        """Find straight lines one after the other that agree better than a tilted one; or none.

        The squared angles of either are normally distributed, and their variance is unknown.
        """
        first, last = tilted.first, tilted.last
        lines = [*straight, *self._straight_lines(tilted.line, first, last)]
        angles = np.stack([self._squared_angles(line, first, last) for line in lines])
        least = MIN_SQUARED_ANGLE * (last - first)
        own = float(self._squared_angles(tilted.line, first, last).sum())
        n_independent = (last - first) * self.hop_s / CORRELATION_S
        paths = [least_path(angles, n_cuts) for n_cuts in range(1, _MAX_CUTS + 1)]
        leads = [
            n_independent / 2 * np.log((own + least) / (total + least)) - n_cuts * _MIN_SPLIT_GAIN
            for n_cuts, (total, _) in enumerate(paths, 1)
        ]
        best = int(np.argmax(leads))
        if leads[best] <= 0:
            return []
        pieces = (
            self._agreeing(lines[one.line], first + one.first, first + one.last)
            for one in paths[best][1]
        )
        return [one for one in pieces if one is not None]

    def _straight_lines(self, tilted: Line, first: int, last: int) -> Iterator[Line]:
        """Find lines with slope 1 for halves and thirds: near a tilted line, and in its track."""
        parts = [
            part
            for n_parts in (2, 3)
            for part in pairwise(np.linspace(first, last, n_parts + 1).astype(int).tolist())
        ]
        diagonals = self.tracer.diagonals(tilted.track_id, parts)
        for part, diagonal in zip(parts, diagonals, strict=True):
            yield self._straight(tilted, *part)
            yield self._straight(diagonal, *part)

    def _squared_angles(self, line: Line, first: int, last: int) -> Floats:
        """Squared angles of segments and track along a line, 0 where a segment is silent."""
        return np.nan_to_num(squared_angle(self.tracer.cosines(line, first, last)))

    def _is_near(self, passage: Alignment, other: Alignment) -> bool:
        """Whether two passages have the same line where both are, or between them."""
        middle_s = self.middle_s(max(passage.first, other.first), min(passage.last, other.last))
        return passage.line.distance_s(other.line, middle_s) < _SAME_LINE_S

    def _straight(self, line: Line, first: int, last: int) -> Line:
        """Fit a line with slope 1 to the segments first..last near another."""
        middle_s = self.middle_s(first, last)
        near = replace(line, query_s=middle_s, reference_s=line.at(middle_s), speed=1.0)
        fitted, _ = self.tracer.fit(near, first, last)
        return replace(near, reference_s=fitted.at(middle_s))

    def extend(self, line: Line, first: int, last: int) -> Alignment | None:
        """Fit a line to a window, then to twice as much, for as long as both sides agree."""
        found, speed = None, line.speed
        line, error = self.tracer.fit(line, first, last, speed)
        if self._agreeing(line, first, last) is None:
            return None
        for _ in range(_N_DOUBLINGS):
            line, error = self.tracer.fit(line, first, last, speed)
            grown = (last - first) // 2
            reach = max(first - grown, 0), min(last + grown, self.n_segments)
            found = self._agreeing(line, *reach)
            if found is None:
                return None
            is_done = found.first > reach[0] and found.last < reach[1]
            is_whole = reach == (0, self.n_segments)
            is_same = (found.first, found.last) == (first, last)
            first, last = found.first, found.last
            if is_same or (is_done and is_whole):
                break
        if found is None:
            return None
        return replace(found, line=snapped(line, error, self.speed_error))

    def _agreeing(self, line: Line, first: int, last: int) -> Alignment | None:
        """Find the segments that follow a line, and their level, which decides about them."""
        cosines = self.tracer.cosines(line, first, last)
        inside = np.sort(cosines[cosines > -1])[::-1]
        if not len(inside):
            return None
        level = float(inside[: max(int(len(inside) * _BEST_SHARE), 4)].mean())
        found = Alignment(
            line=line, first=first, last=last, level=level, upper_level=level,
            chance=self.tracer.chance(line, first, last),
        )  # fmt: skip
        for _ in range(3):
            if found.level < _MIN_LEVEL:
                return None
            start, end, _ = best_stretch(self._scores(cosines, found))
            if end <= start:
                return None
            found = measured(found, first + start, first + end, cosines[start:end])
        return found

    def _scores(self, cosines: Floats, like: Alignment) -> Floats:
        """Log-likelihoods of cosines on the line of a passage like another."""
        return log_likelihoods(cosines, like.upper_level, self.hop_s, like.level_beside)

    def _simpler(self, tilted: Alignment | None, straight: Alignment | None) -> Alignment | None:
        """Prefer the straight line unless the tilted one explains clearly more."""
        if tilted is None or straight is None:
            return tilted or straight
        best = max(tilted, straight, key=lambda one: one.upper_level)
        gains = [
            best_stretch(self._scores(self.tracer.cosines(one.line), best))[2]
            for one in (tilted, straight)
        ]
        is_better = gains[0] > _MIN_TILTED_GAIN * gains[1] + _MIN_TILTED_LEAD
        return tilted if is_better else straight

    def decode(self, alignments: Sequence[Alignment]) -> list[Alignment]:
        """Decide between the lines of one track, and fit each to its own segments."""
        if not alignments:
            return []
        cosines, scores = self._scored(alignments)
        return [
            self._fitted(alignments[one.line], one, cosines[one.line])
            for one in self._decoded(scores)
        ]

    def decode_all(self, alignments: Sequence[Alignment]) -> list[Alignment]:
        """Decode again and again without what was found: several lines may share a segment."""
        if not alignments:
            return []
        cosines, scores = self._scored(alignments)
        paths = np.full(scores.shape, NO_LINE)
        for _ in range(_MAX_PASSES):
            decoded = self._decoded(scores)
            for line, first, last in decoded:
                scores[self._same_lines(alignments, line, first, last), first:last] = _TAKEN
                paths[line, first:last] = line
            if not decoded:
                break
        # Stretches of one line that touch are one.
        joined = [one for path in paths for one in stretches(path)]
        return [self._fitted(alignments[one.line], one, cosines[one.line]) for one in joined]

    def _same_lines(
        self, alignments: Sequence[Alignment], number: int, first: int, last: int
    ) -> list[int]:
        """Numbers of the lines that are the same as one within the segments first..last."""
        line, middle_s = alignments[number].line, self.middle_s(first, last)
        return [
            other
            for other, one in enumerate(alignments)
            if one.line.distance_s(line, middle_s) < _SAME_LINE_S
        ]

    def _scored(self, alignments: Sequence[Alignment]) -> tuple[Floats, Floats]:
        """Cosines on each line, shape (n_lines, n_segments), and their log-likelihoods."""
        best = max(alignments, key=lambda one: one.upper_level)
        cosines = np.stack([self.tracer.cosines(one.line) for one in alignments])
        return cosines, self._scores(cosines, best)

    def _decoded(self, scores: Floats) -> list[Stretch]:
        return [
            one for one in decode(scores) if (one.last - one.first) * self.hop_s >= _MIN_PASSAGE_S
        ]

    def _fitted(self, passage: Alignment, stretch: Stretch, cosines: Floats) -> Alignment:
        _, first, last = stretch
        first, last = self._trimmed(passage, first, last, cosines)
        line = self._settled(passage.line, first, last)
        return measured(replace(passage, line=line), first, last, cosines[first:last])

    def _trimmed(
        self, passage: Alignment, first: int, last: int, cosines: Floats
    ) -> tuple[int, int]:
        """Drop ends that agree as well beside the line: speech of the same voice, for one."""
        beside = self.tracer.cosines_beside(passage.line, first, last)
        best = np.where(np.isfinite(beside), beside, CHANCE).max(axis=1)
        window = np.ones(min(max(round(_BESIDE_S / self.hop_s), 1), last - first))
        near = np.convolve(best, window, "same") / np.convolve(np.ones_like(best), window, "same")
        chance = np.clip(near, passage.level_beside, passage.upper_level)
        scores = log_likelihoods(cosines[first:last], passage.upper_level, self.hop_s, chance)
        n_before, n_after = _worst_prefix(scores), _worst_prefix(scores[::-1])
        is_long = (last - first - n_before - n_after) * self.hop_s >= _MIN_PASSAGE_S
        return (first + n_before, last - n_after) if is_long else (first, last)

    def _settled(self, line: Line, first: int, last: int) -> Line:
        """Fit a line to the inside of a passage, where segments contain nothing else."""
        margin = round(self.tracer.query.segment_s / 2 / self.hop_s)
        inner_first = first + margin if first else first
        inner_last = last - margin if last < self.n_segments else last
        if (inner_last - inner_first) * self.hop_s < _MIN_PASSAGE_S:
            inner_first, inner_last = first, last
        fitted, error = self.tracer.fit(line, inner_first, inner_last, line.speed)
        return snapped(fitted, error, self.speed_error)

    def place(self, candidate: Candidate, passage: Alignment) -> Candidate:
        """Give a candidate the place of a passage."""
        line, offset_s = passage.line, passage.line.at(0.0)
        start_s, end_s = self.borders_s(passage)
        start_error_s, end_error_s = self._border_errors_s(passage)
        # It may be at any of the places that the candidate has.
        middle_s = self.middle_s(passage.first, passage.last)
        places_s = [
            place_s + candidate.speed * middle_s
            for place_s in (candidate.offset_s, *candidate.also)
        ]
        here_s = min(places_s, key=lambda place_s: abs(place_s - line.at(middle_s)))
        return replace(
            candidate,
            offset_s=offset_s,
            speed=line.speed,
            query_start_s=start_s,
            query_end_s=end_s,
            start_error_s=start_error_s,
            end_error_s=end_error_s,
            score=passage.level,
            also=tuple(offset_s + one_s - here_s for one_s in places_s if one_s != here_s),
        )

    def borders_s(self, passage: Alignment) -> tuple[float, float]:
        """Start and end of a passage: the middles of its outer segments, or what ends there."""
        middles_s, half_s = self.tracer.middles_s, self.hop_s / 2
        start_s = float(middles_s[passage.first]) - half_s if passage.first else 0.0
        duration_s = self.tracer.query.duration_s
        is_last = passage.last == self.n_segments
        end_s = duration_s if is_last else float(middles_s[passage.last - 1]) + half_s
        begin_s, finish_s = self.tracer.extent(passage.line)
        if start_s < begin_s + _NEAR_EDGE_S:
            start_s = max(begin_s, 0.0)
        if end_s > finish_s - _NEAR_EDGE_S:
            end_s = min(finish_s, duration_s)
        return start_s, max(end_s, start_s)

    def _border_errors_s(self, passage: Alignment) -> tuple[float, float]:
        """Compute the errors to expect of both borders, by how likely those beside them are."""
        sums = np.cumsum(self._scores(self.tracer.cosines(passage.line), passage))
        before = np.concatenate([[0.0], sums])
        first = self._error_s(-before, passage.first) if passage.first else _EDGE_ERROR_S
        is_last = passage.last == self.n_segments
        return first, _EDGE_ERROR_S if is_last else self._error_s(before, passage.last)

    def _error_s(self, log_likelihoods: Floats, chosen: int) -> float:
        reach = round(_MAX_ERROR_S / self.hop_s)
        lowest = max(chosen - reach, 0)
        near = log_likelihoods[lowest : chosen + reach + 1]
        shares = np.exp(near - near.max())
        distances = np.abs(np.arange(len(near)) + lowest - chosen)
        order = np.argsort(distances, kind="stable")
        sums = np.cumsum(shares[order]) / shares.sum()
        within = distances[order][int(np.searchsorted(sums, _CERTAINTY))]
        return float(np.hypot(within * self.hop_s, _BORDER_ERROR_S))

    def middle_s(self, first: int, last: int) -> float:
        """Return the middle of the segments first..last, in seconds."""
        middle = (first + last - 1) // 2
        return float(self.tracer.middles_s[int(np.clip(middle, 0, self.n_segments - 1))])


def _is_same(line: Line, seed: Line) -> bool:
    is_near = line.distance_s(seed, seed.query_s) < _SAME_LINE_S
    return is_near and abs(line.speed - seed.speed) < _SAME_SPEED


def _worst_prefix(scores: Floats) -> int:
    """Length of the beginning with the least sum, 0 if that is not clearly negative."""
    sums = np.cumsum(scores)
    return int(sums.argmin()) + 1 if sums.min(initial=0.0) < -_MIN_TRIMMED else 0


def measured(alignment: Alignment, first: int, last: int, cosines: Floats) -> Alignment:
    """Return an alignment for other segments, with their levels.

    Parameters
    ----------
    alignment : Alignment
    first, last : int
    cosines : float64 array of shape (last - first,)
        NaN where a segment counts nothing.
    """
    audible = cosines[~np.isnan(cosines)]
    upper = audible[audible >= np.median(audible)] if len(audible) else np.zeros(1)
    level = float(audible.mean()) if len(audible) else 0.0
    return replace(alignment, first=first, last=last, level=level, upper_level=float(upper.mean()))


def follow(
    candidate: Candidate, query: Fingerprint, tracks: TrackReader, speed_error: float
) -> Candidate:
    """Give a candidate the place of the longest passage along its line.

    Parameters
    ----------
    candidate : Candidate
    query : Fingerprint
        The whole recording that the candidate was found in.
    tracks : TrackReader
    speed_error : float
        Standard error of the query's speed.

    Returns
    -------
    Candidate
        As it was if no passage follows the line.
    """
    extender = Extender(query, tracks, speed_error)
    passages: list[Alignment] = []
    extender.add(passages, line_of(candidate), (0, len(query.embeddings)))
    longest = max(extender.decode(passages), key=lambda one: one.length, default=None)
    return candidate if longest is None else extender.place(candidate, longest)


def line_of(candidate: Candidate, start_s: float = 0.0, offset_s: float | None = None) -> Line:
    """Return the line of a candidate, through the middle of what it covers.

    Parameters
    ----------
    candidate : Candidate
    start_s : float
        Where in the recording its query begins.
    offset_s : float, optional
        One of `candidate.also` instead of its own offset.
    """
    middle_s = (candidate.query_start_s + candidate.query_end_s) / 2
    offset_s = candidate.offset_s if offset_s is None else offset_s
    return Line(
        track_id=candidate.track_id,
        query_s=start_s + middle_s,
        reference_s=offset_s + candidate.speed * middle_s,
        speed=candidate.speed,
    )
