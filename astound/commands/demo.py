"""The command `astound demo`."""

from __future__ import annotations

from pathlib import Path

import click

from astound.commands.options import FOLDER, Session


@click.command(epilog="Example: astound demo --folder tour")
@click.option("--folder", type=FOLDER, metavar="DIR", help="Keep the music and the catalog there.")
@click.option(
    "--tunes", "n_tunes", type=click.IntRange(1, 900), default=24, show_default=True, metavar="N",
    help="Number of tunes to compose.",
)  # fmt: skip
@click.pass_obj
def demo(session: Session, folder: Path | None, n_tunes: int) -> None:
    """Take a tour: compose a small library, degrade clips of it, and identify them."""
    from astound.demo.tour import tour

    tour(folder, n_tunes, device=session.device, model=session.model)
