"""How timelines of long recordings are written: for people, programs, players and editors."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

from rich import box
from rich.table import Table

from astound.output.matches import console, label
from engine.errors import printable
from engine.records import Entry, Gap, Timeline

UNKNOWN = "unknown"

_CUE_FRAMES_A_SECOND = 75
_CUE_TYPES = {".mp3": "MP3", ".aif": "AIFF", ".aiff": "AIFF"}
_ENTRY_COLUMNS = [field.name for field in fields(Entry)]
_COLUMNS = ["recording", "status", *_ENTRY_COLUMNS, "error"]
_PEXAFB_COLUMNS = (
    *("reference_id", "query_id"),
    *("reference_begin", "reference_end", "query_begin", "query_end"),
)


def write_timelines(timelines: Iterable[Timeline], form: str, out: IO[str]) -> None:
    """Write timelines in one of TIMELINE_FORMATS, as they come where the format can.

    For "jsonl" this is what is known at the end of each; :func:`write_entry` writes the rest.
    """
    TIMELINE_FORMATS[form](timelines, out)


def write_entry(recording: str, entry: Entry, out: IO[str]) -> None:
    """Write one entry as a line of "jsonl", as soon as it is finished."""
    _write_line({"recording": printable(recording), "status": "entry"} | asdict(entry), out)


# -- for programs ----------------------------------------------------------------------------


def _write_jsonl(timelines: Iterable[Timeline], out: IO[str]) -> None:
    for one in timelines:
        about = timeline_object(one)
        _write_line({key: about[key] for key in about if key not in ("entries", "gaps")}, out)


def _write_json(timelines: Iterable[Timeline], out: IO[str]) -> None:
    objects = [timeline_object(one) for one in timelines]
    out.write(json.dumps(objects, ensure_ascii=False, indent=1) + "\n")


def timeline_object(timeline: Timeline) -> dict[str, Any]:
    """Make the JSON object of one recording."""
    made: dict[str, Any] = {
        "recording": printable(timeline.recording),
        "status": "error" if timeline.error else "done",
        "start_s": timeline.start_s,
        "duration_s": timeline.duration_s,
        "n_entries": len(timeline.entries),
        "entries": [asdict(entry) for entry in timeline.entries],
        "gaps": [asdict(gap) for gap in timeline.gaps],
    }
    return made | ({"error": dict(timeline.error)} if timeline.error else {})


def _write_line(values: dict[str, Any], out: IO[str]) -> None:
    out.write(json.dumps(values, ensure_ascii=False) + "\n")
    out.flush()


def _write_csv(timelines: Iterable[Timeline], out: IO[str]) -> None:
    rows = (row for one in timelines for row in _csv_rows(one))
    _write_rows(_COLUMNS, rows, out)


def _csv_rows(timeline: Timeline) -> Iterator[dict[str, Any]]:
    """Give a row for each entry and gap, by when they begin, or for the error."""
    recording = {"recording": printable(timeline.recording)}
    if timeline.error:
        yield recording | {"status": "error", "error": timeline.error["message"]}
    for start_s, end_s, entry in _stretches(timeline):
        span = {"query_start_s": start_s, "query_end_s": end_s}
        known = {"status": "entry"} | asdict(entry) if entry else {"status": UNKNOWN}
        yield recording | span | known


def _write_pexafb(timelines: Iterable[Timeline], out: IO[str]) -> None:
    """Write the matches file of the Pex audio fingerprinting benchmark toolkit."""
    rows = (_pexafb(one.recording, entry) for one in timelines for entry in one.entries)
    _write_rows(_PEXAFB_COLUMNS, rows, out)


def _pexafb(recording: str, entry: Entry) -> dict[str, Any]:
    return {
        "reference_id": Path(entry.path).stem,
        "query_id": printable(Path(recording).stem),
        "reference_begin": math.floor(entry.reference_start_s),
        "reference_end": math.ceil(entry.reference_end_s),
        "query_begin": math.floor(entry.query_start_s),
        "query_end": math.ceil(entry.query_end_s),
    }


def _write_rows(columns: Iterable[str], rows: Iterable[dict[str, Any]], out: IO[str]) -> None:
    writer = csv.DictWriter(out, list(columns), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row)
        out.flush()


# -- for players and editors -----------------------------------------------------------------


def _write_cue(timelines: Iterable[Timeline], out: IO[str]) -> None:
    """Write one cue sheet; its tracks are numbered through all recordings."""
    number = 0
    for one in timelines:
        kind = _CUE_TYPES.get(Path(one.recording).suffix.lower(), "WAVE")
        out.write(f"FILE {_quoted(Path(one.recording).name)} {kind}\n")
        for start_s, _, entry in _stretches(one):
            number += 1
            out.write(f"  TRACK {number:02} AUDIO\n")
            title = UNKNOWN if entry is None else entry.title or Path(entry.path).stem
            out.write(f"    TITLE {_quoted(title)}\n")
            if entry and entry.artist:
                out.write(f"    PERFORMER {_quoted(entry.artist)}\n")
            out.write(f"    INDEX 01 {cue_time(start_s)}\n")
        out.flush()


def cue_time(seconds: float) -> str:
    """Show a time as mm:ss:ff, with 75 frames a second.

    Examples
    --------
    >>> cue_time(61.52)
    '01:01:39'
    """
    frames = math.floor(seconds * _CUE_FRAMES_A_SECOND + 1e-6)
    whole, rest = divmod(frames, _CUE_FRAMES_A_SECOND)
    return f"{whole // 60:02}:{whole % 60:02}:{rest:02}"


def _quoted(text: str) -> str:
    """Quote a name; a cue sheet knows no way to write quotation marks in it."""
    return '"' + _plain(text).replace('"', "'") + '"'


def _write_audacity(timelines: Iterable[Timeline], out: IO[str]) -> None:
    """Write a label track, as Audacity imports it."""
    for one in timelines:
        for entry in one.entries:
            text = _plain(label(entry))
            out.write(f"{entry.query_start_s:.6f}\t{entry.query_end_s:.6f}\t{text}\n")
        out.flush()


# -- for people ------------------------------------------------------------------------------


def _write_table(timelines: Iterable[Timeline], out: IO[str]) -> None:
    for one in timelines:
        screen = console(out)
        screen.print(_plain(one.recording))
        if one.error:
            reason = str(one.error["message"]).removeprefix(f"{printable(one.recording)}: ")
            screen.print(_plain(f"error: {reason}"))
        else:
            screen.print(_table(one))


def _table(timeline: Timeline) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("from", "to", "what", "at", "speed", "confidence"):
        is_text = header == "what"
        table.add_column(header, justify="left" if is_text else "right", no_wrap=not is_text)
    for start_s, end_s, entry in _stretches(timeline):
        span = long_clock(start_s), long_clock(end_s)
        if entry is None:
            table.add_row(*span, UNKNOWN)
            continue
        at, confidence = long_clock(entry.reference_start_s), f"{entry.confidence:.3f}"
        table.add_row(*span, _plain(label(entry)), at, f"{entry.speed:.3f}", confidence)
    return table


def _stretches(timeline: Timeline) -> list[tuple[float, float, Entry | None]]:
    """Give start, end and entry of all entries and gaps, by when they begin."""
    spans: list[tuple[float, float, Entry | None]] = [
        (one.query_start_s, one.query_end_s, one) for one in timeline.entries
    ]
    gaps: tuple[Gap, ...] = timeline.gaps
    spans += [(gap.start_s, gap.end_s, None) for gap in gaps]
    return sorted(spans, key=lambda span: span[:2])


def long_clock(seconds: float) -> str:
    """Show a time as h:mm:ss.t.

    Examples
    --------
    >>> long_clock(3661.52)
    '1:01:01.5'
    """
    tenths = round(seconds * 10)
    return f"{tenths // 36000}:{tenths // 600 % 60:02}:{tenths // 10 % 60:02}.{tenths % 10}"


def _plain(text: str) -> str:
    """Keep line breaks, tabs and control characters of a name from breaking the format."""
    shown = printable(text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


TIMELINE_FORMATS: dict[str, Callable[[Iterable[Timeline], IO[str]], None]] = {
    "table": _write_table,
    "json": _write_json,
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "cue": _write_cue,
    "audacity": _write_audacity,
    "pexafb": _write_pexafb,
}
