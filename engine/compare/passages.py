"""Compare two fingerprints without a catalog: their similarity, and the passages they share.

All pairs of segments are compared, few of them at a time. The sums along all diagonals come from
one correlation. Runs of agreeing pairs are followed row by row, as genetic sequences are aligned
(Smith and Waterman 1981), each until its sum falls too far below its maximum (Altschul et al.
1997).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError, RecipeMismatchError
from engine.records import Fingerprint, Passage, Vectors

Floats = NDArray[np.float64]

Span = tuple[float, float]
"""Start and end of a stretch of a recording, in seconds."""

MIN_MATCH_LENGTH = 10
"""Segments in the shortest passage, by default."""

MIN_COSINE = 0.55
"""Cosine from which two segments agree."""

# Mean cosine along the best diagonal that 95 % of pairs of unrelated recordings stay below if both
# are equally long, and its growth for each factor of e that one is longer;
# docs/measurements.md#compared-recordings.
_CHANCE = 0.38
_CHANCE_GROWTH = 0.07
_MAX_CHANCE = 0.9

# Least sum of excess cosines of a run; it is smaller for short runs, if those may be short.
_MIN_SUM = 3.0
_MIN_SUM_PER_SEGMENT = 0.3
# Fall of the sum below its maximum that ends a run: four segments of silence.
_MAX_DROP = 2.2
# Cost of leaving the diagonal by one segment, as runs of another speed have to now and then.
_TURN_COST = 0.4
# A slope is another speed than 1 if it moves the end of a run by this many segments.
_MIN_DRIFT = 0.5
# Segments to either side of a run's chord that are searched for its line.
_REACH = 3
# A passage is covered by a better one that shares more than this much of it.
_MIN_COVERED = 0.5
_BLOCK_ROWS = 256
_BLOCK_DIMS = 16


def similarity(first: Fingerprint, second: Fingerprint) -> float:
    """Measure how much of the shorter recording is in the longer one, and how clearly.

    It is the mean cosine of the shorter one's audible segments along the best diagonal, scaled so
    that unrelated music is at 0; docs/measurements.md#compared-recordings.

    Parameters
    ----------
    first, second : Fingerprint
        In any order. The longer hop must be a multiple of the other.

    Returns
    -------
    float
        In [0, 1]: 1 for the same audio, 0 for unrelated music. A copy at another speed leaves the
        diagonal after a few seconds; see :func:`passages`.

    Raises
    ------
    RecipeMismatchError
        They were made under different recipes.
    ConfigError
        Their hops do not fit.
    """
    pairs = _at_common_hop(first, second)
    return max((_similarity(*pair.embeddings) for pair in pairs), default=0.0)


def passages(
    query: Fingerprint, reference: Fingerprint, min_match_length: int = MIN_MATCH_LENGTH
) -> list[Passage]:
    """Find the passages that two recordings share, at the same speed or nearly so.

    A passage may bridge about four segments that do not agree. What occurs twice, in either
    recording, is two passages. A speed that cannot be distinguished from 1 is 1.

    Parameters
    ----------
    query, reference : Fingerprint
        The longer hop must be a multiple of the other.
    min_match_length : int
        Segments of the query in the shortest passage. Shorter ones agree by chance more often.

    Returns
    -------
    list of Passage
        By their start in the query.

    Raises
    ------
    RecipeMismatchError
        They were made under different recipes.
    ConfigError
        Their hops do not fit, or `min_match_length` is not positive.
    """
    return _passages(query, reference, min_match_length, None)


def repetitions(
    fingerprint: Fingerprint, min_match_length: int = MIN_MATCH_LENGTH
) -> list[Passage]:
    """Find the passages of a recording that occur in it again.

    Parameters
    ----------
    fingerprint : Fingerprint
    min_match_length : int
        Segments in the shortest passage. The two starts are at least as far apart, and no segment
        overlaps its own repetition.

    Returns
    -------
    list of Passage
        Each pair once, the earlier occurrence as the query; by their start. The two overlap if
        something is repeated at once, such as a loop.

    Raises
    ------
    ConfigError
        `min_match_length` is not positive.
    """
    apart = math.ceil(fingerprint.segment_s / fingerprint.segment_hop_s - 1e-6)
    return _passages(fingerprint, fingerprint, min_match_length, max(min_match_length, apart))


def _passages(
    query: Fingerprint, reference: Fingerprint, min_match_length: int, min_lag: int | None
) -> list[Passage]:
    if min_match_length < 1:
        raise ConfigError.invalid("min_match_length", min_match_length, "must be at least 1")
    runs: list[_Run] = []
    for pair in _at_common_hop(query, reference):
        min_length = max(round(min_match_length * query.segment_hop_s / pair.hop_s), 1)
        runs += _runs(pair, min_length, min_lag)
    found = [_passage(run, query, reference) for run in _distinct(runs, query.segment_s)]
    return sorted(found, key=lambda one: (one.query_start_s, one.reference_start_s))


class _Pair(NamedTuple):
    """Embeddings of both recordings at the same hop, and the starts of their first segments."""

    embeddings: tuple[Vectors, Vectors]
    starts_s: tuple[float, float]
    hop_s: float


def _at_common_hop(first: Fingerprint, second: Fingerprint) -> Iterator[_Pair]:
    """Thin the one with the finer hop to the hop of the other, once from each first segment."""
    if first.recipe_id != second.recipe_id:
        raise RecipeMismatchError(first.recipe_id, second.recipe_id, "the other fingerprint")
    hop_s = max(first.segment_hop_s, second.segment_hop_s)
    every = [round(hop_s / one.segment_hop_s) for one in (first, second)]
    finer_s = min(first.segment_hop_s, second.segment_hop_s)
    if abs(max(every) * finer_s - hop_s) > 1e-6:
        raise ConfigError.invalid(
            "segment_hop_s", hop_s, f"must be a multiple of the other hop ({finer_s:g} s)"
        )
    for i, j in product(*map(range, every)):
        thinned = first.embeddings[i :: every[0]], second.embeddings[j :: every[1]]
        starts_s = i * first.segment_hop_s, j * second.segment_hop_s
        if len(thinned[0]) and len(thinned[1]):
            yield _Pair(thinned, starts_s, hop_s)


# -- similarity ------------------------------------------------------------------------------


def _similarity(first: Vectors, second: Vectors) -> float:
    n_audible = [int(one.any(axis=1).sum()) for one in (first, second)]
    if not min(n_audible):
        return 0.0
    mean = _best_sum(first, second) / min(n_audible)
    growth = _CHANCE_GROWTH * np.log(max(n_audible) / min(n_audible))
    chance = min(_CHANCE + growth, _MAX_CHANCE)
    return round(float(np.clip((mean - chance) / (1 - chance), 0, 1)), 6) + 0.0


def _best_sum(first: Vectors, second: Vectors) -> float:
    """Greatest sum of the cosines along any diagonal, found by correlation."""
    # In an order of their own, so that rounding is the same whichever comes first.
    ordered = sorted((first, second), key=lambda one: (len(one), one.tobytes()))
    size = 1 << (len(first) + len(second)).bit_length()
    spectrum = np.zeros(size // 2 + 1, np.complex128)
    for dim in range(0, first.shape[1], _BLOCK_DIMS):
        dims = slice(dim, dim + _BLOCK_DIMS)
        spectra = [np.fft.rfft(vectors[:, dims], size, axis=0) for vectors in ordered]
        spectrum += (spectra[0].conj() * spectra[1]).sum(axis=1)
    return float(np.fft.irfft(spectrum, size).max())


# -- runs of agreeing pairs ------------------------------------------------------------------


class _Run(NamedTuple):
    """The greatest sum of a run, and its first and last pairs of segments, the query's first."""

    top: float
    start: tuple[int, int]
    end: tuple[int, int]
    pair: _Pair

    def times_s(self, side: int) -> tuple[float, float]:
        """Return the starts of the first and last segment in the query (0) or reference (1)."""
        first_s, hop_s = self.pair.starts_s[side], self.pair.hop_s
        return first_s + self.start[side] * hop_s, first_s + self.end[side] * hop_s


