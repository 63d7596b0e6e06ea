"""Options that several benchmarks take, and how they become a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from astound.commands.options import FOLDER

PATH = click.Path(path_type=Path, exists=True)
FILE = click.Path(path_type=Path, dir_okay=False)
Decorator = Callable[[Any], Any]


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what was not given, so that the defaults of the configuration hold.

    A device that was not named is the one named before the command.
    """
    chosen = {key: value for key, value in options.items() if value not in (None, ())}
    session = click.get_current_context().obj
    if "device" in options and session is not None:
        chosen.setdefault("device", session.device)
    return chosen


def show(results: Mapping[str, Any]) -> None:
    """Write the tables of a measurement to stdout."""
    click.echo("\n\n".join([results["table"], *results.get("tables", {}).values()]))


def folders(name: str, text: str, *, required: bool = False) -> Decorator:
    """Make an option that takes folders or files and may be repeated."""
    text = f"{text}; repeatable."
    return click.option(name, multiple=True, required=required, type=PATH, metavar="DIR", help=text)


def number(name: str, text: str, low: int = 1, key: str | None = None) -> Decorator:
    """Make an option that takes a whole number."""
    names = (name, key) if key else (name,)
    return click.option(*names, type=click.IntRange(low), metavar="N", help=text)


references = folders("--references", "Music to ask for", required=True)
distractors = folders("--distractors", "More music for the catalog, never asked for")
seed = number("--seed", "Decides all that is random.", low=0)
n_queries = number("--n-queries", "Queries of each kind.")
jobs = number("--jobs", "Decode N files at a time.")
noise = click.option("--noise", required=True, type=PATH, metavar="DIR", help="Noises.")
rooms = click.option("--rooms", required=True, type=PATH, metavar="DIR", help="Room responses.")
catalog = click.option(
    "--catalog", required=True, type=FOLDER, metavar="DIR", help="Where to open or create it."
)
model_option = click.option(
    "--model", type=PATH, metavar="FILE", help="Weights to encode with, not those astound ships."
)
device = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), help="What encodes audio."
)
out_file = click.option(
    "--out", required=True, type=FILE, metavar="FILE.json", help="Where to write the results."
)


def listed(convert: Callable[[str], Any], example: str) -> Callable[..., tuple[Any, ...]]:
    """Make what reads an option of several numbers."""

    def read(_: click.Context, __: click.Parameter, text: str | None) -> tuple[Any, ...]:
        try:
            return tuple(convert(one.replace("_", "")) for one in text.split(",")) if text else ()
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is no list of numbers such as {example}") from error

    return read


distortions = click.option(
    "--distortions",
    metavar="NAME,NAME,...",
    help="What to do to queries, such as noise0,mp3-32k,speed±8; or quick, issue, encoder, full.",
)
durations = click.option(
    "--durations", "durations_s", callback=listed(float, "2,5"), metavar="S,S,...",
    help="Lengths of the queries, in seconds.",
)  # fmt: skip


def together(*options: Decorator) -> Decorator:
    """Put options together; they show in the order given."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
