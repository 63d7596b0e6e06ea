"""How relations between recordings are written: as tables for people, as JSON, as CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import IO, TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from astound.output.matches import clock, console, label
from engine.compare.passages import query_span, reference_span
from engine.errors import printable
from engine.records import Cluster, Duplicate, Repeat, SimilarTrack, Track

if TYPE_CHECKING:
    from astound.compare import Recurrence

Row = dict[str, Any]

_SIMILAR_COLUMNS = [field.name for field in fields(SimilarTrack)]
_PAIR_COLUMNS = ["kind", "first_id", "first_path", "second_id", "second_path"]
_PAIR_COLUMNS += ["first_share", "second_share", "keeper_id"]
_PASSAGE_COLUMNS = ["first_start_s", "first_end_s", "second_start_s", "second_end_s"]
_PASSAGE_COLUMNS += ["score", "speed"]
_REPEAT_COLUMNS = ["repeat", "score", "path", "start_s", "end_s"]


# -- tracks that sound alike -----------------------------------------------------------------


def write_similar(found: Sequence[SimilarTrack], form: str, out: IO[str]) -> None:
    """Write the tracks most similar to a recording as "table", "json" or "csv"."""
    rows = [asdict(one) for one in found]
    if form == "json":
        _write_json(rows, out)
    elif form == "csv":
        _write_csv(_SIMILAR_COLUMNS, rows, out)
    elif not found:
        out.write("no other track in the catalog\n")
    else:
        cells = (
            (one.track_id, label(one), clock(one.duration_s), f"{one.clip_score:.3f}", one.path)
            for one in found
        )
        _write_table(("id", "track", "length", "clip score", "path"), cells, out)


# -- duplicates ------------------------------------------------------------------------------


def write_duplicates(
    found: Sequence[Duplicate],
    clusters: Sequence[Cluster],
    tracks: Mapping[int, Track],
    form: str,
    out: IO[str],
) -> None:
    """Write pairs of duplicates and the clusters of full ones as "table", "json" or "csv".

    Parameters
    ----------
    found : sequence of Duplicate
    clusters : sequence of Cluster
    tracks : mapping
        Those that they name, by id.
    form : {"table", "json", "csv"}
    out : text file
    """
    if form == "table":
        _write_duplicate_tables(found, clusters, tracks, out)
        return
    keepers = {one.keeper_id: one.keeper_id for one in clusters}
    keepers |= {other_id: one.keeper_id for one in clusters for other_id in one.other_ids}
    pairs = [_pair(one, tracks, keepers) for one in found]
    shared = [_passages(one) for one in found]
    if form == "json":
        rows = [pair | {"passages": rows} for pair, rows in zip(pairs, shared, strict=True)]
        _write_json({"duplicates": rows, "clusters": [asdict(one) for one in clusters]}, out)
    else:
        columns = [*_PAIR_COLUMNS, *_PASSAGE_COLUMNS]
        flat = (pair | row for pair, rows in zip(pairs, shared, strict=True) for row in rows)
        _write_csv(columns, flat, out)


def _pair(one: Duplicate, tracks: Mapping[int, Track], keepers: Mapping[int, int]) -> Row:
    return {
        "kind": one.kind,
        "first_id": one.first_id,
        "first_path": tracks[one.first_id].path,
        "second_id": one.second_id,
        "second_path": tracks[one.second_id].path,
        "first_share": round(one.first_share, 3),
        "second_share": round(one.second_share, 3),
        "keeper_id": keepers[one.first_id] if one.kind == "full" else None,
    }


def _passages(one: Duplicate) -> list[Row]:
    rows = (
        (*query_span(passage), *reference_span(passage), passage.score, passage.speed)
        for passage in one.passages
    )
    return [
        {key: round(value, 4) for key, value in zip(_PASSAGE_COLUMNS, row, strict=True)}
        for row in rows
    ]


def _write_duplicate_tables(
    found: Sequence[Duplicate],
    clusters: Sequence[Cluster],
    tracks: Mapping[int, Track],
    out: IO[str],
) -> None:
    if not found:
        out.write("no duplicates\n")
        return
    headers = ("kind", "first", "second", "in the first", "in the second", "speed", "score")
    _write_table(headers, (row for one in found for row in _duplicate_rows(one, tracks)), out)
    if clusters:
        names = [
            (_named(tracks[one.keeper_id]), ", ".join(_named(tracks[at]) for at in one.other_ids))
            for one in clusters
        ]
        _write_table(("keep", "full duplicates of it"), names, out)


def _duplicate_rows(one: Duplicate, tracks: Mapping[int, Track]) -> Iterator[Sequence[str]]:
    names = _named(tracks[one.first_id]), _named(tracks[one.second_id])
    yield one.kind, *names, f"{one.first_share:.0%}", f"{one.second_share:.0%}", "", ""
    for passage in one.passages:
        spans = _span(*query_span(passage)), _span(*reference_span(passage))
        yield "", "", "", *spans, f"{passage.speed:.3f}", f"{passage.score:.3f}"


def _named(track: Track) -> str:
    return f"{track.id}: {label(track)}"


# -- repeats ---------------------------------------------------------------------------------


def write_repeats(found: Recurrence, form: str, out: IO[str]) -> None:
    """Write what is heard more than once as "table", "json" or "csv"."""
    rows = [_repeat(one, found.paths) for one in found.repeats]
    if form == "json":
        _write_json(rows, out)
        return
    flat = [
        {"repeat": number, "score": row["score"]} | at
        for number, row in enumerate(rows, 1)
        for at in row["occurrences"]
    ]
    if form == "csv":
        _write_csv(_REPEAT_COLUMNS, flat, out)
    elif not flat:
        out.write("nothing that is long enough is heard more than once\n")
    else:
        cells = (
            (at["repeat"], _span(at["start_s"], at["end_s"]), at["path"], f"{at['score']:.3f}")
            for at in flat
        )
        _write_table(("repeat", "at", "file", "score"), cells, out)


def _repeat(one: Repeat, paths: Sequence[str]) -> Row:
    occurrences = [
        {
            "path": printable(paths[at.recording]),
            "start_s": round(at.start_s, 3),
            "end_s": round(at.end_s, 3),
        }
        for at in one.occurrences
    ]
    return {"score": round(one.score, 4), "occurrences": occurrences}


# -- words -----------------------------------------------------------------------------------


def _span(start_s: float, end_s: float) -> str:
    """Show a stretch as m:ss.s – m:ss.s."""
    return " – ".join(clock(round(seconds, 1))[:-1] for seconds in (start_s, end_s))


def _write_table(headers: Sequence[str], rows: Iterable[Sequence[object]], out: IO[str]) -> None:
    table = Table(*headers, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*map(_cell, row))
    console(out).print(table)


def _cell(value: object) -> str:
    """Keep line breaks and control characters of a name from breaking the table."""
    text = printable(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _write_json(value: object, out: IO[str]) -> None:
    out.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def _write_csv(columns: Sequence[str], rows: Iterable[Row], out: IO[str]) -> None:
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
