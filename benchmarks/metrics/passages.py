"""Answers of passages compared with the pieces of a recording, and figures of many cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astound.evaluation.statistics import reliability
from benchmarks.metrics.bootstrap import Bootstrap
from benchmarks.queries.timeline import Piece

PLACE_S = 0.5
"""Distance from the true line up to which an answer is in the right place, in seconds."""

FALSE_S = 1.0
"""Distance from a piece from which an answer of its track is false, in seconds."""

ALL = "all"
"""Name of the row of all cases of a suite."""

CONTRADICTION_S = 0.05
"""Differences between the fields of an answer that are no contradiction, in seconds."""

_GRID_S = 0.05

Booleans = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A passage that was found: a match, an entry, or a passage of a comparison.

    Parameters
    ----------
    track : str
    query_start_s, query_end_s, reference_start_s, reference_end_s, speed : float
    offset_s, confidence : float or None
        None if the passage has no such field.
    start_error_s, end_error_s : float or None
        Errors of both borders that it expects; None without such fields.
    recording : int
    """

    track: str
    query_start_s: float
    query_end_s: float
    reference_start_s: float
    reference_end_s: float
    speed: float = 1.0
    offset_s: float | None = None
    confidence: float | None = None
    start_error_s: float | None = None
    end_error_s: float | None = None
    recording: int = 0

    @classmethod
    def of(cls, found: Any, track: str) -> Answer:
        """Convert a match, an entry or a passage."""
        fields = cls.__dataclass_fields__.keys() - {"track", "recording"}
        values = {key: getattr(found, key, None) for key in fields}
        return cls(
            track=track, **{key: value for key, value in values.items() if value is not None}
        )

    @property
    def length_s(self) -> float:
        """Its length in the query."""
        return self.query_end_s - self.query_start_s

    def reference_at(self, query_s: Floats) -> Floats:
        """Return times in the track on the line between its two ends."""
        reference_s = self.reference_end_s - self.reference_start_s
        slope = reference_s / self.length_s if self.length_s > 0 else self.speed
        return self.reference_start_s + slope * (query_s - self.query_start_s)

    @property
    def contradicts(self) -> bool:
        """Whether its lengths, its offset and its speed contradict each other."""
        reference_s = self.reference_end_s - self.reference_start_s
        gaps_s = [reference_s - self.speed * self.length_s]
        if self.offset_s is not None:
            start_s = self.offset_s + self.speed * self.query_start_s
            gaps_s.append(start_s - self.reference_start_s)
        return any(abs(gap_s) > CONTRADICTION_S for gap_s in gaps_s)


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """What one command answered in one case.

    Parameters
    ----------
    case : str
        Name of the case.
    pieces : sequence of Piece
        The ground truth.
    answers : sequence of Answer
        Best first.
    status : str
        "match", "no_match" or "error".
    extra : mapping
        Further values of the suite.
    """

    case: str
    pieces: Sequence[Piece]
    answers: Sequence[Answer]
    status: str
    extra: Mapping[str, Any]

    @cached_property
    def piece_results(self) -> list[PieceResult]:
        """Each piece with the answers of its track."""
        return [PieceResult.of(piece, self.answers) for piece in self.pieces]

    @property
    def false_s(self) -> float:
        """Seconds with an answer, farther than FALSE_S from any piece of its track."""
        return sum(
            float((_false_times(recording, self.pieces, self.answers)).sum() * _GRID_S)
            for recording in {answer.recording for answer in self.answers}
        )

    @property
    def n_bridges(self) -> int:
        """Number of answers that lie on at least a second of several pieces of their track."""
        overlaps = [
            [p for p in self.pieces if _is_of(answer, p) and _overlap_s(answer, p) >= 1.0]
            for answer in self.answers
        ]
        return sum(len(pieces) > 1 for pieces in overlaps)

    @property
    def n_strangers(self) -> int:
        """Number of answers whose track is in no piece."""
        tracks = {piece.track for piece in self.pieces}
        return sum(answer.track not in tracks for answer in self.answers)


