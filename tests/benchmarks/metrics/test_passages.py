from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.metrics.passages import (
    MEASURES,
    PROTOCOLS,
    Answer,
    CaseResult,
    Figure,
    PieceResult,
    figures,
)
from benchmarks.queries.timeline import Piece
from engine.records import Match


def piece(start_s: float, end_s: float, at_s: float, **fields: Any) -> Piece:
    values: dict[str, Any] = {"track": "a", **fields}
    return Piece(query_start_s=start_s, query_end_s=end_s, reference_start_s=at_s, **values)


def answer(start_s: float, end_s: float, at_s: float, **fields: Any) -> Answer:
    speed = fields.get("speed", 1.0)
    values: dict[str, Any] = {"track": "a", "offset_s": at_s - speed * start_s, **fields}
    values.setdefault("reference_end_s", at_s + speed * (end_s - start_s))
    return Answer(query_start_s=start_s, query_end_s=end_s, reference_start_s=at_s, **values)


def case(
    pieces: Sequence[Piece], answers: Sequence[Answer], name: str = "one", **extra: Any
) -> CaseResult:
    status = "match" if answers else "no_match"
    return CaseResult(case=name, pieces=pieces, answers=answers, status=status, extra=extra)


def measured(suite: str, *cases: CaseResult) -> dict[str, Figure]:
    return {figure.measure: figure for figure in figures(suite, "row", "query", cases, 1)}


def test_answer_takes_the_fields_that_a_match_has() -> None:
    match = Match(
        rank=1, track_id=1, path="a", title=None, artist=None, query_start_s=1.0, query_end_s=3.0,
        reference_start_s=11.0, reference_end_s=13.0, offset_s=10.0, score=0.9, confidence=0.8,
        votes=3, coverage=1.0, speed=1.0, margin=0.1,
    )  # fmt: skip
    expected = answer(1, 3, 11, confidence=0.8)
    assert Answer.of(match, match.path) == replace(expected, start_error_s=0.0, end_error_s=0.0)


@pytest.mark.parametrize(
    ("changes", "contradicts"),
    [
        ({}, False),
        ({"speed": 1.1}, False),
        ({"reference_end_s": 20.04}, False),
        ({"reference_end_s": 20.06}, True),
        ({"offset_s": 9.94}, True),
        ({"offset_s": None}, False),
        ({"speed": 0.73, "reference_end_s": 20.0}, True),
    ],
)
def test_contradictions_between_fields(changes: dict[str, Any], contradicts: bool) -> None:
    assert answer(0, 10, 10, **changes).contradicts is contradicts


def test_half_of_a_piece_must_be_answered_in_the_right_place() -> None:
    one = piece(10, 20, 50)
    for found, placed, answers in (
        (False, False, []),
        (False, False, [answer(10, 20, 50, track="b")]),
        (False, False, [answer(10, 14, 50)]),
        (True, True, [answer(10, 12.8, 50), answer(17, 20, 57)]),
        (True, False, [answer(10, 20, 51)]),
        (True, True, [answer(10, 20, 50.4)]),
        (False, False, [answer(10, 20, 50, recording=1)]),
    ):
        result = PieceResult.of(one, answers)
        assert (result.is_found, result.is_placed) == (found, placed), answers


def test_line_across_a_cut_places_one_piece_and_bridges() -> None:
    pieces = [piece(0, 30, 0), piece(30, 40, 50)]
    bridging = case(pieces, [answer(0, 40, 0)])
    figure = measured("edits", bridging, case(pieces, [answer(0, 30, 0)], "two"))
    assert figure["pieces found"].value == 3 / 4
    assert figure["pieces in place"].value == 2 / 4
    assert figure["known time in place"].value == pytest.approx(0.75)
    assert figure["answers across a cut, a case"].value == 1 / 2
    # The border that is 10 s off is one of four; pieces that are not in place have none.
    assert figure["border error, median"].value == 0.0
    assert figure["border error, 90 %"].value == 10.0
    assert figure["border error, 90 %"].n == 4