class _Front(NamedTuple):
    """The best run to each pair of one row; two empty columns come first.

    `scores` are the run's sum and its maximum, `codes` its first pair and that of the maximum.
    """

    scores: NDArray[np.float32]
    codes: NDArray[np.int64]

    @classmethod
    def empty(cls, width: int) -> _Front:
        return cls(np.zeros((2, width + 2), np.float32), np.zeros((2, width + 2), np.int64))


def _runs(pair: _Pair, min_length: int, min_lag: int | None) -> list[_Run]:
    width = len(pair.embeddings[1]) + 1
    columns = np.arange(width)
    min_sum = min(_MIN_SUM, min_length * _MIN_SUM_PER_SEGMENT)
    front = before = _Front.empty(width)
    best: dict[int, tuple[float, int]] = {}
    for row, excess in enumerate(_excesses(*pair.embeddings, min_lag)):
        (height, top), (start, end) = _reached(front, before)
        value = height + excess
        alive = (value > 0) & (height > 0) & (value >= top - _MAX_DROP)
        over = np.flatnonzero(~alive & (top >= min_sum))
        over = over[end[over] // width - start[over] // width + 1 >= min_length]
        for at in _best_of_each(start, top, over):
            known = best.get(int(start[at]), (0.0, 0))
            best[int(start[at])] = max(known, (float(top[at]), int(end[at])))
        front, before = _Front.empty(width), front
        here = row * width + columns
        front.scores[0, 2:] = np.where(alive, value, np.maximum(excess, 0))
        front.scores[1, 2:] = np.where(alive, np.maximum(value, top), np.maximum(excess, 0))
        front.codes[0, 2:] = np.where(alive, start, here)
        front.codes[1, 2:] = np.where(alive & (value <= top), end, here)
    return [
        _Run(top, divmod(start, width), divmod(end, width), pair)
        for start, (top, end) in best.items()
    ]


def _excesses(
    query: Vectors, reference: Vectors, min_lag: int | None
) -> Iterator[NDArray[np.float32]]:
    """Yield the excess cosines of each row; an additional row and column end all runs.

    So do columns less than `min_lag` after the row, where a recording agrees with itself.
    """
    ending = np.float32(-np.inf)
    for first in range(0, len(query), _BLOCK_ROWS):
        block = query[first : first + _BLOCK_ROWS] @ reference.T - np.float32(MIN_COSINE)
        if min_lag is not None:
            rows = np.arange(first, first + len(block))
            block[np.arange(block.shape[1]) < rows[:, None] + min_lag] = ending
        yield from np.pad(block, ((0, 0), (0, 1)), constant_values=ending)
    yield np.full(len(reference) + 1, ending)


def _reached(front: _Front, before: _Front) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Continue the best runs in the next row: along the diagonal, or past one segment of a side."""
    scores, codes = front.scores[:, 1:-1], front.codes[:, 1:-1]
    cost = np.array([[_TURN_COST], [0]], np.float32)
    for other, columns in ((before, slice(1, -1)), (front, slice(0, -2))):
        turned = other.scores[:, columns] - cost
        better = turned[0] > scores[0]
        scores = np.where(better, turned, scores)
        codes = np.where(better, other.codes[:, columns], codes)
    return scores, codes


def _best_of_each(
    start: NDArray[np.int64], top: NDArray[np.float32], columns: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Of the columns whose runs began at the same pair, keep the one with the greatest sum."""
    ranked = columns[np.argsort(-top[columns], kind="stable")]
    return ranked[np.unique(start[ranked], return_index=True)[1]]


def _distinct(runs: Iterable[_Run], apart_s: float) -> list[_Run]:
    """Drop runs beside a better one: overlapping segments agree a little, too."""
    kept: list[_Run] = []
    for run in sorted(runs, key=lambda one: (-one.top, one.times_s(0))):
        if not any(_is_beside(run, better, apart_s) for better in kept):
            kept.append(run)
    return kept


def _is_beside(run: _Run, better: _Run, apart_s: float) -> bool:
    start_s, end_s = run.times_s(0)
    first_s, last_s = better.times_s(0)
    middle_s = (start_s + end_s) / 2
    if not first_s <= middle_s <= last_s:
        return False
    on_line_s = np.interp(middle_s, (first_s, last_s), better.times_s(1))
    return bool(abs(sum(run.times_s(1)) / 2 - on_line_s) <= apart_s)


# -- from a run to a passage -----------------------------------------------------------------


def _passage(run: _Run, query: Fingerprint, reference: Fingerprint) -> Passage:
    (query_start_s, query_last_s), (start_s, last_s) = run.times_s(0), run.times_s(1)
    score, speed = _line(run)
    return Passage(
        query_start_s=query_start_s,
        query_end_s=min(query_last_s + query.segment_s, query.duration_s),
        reference_start_s=start_s,
        reference_end_s=min(last_s + reference.segment_s, reference.duration_s),
        score=score,
        speed=speed,
    )


def _line(run: _Run) -> tuple[float, float]:
    """Mean cosine along the line of a run, and its slope."""
    query, reference = run.pair.embeddings
    (first, start), (last, end) = run.start, run.end
    rows = np.arange(first, last + 1)
    chord = np.rint(np.interp(rows, (first, last), (start, end))).astype(np.int64)
    columns = (chord[:, None] + np.arange(-_REACH, _REACH + 1)).clip(0, len(reference) - 1)
    cosines = np.einsum("nd,nkd->nk", query[rows], reference[columns])
    at, tops = _peaks(cosines)
    agreeing = tops >= MIN_COSINE
    found = (columns[np.arange(len(rows)), _REACH] + at)[agreeing]
    slope = _slope(rows[agreeing].astype(np.float64), found)
    if abs(slope - 1) * len(rows) < _MIN_DRIFT:
        slope = 1.0
    offset = float(np.median(found - slope * rows[agreeing])) if len(found) else float(start)
    on_line = np.rint(slope * rows + offset).astype(np.int64).clip(0, len(reference) - 1)
    return float(np.einsum("nd,nd->n", query[rows], reference[on_line]).mean()), slope


def _peaks(cosines: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Position, from the middle column, and height of the greatest inner value of each row.

    The position is that of the top of the parabola through it and its neighbours.
    """
    values = cosines.astype(np.float64)
    peak = values[:, 1:-1].argmax(axis=1)[:, None] + 1
    left, top, right = (np.take_along_axis(values, peak + k, 1)[:, 0] for k in (-1, 0, 1))
    bend = np.minimum(left - 2 * top + right, -1e-9)
    offset = (0.5 * (left - right) / bend).clip(-0.5, 0.5)
    return peak[:, 0] - values.shape[1] // 2 + offset, top


def _slope(x: Floats, y: Floats) -> float:
    """Median slope between points half the length apart, which is robust to outliers."""
    half = len(x) // 2
    return float(np.median((y[half:] - y[:-half]) / (x[half:] - x[:-half]))) if half else 1.0


# -- spans -----------------------------------------------------------------------------------


def query_span(passage: Passage) -> Span:
    """Return the span of a passage in the query."""
    return passage.query_start_s, passage.query_end_s


def reference_span(passage: Passage) -> Span:
    """Return the span of a passage in the reference."""
    return passage.reference_start_s, passage.reference_end_s


_SIDES: tuple[Callable[[Passage], Span], ...] = (query_span, reference_span)


def length_s(span: Span) -> float:
    """Return the length of a span in seconds."""
    return span[1] - span[0]


def shared_s(first: Span, second: Span) -> float:
    """Return the seconds that two spans share."""
    return max(min(first[1], second[1]) - max(first[0], second[0]), 0.0)


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """Merge the spans that overlap or touch.

    Returns
    -------
    list of (float, float)
        By their start; none overlaps another.
    """
    merged: list[Span] = []
    for start_s, end_s in sorted(spans):
        if merged and start_s <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end_s)
        else:
            merged.append((start_s, end_s))
    return merged


def drop_covered(found: Sequence[Passage]) -> list[Passage]:
    """Drop the passages that better ones cover on both sides.

    Music that repeats itself agrees with its own repetitions, often dozens of times.

    Parameters
    ----------
    found : sequence of Passage

    Returns
    -------
    list of Passage
        In the same order.
    """
    kept: list[Passage] = []
    for passage in sorted(found, key=lambda one: -one.score * length_s(query_span(one))):
        if not all(
            any(_is_covered(side(passage), side(better)) for better in kept) for side in _SIDES
        ):
            kept.append(passage)
    return [passage for passage in found if passage in kept]


def _is_covered(span: Span, better: Span) -> bool:
    return shared_s(span, better) > _MIN_COVERED * length_s(span)
