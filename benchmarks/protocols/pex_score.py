"""Scores of the Pex audio fingerprinting benchmark toolkit, from matches and annotations.

The definitions are those of `evaluate_matches.py` of the toolkit as of 19 December 2023 (commit
25ae1ed), and the totals are equal. Every pair of a query and a reference that is annotated or
matched has its own recall and precision; totals are means over all pairs. A pair that is only
matched has recall 0, one that is only annotated has precision 1, and the F-score weights precision
nine times as much as recall. The breakdown by kinds of modification is left out. Where the
toolkit's README and program differ, this follows the program: seconds of a match with a reference
that is not annotated are seconds of the reference.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from engine.errors import ConfigError

Pair = tuple[str, str]
"""Ids of a query and of a reference."""

_COLUMNS = (
    "query_id", "reference_id", "query_begin", "query_end", "reference_begin", "reference_end",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Span:
    """Matching stretches of a query and a reference: a row of annotations or of matches.

    Parameters
    ----------
    query, reference : frozenset of int
        The matching seconds, as integers.
    tempo : float
        Of annotations: reference seconds per query second.
    """

    query: frozenset[int]
    reference: frozenset[int]
    tempo: float = 1.0


Spans = Mapping[Pair, Sequence[Span]]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts of one pair, in files or in seconds.

    Parameters
    ----------
    true, unknown, false : int
        Positives. Unknown ones may be right, as the query is annotated there with another part of
        the same reference.
    missed : int
        False negatives.
    """

    true: int
    unknown: int
    false: int
    missed: int

    @property
    def recall(self) -> float:
        """Share of the annotated items that were found; 0 without any."""
        annotated = self.true + self.missed
        return self.true / annotated if annotated else 0.0

    @property
    def precision(self) -> float:
        """Share of the found items that are right; 1 without any."""
        found = self.true + self.false
        return self.true / found if found else 1.0


@dataclass(frozen=True, kw_only=True)
class Score:
    """Means over all pairs, in [0, 1], and counts over all pairs; None if not counted."""

    recall: float
    precision: float
    f_score: float
    n_true: int | None = None
    n_unknown: int | None = None
    n_false: int | None = None
    n_missed: int | None = None


