"""The commands on a catalog as a whole: verify, compact, backup, merge, export, import."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from astound.commands.options import (
    Session,
    database_option,
    echo,
    echo_err,
    list_option,
    read_paths,
    storage_option,
    track_key,
)
from astound.output.progress import progress_bar
from astound.output.terminal import counted
from astound.output.tracks import describe
from engine.errors import AstoundError, CatalogBusyError

if TYPE_CHECKING:
    from astound.catalog import Catalog
    from engine.vectors.quantizer import Storage
    from indexer.merge import MergeReport


@click.command(epilog="Example: astound verify && echo safe")
@click.option(
    "--repair", is_flag=True, help="Repair damage; remove tracks whose files are gone as well."
)
@click.pass_context
def verify(ctx: click.Context, repair: bool) -> None:
    """Check every shard against the database and its own hashes; exit 1 if there are problems."""
    with ctx.obj.open() as catalog:
        is_sound = (_repair if repair else _check)(catalog)
        counts = catalog.stats()
    if is_sound:
        found = counted(counts.n_tracks, "track"), counted(counts.n_shards, "shard")
        echo(f"no problems: {', '.join(found)}")
    ctx.exit(0 if is_sound else 1)


def _check(catalog: Catalog) -> bool:
    with progress_bar("checking") as show:
        problems = catalog.verify(on_progress=show)
    for line in dict.fromkeys([*problems, *catalog.notices()]):
        echo(line)
    return not problems


def _repair(catalog: Catalog) -> bool:
    with progress_bar("repairing") as show:
        report = catalog.repair(on_progress=show)
    for problem in report.problems:
        echo(problem)
    if report.swept:
        echo(f"cleared {counted(len(report.swept), 'shard')} left behind by a crash")
    for track in report.restored:
        echo(f"restored {describe(track)}")
    for lost in report.lost:
        echo(lost)
    for track in report.repaired:
        echo(f"repaired {describe(track)}")
    for removed in report.removed:
        echo(f"removed {describe(removed.track)}: {removed.reason}")
    for problem in report.remaining:
        echo(f"not repaired: {problem}")
    return not (report.removed or report.remaining)


@click.command(epilog="Example: astound compact")
@storage_option
@click.pass_obj
def compact(session: Session, storage: Storage | None) -> None:
    """Join small shards into large ones and drop the vectors of deleted tracks."""
    with session.open() as catalog, progress_bar("compacting") as show:
        report = catalog.compact(storage, on_progress=show)
    echo(
        f"shards {report.n_shards_before} → {report.n_shards}, "
        f"{report.n_bytes_before / 1e6:.1f} → {report.n_bytes / 1e6:.1f} MB, "
        f"dropped {report.n_dropped} segments of deleted tracks"
    )


@click.command(epilog="Example: astound backup /mnt/disk/catalog")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER")
@click.pass_obj
def backup(session: Session, folder: Path) -> None:
    """Copy the catalog to a folder, or bring an earlier copy there up to date.

    The catalog may be served and changed meanwhile. The copy is a catalog itself; of the audio, it
    has what was uploaded to a service.
    """
    with session.open() as catalog, progress_bar("copying") as show:
        report = catalog.backup(folder, on_progress=show)
    n = report.n_recordings
    recordings = f", and {counted(n, 'recording')}" if n else ""
    echo(
        f"{counted(report.n_tracks, 'track')} in {counted(report.n_shards, 'shard')}"
        f"{recordings}; shards copied: {report.n_copied} ({report.n_bytes / 1e6:.1f} MB)"
    )


@click.command(epilog="Example: astound merge /mnt/laptop/catalog")
@click.argument("catalogs", nargs=-1, required=True, metavar="CATALOG...")
@database_option
@click.pass_context
def merge(ctx: click.Context, catalogs: tuple[str, ...], database: str | None) -> None:
    """Copy the tracks of other catalogs into this one, without their audio.

    Creates the catalog if it does not exist. Content that is already in it is skipped, so an
    interrupted run can be resumed by repeating the command.
    """
    with ctx.obj.open(create=True, database=database) as catalog:
        _merge_all(ctx, catalog.merge, catalogs, "merging", "merged")


@click.command("import", epilog="Example: astound import music.astound")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@database_option
@click.pass_context
def import_files(ctx: click.Context, files: tuple[str, ...], database: str | None) -> None:
    """Copy the tracks of files written by `astound export` into the catalog.

    Creates the catalog if it does not exist. Content that is already in it is skipped, so an
    interrupted run can be resumed by repeating the command.
    """
    with ctx.obj.open(create=True, database=database) as catalog:
        _merge_all(ctx, catalog.import_, files, "importing", "imported")


def _merge_all(
    ctx: click.Context,
    merge_one: Callable[..., MergeReport],
    sources: Sequence[str],
    doing: str,
    done: str,
) -> None:
    """Merge several sources; one that fails does not stop the others."""
    n_merged = n_skipped = n_failed = 0
    for source in sources:
        try:
            with progress_bar(doing) as show:
                report = merge_one(source, on_progress=show)
        except CatalogBusyError:
            raise
        except AstoundError as error:
            echo_err(str(error))
            n_failed += 1
            continue
        for track in report.renamed:
            echo_err(
                f"{track.path} is another recording in this catalog; added as {track.new_path}"
            )
        n_merged += report.n_merged
        n_skipped += report.n_skipped
    counts = f"{done} {n_merged}, skipped {n_skipped}"
    echo(counts + (f", failed {n_failed}" if n_failed else ""))
    ctx.exit(1 if n_failed else 0)


@click.command(epilog="Example: astound export music.astound")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("keys", nargs=-1, metavar="[ID|PATH]...")
@list_option
@click.pass_obj
def export(
    session: Session, file: Path, keys: tuple[str, ...], list_file: IO[bytes] | None
) -> None:
    """Write fingerprints and metadata to one file, without the audio.

    Writes all tracks, or those named; PATH - reads a list from stdin.
    """
    listed = read_paths(keys, list_file) if keys or list_file else None
    with session.open() as catalog, progress_bar("exporting") as show:
        chosen = None if listed is None else map(track_key, listed)
        n_tracks = catalog.export(file, chosen, on_progress=show)
    echo(f"exported {n_tracks}")
