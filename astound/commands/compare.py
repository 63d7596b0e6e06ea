"""The commands that compare recordings with each other: same, similar, dedup, repeats."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import IO

import click

from astound.commands.options import (
    Function,
    Session,
    echo_err,
    expand_folders,
    list_option,
    paths_argument,
    read_paths,
    record_format,
    track_key,
)
from astound.output import comparisons
from astound.output.progress import progress_bar, spinner
from astound.output.tracks import describe
from astound.results import MAX_SIMILAR_TRACKS
from engine.config import MIN_REPEAT_S, MIN_SHARED_S, DedupConfig
from engine.errors import AudioError


def _min_length_option(least_s: float, default_s: float) -> Callable[[Function], Function]:
    return click.option(
        "--min-length", "min_length_s", type=click.FloatRange(least_s), default=default_s,
        show_default=True, metavar="S", help="Minimum length of a passage in seconds.",
    )  # fmt: skip


@click.command(epilog="Example: astound same remix.mp3 original.flac")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@record_format
@_min_length_option(0.0, MIN_SHARED_S)
@click.pass_obj
def same(session: Session, first: str, second: str, form: str, min_length_s: float) -> None:
    """Compare two files: their similarity and the passages they share. Needs no catalog."""
    from astound.compare import compare

    device, model = session.device, session.model
    with spinner("comparing"):
        comparison = compare(first, second, min_length_s=min_length_s, device=device, model=model)
    comparisons.write_comparison(comparison, form, sys.stdout)


@click.command(epilog="Example: astound similar 12 -n 5")
@click.argument("key", metavar="ID|PATH")
@click.option(
    "-n", "--max-tracks", type=click.IntRange(1), default=MAX_SIMILAR_TRACKS, show_default=True,
    metavar="N", help="Maximum number of tracks.",
)  # fmt: skip
@record_format
@click.pass_obj
def similar(session: Session, key: str, max_tracks: int, form: str) -> None:
    """List the tracks that sound most like a track of the catalog or another file."""
    with session.open() as catalog, spinner("comparing"):
        tracks = catalog.similar(track_key(key), max_tracks=max_tracks)
    comparisons.write_similar(tracks, form, sys.stdout)


@click.command(epilog="Example: astound dedup --delete --dry-run")
@record_format
@_min_length_option(2.0, DedupConfig.min_length_s)
@click.option("--full-only", is_flag=True, help="Find full duplicates only; much faster.")
@click.option("--delete", is_flag=True, help="Remove all full duplicates but one of each.")
@click.option("--dry-run", is_flag=True, help="With --delete: only list what would be removed.")
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
    """Find tracks that contain the same recording, in full or in part. Needs no audio."""
    if dry_run and not delete:
        raise click.UsageError("--dry-run requires --delete")
    config = DedupConfig(min_length_s=min_length_s, full_only=full_only)
    with session.open() as catalog:
        with progress_bar("comparing tracks") as show:
            duplicates, clusters = catalog.dedup(config, on_progress=show)
        tracks = {track.id: track for track in catalog.tracks()}
        comparisons.write_duplicates(duplicates, clusters, tracks, form, sys.stdout)
        if delete:
            keepers = {id_: cluster for cluster in clusters for id_ in cluster.other_ids}
            if not dry_run:
                catalog.delete(keepers)
            for track_id, cluster in sorted(keepers.items()):
                verb = "would delete" if dry_run else "deleted"
                kept = f"kept {cluster.keeper_id}: {cluster.reason}"
                echo_err(f"{verb} {describe(tracks[track_id])}; {kept}")


@click.command(epilog="Example: astound repeats broadcast.mp3 --min-length 8")
@paths_argument
@list_option
@record_format
@_min_length_option(1.0, MIN_REPEAT_S)
@click.pass_context
def repeats(
    ctx: click.Context,
    paths: tuple[str, ...],
    list_file: IO[bytes] | None,
    form: str,
    min_length_s: float,
) -> None:
    """Find passages that occur more than once, in one file or across several. Needs no catalog."""
    from astound.compare import find_repeats

    files = list(expand_folders(read_paths(paths, list_file)))
    failed: list[AudioError] = []

    def report(error: AudioError) -> None:
        failed.append(error)
        echo_err(str(error))

    device, model = ctx.obj.device, ctx.obj.model
    with progress_bar("comparing") as show:
        result = find_repeats(
            files,
            min_length_s=min_length_s,
            device=device,
            model=model,
            on_error=report,
            on_progress=show,
        )
    comparisons.write_repeats(result, form, sys.stdout)
    ctx.exit(1 if failed else 0)
