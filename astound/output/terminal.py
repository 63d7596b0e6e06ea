"""Formatting shared by all writers: tables, times and names, JSON and CSV."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.table import Table

from engine.errors import printable
from engine.records import Entry, Match, SimilarTrack, Track

Row = dict[str, Any]

RECORD_FORMATS = ("table", "json", "csv")

SAFE_CSV = ContextVar("SAFE_CSV", default=False)
"""Whether :func:`write_csv` neutralises text that a spreadsheet would take for a formula."""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

# Wider than any table, so that programs such as grep get each row as one line.
_UNBOUNDED_WIDTH = 100_000
_MAX_PLACES = 3


# -- words -----------------------------------------------------------------------------------


def counted(n: int, noun: str) -> str:
    """Return a number with its noun, such as "1 shard" or "2 shards"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


# -- tables ----------------------------------------------------------------------------------


def console(out: IO[str]) -> Console:
    """Open a stream for tables; rows are not wrapped unless it is a terminal."""
    # Names of music contain brackets and colons, which are neither markup nor emoji.
    width = None if out.isatty() else _UNBOUNDED_WIDTH
    return Console(file=out, width=width, markup=False, emoji=False, highlight=False)


def table(headers: Sequence[str], *, right: Collection[str] = ()) -> Table:
    """Make an empty table.

    Parameters
    ----------
    headers : sequence of str
    right : collection of str
        Headers of the columns that are right-aligned and never wrapped.
    """
    made = Table(*headers, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in made.columns:
        column.no_wrap = column.header in right
        column.justify = "right" if column.no_wrap else "left"
        column.overflow = "fold"
    return made


def write_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    out: IO[str],
    *,
    right: Collection[str] = (),
) -> None:
    """Write rows as a table; `headers` and `right` as in :func:`table`."""
    made = table(headers, right=right)
    for row in rows:
        made.add_row(*map(cell, row))
    console(out).print(made)


def cell(value: object) -> str:
    """Show a value in one line; escape line breaks, control and direction characters."""
    text = "" if value is None else printable(value)
    return "".join(c if _is_shown(c) else c.encode("unicode_escape").decode() for c in text)


def _is_shown(character: str) -> bool:
    # Spaces other than " ", such as the ideographic one, are in many titles.
    return character.isprintable() or unicodedata.category(character) == "Zs"


# -- JSON and CSV ----------------------------------------------------------------------------


def to_json(value: object) -> str:
    """Format a value as JSON in one line."""
    return json.dumps(value, ensure_ascii=False)


def write_json(value: object, out: IO[str]) -> None:
    """Write a value as indented JSON."""
    out.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_json_line(value: object, out: IO[str]) -> None:
    """Write a value as JSON in one line, at once."""
    out.write(to_json(value) + "\n")
    out.flush()


def write_csv(columns: Sequence[str], rows: Iterable[Row], out: IO[str]) -> None:
    """Write a header and rows as CSV, each row at once; missing values are empty."""
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(_without_formulas(row) if SAFE_CSV.get() else row)
        out.flush()


def _without_formulas(row: Mapping[str, Any]) -> Row:
    """Put an apostrophe before text that a spreadsheet would take for a formula."""
    return {
        key: f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value
        for key, value in row.items()
    }


def write_record(record: Row, form: str, out: IO[str]) -> None:
    """Write names and values in one of RECORD_FORMATS."""
    if form == "json":
        write_json(record, out)
    elif form == "csv":
        write_csv(list(record), [record], out)
    else:
        made = Table(box=None, show_header=False, pad_edge=False)
        for key, value in record.items():
            made.add_row(cell(key), cell(value))
        console(out).print(made)


# -- times and names -------------------------------------------------------------------------


def clock(seconds: float) -> str:
    """Format a time as m:ss.cc.

    Examples
    --------
    >>> clock(61.52)
    '1:01.52'
    """
    hundredths = round(seconds * 100)
    return f"{hundredths // 6000}:{hundredths // 100 % 60:02}.{hundredths % 100:02}"


def long_clock(seconds: float) -> str:
    """Format a time as h:mm:ss.t.

    Examples
    --------
    >>> long_clock(3661.52)
    '1:01:01.5'
    """
    tenths = round(seconds * 10)
    return f"{tenths // 36000}:{tenths // 600 % 60:02}:{tenths // 10 % 60:02}.{tenths % 10}"


def span(start_s: float, end_s: float) -> str:
    """Format a stretch of time as m:ss.t – m:ss.t."""
    return " – ".join(clock(round(seconds, 1))[:-1] for seconds in (start_s, end_s))


def amount(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours with one decimal."""
    for limit_s, unit_s, unit in ((120, 1, "s"), (7200, 60, "min")):
        if seconds < limit_s:
            return f"{seconds / unit_s:.1f} {unit}"
    return f"{seconds / 3600:.1f} h"


def label(recording: Entry | Match | SimilarTrack | Track) -> str:
    """Return "title — artist", or the file name of a recording without a title."""
    if recording.title:
        return " — ".join(filter(None, (recording.title, recording.artist)))
    return Path(recording.path).name


def further_places(match: Match) -> str:
    """List further places of a match, such as "0:10.00, 0:20.00, 0:30.00 and 2 more"."""
    places = [clock(place_s) for place_s in match.also_at_s]
    n_more = len(places) - _MAX_PLACES
    return ", ".join(places[:_MAX_PLACES]) + (f" and {n_more} more" if n_more > 0 else "")


def hints(match: Match) -> str:
    """Return tempo, pitch and further places of a match in brackets; "" if it has none."""
    parts = (
        f"tempo {match.tempo:.3f}" if match.tempo != 1.0 else "",
        f"pitch {match.pitch:+.1f}" if match.pitch else "",
        f"also at {further_places(match)}" if match.also_at_s else "",
    )
    return f" ({'; '.join(filter(None, parts))})" if any(parts) else ""
