"""The commands that look after a catalog: what is in it, what leaves it, whether it is well."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from astound.commands.options import Session, given, list_option, record_format, say, track_key
from astound.output import matches
from astound.output.counter import counted
from engine.errors import AstoundError, CatalogBusyError

if TYPE_CHECKING:
    from astound.catalog import Catalog
    from engine.vectors.quantizer import Storage
    from indexer.merge import TakeoverReport

keys_argument = click.argument("keys", nargs=-1, metavar="ID|PATH...")
database_option = click.option(
    "--database", metavar="URL", help="Postgres database for a new catalog."
)


@click.command("list", epilog="Example: astound list --format csv > tracks.csv")
@record_format
@click.pass_obj
def list_tracks(session: Session, form: str) -> None:
    """List all tracks."""
    with session.open() as catalog:
        matches.write_tracks(catalog.tracks(), form, sys.stdout)


@click.command(epilog="Example: astound show 12")
@click.argument("key", metavar="ID|PATH")
@record_format
@click.pass_obj
def show(session: Session, key: str, form: str) -> None:
    """Show all that is known of one track."""
    with session.open() as catalog:
        matches.write_track(catalog.track(track_key(key)), form, sys.stdout)


@click.command(epilog="Example: astound stats")
@record_format
@click.pass_obj
def stats(session: Session, form: str) -> None:
    """Count tracks, hours, segments and bytes."""
    with session.open() as catalog:
        matches.write_stats(catalog.stats(), form, sys.stdout)


@click.command(epilog="Example: astound delete 12 music/old.ogg")
@keys_argument
@list_option
@click.pass_obj
def delete(session: Session, keys: tuple[str, ...], listed: IO[str] | None) -> None:
    """Forget tracks, - is a list on stdin; their files stay.

    Nothing is deleted unless all are known.
    """
    asked = given(keys, listed)
    with session.open() as catalog:
        for track in catalog.delete(map(track_key, asked)):
            click.echo(f"deleted {matches.line(track)}")


@click.command(epilog='Example: astound update 12 --title "Quiet Rain" --set mood=calm')
@click.argument("key", metavar="ID|PATH")
@click.option("--title", help="Its title; an empty value removes what was noted.")
@click.option("--artist", help="Its artist.")
@click.option("--album", help="Its album.")
@click.option("--isrc", help="Its International Standard Recording Code.")
@click.option("--path", help="Where its file lies now.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Anything else.")
@click.pass_obj
def update(session: Session, /, key: str, pairs: tuple[str, ...], **tags: str | None) -> None:
    """Change what is noted about a track."""
    changes: dict[str, Any] = {name: text for name, text in tags.items() if text is not None}
    if pairs:
        changes["metadata"] = dict(_pair(pair) for pair in pairs)
    if not changes:
        raise click.UsageError("say what to change; astound update --help shows the options")
    if changes.get("path"):
        changes["path"] = os.path.abspath(changes["path"])
    with session.open() as catalog:
        click.echo(f"updated {matches.line(catalog.update(track_key(key), **changes))}")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
    return key, value


@click.command(epilog="Example: astound verify && echo safe")
@click.option(
    "--repair", is_flag=True, help="Mend it; tracks whose files are gone too are forgotten."
)
@click.pass_context
def verify(ctx: click.Context, repair: bool) -> None:
    """Check every shard against the database and its own hashes; exit 1 if something is wrong."""
    with ctx.obj.open() as catalog:
        is_well = (_mend if repair else _check)(catalog)
        counts = catalog.stats()
    if is_well:
        click.echo(f"all well: tracks {counts.n_tracks}, shards {counts.n_shards}")
    ctx.exit(0 if is_well else 1)


def _check(catalog: Catalog) -> bool:
    with counted("checking") as show:
        problems = catalog.verify(on_progress=show)
    for problem in problems:
        click.echo(problem)
    return not problems


def _mend(catalog: Catalog) -> bool:
    with counted("repairing") as show:
        report = catalog.repair(on_progress=show)
    for problem in report.problems:
        click.echo(problem)
    if report.swept:
        click.echo(f"swept {len(report.swept)} shards that a crash had left behind")
    for track in report.repaired:
        click.echo(f"repaired {matches.line(track)}")
    for one in report.forgotten:
        click.echo(f"forgotten {matches.line(one.track)}: {one.reason}")
    return not report.forgotten


@click.command(epilog="Example: astound compact")
@click.option(
    "--storage",
    type=click.Choice(["full", "compact"]),
    help="Keep exact vectors, or codes only: a third of the bytes. As it was by default.",
)
@click.pass_obj
def compact(session: Session, storage: Storage | None) -> None:
    """Join small shards to large ones, and drop what belongs to deleted tracks."""
    with session.open() as catalog, counted("compacting") as show:
        report = catalog.compact(storage, on_progress=show)
    click.echo(
        f"shards {report.n_shards_before} → {report.n_shards}, "
        f"{report.n_bytes_before / 1e6:.1f} → {report.n_bytes / 1e6:.1f} MB, "
        f"dropped {report.n_dropped} segments of deleted tracks"
    )


@click.command(epilog="Example: astound merge /mnt/laptop/catalog")
@click.argument("catalogs", nargs=-1, required=True, metavar="CATALOG...")
@database_option
@click.pass_context
def merge(ctx: click.Context, catalogs: tuple[str, ...], database: str | None) -> None:
    """Take over the tracks of other catalogs, without their audio; the catalog is made if new.

    What is known is skipped, so an interrupted run goes on when it is repeated.
    """
    with ctx.obj.open(create=True, database=database) as catalog:
        _take_over(ctx, catalog.merge, catalogs, "merging")


@click.command("import", epilog="Example: astound import music.astound")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@database_option
@click.pass_context
def import_files(ctx: click.Context, files: tuple[str, ...], database: str | None) -> None:
    """Take over the tracks of files that export wrote; the catalog is made if there is none.

    What is known is skipped, so an interrupted run goes on when it is repeated.
    """
    with ctx.obj.open(create=True, database=database) as catalog:
        _take_over(ctx, catalog.import_, files, "importing")


def _take_over(
    ctx: click.Context, take_over: Callable[..., TakeoverReport], sources: Sequence[str], doing: str
) -> None:
    """Take over several sources; one that fails does not stop the others."""
    n_merged = n_skipped = n_failed = 0
    for source in sources:
        try:
            with counted(doing) as show:
                report = take_over(source, on_progress=show)
        except CatalogBusyError:
            raise
        except AstoundError as error:
            say(str(error))
            n_failed += 1
            continue
        for one in report.renamed:
            say(f"{one.path} is another recording here; taken over as {one.new_path}")
        n_merged += report.n_merged
        n_skipped += report.n_skipped
    counts = f"merged {n_merged}, skipped {n_skipped}"
    click.echo(counts + (f", failed {n_failed}" if n_failed else ""))
    ctx.exit(1 if n_failed else 0)


@click.command(epilog="Example: astound export music.astound")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("keys", nargs=-1, metavar="[ID|PATH]...")
@list_option
@click.pass_obj
def export(session: Session, file: Path, keys: tuple[str, ...], listed: IO[str] | None) -> None:
    """Write fingerprints to one file, without the audio; all, or of some tracks, - is a list."""
    asked = given(keys, listed) if keys or listed else None
    with session.open() as catalog, counted("exporting") as show:
        chosen = None if asked is None else map(track_key, asked)
        n_tracks = catalog.export(file, chosen, on_progress=show)
    click.echo(f"exported {n_tracks}")


COMMANDS = (list_tracks, show, stats, delete, update, verify, compact, merge, import_files, export)
