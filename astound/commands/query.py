"""The commands that hear long recordings to their end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import click

from astound.commands.options import clips, format_option, given, list_option, paths_argument, say
from astound.output.timelines import TIMELINE_FORMATS, write_entry, write_timelines
from engine.records import Entry, Timeline

if TYPE_CHECKING:
    from astound.catalog import Catalog

_LINE_EVERY_S = 10.0


@click.command(epilog="Example: astound scan mix.mp3 --format cue > mix.cue")
@paths_argument
@list_option
@format_option(TIMELINE_FORMATS)
@click.option(
    "--min-confidence", type=click.FloatRange(0, 1), metavar="P",
    help="Confidence that makes an entry, in place of the default.",
)  # fmt: skip
@click.option("--start", "start_s", type=click.FloatRange(0), metavar="S", help="From second S.")
@click.option("--end", "end_s", type=click.FloatRange(0), metavar="S", help="Up to second S.")
@click.pass_context
def scan(
    ctx: click.Context, /, paths: tuple[str, ...], listed: IO[str] | None, form: str, **options: Any
) -> None:
    """Tell what sounds when in long recordings: mixes, radio hours, films; - is a list on stdin.

    Tracks may overlap and occur again; what is not in the catalog is a gap.
    """
    asked = list(clips(given(paths, listed)))
    chosen = {key: value for key, value in options.items() if value is not None}
    if chosen.get("end_s", float("inf")) <= chosen.get("start_s", 0.0):
        raise click.UsageError("--end must come after --start")
    if form == "audacity" and len(asked) > 1:
        raise click.UsageError("labels are about one recording; give one PATH")
    failed: list[str] = []
    with ctx.obj.open() as catalog:
        timelines = _timelines(catalog, asked, form, chosen)
        told = _noting_errors(timelines, failed, form)
        write_timelines(told, form, sys.stdout)
    ctx.exit(1 if failed else 0)


def _timelines(
    catalog: Catalog, paths: Iterable[str], form: str, options: dict[str, Any]
) -> Iterator[Timeline]:
    from astound.catalog import timeline

    for path in paths:
        tell = partial(write_entry, path, out=sys.stdout)
        on_entry: Callable[[Entry], None] = tell if form == "jsonl" else _keep_silent
        with _progress(path, options) as show:
            made = timeline(catalog, path, on_entry=on_entry, on_progress=show, **options)
        yield made


def _keep_silent(entry: Entry) -> None:
    """Wait for the whole timeline."""


def _noting_errors(
    timelines: Iterable[Timeline], failed: list[str], form: str
) -> Iterator[Timeline]:
    for one in timelines:
        if one.error:
            failed.append(one.recording)
            if form != "table":  # which says it itself
                say(one.error["message"])
        yield one


@contextmanager
def _progress(path: str, options: dict[str, Any]) -> Iterator[Callable[[float], None]]:
    """Show on stderr how much is heard: a bar on a terminal, now and then a line elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from astound.output.matches import amount
    from engine.errors import printable

    console, began = Console(stderr=True), time.monotonic()
    name = printable(path)

    def words(heard_s: float) -> str:
        pace = heard_s / max(time.monotonic() - began, 1e-3)
        return f"{name}: {amount(heard_s)} heard, {pace:.0f} × real time"

    if not console.is_terminal:
        yield _Lines(words)
        return
    total = options["end_s"] - options.get("start_s", 0.0) if "end_s" in options else None
    columns = BarColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda heard_s: bar.update(task, description=words(heard_s), completed=heard_s)


class _Lines:
    """Prints how far it is every ten seconds."""

    def __init__(self, words: Callable[[float], str]) -> None:
        self.words, self.last = words, time.monotonic()

    def __call__(self, heard_s: float) -> None:
        if time.monotonic() - self.last >= _LINE_EVERY_S:
            self.last = time.monotonic()
            say(self.words(heard_s))


COMMANDS = (scan,)