def test_false_time_is_far_from_all_pieces_of_the_track() -> None:
    pieces = [piece(10, 20, 50)]
    assert case(pieces, [answer(9.2, 20.9, 49.2)]).false_s == 0.0
    assert case(pieces, [answer(5, 20, 45)]).false_s == pytest.approx(4.0)
    assert case(pieces, [answer(10, 20, 50), answer(12, 15, 0, track="b")]).false_s == (
        pytest.approx(3.0)
    )
    assert case([], [answer(0, 2, 0), answer(1, 4, 0)]).false_s == pytest.approx(4.0)
    assert case(pieces, []).false_s == 0.0


def test_speed_and_ends_are_compared_within_the_tolerance_of_the_suite() -> None:
    slow = piece(0, 100, 20, speed=0.98)
    right = case([slow], [answer(0, 100, 20.05, speed=0.9805)], "right")
    told_as_one = case([slow], [answer(0, 100, 20, speed=1.0)], "wrong")
    figure = measured("detuned", right, told_as_one, case([slow], [], "none"))
    assert figure["speed right"].value == 1 / 3
    assert figure["both ends right"].value == 1 / 3
    assert figure["speed error, 90 %"].value == pytest.approx(0.0005 / 0.98)
    assert figure["cases with an answer"].value == 2 / 3


def test_identical_places_count_in_a_measure_of_their_own() -> None:
    looped = piece(0, 5, 10, also_at_s=(40.0,))
    cases = [
        case([looped], [answer(0, 5, 10.1, confidence=0.9)], "right"),
        case([looped], [answer(0, 5, 40.1, confidence=0.9)], "identical"),
        case([looped], [answer(0, 5, 70.0, confidence=0.9)], "wrong"),
    ]
    figure = measured("within", *cases)
    assert figure["both ends right"].value == pytest.approx(1 / 3)
    assert figure["both ends right, or identical"].value == pytest.approx(2 / 3)
    assert figure["pieces in place"].value == pytest.approx(2 / 3)
    assert figure["calibration error"].value == pytest.approx(0.9 - 2 / 3)


def test_stated_errors_are_measured_only_where_there_are_any() -> None:
    pieces = [piece(0, 10, 0)]
    bare = case(pieces, [answer(0.2, 10, 0.2)])
    stated = case(pieces, [answer(0.2, 10, 0.2, start_error_s=0.1, end_error_s=0.1)], "two")
    assert "stated errors hold" not in measured("joins", bare)
    assert measured("joins", bare, stated)["stated errors hold"].value == 1 / 2


def test_rejects_count_answers_and_other_tracks() -> None:
    backwards = piece(0, 10, 30, speed=-1.0)
    own = case([backwards], [answer(0, 10, 20, confidence=0.7)], "own")
    other = case([backwards], [answer(0, 10, 20, track="b", confidence=0.99)], "other")
    figure = measured("rejects", own, other, case([], [], "tone"))
    assert figure["cases with an answer"].value == pytest.approx(2 / 3)
    assert figure["other tracks answered"].value == pytest.approx(1 / 3)
    assert figure["highest confidence"].value == 0.99


def test_extra_values_are_averaged_over_the_cases_that_have_them() -> None:
    pieces = [piece(0, 10, 0)]
    figure = measured(
        "same",
        case(pieces, [], "one", mirrored=1.0, similarity=0.5),
        case(pieces, [], "two", mirrored=0.0),
    )
    assert (figure["mirror images"].value, figure["similarity"].value) == (0.5, 0.5)
    assert "border error, median" not in figure


def test_pieces_of_one_case_are_resampled_together() -> None:
    pieces = [piece(0, 10, 0), piece(10, 20, 40)]
    found = [answer(0, 10, 0), answer(10, 20, 40)]
    together = [case(pieces, found if i % 2 else [], str(i)) for i in range(20)]
    apart = [
        case([one], [right] if i % 2 else [], f"{i} {one.query_start_s}")
        for i in range(20)
        for one, right in zip(pieces, found, strict=True)
    ]
    wide, narrow = (measured("joins", *cases)["pieces found"] for cases in (together, apart))
    assert wide.value == narrow.value == 0.5
    assert wide.low is not None
    assert narrow.low is not None
    assert wide.low < narrow.low


def test_every_measure_of_a_protocol_exists() -> None:
    used = {measure for protocol in PROTOCOLS.values() for measure in protocol.measures}
    assert used == set(MEASURES)
