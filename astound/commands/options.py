"""What commands share: the session, arguments that take files, and the option --format."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

import click

import astound
from astound.output import matches

if TYPE_CHECKING:
    from astound.catalog import Catalog

Function = TypeVar("Function", bound=Callable[..., Any])

# A list may hold names that are not UTF-8.
_LIST = click.File(encoding="utf-8", errors="surrogateescape")


@dataclass(frozen=True)
class Session:
    """The options that stand before the command."""

    folder: Path
    device: Literal["auto", "cpu", "cuda"]
    model: Path | None

    def open(self, *, create: bool = False, database: str | None = None) -> Catalog:
        """Open the catalog all commands work on."""
        return astound.open(
            self.folder, device=self.device, model=self.model, create=create, database=database
        )


FOLDER = click.Path(path_type=Path, file_okay=False)

paths_argument = click.argument("paths", nargs=-1, metavar="PATH...")
list_option = click.option(
    "--list", "listed", type=_LIST, metavar="FILE", help="Also the paths in FILE, one a line."
)


def format_option(choices: Iterable[str]) -> Callable[[Function], Function]:
    """Make the option --format."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(list(choices)),
        default="table",
        show_default=True,
        help="How to write the result.",
    )


record_format = format_option(matches.RECORD_FORMATS)


def say(message: str) -> None:
    """Tell the person, on stderr."""
    click.echo(f"astound: {message}", err=True)


def given(paths: tuple[str, ...], listed: IO[str] | None) -> list[str]:
    """Put the paths of lists beside the others; a usage error when nothing was given."""
    if not paths and listed is None:
        raise click.UsageError("give at least one PATH, --list FILE, or - for a list on stdin")
    found: list[str] = []
    for path in paths:
        found += matches.read_list(_LIST.convert("-", None, None)) if path == "-" else [path]
    return found + (matches.read_list(listed) if listed else [])


def clips(paths: Iterable[str]) -> Iterator[str]:
    """Replace folders by the audio files in them, named as the folder was."""
    from indexer.discover import scan

    for path in paths:
        if os.path.isdir(path):
            found = None
            for found in scan([path]):
                yield os.path.join(path, os.path.relpath(found.path, path))
            if found is None:
                say(f"{path}: no audio files in it")
        else:
            yield path


def track_key(text: str) -> int | str:
    """Read ID|PATH: digits are the id of a track, anything else its path."""
    return int(text) if text.isdecimal() else text
