"""The commands that read and change single tracks: list, show, stats, delete, update."""

from __future__ import annotations

import os
import sys
from typing import IO, Any

import click

from astound.commands.options import (
    Session,
    drop_unset,
    echo,
    list_option,
    read_paths,
    record_format,
    track_key,
)
from astound.output.tracks import describe, write_stats, write_track, write_tracks


@click.command("list", epilog="Example: astound list --format csv > tracks.csv")
@record_format
@click.pass_obj
def list_tracks(session: Session, form: str) -> None:
    """List all tracks."""
    with session.open() as catalog:
        write_tracks(catalog.tracks(), form, sys.stdout)


@click.command(epilog="Example: astound show 12")
@click.argument("key", metavar="ID|PATH")
@record_format
@click.pass_obj
def show(session: Session, key: str, form: str) -> None:
    """Show the tags and metadata of a track."""
    with session.open() as catalog:
        write_track(catalog.track(track_key(key)), form, sys.stdout)


@click.command(epilog="Example: astound stats")
@record_format
@click.pass_obj
def stats(session: Session, form: str) -> None:
    """Count tracks, hours, segments and bytes."""
    with session.open() as catalog:
        write_stats(catalog.stats(), form, sys.stdout)


@click.command(epilog="Example: astound delete 12 music/old.ogg")
@click.argument("keys", nargs=-1, metavar="ID|PATH...")
@list_option
@click.pass_obj
def delete(session: Session, keys: tuple[str, ...], list_file: IO[bytes] | None) -> None:
    """Remove tracks from the catalog; their files are not touched.

    PATH - reads a list from stdin. If one of the tracks does not exist, none is removed.
    """
    listed = read_paths(keys, list_file)
    with session.open() as catalog:
        for track in catalog.delete(map(track_key, listed)):
            echo(f"deleted {describe(track)}")


@click.command(epilog='Example: astound update 12 --title "Quiet Rain" --set mood=calm')
@click.argument("key", metavar="ID|PATH")
@click.option("--title", help="Title; an empty value removes it.")
@click.option("--artist", help="Artist.")
@click.option("--album", help="Album.")
@click.option("--isrc", help="International Standard Recording Code.")
@click.option("--path", help="New location of the file.")
@click.option(
    "--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Any other key; repeatable."
)
@click.pass_obj
def update(session: Session, /, key: str, pairs: tuple[str, ...], **tags: str | None) -> None:
    """Change the tags and metadata of a track."""
    changes: dict[str, Any] = drop_unset(tags)
    if pairs:
        changes["metadata"] = dict(_key_and_value(pair) for pair in pairs)
    if not changes:
        raise click.UsageError("nothing to change; astound update --help lists the options")
    if changes.get("path"):
        changes["path"] = os.path.abspath(changes["path"])
    with session.open() as catalog:
        echo(f"updated {describe(catalog.update(track_key(key), **changes))}")


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
    return key, value