def read_spans(path: Path) -> dict[Pair, list[Span]]:
    """Read annotations or matches.

    Parameters
    ----------
    path : Path
        CSV file with a header. Besides the ids and the four times, only the column `tempo` is read
        (per cent of the original); values that are not integers count as 100.

    Raises
    ------
    ConfigError
        The file cannot be read, a column is missing, or a time is not an integer.
    """
    spans: dict[Pair, list[Span]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                spans.setdefault((row["query_id"], row["reference_id"]), []).append(_span(row))
    except KeyError as error:
        needed = ", ".join(_COLUMNS)
        raise ConfigError(str(path), f"column {error} is missing; needed are {needed}") from error
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise ConfigError(str(path), f"invalid annotations ({error})") from error
    return spans


def _span(row: Mapping[str, str]) -> Span:
    tempo = row.get("tempo") or ""
    return Span(
        query=frozenset(range(int(row["query_begin"]), int(row["query_end"]))),
        reference=frozenset(range(int(row["reference_begin"]), int(row["reference_end"]))),
        tempo=int(tempo) / 100 if re.fullmatch(r"[+-]?\d+", tempo) else 1.0,
    )


def file_score(annotated: Spans, matched: Spans) -> Score:
    """Score which files match, at any time."""
    return _tallied(annotated, matched, _files)


def length_score(annotated: Spans, matched: Spans) -> Score:
    """Score matching seconds: "segment-level evaluation based on segment lengths"."""
    return _tallied(annotated, matched, _seconds)


def box_score(annotated: Spans, matched: Spans) -> Score:
    """Score rectangles of query by reference time: "similar to bounding boxes" (He et al. 2022)."""
    pairs = _pairs(annotated, matched)
    recalls = [_covered(a, m, 0.0) for a, m in pairs]
    precisions = [_covered(m, a, 1.0) for a, m in pairs]
    return _score(recalls, precisions)


def f_score(recall: float, precision: float) -> float:
    """Compute the F-score that weights precision nine times as much as recall."""
    if recall + precision == 0:
        return 0.0
    return 10 * recall * precision / (9 * recall + precision)


def _pairs(annotated: Spans, matched: Spans) -> list[tuple[Sequence[Span], Sequence[Span]]]:
    return [
        (annotated.get(p, ()), matched.get(p, ())) for p in dict.fromkeys([*matched, *annotated])
    ]


def _score(recalls: Sequence[float], precisions: Sequence[float], **counts: int) -> Score:
    recall = mean(recalls) if recalls else 0.0
    precision = mean(precisions) if precisions else 1.0
    return Score(recall=recall, precision=precision, f_score=f_score(recall, precision), **counts)


def _tallied(
    annotated: Spans,
    matched: Spans,
    tally: Callable[[Sequence[Span], Sequence[Span]], Tally],
) -> Score:
    tallies = [tally(a, m) for a, m in _pairs(annotated, matched)]
    return _score(
        [one.recall for one in tallies],
        [one.precision for one in tallies],
        n_true=sum(one.true for one in tallies),
        n_unknown=sum(one.unknown for one in tallies),
        n_false=sum(one.false for one in tallies),
        n_missed=sum(one.missed for one in tallies),
    )


def _files(annotated: Sequence[Span], matched: Sequence[Span]) -> Tally:
    is_annotated, is_matched = bool(annotated), bool(matched)
    return Tally(
        true=is_annotated and is_matched,
        unknown=0,
        false=is_matched and not is_annotated,
        missed=is_annotated and not is_matched,
    )


# -- overlaps --------------------------------------------------------------------------------


def _shared(span: Span, others: Sequence[Span]) -> Span:
    """Return the part of a span inside others that overlap it in both query and reference."""
    overlaps = [(span.query & other.query, span.reference & other.reference) for other in others]
    both = [(query, reference) for query, reference in overlaps if query and reference]
    return Span(
        query=frozenset().union(*(query for query, _ in both)),
        reference=frozenset().union(*(reference for _, reference in both)),
    )


def _covered(spans: Sequence[Span], others: Sequence[Span], if_none: float) -> float:
    """Return the share of query time that others cover, times that of reference time."""
    shared = [_shared(span, others) for span in spans]
    n_query, n_reference = _lengths(spans)
    n_shared_query, n_shared_reference = _lengths(shared)
    share = n_shared_query / n_query if n_query else if_none
    return share * (n_shared_reference / n_reference if n_reference else if_none)


def _lengths(spans: Sequence[Span]) -> tuple[int, int]:
    return sum(len(span.query) for span in spans), sum(len(span.reference) for span in spans)


def _seconds(annotated: Sequence[Span], matched: Sequence[Span]) -> Tally:
    found = [_found_and_missed(span, matched) for span in annotated]
    wrong = [_unknown_and_false(span, annotated) for span in matched]
    return Tally(
        true=sum(true for true, _ in found),
        unknown=sum(unknown for unknown, _ in wrong),
        false=sum(false for _, false in wrong),
        missed=sum(missed for _, missed in found),
    )


def _found_and_missed(span: Span, matched: Sequence[Span]) -> tuple[int, int]:
    shared = _shared(span, matched)
    query_s = _rounded(len(shared.query) * span.tempo, len(span.reference))
    missing_query_s = _rounded(len(span.query - shared.query) * span.tempo, 0)
    missing_s = max(len(span.reference - shared.reference), missing_query_s)
    return min(len(shared.reference), query_s), missing_s


def _unknown_and_false(span: Span, annotated: Sequence[Span]) -> tuple[int, int]:
    n_reference, n_query = len(span.reference), len(span.query)
    overlapping = [other for other in annotated if other.query & span.query]
    tempo = overlapping[-1].tempo if overlapping else n_reference / n_query if n_query else 1.0
    in_query = span.query.intersection(frozenset().union(*(other.query for other in overlapping)))
    query_s = _rounded(len(in_query) * tempo, n_reference)
    reference_s = len(_shared(span, annotated).reference)
    surplus_s = max(0, n_reference - max(reference_s, query_s))
    surplus_query_s = _rounded(n_query * tempo, n_reference) - query_s
    return abs(reference_s - query_s), max(surplus_s, surplus_query_s)


def _rounded(value: float, target: int) -> int:
    """Round towards a target."""
    return math.ceil(value) if target > value else math.floor(value)
