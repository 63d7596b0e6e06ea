"""Writers for the tracks of a catalog, its statistics, and the result of an ingest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import IO, TYPE_CHECKING

from rich import filesize

from astound.output.terminal import (
    amount,
    cell,
    clock,
    label,
    to_json,
    write_csv,
    write_json,
    write_record,
    write_table,
)
from astound.results import track_object
from engine.records import Stats, Track

if TYPE_CHECKING:
    from indexer.report import IngestReport

_COLUMNS = [field.name for field in fields(Track)]


def write_tracks(tracks: Sequence[Track], form: str, out: IO[str]) -> None:
    """Write tracks in one of RECORD_FORMATS, a row each."""
    rows = [track_object(track) for track in tracks]
    if form == "json":
        write_json(rows, out)
    elif form == "csv":
        write_csv(_COLUMNS, [row | {"metadata": to_json(row["metadata"])} for row in rows], out)
    else:
        headers = ("id", "title", "artist", "length", "path")
        cells = ((t.id, t.title, t.artist, clock(t.duration_s), t.path) for t in tracks)
        write_table(headers, cells, out, right=("id", "length"))


def write_track(track: Track, form: str, out: IO[str]) -> None:
    """Write all fields of a track in one of RECORD_FORMATS."""
    if form == "csv":
        write_tracks([track], form, out)
    elif form == "json":
        write_record(track_object(track), form, out)
    else:
        row = track_object(track) | {"duration_s": f"{track.duration_s:.3f}"}
        write_record(row | row.pop("metadata"), form, out)


def write_stats(stats: Stats, form: str, out: IO[str]) -> None:
    """Write the statistics of a catalog in one of RECORD_FORMATS."""
    if form != "table":
        write_record(asdict(stats), form, out)
        return
    shown = {
        "tracks": stats.n_tracks,
        "length": amount(stats.duration_s),
        "segments": stats.n_segments,
        "shards": stats.n_shards,
        "stored segments": stats.n_stored_segments,
        "size": filesize.decimal(stats.n_bytes),
    }
    write_record(shown, form, out)


def describe(track: Track) -> str:
    """Return id, label and path of a track in one line."""
    return cell(f"{track.id}: {label(track)} ({track.path})")


def summary(report: IngestReport) -> str:
    """Return the counts and the speed of an ingest in one line."""
    counts = (
        f"added {len(report.added)}, skipped {len(report.skipped)}, failed {len(report.failed)}"
    )
    if not report.audio_s:
        return counts
    speed = f"{amount(report.elapsed_s)}, {report.realtime_factor:.0f} × real time"
    return f"{counts} ({amount(report.audio_s)} of audio in {speed})"