def _is_of(answer: Answer, piece: Piece) -> bool:
    return answer.track == piece.track and answer.recording == piece.recording


def _overlap_s(answer: Answer, piece: Piece) -> float:
    end_s = min(answer.query_end_s, piece.query_end_s)
    return end_s - max(answer.query_start_s, piece.query_start_s)


def _times(start_s: float, end_s: float) -> Floats:
    return np.arange(start_s + _GRID_S / 2, end_s, _GRID_S)


def _contains(span: Answer | Piece, times: Floats, margin_s: float = 0.0) -> Booleans:
    after = times >= span.query_start_s - margin_s
    return np.asarray(after & (times < span.query_end_s + margin_s))


def _any(masks: Iterable[Booleans], n: int) -> Booleans:
    return np.asarray(np.logical_or.reduce([np.zeros(n, bool), *masks]), bool)


def _false_times(recording: int, pieces: Sequence[Piece], answers: Sequence[Answer]) -> Booleans:
    own = [answer for answer in answers if answer.recording == recording]
    first_s = min(answer.query_start_s for answer in own)
    times = _times(first_s, max(answer.query_end_s for answer in own))
    return _any(
        (
            _contains(answer, times)
            & ~_any((_contains(p, times, FALSE_S) for p in pieces if _is_of(answer, p)), len(times))
            for answer in own
        ),
        len(times),
    )


def _distance_s(
    answer: Answer, piece: Piece, times: Floats, *, or_identical: bool = True
) -> Floats:
    """Return how far an answer is from a piece, or from a place with nearly the same samples."""
    error_s = answer.reference_at(times) - piece.reference_at(times)
    also_s = piece.also_at_s if or_identical else ()
    shifts_s = [0.0, *(start_s - piece.reference_start_s for start_s in also_s)]
    nearest = min(shifts_s, key=lambda shift_s: abs(float(np.median(error_s)) - shift_s))
    return np.asarray(abs(error_s - nearest))


@dataclass(frozen=True, kw_only=True)
class PieceResult:
    """A piece with the answers that lie on its line.

    Parameters
    ----------
    piece : Piece
    own, on_line : tuple of Answer
        Answers of its track, and those that are in the right place somewhere in it; best first.
    share_found, share_placed : float
        Share of it with an answer of its track, and with one in the right place.
    """

    piece: Piece
    own: tuple[Answer, ...]
    on_line: tuple[Answer, ...]
    share_found: float
    share_placed: float

    @classmethod
    def of(cls, piece: Piece, answers: Sequence[Answer]) -> PieceResult:
        """Compare a piece with all answers of its case."""
        times = _times(piece.query_start_s, piece.query_end_s)
        own = [answer for answer in answers if _is_of(answer, piece)]
        inside = [_contains(answer, times) for answer in own]
        placed = [
            mask & (_distance_s(answer, piece, times) <= PLACE_S)
            for answer, mask in zip(own, inside, strict=True)
        ]
        return cls(
            piece=piece,
            own=tuple(own),
            on_line=tuple(a for a, mask in zip(own, placed, strict=True) if mask.any()),
            share_found=float(_any(inside, len(times)).mean()),
            share_placed=float(_any(placed, len(times)).mean()),
        )

    @property
    def is_found(self) -> bool:
        """Whether answers of its track cover half of it."""
        return self.share_found >= 1 / 2

    @property
    def is_placed(self) -> bool:
        """Whether answers in the right place cover half of it."""
        return self.share_placed >= 1 / 2

    @property
    def best(self) -> Answer | None:
        """The answer in the right place that overlaps it most; None without any."""
        return max(self.on_line, key=lambda a: _overlap_s(a, self.piece), default=None)

    @property
    def border_errors_s(self) -> tuple[float | None, float | None]:
        """Errors of its start and its end; None unless it is in the right place."""
        if not self.is_placed:
            return None, None
        start_s = min(answer.query_start_s for answer in self.on_line)
        end_s = max(answer.query_end_s for answer in self.on_line)
        return abs(start_s - self.piece.query_start_s), abs(end_s - self.piece.query_end_s)

    @property
    def speed_error(self) -> float | None:
        """Relative error of the speed; None unless it is in the right place."""
        if not self.is_placed or self.best is None:
            return None
        return abs(self.best.speed / self.piece.speed - 1)

    def is_exact(self, tolerance_s: float, *, or_identical: bool = False) -> bool:
        """Whether the best answer's line is that near to the piece at both of its ends.

        Parameters
        ----------
        tolerance_s : float
        or_identical : bool
            Whether a place with nearly the same samples is right as well.
        """
        answer = self.best or next(iter(self.own), None)
        if answer is None:
            return False
        ends_s = np.array([self.piece.query_start_s, self.piece.query_end_s])
        errors_s = _distance_s(answer, self.piece, ends_s, or_identical=or_identical)
        return bool((errors_s <= tolerance_s).all())


