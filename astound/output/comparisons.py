"""Writers for comparisons of recordings: shared passages, similar tracks, duplicates, repeats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import IO, TYPE_CHECKING

from astound.output.terminal import Row, clock, label, span, write_csv, write_json, write_table
from astound.results import duplicates_object, record_object
from engine.compare.passages import query_span, reference_span
from engine.errors import printable
from engine.records import Cluster, Duplicate, Passage, Repeat, SimilarTrack, Track

if TYPE_CHECKING:
    from astound.compare import Comparison, FileRepeats

_SIMILAR_COLUMNS = [field.name for field in fields(SimilarTrack)]
_PAIR_COLUMNS = ["kind", "first_id", "first_path", "second_id", "second_path"]
_PAIR_COLUMNS += ["first_share", "second_share", "keeper_id"]
_PASSAGE_COLUMNS = ["first_start_s", "first_end_s", "second_start_s", "second_end_s"]
_PASSAGE_COLUMNS += ["score", "speed"]
_REPEAT_COLUMNS = ["repeat", "score", "path", "start_s", "end_s"]


# -- two recordings --------------------------------------------------------------------------


def write_comparison(comparison: Comparison, form: str, out: IO[str]) -> None:
    """Write similarity and shared passages of two recordings in one of RECORD_FORMATS."""
    similarity = {"similarity": round(comparison.similarity, 4)}
    passages = [
        {key: round(value, 4) for key, value in asdict(passage).items()}
        for passage in comparison.passages
    ]
    if form == "json":
        write_json(similarity | {"passages": passages}, out)
    elif form == "csv":
        columns = [*similarity, *(field.name for field in fields(Passage))]
        rows = [similarity | passage for passage in passages] or [similarity]
        write_csv(columns, rows, out)
    else:
        out.write(f"similarity {comparison.similarity:.3f}\n")
        _write_passages(comparison.passages, out)


def _write_passages(passages: Sequence[Passage], out: IO[str]) -> None:
    if not passages:
        out.write("no common passage of the minimum length\n")
        return
    rows = (
        (
            span(passage.query_start_s, passage.query_end_s),
            span(passage.reference_start_s, passage.reference_end_s),
            f"{passage.speed:.3f}",
            f"{passage.score:.3f}",
        )
        for passage in passages
    )
    write_table(("in the first", "in the second", "speed", "score"), rows, out)


# -- similar tracks --------------------------------------------------------------------------


def write_similar(tracks: Sequence[SimilarTrack], form: str, out: IO[str]) -> None:
    """Write the tracks most similar to a recording in one of RECORD_FORMATS."""
    rows = [record_object(track) for track in tracks]
    if form == "json":
        write_json(rows, out)
    elif form == "csv":
        write_csv(_SIMILAR_COLUMNS, rows, out)
    elif not tracks:
        out.write("no other track in the catalog\n")
    else:
        cells = (
            (t.track_id, label(t), clock(t.duration_s), f"{t.clip_score:.3f}", t.path)
            for t in tracks
        )
        write_table(("id", "track", "length", "clip score", "path"), cells, out)


# -- duplicates ------------------------------------------------------------------------------


def write_duplicates(
    duplicates: Sequence[Duplicate],
    clusters: Sequence[Cluster],
    tracks: Mapping[int, Track],
    form: str,
    out: IO[str],
) -> None:
    """Write pairs of duplicates and clusters of full duplicates in one of RECORD_FORMATS.

    Parameters
    ----------
    duplicates : sequence of Duplicate
    clusters : sequence of Cluster
    tracks : mapping
        Their tracks by id.
    form : {"table", "json", "csv"}
    out : text file
    """
    if form == "table":
        _write_duplicate_tables(duplicates, clusters, tracks, out)
        return
    made = duplicates_object(duplicates, clusters, tracks)
    if form == "json":
        write_json(made, out)
    else:
        flat = (pair | passage for pair in made["duplicates"] for passage in pair.pop("passages"))
        write_csv([*_PAIR_COLUMNS, *_PASSAGE_COLUMNS], flat, out)


def _write_duplicate_tables(
    duplicates: Sequence[Duplicate],
    clusters: Sequence[Cluster],
    tracks: Mapping[int, Track],
    out: IO[str],
) -> None:
    if not duplicates:
        out.write("no duplicates\n")
        return
    names = {track_id: f"{track_id}: {label(track)}" for track_id, track in tracks.items()}
    headers = ("kind", "first", "second", "in the first", "in the second", "speed", "score")
    write_table(headers, (row for pair in duplicates for row in _pair_cells(pair, names)), out)
    if clusters:
        rows = (
            (
                names[cluster.keeper_id],
                cluster.reason,
                ", ".join(names[id_] for id_ in cluster.other_ids),
            )
            for cluster in clusters
        )
        write_table(("keep", "because", "full duplicates of it"), rows, out)


def _pair_cells(pair: Duplicate, names: Mapping[int, str]) -> Iterator[Sequence[str]]:
    shares = f"{pair.first_share:.0%}", f"{pair.second_share:.0%}"
    yield pair.kind, names[pair.first_id], names[pair.second_id], *shares, "", ""
    for passage in pair.passages:
        spans = span(*query_span(passage)), span(*reference_span(passage))
        yield "", "", "", *spans, f"{passage.speed:.3f}", f"{passage.score:.3f}"


# -- repeats ---------------------------------------------------------------------------------


def write_repeats(result: FileRepeats, form: str, out: IO[str]) -> None:
    """Write passages that occur more than once in one of RECORD_FORMATS."""
    repeats = [_repeat_object(repeat, result.paths) for repeat in result.repeats]
    if form == "json":
        write_json(repeats, out)
        return
    rows = [
        {"repeat": number, "score": repeat["score"]} | occurrence
        for number, repeat in enumerate(repeats, 1)
        for occurrence in repeat["occurrences"]
    ]
    if form == "csv":
        write_csv(_REPEAT_COLUMNS, rows, out)
    elif not rows:
        out.write("no repeated passage of the minimum length\n")
    else:
        cells = (
            (row["repeat"], span(row["start_s"], row["end_s"]), row["path"], f"{row['score']:.3f}")
            for row in rows
        )
        write_table(("repeat", "at", "file", "score"), cells, out)


def _repeat_object(repeat: Repeat, paths: Sequence[str]) -> Row:
    occurrences = [
        {
            "path": printable(paths[occurrence.recording]),
            "start_s": round(occurrence.start_s, 3),
            "end_s": round(occurrence.end_s, 3),
        }
        for occurrence in repeat.occurrences
    ]
    return {"score": round(repeat.score, 4), "occurrences": occurrences}
