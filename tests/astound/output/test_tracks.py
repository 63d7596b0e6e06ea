from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime

import pytest

from astound.output.terminal import RECORD_FORMATS
from astound.output.tracks import summary, write_track, write_tracks
from engine.records import Track
from indexer.report import Added, IngestReport

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


@pytest.mark.parametrize("form", RECORD_FORMATS)
def test_empty_catalog_is_listed(form: str) -> None:
    out = io.StringIO()
    write_tracks([], form, out)
    assert {"json": "[]\n", "csv": "id,path,"}.get(form, "artist") in out.getvalue()


def test_track_in_csv_holds_all_of_it() -> None:
    out = io.StringIO()
    write_track(TRACK, "csv", out)
    (row,) = csv.DictReader(io.StringIO(out.getvalue()))
    assert (row["title"], row["added_at"]) == (TRACK.title, "2025-01-02T03:04:05+00:00")
    assert json.loads(row["metadata"]) == {"mood": "calm"}


def test_track_in_a_table_holds_all_of_it() -> None:
    out = io.StringIO()
    write_track(TRACK, "table", out)
    rows = [line.split(maxsplit=1) for line in out.getvalue().splitlines()]
    assert ["title", "Rain, [bold]:cat: again"] in [[cell.strip() for cell in row] for row in rows]
    assert ["mood", "calm"] in [[cell.strip() for cell in row] for row in rows]


def test_summary_tells_speed_only_when_something_was_encoded() -> None:
    report = IngestReport(added=[Added("a", 1)], audio_s=7200.0, elapsed_s=36.0)
    assert summary(report) == (
        "added 1, skipped 0, failed 0 (2.0 h of audio in 36.0 s, 200 × real time)"
    )
    assert summary(IngestReport()) == "added 0, skipped 0, failed 0"
