"""The command that tells what an answer rests on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from astound.commands.options import Session, say, track_key
from astound.output.explanations import EXPLAIN_FORMATS, write_explanation


@click.command(epilog="Example: astound explain clip.wav -o why.png")
@click.argument("clip", metavar="CLIP")
@click.option(
    "--format", "form", type=click.Choice(EXPLAIN_FORMATS), default="text", show_default=True,
    help="How to write the result.",
)  # fmt: skip
@click.option(
    "--track", metavar="ID|PATH", help="The track to look into, found or not; else the best one."
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw a picture too."
)
@click.option("--start", "start_s", type=click.FloatRange(0), metavar="S", help="From second S.")
@click.option("--end", "end_s", type=click.FloatRange(0), metavar="S", help="Up to second S.")
@click.pass_obj
def explain(
    session: Session, /, clip: str, form: str, track: str | None, out: Path | None, **part: Any
) -> None:
    """Say why a clip did or did not match: what decided, what came near, where it agrees."""
    from rich.console import Console

    chosen = {key: value for key, value in part.items() if value is not None}
    if chosen.get("end_s", float("inf")) <= chosen.get("start_s", 0.0):
        raise click.UsageError("--end must come after --start")
    if out is not None:
        from astound.output.plots import draw
        from engine.figure import begin

        begin(out)  # it must not fail after the work
    asked = None if track is None else track_key(track)
    with session.open() as catalog, Console(stderr=True).status("looking into it"):
        explanation = catalog.explain(clip, track=asked, **chosen)
    if out is not None and explanation.subject is None:
        say(f"{out}: not drawn; no track resembles the clip")
    elif out is not None:
        draw(explanation, out)
        say(f"drawn: {out}")
    write_explanation(explanation, form, sys.stdout)


COMMANDS = (explain,)
