"""Writers for the results of queries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import IO

from astound.output.terminal import (
    Row,
    clock,
    hints,
    label,
    span,
    to_json,
    write_csv,
    write_json,
    write_json_line,
    write_table,
)
from astound.results import record_object, result_object
from engine.errors import printable
from engine.records import Entry, Match, QueryResult

_COLUMNS = ["query", "status", "duration_s", *(field.name for field in fields(Match)), "error"]
_PEXAFB_COLUMNS = ["reference_id", "query_id", "reference_begin", "reference_end"]
_PEXAFB_COLUMNS += ["query_begin", "query_end"]
_MIN_UNCOVERED_S = 1.0


def write_results(results: Iterable[QueryResult], form: str, out: IO[str]) -> None:
    """Write query results in one of QUERY_FORMATS, each as it arrives if the format allows."""
    QUERY_FORMATS[form](results, out)


def _write_jsonl(results: Iterable[QueryResult], out: IO[str]) -> None:
    for result in results:
        write_json_line(result_object(result), out)


def _write_json(results: Iterable[QueryResult], out: IO[str]) -> None:
    write_json([result_object(result) for result in results], out)


def _write_csv(results: Iterable[QueryResult], out: IO[str]) -> None:
    write_csv(_COLUMNS, (row for result in results for row in _csv_rows(result)), out)


def _csv_rows(result: QueryResult) -> list[Row]:
    shared = {
        "query": printable(result.query),
        "status": result.status,
        "duration_s": result.duration_s,
        "error": (result.error or {}).get("message"),
    }
    return [
        shared | record_object(match) | {"also_at_s": to_json(match.also_at_s)}
        for match in result.matches
    ] or [shared]


def _write_pexafb(results: Iterable[QueryResult], out: IO[str]) -> None:
    write_pexafb(((result.query, match) for result in results for match in result.matches), out)


def write_pexafb(matches: Iterable[tuple[str, Match | Entry]], out: IO[str]) -> None:
    """Write queries and their matches as the CSV of the Pex audio fingerprinting benchmark.

    Times are whole seconds, rounded outwards; ids are file names without their suffix.
    """
    rows = (
        {
            "reference_id": printable(Path(match.path).stem),
            "query_id": printable(Path(query).stem),
            "reference_begin": math.floor(match.reference_start_s),
            "reference_end": math.ceil(match.reference_end_s),
            "query_begin": math.floor(match.query_start_s),
            "query_end": math.ceil(match.query_end_s),
        }
        for query, match in matches
    )
    write_csv(_PEXAFB_COLUMNS, rows, out)


def _write_table(results: Iterable[QueryResult], out: IO[str]) -> None:
    """Write a table; where matches lie in the clips has a column unless all cover their clips."""
    answers = list(results)
    headers = ["query", "answer", "at", "in the clip", "confidence"]
    if all(_covers_clip(match, one) for one in answers for match in one.matches):
        headers.remove("in the clip")
    rows = [row for result in answers for row in _table_rows(result)]
    cells = [[row.get(header, "") for header in headers] for row in rows]
    write_table(headers, cells, out, right=headers[2:])


def _covers_clip(match: Match, result: QueryResult) -> bool:
    """Whether a match covers its clip, as far as its borders are certain."""
    uncovered_s = (result.duration_s or 0.0) - (match.query_end_s - match.query_start_s)
    return uncovered_s <= max(match.start_error_s + match.end_error_s, _MIN_UNCOVERED_S)


def _table_rows(result: QueryResult) -> Iterator[dict[str, str]]:
    if result.status == "no_match":
        yield {"query": result.query, "answer": "not in the catalog"}
    elif result.error:
        reason = str(result.error["message"]).removeprefix(f"{printable(result.query)}: ")
        yield {"query": result.query, "answer": f"error: {reason}"}
    for match in result.matches:
        yield {
            "query": result.query if match.rank == 1 else "",
            "answer": label(match) + hints(match),
            "at": clock(match.reference_start_s),
            "in the clip": span(match.query_start_s, match.query_end_s),
            "confidence": f"{match.confidence:.3f}",
        }


QUERY_FORMATS: dict[str, Callable[[Iterable[QueryResult], IO[str]], None]] = {
    "table": _write_table,
    "json": _write_json,
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "pexafb": _write_pexafb,
}