# -- figures of many cases -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One value of one row of a suite.

    Parameters
    ----------
    suite, row, command, measure : str
        The command is what answered.
    unit : str
        "%" for shares in [0, 1], else the unit of the value.
    n : int
        Number of pieces, cases or answers that were counted.
    value : float
    low, high : float or None
        95 % interval, by resampling cases; None without one.
    """

    suite: str
    row: str
    command: str
    measure: str
    unit: str
    n: int
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it is of."""
        return self.suite, self.row, self.command, self.measure


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What counts as right in a suite: relative error of the speed, and error of both ends."""

    speed: float = 0.002
    ends_s: float = 0.25


class Group:
    """The cases of a row as one command answered them.

    Parameters
    ----------
    results : sequence of CaseResult
        Not empty.
    tolerance : Tolerance
    seed : int
        Seed of the resampling.
    """

    def __init__(self, results: Sequence[CaseResult], tolerance: Tolerance, seed: int) -> None:
        self.results, self.tolerance, self.seed = results, tolerance, seed
        self.pieces = [piece for result in results for piece in result.piece_results]
        self.answers = [answer for result in results for answer in result.answers]

    def _cases(self, members: Callable[[CaseResult], Sequence[Any]]) -> list[str]:
        return [result.case for result in self.results for _ in members(result)]

    @property
    def _clusters(self) -> list[str]:
        """What to resample with each piece: its case, or its track if there is a single case."""
        if len(self.results) == 1:
            return [one.piece.track for one in self.pieces]
        return self._cases(lambda result: result.pieces)

    def of_pieces(self, is_right: Callable[[PieceResult], bool]) -> Estimate | None:
        """Compute the share of the pieces with a property."""
        return self.share(self._clusters, map(is_right, self.pieces))

    def of_cases(self, is_right: Callable[[CaseResult], bool]) -> Estimate | None:
        """Compute the share of the cases with a property."""
        return self.share([result.case for result in self.results], map(is_right, self.results))

    def of_answers(self, is_right: Callable[[Answer], bool]) -> Estimate | None:
        """Compute the share of the answers with a property."""
        return self.share(self._cases(lambda r: r.answers), map(is_right, self.answers))

    def share(self, clusters: Sequence[str], flags: Iterable[bool]) -> Estimate | None:
        """Compute the share of flags; what belongs to one cluster is resampled together."""
        if not clusters:
            return None
        share = Bootstrap(clusters, self.seed).share(list(flags))
        return Estimate(value=share.value or 0.0, n=share.n, low=share.low, high=share.high)

    def mean_of_cases(self, value: Callable[[CaseResult], float | None]) -> Estimate | None:
        """Compute the mean over the cases that have a value."""
        pairs = [(result.case, value(result)) for result in self.results]
        known = [(case, one) for case, one in pairs if one is not None]
        return self._mean([case for case, _ in known], [one for _, one in known])

    def share_of_time(self) -> Estimate | None:
        """Compute the share of the known time with an answer in the right place."""
        shares = (one.share_placed for one in self.pieces)
        return self._mean(self._clusters, shares, [one.piece.length_s for one in self.pieces])

    def _mean(
        self, clusters: Sequence[str], values: Iterable[float], weights: Sequence[float] = ()
    ) -> Estimate | None:
        listed, weights = list(values), weights or [1.0] * len(clusters)
        if not listed:
            return None
        low, high = Bootstrap(clusters, self.seed).mean(listed, weights) or (None, None)
        value = float(np.average(listed, weights=weights))
        return Estimate(value=value, n=len(listed), low=low, high=high)

    def quantile(
        self, values: Callable[[PieceResult], Sequence[float | None]], share: float
    ) -> Estimate | None:
        """Compute a quantile of the values of all pieces, without those that are None."""
        pairs = [
            (cluster, value)
            for cluster, piece in zip(self._clusters, self.pieces, strict=True)
            for value in values(piece)
            if value is not None
        ]
        if not pairs:
            return None
        clusters, known = zip(*pairs, strict=True)
        low, high = Bootstrap(clusters, self.seed).quantile(known, share) or (None, None)
        value = float(np.quantile(known, share, method="inverted_cdf"))
        return Estimate(value=value, n=len(known), low=low, high=high)


def _stated_errors_hold(group: Group) -> Estimate | None:
    """Compute the share of the borders whose errors are within those that the answers expect."""
    flags, clusters = [], []
    for result in group.results:
        for one in result.piece_results:
            best = one.best
            if best is None or best.start_error_s is None or best.end_error_s is None:
                continue
            start_s, end_s = one.piece.query_start_s, one.piece.query_end_s
            flags += [
                abs(best.query_start_s - start_s) <= best.start_error_s,
                abs(best.query_end_s - end_s) <= best.end_error_s,
            ]
            clusters += [result.case] * 2
    return group.share(clusters, flags)


def _calibration_error(group: Group) -> Estimate | None:
    """Compute the expected calibration error; a place just like the true one is right."""
    tolerance_s = group.tolerance.ends_s
    answered = [
        (result.answers[0].confidence or 0.0, one.is_exact(tolerance_s, or_identical=True))
        for result in group.results
        for one in result.piece_results
        if result.answers
    ]
    if not answered:
        return None
    confidences, right = map(np.array, zip(*answered, strict=True))
    error = reliability(confidences.astype(np.float64), right.astype(bool)).expected_error
    return None if error is None else Estimate(value=error, n=len(answered))


def _highest_confidence(group: Group) -> Estimate | None:
    confidences = [answer.confidence or 0.0 for answer in group.answers]
    return Estimate(value=max(confidences, default=0.0), n=len(group.results))


def _extra(key: str) -> Callable[[Group], Estimate | None]:
    return lambda group: group.mean_of_cases(lambda result: result.extra.get(key))


def _is_within(one: PieceResult, tolerance: Tolerance) -> bool:
    return one.speed_error is not None and one.speed_error <= tolerance.speed


Measure = tuple[str, Callable[[Group], Estimate | None]]
"""Unit of a value, and how it is computed; None if there is nothing to compute it of."""

MEASURES: Mapping[str, Measure] = {
    "pieces found": ("%", lambda g: g.of_pieces(lambda p: p.is_found)),
    "pieces in place": ("%", lambda g: g.of_pieces(lambda p: p.is_placed)),
    "known time in place": ("%", Group.share_of_time),
    "false time a case": ("s", lambda g: g.mean_of_cases(lambda r: r.false_s)),
    "border error, median": ("s", lambda g: g.quantile(lambda p: p.border_errors_s, 0.5)),
    "border error, 90 %": ("s", lambda g: g.quantile(lambda p: p.border_errors_s, 0.9)),
    "stated errors hold": ("%", _stated_errors_hold),
    "speed right": ("%", lambda g: g.of_pieces(lambda p: _is_within(p, g.tolerance))),
    "speed error, 90 %": ("", lambda g: g.quantile(lambda p: [p.speed_error], 0.9)),
    "both ends right": ("%", lambda g: g.of_pieces(lambda p: p.is_exact(g.tolerance.ends_s))),
    "both ends right, or identical": (
        "%",
        lambda g: g.of_pieces(lambda p: p.is_exact(g.tolerance.ends_s, or_identical=True)),
    ),
    "contradictory answers": ("%", lambda g: g.of_answers(lambda a: a.contradicts)),
    "cases with an answer": ("%", lambda g: g.of_cases(lambda r: bool(r.answers))),
    "failed cases": ("%", lambda g: g.of_cases(lambda r: r.status == "error")),
    "answers across a cut, a case": ("", lambda g: g.mean_of_cases(lambda r: r.n_bridges)),
    "confidence lost": ("", _extra("confidence_lost")),
    "calibration error": ("", _calibration_error),
    "mirror images": ("%", _extra("mirrored")),
    "similarity": ("", _extra("similarity")),
    "false repeats a case": ("", _extra("n_false")),
    "repeats of unequal length": ("", _extra("n_unequal")),
    "other tracks answered": ("%", lambda g: g.of_cases(lambda r: r.n_strangers > 0)),
    "highest confidence": ("", _highest_confidence),
    "× real time": ("×", _extra("realtime_factor")),
    "peak memory": ("MiB", _extra("peak_mib")),
}
"""What is measured, by the name in tables."""

_FOUND = ("pieces found", "pieces in place", "known time in place", "false time a case")
_BORDERS = ("border error, median", "border error, 90 %", "stated errors hold")
_SPEED = ("speed right", "speed error, 90 %")
_STATE = ("contradictory answers", "cases with an answer", "failed cases")
_COMMON = (*_FOUND, *_BORDERS, *_SPEED, *_STATE)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is measured in a suite, and what counts as right."""

    measures: tuple[str, ...] = _COMMON
    tolerance: Tolerance = Tolerance()


