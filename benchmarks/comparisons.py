"""The benchmarks that compare astound with other systems, or run the tests they publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from astound.commands.options import FOLDER
from benchmarks.options import (
    PATH,
    Decorator,
    device,
    given,
    jobs,
    listed,
    model_option,
    n_queries,
    number,
    references,
    seed,
    show,
    together,
)

_DIR = click.Path(path_type=Path, exists=True, file_okay=False)
_LIST = click.Path(path_type=Path, exists=True, dir_okay=False)
out_folder = click.option(
    "--out", required=True, type=FOLDER, metavar="DIR",
    help="For catalog and results; a run cut short goes on.",
)  # fmt: skip


def folder(name: str, text: str) -> Decorator:
    """Make an option that takes one folder."""
    return click.option(name, required=True, type=_DIR, metavar="DIR", help=text)


def _named(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = [one.partition("=") for one in given]
    if wrong := [name for name, sign, command in pairs if not (name and sign and command)]:
        raise click.BadParameter(f"{wrong[0]!r} is no NAME=COMMAND such as olaf=/opt/bin/olaf")
    return {name: command for name, _, command in pairs}


@click.command(epilog="Example: astound bench peers --references music --noise n --out compared")
@references
@click.option("--noise", type=PATH, metavar="DIR", help="Noises; without, none are measured.")
@click.option("--rooms", type=PATH, metavar="DIR", help="Room responses; without, as for noises.")
@out_folder
@click.option(
    "--peers", callback=listed(str, "astound,olaf"), metavar="NAME,NAME,...",
    help="Of astound, chromaprint, audfprint, audfprint-mirex, olaf; all by default.",
)  # fmt: skip
@click.option(
    "--command", "commands", multiple=True, callback=_named, metavar="NAME=COMMAND",
    help="How to call a program that is not on the PATH; repeatable.",
)  # fmt: skip
@n_queries
@click.option(
    "--hold-out", type=click.FloatRange(0, 1, max_open=True), metavar="SHARE",
    help="Share of the references that nobody gets and that is asked for as absent music.",
)  # fmt: skip
@together(seed, jobs, model_option, device)
def peers(**options: Any) -> None:
    """Compare astound with other systems: same recordings, same queries, same machine."""
    from benchmarks.suites.peers import PeersConfig, run

    show(run(PeersConfig(**given(options))))


@click.command(epilog="Example: astound bench nafp --data neural-audio-fp-dataset --out measured")
@folder("--data", "The data set, or a folder with query, db and dummy.")
@out_folder
@click.option("--test-ids", type=_LIST, metavar="FILE.npy", help="Where queries begin.")
@number("--n-queries", "How many to draw where there is no file of ids.")
@together(seed, model_option, device, jobs)
def nafp(**options: Any) -> None:
    """Run the test of "Neural Audio Fingerprint": top-1 exact, near and song for 1 to 10 s."""
    from benchmarks.protocols.nafp import NafpConfig, run

    show(run(NafpConfig(**given(options))))


@click.command(epilog="Example: astound bench pex --annotations annotations.csv "
               "--references references --queries queries --out measured")  # fmt: skip
@click.option(
    "--annotations", required=True, type=_LIST, metavar="FILE.csv", help="Of the toolkit."
)
@folder("--references", "Recordings, named by their ids.")
@folder("--queries", "Queries, named by their ids.")
@together(out_folder, model_option, device, jobs)
def pex(**options: Any) -> None:
    """Run the Pex audio fingerprinting benchmark: precision, recall and F, files and segments."""
    from benchmarks.protocols.pex import PexConfig, run

    show(run(PexConfig(**given(options))))


@click.command(epilog="Example: astound bench mirex --references database --queries clips "
               "--list truth.txt --out measured")  # fmt: skip
@folder("--references", "Recordings.")
@folder("--queries", "Clips.")
@click.option(
    "--list", required=True, type=_LIST, metavar="FILE", help="A clip and its recording a line."
)
@together(out_folder, model_option, device, jobs)
def mirex(**options: Any) -> None:
    """Run the audio fingerprinting task of MIREX: top-1 hit rate."""
    from benchmarks.protocols.mirex import MirexConfig, run

    show(run(MirexConfig(**given(options))))
