from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from astound.output import matches
from engine.records import Match, QueryResult

MATCH = Match(
    rank=1,
    track_id=12,
    path="/music/album [live]/053963.ogg",
    title=None,
    artist=None,
    query_start_s=0.4,
    query_end_s=5.0,
    reference_start_s=61.92,
    reference_end_s=65.5,
    offset_s=61.52,
    score=0.83,
    confidence=0.998,
    votes=17,
    coverage=0.95,
    speed=1.0,
    margin=0.41,
)
FOUND = QueryResult(query="clips/q.1.wav", status="match", duration_s=5.0, matches=(MATCH,))


def _written(results: list[QueryResult], form: str) -> str:
    out = io.StringIO()
    matches.write_results(results, form, out)
    return out.getvalue()


def test_pexafb_rounds_outwards() -> None:
    assert _written([FOUND], "pexafb").splitlines()[1] == "053963,q.1,61,66,0,5"


@pytest.mark.parametrize("form", ["jsonl", "csv", "pexafb"])
def test_answers_are_written_as_they_come(form: str) -> None:
    out = io.StringIO()

    def results() -> Iterator[QueryResult]:
        yield FOUND
        assert "053963" in out.getvalue()
        yield FOUND

    matches.write_results(results(), form, out)
    assert out.getvalue().count("053963") == 2


def test_table_shows_names_as_they_are() -> None:
    odd = replace(MATCH, title="a [red]b[/red]\n:cat:\x1b[1m", artist="Ada")
    table = _written([replace(FOUND, matches=(odd,))], "table")
    assert "a [red]b[/red]\\n:cat:\\x1b[1m — Ada" in table
    assert "\x1b" not in table


def test_table_outside_a_terminal_keeps_a_match_on_a_line() -> None:
    long = replace(FOUND, query="x" * 300)
    (line,) = [line for line in _written([long], "table").splitlines() if "x" in line]
    assert line.split()[0] == "x" * 300
    assert "1:01.92" in line


@pytest.mark.parametrize("form", matches.QUERY_FORMATS)
def test_names_that_are_not_utf8_are_written(form: str) -> None:
    odd = replace(FOUND, query="caf\udce9.wav")
    assert "caf\\" in _written([odd], form).encode("utf-8").decode()


def shown(match: Match, form: str) -> str:
    return _written([replace(FOUND, matches=(match,))], form)


def test_table_hints_at_what_is_unusual() -> None:
    titled = replace(MATCH, title="Rain")
    assert "(" not in shown(titled, "table")
    assert "Rain (also at 1:02.50) " in shown(replace(titled, also_at_s=(62.5,)), "table")
    changed = replace(titled, speed=0.94, tempo=0.94, pitch=-1.0)
    assert "Rain (tempo 0.940; pitch -1.0) " in shown(changed, "table")
    many = replace(titled, also_at_s=(10.0, 20.0, 30.0, 40.0, 50.0))
    assert "(also at 0:10.00, 0:20.00, 0:30.00 and 2 more)" in shown(many, "table")


def test_json_and_csv_hold_tempo_pitch_and_places() -> None:
    match = replace(MATCH, tempo=0.94, pitch=-1.0, also_at_s=(62.5, 80.0))
    (row,) = json.loads(shown(match, "json"))[0]["matches"]
    assert (row["tempo"], row["pitch"], row["also_at_s"]) == (0.94, -1.0, [62.5, 80.0])
    (cells,) = csv.DictReader(io.StringIO(shown(match, "csv")))
    assert (cells["tempo"], cells["pitch"], cells["also_at_s"]) == ("0.94", "-1.0", "[62.5, 80.0]")


def header_of(results: list[QueryResult]) -> str:
    return _written(results, "table").splitlines()[1]


@pytest.mark.parametrize(
    ("times_s", "errors_s", "is_shown"),
    [
        ((0.0, 5.0), 0.1, False),
        ((0.4, 5.0), 0.1, False),
        ((0.0, 3.5), 0.1, True),
        ((1.6, 5.0), 0.1, True),
        ((1.6, 5.0), 1.0, False),  # as far as is known it begins with the clip
        ((60.0, 65.0), 0.1, False),  # a part of a longer file
    ],
)
def test_table_shows_the_place_in_the_clip_where_a_match_does_not_cover_it(
    times_s: tuple[float, float], errors_s: float, is_shown: bool
) -> None:
    match = replace(
        MATCH, query_start_s=times_s[0], query_end_s=times_s[1], start_error_s=errors_s,
        end_error_s=errors_s,
    )  # fmt: skip
    header = header_of([replace(FOUND, matches=(match,))])
    assert ("in the clip" in header) == is_shown


def test_table_shows_the_places_of_several_matches() -> None:
    first = replace(MATCH, query_start_s=0.0, query_end_s=2.5)
    second = replace(MATCH, rank=2, query_start_s=2.5, query_end_s=5.0)
    table = _written([replace(FOUND, matches=(first, second)), FOUND], "table")
    rows = [line for line in table.splitlines() if "053963" in line]
    assert ["0:00.0 – 0:02.5" in rows[0], "0:02.5 – 0:05.0" in rows[1]] == [True, True]
    assert "0:00.4 – 0:05.0" in rows[2]


def test_table_of_matches_that_cover_the_clip_has_no_place_in_it() -> None:
    twice = replace(FOUND, matches=(MATCH, replace(MATCH, rank=2, track_id=13)))
    missing = QueryResult(query="x.wav", status="no_match", duration_s=4.0)
    failed = QueryResult(query="y.wav", status="error", error={"code": "x", "message": "y.wav: z"})
    assert "in the clip" not in header_of([twice, missing, failed])
