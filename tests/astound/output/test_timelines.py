from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import pytest

from astound.output.timelines import TIMELINE_FORMATS, cue_time, write_entry, write_timelines
from engine.records import Entry, Gap, Timeline

ENTRY = Entry(
    track_id=12,
    path="/music/053963.ogg",
    title='Rain, "live"\t[bold]',
    artist="Ada",
    query_start_s=61.5,
    query_end_s=200.3,
    reference_start_s=4.2,
    reference_end_s=142.9,
    offset_s=-57.3,
    score=0.91,
    confidence=0.9999,
    speed=1.0,
)
LATER = replace(
    ENTRY, track_id=13, path="/music/b.mp3", title=None, artist=None,
    query_start_s=195.0, query_end_s=260.0, speed=1.02,
)  # fmt: skip
TIMELINE = Timeline(recording="mixes/hour.mp3", duration_s=3700.0, entries=(ENTRY, LATER))
EMPTY = Timeline(recording="talk.wav", duration_s=30.0)
BROKEN = Timeline(
    recording="no.wav", error={"code": "unreadable_audio", "message": "no.wav: empty file"}
)


def _written(form: str, *timelines: Timeline) -> str:
    out = io.StringIO()
    write_timelines(timelines, form, out)
    return out.getvalue()


def test_gaps_are_what_no_entry_covers() -> None:
    assert TIMELINE.gaps == (Gap(start_s=0.0, end_s=61.5), Gap(start_s=260.0, end_s=3700.0))
    assert EMPTY.gaps == (Gap(start_s=0.0, end_s=30.0),)
    assert BROKEN.gaps == ()


@pytest.mark.parametrize(
    ("spans", "gaps"),
    [
        ([(0.0, 10.0)], []),
        ([(0.5, 9.5)], []),  # shorter than a second
        ([(0.0, 8.0), (2.0, 4.0)], [(8.0, 10.0)]),  # one within the other
        ([(2.0, 4.0), (6.0, 12.0)], [(0.0, 2.0), (4.0, 6.0)]),
    ],
)
def test_gaps_of_overlapping_entries(
    spans: list[tuple[float, float]], gaps: list[tuple[float, float]]
) -> None:
    entries = tuple(replace(ENTRY, query_start_s=a, query_end_s=b) for a, b in spans)
    found = Timeline(recording="a", duration_s=10.0, entries=entries).gaps
    assert [(gap.start_s, gap.end_s) for gap in found] == gaps


def test_gaps_of_a_part_lie_within_it() -> None:
    part = replace(TIMELINE, start_s=50.0, duration_s=230.0)
    assert part.gaps == (Gap(start_s=50.0, end_s=61.5), Gap(start_s=260.0, end_s=280.0))


def test_table_shows_entries_and_gaps_in_order() -> None:
    lines = [line.split() for line in _written("table", TIMELINE, BROKEN).splitlines()]
    shown = [line for line in lines if line and re.match(r"\d:", line[0])]
    assert [line[:3] for line in shown] == [
        ["0:00:00.0", "0:01:01.5", "unknown"],
        ["0:01:01.5", "0:03:20.3", "Rain,"],
        ["0:03:15.0", "0:04:20.0", "b.mp3"],
        ["0:04:20.0", "1:01:40.0", "unknown"],
    ]
    assert ["error:", "empty", "file"] in lines


def test_json_has_entries_gaps_and_errors() -> None:
    first, last = json.loads(_written("json", TIMELINE, BROKEN))
    assert first["recording"] == "mixes/hour.mp3"
    assert (first["status"], first["n_entries"], first["duration_s"]) == ("done", 2, 3700.0)
    assert first["entries"][0]["title"] == ENTRY.title
    assert first["gaps"][1] == {"start_s": 260.0, "end_s": 3700.0}
    assert (last["status"], last["error"]["code"]) == ("error", "unreadable_audio")


