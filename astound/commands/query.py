"""The commands that search the catalog for unknown audio: query, scan, explain."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

import astound
from astound.commands.options import (
    EXIT_INTERRUPTED,
    Function,
    Session,
    drop_unset,
    echo_err,
    expand_folders,
    format_option,
    list_option,
    paths_argument,
    read_paths,
    time_option,
    track_key,
)
from astound.output.explanations import EXPLAIN_FORMATS, write_explanation
from astound.output.matches import QUERY_FORMATS, write_results
from astound.output.progress import scan_progress, spinner
from astound.output.timelines import TIMELINE_FORMATS, write_entry, write_timelines
from engine.config import MAX_MATCHES, default_query_jobs
from engine.errors import printable
from engine.records import Entry, QueryResult, Timeline

if TYPE_CHECKING:
    from astound.catalog import Catalog
    from astound.remote import RemoteCatalog

Result = TypeVar("Result", QueryResult, Timeline)


def _part_options(function: Function) -> Function:
    """Add the options --start, --end and --stream."""
    stream_option = click.option(
        "--stream",
        type=click.IntRange(1),
        metavar="N",
        help="Sound stream N of each file, from 1; the file's default stream by default.",
    )
    function = stream_option(function)
    for name, text in (("end", "Stop at time T."), ("start", "Start at time T: seconds or m:ss.")):
        option = click.option(f"--{name}", f"{name}_s", type=time_option, metavar="T", help=text)
        function = option(function)
    return function


def _server_options(function: Function) -> Function:
    """Add the options --server and --key."""
    key = click.option(
        "--key", envvar="ASTOUND_KEY", metavar="KEY", help="Key of the service; else $ASTOUND_KEY."
    )
    text = "Query the catalog of this service instead."
    return click.option("--server", metavar="URL", help=text)(key(function))


def _opened(session: Session, options: dict[str, Any]) -> Catalog | RemoteCatalog:
    """Open the catalog, or connect to that of a service; takes the options about it away."""
    server, key = options.pop("server", None), options.pop("key", None)
    sends_audio = not options.pop("fingerprint", False)
    if server is None and not sends_audio:
        raise click.UsageError("--fingerprint needs --server")
    if server is None:
        return session.open()
    model, device = session.model, session.device
    return astound.connect(server, key, sends_audio=sends_audio, model=model, device=device)


def _min_confidence_option(text: str) -> Callable[[Function], Function]:
    return click.option("--min-confidence", type=click.FloatRange(0, 1), metavar="P", help=text)


def _require_part(options: Mapping[str, Any]) -> None:
    if options.get("end_s", float("inf")) <= options.get("start_s", 0.0):
        raise click.UsageError("--end must come after --start")


@click.command(epilog="Example: astound query clips --format jsonl | jq .status")
@paths_argument
@list_option
@format_option(QUERY_FORMATS)
@click.option(
    "-n", "--max-matches", type=click.IntRange(1), default=MAX_MATCHES, show_default=True,
    metavar="N", help="Maximum number of matches.",
)  # fmt: skip
@_min_confidence_option("Minimum confidence of a match; the calibrated threshold by default.")
@_part_options
@_server_options
@click.option(
    "--fingerprint", is_flag=True,
    help="Send the service fingerprints, not audio; other speeds are not searched.",
)  # fmt: skip
@click.option(
    "--jobs", type=click.IntRange(1), metavar="N",
    help="Query N files at a time; by default one for each core, four at most.",
)  # fmt: skip
@click.pass_context
def query(
    ctx: click.Context,
    /,
    paths: tuple[str, ...],
    list_file: IO[bytes] | None,
    form: str,
    jobs: int | None,
    **options: Any,
) -> None:
    """Identify clips: files, or folders searched recursively.

    PATH - reads a list of paths from stdin. A clip that is not in the catalog is a normal answer,
    not an error.
    """
    from astound.batch import identify_all
    from engine.audio.opening import delete_copies

    clips = read_paths(paths, list_file)
    options = drop_unset(options)
    _require_part(options)
    failed: list[str] = []
    try:
        with _opened(ctx.obj, options) as catalog:
            n_jobs = jobs or default_query_jobs()
            results = identify_all(catalog, expand_folders(clips), n_jobs, **options)
            reported = _report_warnings(_report_errors(results, failed, form), form)
            write_results(reported, form, sys.stdout)
    except KeyboardInterrupt:
        echo_err("interrupted")
        sys.stdout.flush()
        delete_copies()
        os._exit(EXIT_INTERRUPTED)  # without waiting for the threads, which still query
    ctx.exit(1 if failed else 0)


@click.command(epilog="Example: astound scan mix.mp3 --format cue > mix.cue")
@paths_argument
@list_option
@format_option(TIMELINE_FORMATS)
@_min_confidence_option("Minimum confidence of an entry, in place of the default.")
@_part_options
@click.pass_context
def scan(
    ctx: click.Context,
    /,
    paths: tuple[str, ...],
    list_file: IO[bytes] | None,
    form: str,
    **options: Any,
) -> None:
    """Write a timeline of long recordings: mixes, radio hours, films.

    PATH - reads a list of paths from stdin. Entries may overlap, and a track may occur more than
    once. Stretches that are not in the catalog are gaps.
    """
    recordings = list(expand_folders(read_paths(paths, list_file)))
    options = drop_unset(options)
    _require_part(options)
    if form == "audacity" and len(recordings) > 1:
        raise click.UsageError("a label track describes one recording; give one PATH")
    failed: list[str] = []
    with ctx.obj.open() as catalog:
        timelines = _timelines(catalog, recordings, form, options)
        write_timelines(
            _report_warnings(_report_errors(timelines, failed, form), form), form, sys.stdout
        )
    ctx.exit(1 if failed else 0)


def _timelines(
    catalog: Catalog, recordings: Iterable[str], form: str, options: dict[str, Any]
) -> Iterator[Timeline]:
    from astound.batch import timeline

    for path in recordings:
        if form == "jsonl":  # the one format that writes entries as they end
            options = options | {"on_entry": partial(_write_entry, path)}
        with scan_progress(path, options.get("start_s", 0.0), options.get("end_s")) as show:
            scanned = timeline(catalog, path, on_progress=show, **options)
        yield scanned


def _write_entry(path: str, entry: Entry) -> None:
    write_entry(path, entry, sys.stdout)


def _name(result: QueryResult | Timeline) -> str:
    return result.query if isinstance(result, QueryResult) else result.recording


def _report_warnings(results: Iterable[Result], form: str) -> Iterator[Result]:
    """Pass results on, and print their warnings unless the format contains them.

    One that holds for all results is printed once.
    """
    from engine.search.searcher import CATALOG_WARNINGS

    known = set[str]()
    for result in results:
        for warning in () if form in ("json", "jsonl") else result.warnings:
            if warning not in known:
                echo_err(f"{printable(_name(result))}: {warning}")
            known |= CATALOG_WARNINGS & {warning}
        yield result


def _report_errors(results: Iterable[Result], failed: list[str], form: str) -> Iterator[Result]:
    """Pass results on, and append the message of each error to `failed`."""
    for result in results:
        if result.error:
            failed.append(result.error["message"])
            if form != "table":  # a table contains the errors
                echo_err(result.error["message"])
        yield result


@click.command(epilog="Example: astound explain clip.wav -o why.png")
@click.argument("clip", metavar="CLIP")
@click.option(
    "--format", "form", type=click.Choice(EXPLAIN_FORMATS), default="text", show_default=True,
    help="Output format.",
)  # fmt: skip
@click.option(
    "--track", metavar="ID|PATH", help="Track to examine, match or not; the best one by default."
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw a picture, too."
)
@_part_options
@_server_options
@click.pass_obj
def explain(
    session: Session, /, clip: str, form: str, track: str | None, out: Path | None, **options: Any
) -> None:
    """Explain why a clip did or did not match: what decided, what came close, where it agrees."""
    options = drop_unset(options)
    _require_part(options)
    if out is not None:
        from astound.output.plots import draw_explanation
        from engine.figure import new_figure

        new_figure(out)  # fail before the search, not after it
    key = None if track is None else track_key(track)
    with _opened(session, options) as catalog, spinner("explaining"):
        explanation = catalog.explain(clip, track=key, **options)
    if out is not None and explanation.examined is None:
        echo_err(f"{out}: not drawn; no track resembles the clip")
    elif out is not None:
        draw_explanation(explanation, out)
        echo_err(f"drawn: {out}")
    write_explanation(explanation, form, sys.stdout)
