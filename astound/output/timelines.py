"""Writers for timelines of long recordings: for people, programs, players and audio editors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

from astound.output.matches import write_pexafb
from astound.output.terminal import (
    cell,
    console,
    label,
    long_clock,
    write_csv,
    write_json,
    write_json_line,
    write_table,
)
from astound.results import entry_object, record_object, timeline_object
from engine.errors import printable
from engine.records import Entry, Timeline

UNKNOWN = "unknown"

_CUE_FRAMES_PER_SECOND = 75
_CUE_TYPES = {".mp3": "MP3", ".aif": "AIFF", ".aiff": "AIFF"}
_COLUMNS = ["recording", "status", *(field.name for field in fields(Entry)), "error"]


def write_timelines(timelines: Iterable[Timeline], form: str, out: IO[str]) -> None:
    """Write timelines in one of TIMELINE_FORMATS, each as it arrives if the format allows.

    "jsonl" writes one line at the end of each recording; :func:`write_entry` writes the entries.
    """
    TIMELINE_FORMATS[form](timelines, out)


def write_entry(recording: str, entry: Entry, out: IO[str]) -> None:
    """Write one entry as a line of "jsonl"."""
    write_json_line(entry_object(recording, entry), out)


# -- for programs ----------------------------------------------------------------------------


def _write_jsonl(timelines: Iterable[Timeline], out: IO[str]) -> None:
    for timeline in timelines:
        made = timeline_object(timeline)
        del made["entries"], made["gaps"]
        write_json_line(made, out)


def _write_json(timelines: Iterable[Timeline], out: IO[str]) -> None:
    write_json([timeline_object(timeline) for timeline in timelines], out)


def _write_csv(timelines: Iterable[Timeline], out: IO[str]) -> None:
    write_csv(_COLUMNS, (row for timeline in timelines for row in _csv_rows(timeline)), out)


def _csv_rows(timeline: Timeline) -> Iterator[dict[str, Any]]:
    """Yield a row for the error, if there is one, and for each entry and gap."""
    recording = {"recording": printable(timeline.recording)}
    if timeline.error:
        yield recording | {"status": "error", "error": timeline.error["message"]}
    for start_s, end_s, entry in _entries_and_gaps(timeline):
        times = {"query_start_s": start_s, "query_end_s": end_s}
        fields = {"status": "entry"} | record_object(entry) if entry else {"status": UNKNOWN}
        yield recording | times | fields


def _write_pexafb(timelines: Iterable[Timeline], out: IO[str]) -> None:
    entries = ((timeline.recording, e) for timeline in timelines for e in timeline.entries)
    write_pexafb(entries, out)


# -- for players and editors -----------------------------------------------------------------


def _write_cue(timelines: Iterable[Timeline], out: IO[str]) -> None:
    """Write one cue sheet whose tracks are numbered across all recordings."""
    number = 0
    for timeline in timelines:
        name = Path(timeline.recording)
        kind = _CUE_TYPES.get(name.suffix.lower(), "WAVE")
        out.write(f"FILE {_quote(name.name)} {kind}\n")
        for start_s, _, entry in _entries_and_gaps(timeline):
            number += 1
            out.write(f"  TRACK {number:02} AUDIO\n")
            title = UNKNOWN if entry is None else entry.title or Path(entry.path).stem
            out.write(f"    TITLE {_quote(title)}\n")
            if entry and entry.artist:
                out.write(f"    PERFORMER {_quote(entry.artist)}\n")
            out.write(f"    INDEX 01 {cue_time(start_s)}\n")
        out.flush()


def cue_time(seconds: float) -> str:
    """Format a time as mm:ss:ff, with 75 frames per second.

    Examples
    --------
    >>> cue_time(61.52)
    '01:01:39'
    """
    frames = math.floor(seconds * _CUE_FRAMES_PER_SECOND + 1e-6)
    whole, rest = divmod(frames, _CUE_FRAMES_PER_SECOND)
    return f"{whole // 60:02}:{whole % 60:02}:{rest:02}"


def _quote(text: str) -> str:
    """Quote a name; cue sheets have no escape for quotation marks."""
    return '"' + cell(text).replace('"', "'") + '"'


def _write_audacity(timelines: Iterable[Timeline], out: IO[str]) -> None:
    """Write a label track for import into Audacity."""
    for timeline in timelines:
        for entry in timeline.entries:
            text = cell(label(entry))
            out.write(f"{entry.query_start_s:.6f}\t{entry.query_end_s:.6f}\t{text}\n")
        out.flush()


# -- for people ------------------------------------------------------------------------------


def _write_table(timelines: Iterable[Timeline], out: IO[str]) -> None:
    headers = ("from", "to", "what", "at", "speed", "confidence")
    for timeline in timelines:
        console(out).print(cell(timeline.recording))
        if timeline.error:
            reason = timeline.error["message"].removeprefix(f"{printable(timeline.recording)}: ")
            console(out).print(cell(f"error: {reason}"))
        else:
            right = set(headers) - {"what"}
            write_table(headers, map(_table_row, _entries_and_gaps(timeline)), out, right=right)


def _table_row(part: tuple[float, float, Entry | None]) -> tuple[str, ...]:
    start_s, end_s, entry = part
    times = long_clock(start_s), long_clock(end_s)
    if entry is None:
        return *times, UNKNOWN, "", "", ""
    at = long_clock(entry.reference_start_s)
    return *times, label(entry), at, f"{entry.speed:.3f}", f"{entry.confidence:.3f}"


def _entries_and_gaps(timeline: Timeline) -> list[tuple[float, float, Entry | None]]:
    """List start and end of all entries and gaps in order of time, with the entry if it is one."""
    parts: list[tuple[float, float, Entry | None]] = [
        (entry.query_start_s, entry.query_end_s, entry) for entry in timeline.entries
    ]
    parts += [(gap.start_s, gap.end_s, None) for gap in timeline.gaps]
    return sorted(parts, key=lambda part: part[:2])


TIMELINE_FORMATS: dict[str, Callable[[Iterable[Timeline], IO[str]], None]] = {
    "table": _write_table,
    "json": _write_json,
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "cue": _write_cue,
    "audacity": _write_audacity,
    "pexafb": _write_pexafb,
}
