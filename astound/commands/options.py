"""Options, arguments and helpers that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

import click

import astound
from astound.commands.lists import read_list
from astound.output.terminal import RECORD_FORMATS, SAFE_CSV, cell
from engine.validation import parse_time

if TYPE_CHECKING:
    from astound.catalog import Catalog

Function = TypeVar("Function", bound=Callable[..., Any])

EXIT_INTERRUPTED = 130
FOLDER = click.Path(path_type=Path, file_okay=False)

_LIST = click.File("rb")


def time_option(text: str | float) -> float:
    """Parse a time as :func:`engine.validation.parse_time`; the type of an option.

    Raises
    ------
    click.BadParameter
        The text is no time.
    """
    try:
        return parse_time(str(text))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@dataclass(frozen=True)
class Session:
    """The global options, which precede the command."""

    folder: Path
    device: Literal["auto", "cpu", "cuda"]
    model: Path | None

    def open(self, *, create: bool = False, database: str | None = None) -> Catalog:
        """Open the catalog."""
        return astound.open(
            self.folder, device=self.device, model=self.model, create=create, database=database
        )


paths_argument = click.argument("paths", nargs=-1, metavar="PATH...")
list_option = click.option(
    "--list",
    "list_file",
    type=_LIST,
    metavar="FILE",
    help="Read more paths from FILE: one a line, ended by NUL bytes, or a playlist.",
)
database_option = click.option(
    "--database", metavar="URL", help="Postgres database for a new catalog."
)


def format_option(choices: Iterable[str]) -> Callable[[Function], Function]:
    """Make the option --format, and --safe-csv if CSV is one of the formats."""
    names = list(choices)
    option = click.option(
        "--format",
        "form",
        type=click.Choice(names),
        default="table",
        show_default=True,
        help="Output format.",
    )
    return (lambda command: option(_safe_csv(command))) if "csv" in names else option


def _set_safe_csv(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    token = SAFE_CSV.set(value)
    ctx.call_on_close(lambda: SAFE_CSV.reset(token))


_safe_csv = click.option(
    "--safe-csv",
    is_flag=True,
    expose_value=False,
    callback=_set_safe_csv,
    help="Put ' before CSV text that begins with = + - @, which a spreadsheet would run.",
)


record_format = format_option(RECORD_FORMATS)


def storage_kind(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Translate the value of ``--storage`` to its name in a shard; a callback of the option."""
    return "codes" if value == "compact" else value


storage_option = click.option(
    "--storage",
    type=click.Choice(["full", "compact"]),
    callback=storage_kind,
    help="Store exact vectors, or codes only at a third of the bytes; unchanged by default.",
)


def drop_unset(options: Mapping[str, Any]) -> dict[str, Any]:
    """Drop options that were not set, so that the defaults of the called function apply."""
    return {key: value for key, value in options.items() if value is not None}


def echo_err(message: str) -> None:
    """Print a message on stderr."""
    click.echo(f"astound: {cell(message)}", err=True)


def echo(line: object) -> None:
    """Print a line on stdout; text from files cannot control the terminal."""
    click.echo(cell(line))


def read_paths(paths: Iterable[str], list_file: IO[bytes] | None) -> list[str]:
    """Join the paths of the command line and of lists.

    Parameters
    ----------
    paths : iterable of str
        ``-`` stands for a list on stdin.
    list_file : binary file, optional
        The list of --list.

    Raises
    ------
    click.UsageError
        There is neither a path nor a list.
    ConfigError
        A list is not one that :func:`astound.commands.lists.read_list` reads.
    """
    joined: list[str] = []
    for path in paths:
        joined += read_list(_LIST.convert("-", None, None)) if path == "-" else [path]
    if list_file is not None:
        joined += read_list(list_file)
    elif not paths:
        raise click.UsageError("give at least one PATH, --list FILE, or - for a list on stdin")
    return joined


def expand_folders(paths: Iterable[str]) -> Iterator[str]:
    """Replace each folder by the audio files in it, named relative to the same base."""
    from indexer.discover import discover

    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        file = None
        for file in discover([path]):
            yield os.path.join(path, os.path.relpath(file.path, path))
        if file is None:
            echo_err(f"{path}: folder contains no audio files")


def track_key(text: str) -> int | str:
    """Parse ID|PATH: digits are a track id, anything else is a path."""
    return int(text) if text.isdecimal() else text