PROTOCOLS: Mapping[str, Protocol] = {
    "joins": Protocol(),
    "half-known": Protocol(measures=(*_COMMON, "confidence lost")),
    "edits": Protocol(measures=(*_COMMON, "answers across a cut, a case")),
    "short-pieces": Protocol(measures=(*_COMMON, "answers across a cut, a case")),
    "jingles": Protocol(
        measures=(*_COMMON, "both ends right"), tolerance=Tolerance(speed=0.01, ends_s=0.1)
    ),
    "detuned": Protocol(
        measures=(*_COMMON, "both ends right"), tolerance=Tolerance(speed=0.001, ends_s=0.15)
    ),
    "speeds": Protocol(
        measures=(*_COMMON, "both ends right"), tolerance=Tolerance(speed=0.005, ends_s=0.25)
    ),
    "same": Protocol(measures=(*_COMMON, "mirror images", "similarity")),
    "repeats": Protocol(
        measures=(
            "pieces found", "false time a case", *_BORDERS[:2], "false repeats a case",
            "repeats of unequal length", "failed cases",
        )
    ),
    "rejects": Protocol(
        measures=(
            "cases with an answer", "other tracks answered", "highest confidence", "failed cases"
        )
    ),
    "within": Protocol(
        measures=(
            *_FOUND[:2], "both ends right", "both ends right, or identical", "calibration error",
            "stated errors hold", *_STATE,
        )
    ),
    "long": Protocol(measures=(*_COMMON, "× real time", "peak memory")),
}  # fmt: skip
"""By suite."""


def figures(
    suite: str, row: str, command: str, results: Sequence[CaseResult], seed: int
) -> Iterator[Figure]:
    """Compute the figures of a row of a suite for one command.

    Parameters
    ----------
    suite, row, command : str
    results : sequence of CaseResult
        Not empty.
    seed : int
        Seed of the bootstrap.
    """
    protocol = PROTOCOLS[suite]
    group = Group(results, protocol.tolerance, seed)
    for measure in protocol.measures:
        unit, compute = MEASURES[measure]
        if (estimate := compute(group)) is not None:
            yield Figure(
                suite=suite, row=row, command=command, measure=measure, unit=unit,
                **vars(estimate),
            )  # fmt: skip
