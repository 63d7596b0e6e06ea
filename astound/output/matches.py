"""What the command line reads and writes: lists and metadata in, tables, JSON and CSV out."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich import box, filesize
from rich.console import Console
from rich.table import Table

from engine.errors import ConfigError, printable
from engine.records import Entry, Match, Passage, QueryResult, SimilarTrack, Track

if TYPE_CHECKING:
    from engine.store.store import Stats
    from indexer.report import IngestReport

Row = dict[str, Any]

# Wider than any table, for grep and friends.
_UNBOUNDED_WIDTH = 100_000

_MATCH_COLUMNS = [field.name for field in fields(Match)]
_QUERY_COLUMNS = ["query", "status", "duration_s", *_MATCH_COLUMNS, "error"]
_TRACK_COLUMNS = [field.name for field in fields(Track)]
_N_PLACES = 3


# -- in --------------------------------------------------------------------------------------


def read_list(stream: IO[str]) -> list[str]:
    """Read paths, one a line; empty lines are left out."""
    return [path for line in stream if (path := line.rstrip("\r\n"))]


def read_metadata(path: Path) -> dict[str, dict[str, str]]:
    """Read what to note about files.

    Parameters
    ----------
    path : Path
        CSV with a header that names a column `path`; the others are title, artist, album, isrc or
        any key.

    Returns
    -------
    dict
        For each path, its non-empty columns.

    Raises
    ------
    ConfigError
        It cannot be read, has no column `path`, or a row does not fit the header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if "path" not in (reader.fieldnames or ()):
                raise ConfigError(str(path), "its first line must name a column path")
            return dict(_noted(path, reader.line_num, row) for row in reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(str(path), f"cannot be read as CSV ({error})") from error


def _noted(path: Path, line: int, row: dict[Any, Any]) -> tuple[str, dict[str, str]]:
    if None in row or None in row.values():
        raise ConfigError(f"{path}: line {line}", "it has not as many fields as the header")
    if not row["path"]:
        raise ConfigError(f"{path}: line {line}", "its path is empty")
    return row["path"], {key: value for key, value in row.items() if key != "path" and value}


# -- answers to queries ----------------------------------------------------------------------


def write_results(results: Iterable[QueryResult], form: str, out: IO[str]) -> None:
    """Write the answers to queries in one of QUERY_FORMATS, as they come where the format can."""
    QUERY_FORMATS[form](results, out)


def result_object(result: QueryResult) -> Row:
    """Make the JSON object of one answer."""
    made = {
        "query": printable(result.query),
        "status": result.status,
        "duration_s": result.duration_s,
        "matches": [asdict(match) for match in result.matches],
        "timings_ms": dict(result.timings_ms),
    }
    return made | ({"error": dict(result.error)} if result.error else {})


def _write_jsonl(results: Iterable[QueryResult], out: IO[str]) -> None:
    for result in results:
        out.write(_json(result_object(result)) + "\n")
        out.flush()


def _write_json(results: Iterable[QueryResult], out: IO[str]) -> None:
    out.write(_json([result_object(result) for result in results], indent=1) + "\n")


def _write_csv(results: Iterable[QueryResult], out: IO[str]) -> None:
    _write_csv_rows(_QUERY_COLUMNS, (row for result in results for row in _flat(result)), out)


def _flat(result: QueryResult) -> list[Row]:
    shared = {
        "query": printable(result.query),
        "status": result.status,
        "duration_s": result.duration_s,
        "error": (result.error or {}).get("message"),
    }
    return [
        shared | asdict(match) | {"also_at_s": _json(match.also_at_s)} for match in result.matches
    ] or [shared]


def _write_pexafb(results: Iterable[QueryResult], out: IO[str]) -> None:
    """Write the matches file of the Pex audio fingerprinting benchmark toolkit."""
    columns = ["reference_id", "query_id"]
    columns += ["reference_begin", "reference_end", "query_begin", "query_end"]
    rows = (_pexafb(result, match) for result in results for match in result.matches)
    _write_csv_rows(columns, rows, out)


def _pexafb(result: QueryResult, match: Match) -> Row:
    return {
        "reference_id": Path(match.path).stem,
        "query_id": printable(Path(result.query).stem),
        "reference_begin": math.floor(match.reference_start_s),
        "reference_end": math.ceil(match.reference_end_s),
        "query_begin": math.floor(match.query_start_s),
        "query_end": math.ceil(match.query_end_s),
    }


def _write_table(results: Iterable[QueryResult], out: IO[str]) -> None:
    table = _table("query", "answer", "at", "confidence")
    for result in results:
        for cells in _table_rows(result):
            table.add_row(*map(_cell, cells))
    console(out).print(table)


def _table_rows(result: QueryResult) -> Iterator[tuple[str, ...]]:
    if result.status == "no_match":
        yield result.query, "not in the catalog", "", ""
    elif result.error:
        reason = str(result.error["message"]).removeprefix(f"{printable(result.query)}: ")
        yield result.query, f"error: {reason}", "", ""
    for match in result.matches:
        query = result.query if match.rank == 1 else ""
        answer = label(match) + hints(match)
        yield query, answer, clock(match.reference_start_s), f"{match.confidence:.3f}"


QUERY_FORMATS: dict[str, Callable[[Iterable[QueryResult], IO[str]], None]] = {
    "table": _write_table,
    "json": _write_json,
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "pexafb": _write_pexafb,
}


# -- tracks and counts -----------------------------------------------------------------------

RECORD_FORMATS = ("table", "json", "csv")


def write_tracks(tracks: Sequence[Track], form: str, out: IO[str]) -> None:
    """Write several tracks in one of RECORD_FORMATS, a row each."""
    rows = [_track_row(track) for track in tracks]
    if form == "json":
        out.write(_json(rows, indent=1) + "\n")
    elif form == "csv":
        flat = [row | {"metadata": _json(row["metadata"])} for row in rows]
        _write_csv_rows(_TRACK_COLUMNS, flat, out)
    else:
        table = _table("id", "title", "artist", "length", "path")
        for track in tracks:
            cells = track.id, track.title, track.artist, clock(track.duration_s), track.path
            table.add_row(*map(_cell, cells))
        console(out).print(table)


def write_track(track: Track, form: str, out: IO[str]) -> None:
    """Write all that is known of one track in one of RECORD_FORMATS."""
    if form == "csv":
        write_tracks([track], form, out)
    elif form == "json":
        write_record(_track_row(track), form, out)
    else:
        row = _track_row(track) | {"duration_s": f"{track.duration_s:.3f}"}
        write_record(row | row.pop("metadata"), form, out)


def write_stats(stats: Stats, form: str, out: IO[str]) -> None:
    """Write what a catalog holds in one of RECORD_FORMATS."""
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


def write_record(record: Row, form: str, out: IO[str]) -> None:
    """Write names and values in one of RECORD_FORMATS."""
    if form == "json":
        out.write(_json(record, indent=1) + "\n")
    elif form == "csv":
        _write_csv_rows(list(record), [record], out)
    else:
        table = Table(box=None, show_header=False, pad_edge=False)
        for key, value in record.items():
            table.add_row(_cell(key), _cell(value))
        console(out).print(table)


def _track_row(track: Track) -> Row:
    return asdict(track) | {
        "added_at": track.added_at.isoformat(timespec="seconds"),
        "metadata": dict(track.metadata),
    }


# -- two recordings --------------------------------------------------------------------------


def write_comparison(
    similarity: float, passages: Sequence[Passage], form: str, out: IO[str]
) -> None:
    """Write how alike two recordings are and what they share in one of RECORD_FORMATS."""
    rows = [{key: round(value, 4) for key, value in asdict(one).items()} for one in passages]
    alike = {"similarity": round(similarity, 4)}
    if form == "json":
        out.write(_json(alike | {"passages": rows}, indent=1) + "\n")
    elif form == "csv":
        columns = [*alike, *(field.name for field in fields(Passage))]
        _write_csv_rows(columns, [alike | row for row in rows] or [alike], out)
    else:
        out.write(f"similarity {similarity:.3f}\n")
        _write_passages(passages, out)


def _write_passages(passages: Sequence[Passage], out: IO[str]) -> None:
    if not passages:
        out.write("no passage in common that is long enough\n")
        return
    table = _table("in the first", "in the second", "speed", "score")
    for one in passages:
        spans = (
            _span(one.query_start_s, one.query_end_s),
            _span(one.reference_start_s, one.reference_end_s),
        )
        table.add_row(*spans, f"{one.speed:.3f}", f"{one.score:.3f}")
    console(out).print(table)


def _span(start_s: float, end_s: float) -> str:
    """Show a stretch as m:ss.s – m:ss.s."""
    return " – ".join(clock(round(seconds, 1))[:-1] for seconds in (start_s, end_s))


# -- words -----------------------------------------------------------------------------------


def label(recording: Entry | Match | SimilarTrack | Track) -> str:
    """Name a recording to a person: "title — artist", or its file's name."""
    if recording.title:
        return " — ".join(filter(None, (recording.title, recording.artist)))
    return Path(recording.path).name


def hints(match: Match) -> str:
    """Tell in brackets what is unusual about a match: pitch, tempo, other places; often ""."""
    others = [clock(one) for one in match.also_at_s]
    more = f" and {len(others) - _N_PLACES} more" if len(others) > _N_PLACES else ""
    told = (
        f"tempo {match.tempo:.3f}" if match.tempo != 1.0 else "",
        f"pitch {match.pitch:+.1f}" if match.pitch else "",
        f"also at {', '.join(others[:_N_PLACES])}{more}" if others else "",
    )
    return f" ({'; '.join(filter(None, told))})" if any(told) else ""


def line(track: Track) -> str:
    """Name a track to a person with its id and path."""
    return _cell(f"{track.id}: {label(track)} ({track.path})")


def summary(report: IngestReport) -> str:
    """Sum an ingest up in one line."""
    counts = (
        f"added {len(report.added)}, skipped {len(report.skipped)}, failed {len(report.failed)}"
    )
    if not report.audio_s:
        return counts
    pace = f"{amount(report.elapsed_s)}, {report.realtime_factor:.0f} × real time"
    return f"{counts} ({amount(report.audio_s)} of audio in {pace})"


def clock(seconds: float) -> str:
    """Show a time as m:ss.cc.

    Examples
    --------
    >>> clock(61.52)
    '1:01.52'
    """
    hundredths = round(seconds * 100)
    return f"{hundredths // 6000}:{hundredths // 100 % 60:02}.{hundredths % 100:02}"


def amount(seconds: float) -> str:
    """Show a length of audio roughly: seconds, minutes or hours."""
    for limit_s, unit_s, unit in ((120, 1, "s"), (7200, 60, "min")):
        if seconds < limit_s:
            return f"{seconds / unit_s:.1f} {unit}"
    return f"{seconds / 3600:.1f} h"


def _table(*headers: str) -> Table:
    table = Table(*headers, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        numeric = column.header in ("id", "at", "length", "confidence")
        column.no_wrap = numeric
        column.justify = "right" if numeric else "left"
        column.overflow = "fold"
    return table


def console(out: IO[str]) -> Console:
    """Open a stream for tables; what is not a terminal gets whole lines."""
    # Names of music hold brackets and colons; none of them is markup or an emoji.
    width = None if out.isatty() else _UNBOUNDED_WIDTH
    return Console(file=out, width=width, markup=False, emoji=False, highlight=False)


def _cell(value: object) -> str:
    """Keep line breaks and control characters of a name from breaking the table."""
    text = "" if value is None else printable(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _write_csv_rows(columns: Sequence[str], rows: Iterable[Row], out: IO[str]) -> None:
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row)
        out.flush()