def test_jsonl_has_a_line_for_each_entry_and_each_end() -> None:
    out = io.StringIO()
    write_entry(TIMELINE.recording, ENTRY, out)
    write_timelines([TIMELINE, BROKEN], "jsonl", out)
    entry, end, error = map(json.loads, out.getvalue().splitlines())
    assert (entry["recording"], entry["status"]) == ("mixes/hour.mp3", "entry")
    assert entry["query_start_s"] == 61.5
    assert (end["status"], end["duration_s"], end["n_entries"]) == ("done", 3700.0, 2)
    assert "entries" not in end
    assert error["status"] == "error"


def test_csv_has_rows_for_entries_gaps_and_errors() -> None:
    rows = list(csv.DictReader(io.StringIO(_written("csv", TIMELINE, BROKEN))))
    assert [row["status"] for row in rows] == ["unknown", "entry", "entry", "unknown", "error"]
    assert rows[1]["title"] == ENTRY.title
    assert rows[0]["query_end_s"] == "61.5"
    assert rows[4]["error"] == "no.wav: empty file"


def test_cue_sheet_can_be_read_back() -> None:
    sheet = _read_cue(_written("cue", TIMELINE, EMPTY))
    assert [(file, kind) for file, kind, _ in sheet] == [("hour.mp3", "MP3"), ("talk.wav", "WAVE")]
    assert [track["TITLE"] for track in sheet[0][2]] == [
        "unknown", "Rain, 'live'\\t[bold]", "b", "unknown",
    ]  # fmt: skip
    starts_s = [_seconds(track["INDEX 01"]) for track in sheet[0][2]]
    assert starts_s == pytest.approx([0.0, 61.5, 195.0, 260.0], abs=1 / 75)
    assert sheet[0][2][1]["PERFORMER"] == "Ada"
    assert "PERFORMER" not in sheet[0][2][2]
    numbers = [int(track["TRACK"].split()[0]) for _, _, tracks in sheet for track in tracks]
    assert numbers == [1, 2, 3, 4, 5]


def _read_cue(text: str) -> list[tuple[str, str, list[dict[str, str]]]]:
    files: list[tuple[str, str, list[dict[str, str]]]] = []
    for line in text.splitlines():
        if match := re.fullmatch(r'FILE "([^"]+)" (\w+)', line):
            files.append((match[1], match[2], []))
        elif match := re.fullmatch(r"  TRACK (\d\d AUDIO)", line):
            files[-1][2].append({"TRACK": match[1]})
        else:
            match = re.fullmatch(
                r'    (?:(TITLE|PERFORMER) "([^"]*)"|(INDEX 01) (\d\d+:[0-5]\d:[0-7]\d))', line
            )
            assert match, line
            key, value = (part for part in match.groups() if part is not None)
            files[-1][2][-1][key] = value
    return files


def _seconds(index: str) -> float:
    minutes, seconds, frames = map(int, index.split(":"))
    assert frames < 75
    return minutes * 60 + seconds + frames / 75


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "00:00:00"), (0.999, "00:00:74"), (59.9999, "00:59:74"), (7200.04, "120:00:03")],
)
def test_cue_time(seconds: float, shown: str) -> None:
    assert cue_time(seconds) == shown


def test_audacity_labels() -> None:
    first, second = _written("audacity", TIMELINE).splitlines()
    assert first == '61.500000\t200.300000\tRain, "live"\\t[bold] — Ada'
    assert second == "195.000000\t260.000000\tb.mp3"


def test_pexafb_has_whole_seconds() -> None:
    header, first, _ = _written("pexafb", TIMELINE).splitlines()
    assert header == "reference_id,query_id,reference_begin,reference_end,query_begin,query_end"
    assert first == "053963,hour,4,143,61,201"


@pytest.mark.parametrize("form", TIMELINE_FORMATS)
def test_every_format_writes_nothing_found(form: str) -> None:
    assert "053963" not in _written(form, EMPTY)
