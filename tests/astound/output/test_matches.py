from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from astound.output import matches
from engine.records import Match, QueryResult, Track
from indexer.report import Added, IngestReport

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
TRACK = Track(
    id=12,
    path="/music/a.ogg",
    title="Rain, [bold]:cat: again",
    artist="Ada",
    album=None,
    isrc=None,
    duration_s=61.5,
    content_hash="ab",
    n_segments=122,
    added_at=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
    metadata={"mood": "calm"},
)


def _written(results: list[QueryResult], form: str) -> str:
    out = io.StringIO()
    matches.write_results(results, form, out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0:00.00"), (61.52, "1:01.52"), (59.996, "1:00.00"), (3600.0, "60:00.00")],
)
def test_clock_carries_over(seconds: float, shown: str) -> None:
    assert matches.clock(seconds) == shown


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


@pytest.mark.parametrize("form", matches.RECORD_FORMATS)
def test_empty_catalog_is_listed(form: str) -> None:
    out = io.StringIO()
    matches.write_tracks([], form, out)
    assert {"json": "[]\n", "csv": "id,path,"}.get(form, "artist") in out.getvalue()


def test_track_in_csv_holds_all_of_it() -> None:
    out = io.StringIO()
    matches.write_track(TRACK, "csv", out)
    (row,) = csv.DictReader(io.StringIO(out.getvalue()))
    assert (row["title"], row["added_at"]) == (TRACK.title, "2025-01-02T03:04:05+00:00")
    assert json.loads(row["metadata"]) == {"mood": "calm"}


def test_track_in_a_table_holds_all_of_it() -> None:
    out = io.StringIO()
    matches.write_track(TRACK, "table", out)
    rows = [line.split(maxsplit=1) for line in out.getvalue().splitlines()]
    assert ["title", "Rain, [bold]:cat: again"] in [[cell.strip() for cell in row] for row in rows]
    assert ["mood", "calm"] in [[cell.strip() for cell in row] for row in rows]


def test_label_prefers_the_title() -> None:
    assert matches.label(TRACK) == "Rain, [bold]:cat: again — Ada"
    assert matches.label(replace(TRACK, artist=None)) == TRACK.title
    assert matches.label(replace(TRACK, title=None)) == "a.ogg"


def test_summary_tells_speed_only_when_something_was_encoded() -> None:
    report = IngestReport(added=[Added("a", 1)], audio_s=7200.0, elapsed_s=36.0)
    assert matches.summary(report) == (
        "added 1, skipped 0, failed 0 (2.0 h of audio in 36.0 s, 200 × real time)"
    )
    assert matches.summary(IngestReport()) == "added 0, skipped 0, failed 0"


def test_list_keeps_odd_names() -> None:
    assert matches.read_list(io.StringIO("a b \r\n\n#c\nd")) == ["a b ", "#c", "d"]


def test_metadata_leaves_out_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "noted.csv"
    path.write_text('\ufeffpath,title,mood\na.wav,"Rain, again",\n', encoding="utf-8")
    assert matches.read_metadata(path) == {"a.wav": {"title": "Rain, again"}}
