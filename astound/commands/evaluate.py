"""The commands that measure a catalog on its own music, and set its threshold by it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from astound.commands.options import Session, record_format, say

Function = TypeVar("Function", bound=Callable[..., Any])

# Of a share that shall be p, this many / p clips tell a little.
_TELLING = 3
# What clips of one track say of music that is not there is much the same.
_FEW_TRACKS = 30

_SOUNDS = click.Path(path_type=Path, file_okay=False, exists=True)


def _shared_options(n_queries: str) -> Callable[[Function], Function]:
    """Make the options --queries, --noise, --rooms and --seed."""
    options = (
        click.option("--queries", "n_queries", type=click.IntRange(1), metavar="N", help=n_queries),
        click.option("--noise", type=_SOUNDS, metavar="DIR", help="Folder of recorded noise."),
        click.option(
            "--rooms", type=_SOUNDS, metavar="DIR", help="Folder of room impulse responses."
        ),
        click.option(
            "--seed", type=click.IntRange(0), metavar="N", help="Decides all that is random."
        ),
    )

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@click.command(epilog="Example: astound calibrate --noise noises -o reliability.png")
@click.option(
    "--false-accepts", "false_accept_rate", metavar="P",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of clips of unknown music that may get a match.",
)  # fmt: skip
@_shared_options("Number of clips; more tell more.")
@click.option("--speech", type=_SOUNDS, metavar="DIR", help="Folder of recorded speech.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="PICTURE",
    help="Draw the reliability diagram.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Tell, but keep nothing.")
@click.pass_obj
def calibrate(session: Session, /, out: Path | None, dry_run: bool, **options: Any) -> None:
    """Fit confidences and the threshold to the catalog's own music; later commands use them.

    Clips of its tracks are degraded and asked for, with and without their tracks in the catalog.
    """
    from astound.evaluation.calibrate import calibrate
    from astound.output.counter import counted
    from astound.output.evaluations import write_calibration
    from astound.output.reliability import draw
    from engine.figure import begin
    from engine.search.calibration import SHIPPED_CALIBRATION

    if out is not None:
        begin(out)  # it must not fail after the work
    given = {key: value for key, value in options.items() if value is not None}
    with session.open() as catalog:
        with counted("calibrating, files") as show:
            report = calibrate(catalog, on_progress=show, **given)
        if not dry_run:
            catalog.keep_calibration(report.calibration)
    write_calibration(report, sys.stdout)
    if out is not None:
        draw(report.reliability, out)
    if not dry_run:
        say(f"kept for this catalog; delete {SHIPPED_CALIBRATION.name} in its folder to undo it")
    if report.n_tracks < _FEW_TRACKS:
        say(
            f"{report.n_tracks} tracks tell little of other music; {_FEW_TRACKS} or more are better"
        )
    needed = _TELLING / report.false_accept_rate
    if report.false_accepts.n < needed:
        clips = f"{report.false_accepts.n} clips tell too little of so low a false accept rate"
        say(f"{clips}; {needed:.0f} or more are needed: --queries")


@click.command(epilog="Example: astound robustness --noise noises --durations 2,5")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--durations", metavar="S,S,...", help="Lengths of the clips in seconds.")
@_shared_options("Clips for each degradation and length.")
@record_format
@click.pass_context
def robustness(
    ctx: click.Context, /, paths: tuple[str, ...], durations: str | None, form: str, **options: Any
) -> None:
    """Tell what to expect: degrade clips of your files, or of the catalog's, and ask for them."""
    from astound.evaluation.robustness import robustness
    from astound.output.counter import counted
    from astound.output.evaluations import write_robustness

    given = {key: value for key, value in options.items() if value is not None}
    if durations is not None:
        given["durations_s"] = _seconds(durations)
    with ctx.obj.open() as catalog, counted("asking, files") as show:
        report = robustness(catalog, paths, on_progress=show, **given)
    for line in report.failed:
        say(line)
    write_robustness(report, form, sys.stdout)
    ctx.exit(1 if report.failed else 0)


def _seconds(text: str) -> list[float]:
    try:
        return [float(one) for one in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is not a list of seconds such as 1,2,5", param_hint="--durations"
        ) from error


COMMANDS = (calibrate, robustness)
