"""The commands that compare recordings with each other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import IO

import click

from astound.commands.options import (
    Function,
    Session,
    clips,
    given,
    list_option,
    paths_argument,
    record_format,
    say,
    track_key,
)
from astound.output import comparisons, matches
from engine.config import DedupConfig
from engine.errors import AudioError


def _min_length_option(least_s: float, default_s: float) -> Callable[[Function], Function]:
    return click.option(
        "--min-length", "min_length_s", type=click.FloatRange(least_s), default=default_s,
        show_default=True, metavar="S", help="Seconds of the shortest passage.",
    )  # fmt: skip


@click.command(epilog="Example: astound same remix.mp3 original.flac")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@record_format
@_min_length_option(0.0, 4.0)
@click.pass_obj
def same(session: Session, first: str, second: str, form: str, min_length_s: float) -> None:
    """Compare two files: how alike they are, and which passages they share. Needs no catalog."""
    from rich.console import Console

    from astound.compare import compare

    device, model = session.device, session.model
    with Console(stderr=True).status("comparing"):
        comparison = compare(first, second, min_length_s=min_length_s, device=device, model=model)
    matches.write_comparison(*comparison, form, sys.stdout)


@click.command(epilog="Example: astound similar 12 -n 5")
@click.argument("key", metavar="ID|PATH")
@click.option(
    "-n", "--max-tracks", type=click.IntRange(1), default=10, show_default=True, metavar="N",
    help="N tracks at most.",
)  # fmt: skip
@record_format
@click.pass_obj
def similar(session: Session, key: str, max_tracks: int, form: str) -> None:
    """Show the tracks that sound most like a track of the catalog, or like any other file."""
    from rich.console import Console

    with session.open() as catalog, Console(stderr=True).status("comparing"):
        found = catalog.similar(track_key(key), max_tracks=max_tracks)
    comparisons.write_similar(found, form, sys.stdout)


@click.command(epilog="Example: astound dedup --delete --dry-run")
@record_format
@_min_length_option(2.0, DedupConfig.min_length_s)
@click.option("--full-only", is_flag=True, help="Look for full duplicates only; much quicker.")
@click.option("--delete", is_flag=True, help="Forget all full duplicates but those to keep.")
@click.option("--dry-run", is_flag=True, help="With --delete: only say what would be forgotten.")
@click.pass_obj
def dedup(
    session: Session,
    /,
    form: str,
    min_length_s: float,
    full_only: bool,
    delete: bool,
    dry_run: bool,
) -> None:
    """Find tracks that hold the same recording, in full or in part. Needs no audio."""
    from astound.output.counter import counted

    if dry_run and not delete:
        raise click.UsageError("--dry-run goes with --delete; without it nothing is forgotten")
    config = DedupConfig(min_length_s=min_length_s, full_only=full_only)
    with session.open() as catalog:
        with counted("comparing tracks") as show:
            found, clusters = catalog.dedup(config, on_progress=show)
        tracks = {track.id: track for track in catalog.tracks()}
        comparisons.write_duplicates(found, clusters, tracks, form, sys.stdout)
        if delete:
            others = sorted(other_id for one in clusters for other_id in one.other_ids)
            if not dry_run:
                catalog.delete(others)
            for other_id in others:
                say(f"{'would delete' if dry_run else 'deleted'} {matches.line(tracks[other_id])}")


@click.command(epilog="Example: astound repeats broadcast.mp3 --min-length 8")
@paths_argument
@list_option
@record_format
@_min_length_option(1.0, 5.0)
@click.pass_context
def repeats(
    ctx: click.Context,
    paths: tuple[str, ...],
    listed: IO[str] | None,
    form: str,
    min_length_s: float,
) -> None:
    """Find passages that are heard again, in one file or across several. Needs no catalog."""
    from astound.compare import recurrence
    from astound.output.counter import counted

    asked = list(clips(given(paths, listed)))
    failed: list[AudioError] = []

    def note(error: AudioError) -> None:
        failed.append(error)
        say(str(error))

    device, model = ctx.obj.device, ctx.obj.model
    with counted("listening") as show:
        found = recurrence(
            asked,
            min_length_s=min_length_s,
            device=device,
            model=model,
            on_error=note,
            on_progress=show,
        )
    comparisons.write_repeats(found, form, sys.stdout)
    ctx.exit(1 if failed else 0)


COMMANDS = (same, similar, dedup, repeats)
