"""The command `astound train`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astound.commands.options import FOLDER, Session, drop_unset

if TYPE_CHECKING:
    from training.config import TrainConfig
    from training.sources import Sources


@click.command(epilog="Example: astound train --music m --noise n --speech s --rooms r --out run1")
@click.option("--music", type=FOLDER, help="Folder of music.")
@click.option("--noise", type=FOLDER, help="Folder of noise.")
@click.option("--speech", type=FOLDER, help="Folder of speech.")
@click.option("--rooms", type=FOLDER, help="Folder of room impulse responses.")
@click.option("--tunes", type=FOLDER, help="Folder of more music, which is never held out.")
@click.option("--voices", type=FOLDER, help="Folder of more speech.")
@click.option(
    "--sound-font",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Compose tunes, played with this General MIDI sound font, in --tunes or OUT/tunes.",
)
@click.option(
    "--composed-hours",
    type=click.FloatRange(0, min_open=True),
    default=6.0,
    show_default=True,
    metavar="H",
    help="Length of these tunes.",
)
@click.option(
    "--spoken-hours",
    type=click.FloatRange(0),
    default=0.0,
    metavar="H",
    help="Write this much speech by eSpeak NG, in 32 languages, to --voices or OUT/voices.",
)
@click.option("--out", required=True, type=FOLDER, help="Folder for checkpoints and weights.")
@click.option(
    "--init-from",
    type=click.Path(path_type=Path, exists=True),
    metavar="PATH",
    help="Initial weights.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Continue a run that --pack packed, with its settings.",
)
@click.option(
    "--pack",
    "packed",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Pack the run in one small file after training; without audio, at once.",
)
@click.option("--pack-audio", is_flag=True, help="Write the audio to --out in pieces, and stop.")
@click.option("--steps", "n_steps", type=click.IntRange(1), metavar="N", help="Length of the run.")
@click.option("--pairs", "n_pairs", type=click.IntRange(2), metavar="N", help="Pairs per batch.")
@click.option(
    "--pairs-per-chunk",
    "n_pairs_per_chunk",
    type=click.IntRange(1),
    metavar="N",
    help="Pairs in memory at once.",
)
@click.option("--minutes", "max_minutes", type=float, metavar="M", help="Time limit of the run.")
@click.option("--compile", "compiled", is_flag=True, default=None, help="Compile the network.")
@click.option("--no-codecs", is_flag=True, help="Leave out codecs, which run on the CPU.")
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
    packed: Path | None,
    pack_audio: bool,
    resume: Path | None,
    init_from: Path | None,
    no_codecs: bool,
    music: Path | None,
    noise: Path | None,
    speech: Path | None,
    rooms: Path | None,
    tunes: Path | None,
    voices: Path | None,
    sound_font: Path | None,
    composed_hours: float,
    spoken_hours: float,
    **settings: Any,
) -> None:
    """Train an encoder; repeat the command to resume an interrupted run.

    Started as `torchrun --nproc-per-node 4 -m astound train ...` it uses four GPUs.
    """
    if packed is not None and not any((music, noise, speech, rooms)):
        from training.packed import pack

        pack(out, packed)
        click.echo(packed)
        return
    if resume is not None and init_from is not None:
        raise click.UsageError("--resume has the weights of its run; leave out --init-from")
    tunes = out / "tunes" if sound_font is not None and tunes is None else tunes
    voices = out / "voices" if spoken_hours and voices is None else voices
    sources = _sources(
        music=music, noise=noise, speech=speech, rooms=rooms, tunes=tunes, voices=voices
    )
    changes = drop_unset(settings)
    config, recipe = _config({}, changes, no_codecs=no_codecs), None
    from filelock import FileLock

    from training.packed import unpack
    from training.train import train

    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / "lock"):  # of several processes one writes these files, the others wait
        if tunes is not None and sound_font is not None:
            _write_tunes(tunes, sound_font, composed_hours)
        if voices is not None and spoken_hours:
            from training.voices import write_voices

            write_voices(voices, spoken_hours)
        if pack_audio:
            _pack_audio(sources, out)
            return
        if resume is not None:
            run = unpack(resume, out)
            config = _config(dataclasses.asdict(run.config), changes, no_codecs=no_codecs)
            recipe = run.recipe
    weights = train(
        sources,
        out,
        config,
        recipe,
        init_from=init_from,
        packed=packed,
        device=session.device,
    )
    click.echo(weights)


def _sources(**folders: Path | None) -> Sources:
    from training.sources import RECORDED, Sources

    missing = [f"--{name}" for name in RECORDED if folders[name] is None]
    if missing:
        raise click.UsageError(f"Missing option {missing[0]!r}.")
    return Sources(**{name: folder for name, folder in folders.items() if folder is not None})


def _write_tunes(folder: Path, sound_font: Path, hours: float) -> None:
    from astound.demo.sound_font import write_tunes
    from engine.recipe import Recipe

    write_tunes(folder, sound_font, hours, Recipe().spectrogram.sample_rate)


def _pack_audio(sources: Sources, out: Path) -> None:
    from engine.recipe import Recipe
    from training.pieces import write_pieces

    for piece in write_pieces(sources, out, Recipe().spectrogram.sample_rate):
        click.echo(piece)


def _config(
    known: Mapping[str, Any], changes: Mapping[str, Any], *, no_codecs: bool
) -> TrainConfig:
    from engine.config import load
    from training.config import TrainConfig

    values = {**known, **changes}
    if no_codecs:
        values["augment"] = {**values.get("augment", {}), "codec_prob": 0.0}
    return load(TrainConfig, values)
