"""The commands that look after a catalog: what is in it, what leaves it, whether it is well."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from astound import formats
from astound.options import Session, record_format, track_key


@click.command("list", epilog="Example: astound list --format csv > tracks.csv")
@record_format
@click.pass_obj
def list_tracks(session: Session, form: str) -> None:
    """List all tracks."""
    with session.open() as catalog:
        formats.write_tracks(catalog.tracks(), form, sys.stdout)


@click.command(epilog="Example: astound show 12")
@click.argument("key", metavar="ID|PATH")
@record_format
@click.pass_obj
def show(session: Session, key: str, form: str) -> None:
    """Show all that is known of one track."""
    with session.open() as catalog:
        formats.write_track(catalog.track(track_key(key)), form, sys.stdout)


@click.command(epilog="Example: astound stats")
@record_format
@click.pass_obj
def stats(session: Session, form: str) -> None:
    """Count tracks, hours, segments and bytes."""
    with session.open() as catalog:
        formats.write_stats(catalog.stats(), form, sys.stdout)


@click.command(epilog="Example: astound delete 12 music/old.ogg")
@click.argument("keys", nargs=-1, required=True, metavar="ID|PATH...")
@click.pass_obj
def delete(session: Session, keys: tuple[str, ...]) -> None:
    """Forget tracks; their files stay. Nothing is deleted unless all are known."""
    with session.open() as catalog:
        for track in catalog.delete(map(track_key, keys)):
            click.echo(f"deleted {formats.line(track)}")


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
        click.echo(f"updated {formats.line(catalog.update(track_key(key), **changes))}")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
    return key, value


@click.command(epilog="Example: astound verify && echo safe")
@click.pass_context
def verify(ctx: click.Context) -> None:
    """Check every shard against the database and its own hashes; exit 1 if something is wrong."""
    with ctx.obj.open() as catalog:
        problems, counts = catalog.verify(), catalog.stats()
    for problem in problems:
        click.echo(problem)
    if not problems:
        click.echo(f"all well: tracks {counts.n_tracks}, shards {counts.n_shards}")
    ctx.exit(1 if problems else 0)


COMMANDS = (list_tracks, show, stats, delete, update, verify)
