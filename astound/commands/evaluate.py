"""The commands that evaluate a catalog on its own music: calibrate, robustness."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astound.commands.options import Function, Session, drop_unset, echo_err, record_format
from astound.output.evaluations import write_calibration, write_robustness
from astound.output.progress import progress_bar

if TYPE_CHECKING:
    from astound.evaluation.calibrate import CalibrationReport

# To measure a false accept rate p takes at least this many / p clips.
_MIN_EXPECTED_FALSE_ACCEPTS = 3
# Fewer tracks represent other music badly, because clips of one track are much alike.
_FEW_TRACKS = 30

_AUDIO_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


def _shared_options(n_queries: str) -> Callable[[Function], Function]:
    """Make the options --queries, --noise, --rooms and --seed."""
    options = (
        click.option("--queries", "n_queries", type=click.IntRange(1), metavar="N", help=n_queries),
        click.option("--noise", type=_AUDIO_FOLDER, metavar="DIR", help="Folder of noise."),
        click.option(
            "--rooms", type=_AUDIO_FOLDER, metavar="DIR", help="Folder of room impulse responses."
        ),
        click.option("--seed", type=click.IntRange(0), metavar="N", help="Random seed."),
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
    help="Fraction of clips of unknown music that may get a match.",
)  # fmt: skip
@_shared_options("Number of clips; more give a better estimate.")
@click.option("--speech", type=_AUDIO_FOLDER, metavar="DIR", help="Folder of speech.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="PICTURE",
    help="Draw the reliability diagram.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Report the calibration without saving it.")
@click.pass_obj
def calibrate(session: Session, /, out: Path | None, dry_run: bool, **options: Any) -> None:
    """Fit confidences and the threshold to the catalog's own music, for all later commands.

    Degrades clips of its tracks and queries them, with and without their tracks in the catalog.
    """
    from astound.evaluation.calibrate import calibrate
    from astound.output.plots import draw_reliability
    from engine.figure import new_figure

    if out is not None:
        new_figure(out)  # fail before the work, not after it
    with session.open() as catalog:
        with progress_bar("calibrating, files") as show:
            report = calibrate(catalog, on_progress=show, **drop_unset(options))
        if not dry_run:
            catalog.save_calibration(report.calibration)
    write_calibration(report, sys.stdout)
    if out is not None:
        draw_reliability(report.reliability, out)
    _comment(report, dry_run)


def _comment(report: CalibrationReport, dry_run: bool) -> None:
    """Say where the calibration is stored, and warn if it rests on too little."""
    from engine.search.calibration import SHIPPED_CALIBRATION

    if not dry_run:
        name = SHIPPED_CALIBRATION.name
        echo_err(f"calibration saved; delete {name} in the catalog's folder to undo it")
    if report.n_tracks < _FEW_TRACKS:
        echo_err(
            f"{report.n_tracks} tracks represent other music poorly; use {_FEW_TRACKS} or more"
        )
    n_needed = _MIN_EXPECTED_FALSE_ACCEPTS / report.false_accept_rate
    if report.false_accepts.n < n_needed:
        echo_err(
            f"{report.false_accepts.n} clips are too few to measure so low a false accept rate; "
            f"use --queries {n_needed:.0f} or more"
        )


@click.command(epilog="Example: astound robustness --noise noises --durations 2,5")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--durations", metavar="S,S,...", help="Lengths of the clips in seconds.")
@_shared_options("Clips for each degradation and length.")
@record_format
@click.pass_context
def robustness(
    ctx: click.Context, /, paths: tuple[str, ...], durations: str | None, form: str, **options: Any
) -> None:
    """Measure accuracy on your own files, or on those of the catalog.

    Cuts clips from the files, degrades them in several ways, and queries them.
    """
    from astound.evaluation.robustness import robustness

    options = drop_unset(options)
    if durations is not None:
        options["durations_s"] = _seconds(durations)
    with ctx.obj.open() as catalog, progress_bar("querying, files") as show:
        report = robustness(catalog, paths, on_progress=show, **options)
    for line in report.failed:
        echo_err(line)
    write_robustness(report, form, sys.stdout)
    ctx.exit(1 if report.failed else 0)


def _seconds(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is not a list of seconds such as 1,2,5", param_hint="--durations"
        ) from error
