from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.protocols.pex_score import (
    Score,
    Span,
    Spans,
    box_score,
    f_score,
    file_score,
    length_score,
    read_spans,
)
from engine.errors import ConfigError

HEAD = "reference_id,query_id,reference_begin,reference_end,query_begin,query_end"


def _span(query: tuple[int, int], reference: tuple[int, int], tempo: float = 1.0) -> Span:
    return Span(query=frozenset(range(*query)), reference=frozenset(range(*reference)), tempo=tempo)


# The three examples in the README of the toolkit.
ANNOTATED = {("q", "r"): [_span((20, 45), (15, 40))]}


def test_seconds_found_missed_and_too_many() -> None:
    annotated = {("q", "r"): [_span((20, 45), (15, 40))]}
    matched = {("q", "r"): [_span((33, 51), (30, 45))]}
    score = length_score(annotated, matched)
    assert (score.n_true, score.n_missed, score.n_false) == (10, 15, 6)
    assert score.recall == pytest.approx(0.4)
    assert score.precision == pytest.approx(0.625)


def test_seconds_of_another_reference_are_all_wrong() -> None:
    """There are 18 in the README, 15 by the program: it takes the tempo from the match itself."""
    score = length_score(ANNOTATED, {("q", "r2"): [_span((33, 51), (30, 45))]})
    assert (score.n_true, score.n_false, score.n_missed) == (0, 15, 25)


def test_seconds_of_another_part_are_unknown() -> None:
    score = length_score(ANNOTATED, {("q", "r"): [_span((33, 51), (50, 65))]})
    assert (score.n_true, score.n_unknown, score.n_false) == (0, 12, 6)


def test_tempo_makes_times_comparable() -> None:
    annotated = {("q", "r"): [_span((0, 10), (30, 50), tempo=2.0)]}
    score = length_score(annotated, {("q", "r"): [_span((0, 10), (30, 50))]})
    assert score == Score(
        recall=1.0, precision=1.0, f_score=1.0, n_true=20, n_unknown=0, n_false=0, n_missed=0
    )


def test_boxes_multiply_both_times() -> None:
    annotated = {("q", "r"): [_span((0, 10), (30, 40))]}
    score = box_score(annotated, {("q", "r"): [_span((5, 15), (35, 45))]})
    assert score.recall == pytest.approx(0.25)
    assert score.precision == pytest.approx(0.25)


def test_box_beside_in_one_time_counts_for_nothing() -> None:
    annotated = {("q", "r"): [_span((0, 10), (30, 40))]}
    score = box_score(annotated, {("q", "r"): [_span((0, 10), (50, 60))]})
    assert (score.recall, score.precision) == (0.0, 0.0)


def test_file_score_is_a_mean_over_pairs() -> None:
    annotated: Spans = {("q", "a"): [_span((0, 1), (0, 1))], ("q", "b"): [_span((0, 1), (0, 1))]}
    matched: Spans = {("q", "a"): [_span((5, 6), (5, 6))], ("q", "c"): [_span((0, 1), (0, 1))]}
    score = file_score(annotated, matched)
    assert (score.n_true, score.n_false, score.n_missed) == (1, 1, 1)
    assert score.recall == pytest.approx(1 / 3)
    assert score.precision == pytest.approx(2 / 3)


def test_scores_without_spans() -> None:
    assert file_score({}, {}) == Score(
        recall=0.0, precision=1.0, f_score=0.0, n_true=0, n_unknown=0, n_false=0, n_missed=0
    )


@pytest.mark.parametrize(
    ("recall", "precision", "expected"), [(0, 0, 0), (1, 1, 1), (0.4, 0.625, 2.5 / 4.225)]
)
def test_f_score_weights_precision(recall: float, precision: float, expected: float) -> None:
    assert f_score(recall, precision) == pytest.approx(expected)


def test_read_spans_groups_rows_by_pair(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(f"{HEAD},tempo,noise_type\nr,q,10,13,0,2,150,\nr,q,1,2,0,1,,sample\n")
    assert read_spans(file) == {
        ("q", "r"): [_span((0, 2), (10, 13), tempo=1.5), _span((0, 1), (1, 2))]
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,b\n1,2\n", "column 'query_id' is missing"),
        (f"{HEAD}\nr,q,1,2,3\n", "invalid annotations"),
        (f"{HEAD}\nr,q,1,2,3,4.5\n", "4.5"),
    ],
)
def test_read_spans_invalid_file_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_spans(file)


def test_read_spans_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="invalid annotations"):
        read_spans(tmp_path / "none.csv")


# A case with all irregularities, and the scores of the toolkit's evaluate_matches.py.
AWKWARD = """query_id,reference_id,query_begin,query_end,reference_begin,reference_end,tempo
q2,r0,4,9,38,46,100
q0,r1,25,31,1,7,100
q3,r2,22,23,31,34,120
q3,r2,10,13,27,30,100
q2,r2,34,44,27,39,120
q1,r1,26,38,30,42,110
q0,r2,37,48,30,44,93
q2,r0,8,12,9,17,
"""
AWKWARD_MATCHES = """query_id,reference_id,query_begin,query_end,reference_begin,reference_end
q2,r2,26,36,27,36
q2,r0,20,31,13,24
"""


def test_scores_equal_those_of_the_toolkit(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(AWKWARD)
    (tmp_path / "m.csv").write_text(AWKWARD_MATCHES)
    case = read_spans(tmp_path / "a.csv"), read_spans(tmp_path / "m.csv")
    assert _figures(file_score(*case)) == pytest.approx((1 / 3, 1.0, 5 / 6, 2, 0, 0, 4))
    assert _figures(box_score(*case)) == pytest.approx((0.025, 0.7, 0.1891891892))
    assert _figures(length_score(*case)) == pytest.approx(
        (0.0416666667, 0.7083333333, 0.2724358974, 3, 6, 20, 64)
    )


def _figures(score: Score) -> tuple[float, ...]:
    counts = score.n_true, score.n_unknown, score.n_false, score.n_missed
    shares = score.recall, score.precision, score.f_score
    return (*shares, *(count for count in counts if count is not None))
