"""The command `astound train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from astound.commands.options import FOLDER, Session, drop_unset


@click.command(epilog="Example: astound train --music m --noise n --speech s --rooms r --out run1")
@click.option("--music", required=True, type=FOLDER, help="Folder of music.")
@click.option("--noise", required=True, type=FOLDER, help="Folder of noise.")
@click.option("--speech", required=True, type=FOLDER, help="Folder of speech.")
@click.option("--rooms", required=True, type=FOLDER, help="Folder of room impulse responses.")
@click.option("--out", required=True, type=FOLDER, help="Folder for checkpoints and weights.")
@click.option(
    "--init-from",
    type=click.Path(path_type=Path, exists=True),
    metavar="PATH",
    help="Initial weights.",
)
@click.option("--steps", "n_steps", type=click.IntRange(1), metavar="N", help="Length of the run.")
@click.option("--pairs", "n_pairs", type=click.IntRange(2), metavar="N", help="Pairs per batch.")
@click.option("--learning-rate", type=float, metavar="R", help="Peak learning rate.")
@click.option(
    "--held-out", "n_held_out", type=click.IntRange(1), metavar="N", help="Validation tracks."
)
@click.option("--seed", type=int, metavar="N", help="Random seed.")
@click.pass_obj
def train(  # noqa: PLR0913 - one argument per option
    session: Session,
    /,
    out: Path,
    init_from: Path | None,
    music: Path,
    noise: Path,
    speech: Path,
    rooms: Path,
    **settings: Any,
) -> None:
    """Train an encoder; repeat the command to resume an interrupted run.

    Started as `torchrun --nproc-per-node 4 -m astound train ...` it uses four GPUs.
    """
    from engine.config import load
    from training.config import TrainConfig
    from training.train import Sources, train

    config = load(TrainConfig, drop_unset(settings))
    sources = Sources(music, noise, speech, rooms)
    click.echo(train(sources, out, config, init_from=init_from, device=session.device))
