"""The commands that compare recordings with each other."""

from __future__ import annotations

import sys

import click

from astound import formats
from astound.options import Session, record_format


@click.command(epilog="Example: astound same remix.mp3 original.flac")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@record_format
@click.option(
    "--min-length", "min_length_s", type=click.FloatRange(0), default=4.0, show_default=True,
    metavar="S", help="Seconds of the shortest passage.",
)  # fmt: skip
@click.pass_obj
def same(session: Session, first: str, second: str, form: str, min_length_s: float) -> None:
    """Compare two files: how alike they are, and which passages they share. Needs no catalog."""
    from rich.console import Console

    from astound.comparison import compare

    device, model = session.device, session.model
    with Console(stderr=True).status("comparing"):
        comparison = compare(first, second, min_length_s=min_length_s, device=device, model=model)
    formats.write_comparison(*comparison, form, sys.stdout)


COMMANDS = (same,)
