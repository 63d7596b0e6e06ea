"""The commands `astound model ...`: look into a model, use it by itself, bring it in and out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click
from rich import box
from rich.table import Table

from astound.commands.options import Session, format_option
from astound.output import matches
from engine.errors import AstoundError, AudioError, ConfigError, ModelError, printable

if TYPE_CHECKING:
    from engine.audio.decode import Waveform
    from engine.model.ast_model import ASTModel
    from engine.records import Vectors

T = TypeVar("T")
Classes = list[tuple[str, float]]


def _in_a_folder(_: click.Context, __: click.Parameter, path: Path) -> Path:
    """Refuse a path to write to before the work is done instead of after it."""
    if not path.parent.is_dir():
        raise click.BadParameter(f"there is no folder {printable(path.parent)}")
    return path


_PATH = click.Path(path_type=Path)
_FILES = click.argument("files", nargs=-1, required=True, type=_PATH, metavar="FILE...")
_FILE = click.argument("file", type=_PATH)
_WEIGHTS = click.option(
    *("-m", "--weights"), type=_PATH, metavar="FILE", help="The model; else that of --model."
)


def _out(*names: str, metavar: str, text: str) -> Callable[[Any], Any]:
    """Make the option that says where to write."""
    kind = click.Path(path_type=Path, dir_okay=False)
    return click.option(
        *names, "out", type=kind, required=True, callback=_in_a_folder, metavar=metavar, help=text
    )


@click.group(epilog="Example: astound model classify street.wav --weights audioset.safetensors")
def model() -> None:
    """Use the Audio Spectrogram Transformer by itself, without a catalog.

    Any kind of model file is taken: astound's weights (.safetensors), an ONNX graph that `astound
    model export` wrote (.onnx), a checkpoint of the original repository (.pth), or a folder of
    Hugging Face's.
    """


@model.command(epilog="Example: astound model info audioset.safetensors --format json")
@click.argument("file", required=False, type=_PATH)
@format_option(("table", "json"))
@click.pass_obj
def info(session: Session, file: Path | None, form: str) -> None:
    """Tell what a model is: its shape, front end, labels, recipe, and how it was trained."""
    described = _load(session, file).metadata()
    matches.write_record(described if form == "json" else _summed_up(described), form, sys.stdout)


@model.command(epilog="Example: astound model classify street.wav -m audioset.safetensors")
@_FILES
@_WEIGHTS
@click.option(
    *("-k", "--top-k"), type=click.IntRange(1), default=5, show_default=True, metavar="N",
    help="The N likeliest classes.",
)  # fmt: skip
@format_option(("table", "jsonl"))
@click.pass_context
def classify(
    ctx: click.Context, files: tuple[Path, ...], weights: Path | None, top_k: int, form: str
) -> None:
    """Name the likeliest classes of sounds in files."""
    loaded = _load(ctx.obj, weights)
    if not loaded.num_classes:
        reason = "it has no classes; name a model that has some with --weights"
        raise ModelError(weights or ctx.obj.model or "the shipped model", reason)
    failed: list[Path] = []
    found = _each(files, lambda path: loaded.classify(_read(loaded, path), top_k), failed)
    CLASS_FORMATS[form](((path, classes) for path, classes in found if classes), sys.stdout)
    ctx.exit(1 if failed else 0)


@model.command(epilog="Example: astound model embed *.wav -o clips.npy")
@_FILES
@_out("-o", "--out", metavar="FILE.npy", text="Where to write the array.")
@_WEIGHTS
@click.option("--frames", is_flag=True, help="The frame-level fingerprint of one file instead.")
@click.pass_context
def embed(
    ctx: click.Context, files: tuple[Path, ...], out: Path, weights: Path | None, frames: bool
) -> None:
    """Write one embedding for each file, as rows of a NumPy array.

    A file that fails has a row of NaN, so that rows and files stay side by side.
    """
    if frames and len(files) != 1:
        raise click.UsageError("--frames takes one FILE")
    loaded = _load(ctx.obj, weights)
    failed: list[Path] = []
    embedded = [one for _, one in _each(files, _embedding(loaded, frames), failed)]
    if len(failed) < len(files):
        _save(out, embedded)
    ctx.exit(1 if failed else 0)


@model.command(epilog="Example: astound model export --onnx astound.onnx")
@click.argument("file", required=False, type=_PATH, metavar="[MODEL]")
@_out("--onnx", metavar="OUT", text="Where to write the ONNX graph.")
@click.pass_obj
def export(session: Session, file: Path | None, out: Path) -> None:
    """Write a model as an ONNX graph, with its recipe and labels in it."""
    loaded = _load(session, file)
    with _writing(out):
        loaded.export_onnx(out)
    click.echo(printable(out))


@model.command("import", epilog="Example: astound model import ast-audioset -o ast.safetensors")
@click.argument("source", type=_PATH, metavar="DIR|FILE")
@_out("-o", "--out", metavar="OUT.safetensors", text="Where to write the weights.")
@click.option("--target-length", type=click.IntRange(1), metavar="N", help="Frames it shall read.")
@click.option(
    "--fingerprint-dim", type=click.IntRange(0), metavar="N", help="Size of its fingerprints."
)
@click.option(
    "--labels", type=click.File(encoding="utf-8"), metavar="FILE", help="Its classes, one a line."
)
@click.pass_obj
def import_(
    session: Session, /, source: Path, out: Path, labels: IO[str] | None, **changes: int | None
) -> None:
    """Turn a published checkpoint into weights that astound takes.

    DIR is a folder of Hugging Face's ASTForAudioClassification, FILE a .pth of the original
    repository; no code in them is run.
    """
    from engine.model.ast_model import ASTModel

    asked: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
    named = matches.read_list(labels) if labels else None
    imported = ASTModel.from_pretrained(source, labels=named, device=session.device, **asked)
    with _writing(out):
        imported.save(out)
    click.echo(f"{printable(out)}: recipe {imported.recipe_id}")


@model.command(epilog="Example: astound model importance clip.wav -o why.png --method rollout")
@_FILE
@_out("-o", "--out", metavar="PICTURE", text="Where to draw: .png, .svg or .pdf.")
@_WEIGHTS
@click.option(
    "--method",
    type=click.Choice(["gradient", "rollout", "occlusion"]),
    default="gradient",
    show_default=True,
    help="How to find out.",
)
@click.option("--class", "target", metavar="LABEL", help="Asked about; else the likeliest one.")
@click.option(
    *("--start", "start_s"),
    type=click.FloatRange(0),
    default=0.0,
    metavar="S",
    help="From second S.",
)
@click.pass_obj
def importance(  # noqa: PLR0913 - one argument per option
    session: Session,
    file: Path,
    out: Path,
    weights: Path | None,
    method: str,
    target: str | None,
    start_s: float,
) -> None:
    """Draw which times and frequencies of one segment an answer rests on."""
    if target is not None and method == "rollout":
        raise click.UsageError("--method rollout asks about no class; leave --class out")
    loaded = _load(session, weights)
    if target is not None and target not in loaded.labels:
        raise ConfigError.invalid("--class", target, "must be a class of the model")
    with _about(file):
        waveform = _read(loaded, file, start_s, start_s + loaded.segment_s)
        loaded.plot_importance(waveform, out, method, target)
    click.echo(printable(out))


# -- models and audio ------------------------------------------------------------------------


def _load(session: Session, given: Path | None) -> ASTModel:
    """Load a model of any kind: the one given, else that of --model, else the shipped one."""
    from engine.model.ast_model import ASTModel

    path = given or session.model
    if path is None:
        return ASTModel.shipped(device=session.device)
    if path.suffix == ".safetensors":
        return ASTModel.load(path, device=session.device)
    if path.suffix == ".onnx":
        return _from_onnx(path)
    return ASTModel.from_pretrained(path, device=session.device)


def _from_onnx(path: Path) -> ASTModel:
    from engine.model.ast_model import ASTModel

    try:
        return ASTModel.from_onnx(path)
    except FileNotFoundError as error:
        raise ModelError(path, "no such file") from error


def _read(
    loaded: ASTModel, path: Path, start_s: float = 0.0, end_s: float | None = None
) -> Waveform:
    from engine.audio.source import open_source

    return open_source(path, loaded.sample_rate, start_s=start_s, end_s=end_s).read()


def _embedding(loaded: ASTModel, frames: bool) -> Callable[[Path], Vectors]:
    """Embed a file as a whole, shape (1, dim), or segment by segment, shape (n_segments, dim)."""
    if frames:
        return lambda path: loaded.fingerprint(_read(loaded, path)).embeddings
    return lambda path: loaded.extract_embedding(_read(loaded, path)).numpy()


def _each(
    files: Iterable[Path], work: Callable[[Path], T], failed: list[Path]
) -> Iterator[tuple[Path, T | None]]:
    """Do the work of each file; where it fails, a line on stderr says why, and None stands."""
    for path in files:
        try:
            with _about(path):
                yield path, work(path)
        except AstoundError as error:
            click.echo(f"astound: {error}", err=True)
            failed.append(path)
            yield path, None


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Let errors name the file whose samples a model refused."""
    try:
        yield
    except AudioError as error:
        if error.source != "array":
            raise
        raise AudioError(path, error.reason) from error


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Let errors say what could not be written."""
    try:
        yield
    except OSError as error:
        raise AstoundError(f"{printable(out)}: {error.strerror or error}") from error


# -- results ---------------------------------------------------------------------------------


def _summed_up(described: dict[str, Any]) -> dict[str, Any]:
    """Say what a model is in a few lines, for people."""
    shape, front_end = described["config"], described["recipe"]["spectrogram"]
    n_parameters, labels = described["n_parameters"], described["labels"]
    return {
        "name": described["name"],
        "parameters": f"{n_parameters:,}" if n_parameters else "in a graph",
        "shape": "{num_layers} layers, {num_heads} heads, {embedding_dim} wide".format_map(shape),
        "patches": "{patch_size} × {patch_size}, {stride} apart".format_map(shape),
        "reads": "{target_length} frames × {num_mel_bands} bands".format_map(shape),
        "fingerprints": f"{shape['fingerprint_dim'] or shape['embedding_dim']} numbers",
        "front end": (
            "{front_end}: {sample_rate} Hz, {n_fft} samples every {hop_length}, "
            "{f_min_hz:g} to {f_max_hz:g} Hz".format_map(front_end)
        ),
        "labels": _few(labels),
        "recipe": described["recipe_id"],
        **_trained(described["training"]),
    }


def _trained(record: dict[str, Any]) -> dict[str, str]:
    """Say how a model was trained, without the lists and settings that fill pages."""
    plain = {key: value for key, value in record.items() if isinstance(value, (str, int, float))}
    return {
        f"training {key}": f"{value:.4g}" if isinstance(value, float) else str(value)
        for key, value in plain.items()
    }


def _write_jsonl(found: Iterable[tuple[Path, Classes]], out: IO[str]) -> None:
    for path, classes in found:
        pairs = [{"label": label, "probability": probability} for label, probability in classes]
        line = {"path": printable(path), "classes": pairs}
        out.write(json.dumps(line, ensure_ascii=False) + "\n")
        out.flush()


def _write_table(found: Iterable[tuple[Path, Classes]], out: IO[str]) -> None:
    table = Table("file", "class", "probability", box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[2].justify = "right"
    for path, classes in found:
        for rank, (label, probability) in enumerate(classes):
            table.add_row("" if rank else printable(path), label, f"{probability:.3f}")
    matches.console(out).print(table)


CLASS_FORMATS: dict[str, Callable[[Iterable[tuple[Path, Classes]], IO[str]], None]] = {
    "table": _write_table,
    "jsonl": _write_jsonl,
}


def _save(out: Path, embedded: Sequence[Vectors | None]) -> None:
    """Write arrays below each other, a row of NaN in place of None."""
    import numpy as np

    dim = next(one.shape[1] for one in embedded if one is not None)
    absent = np.full((1, dim), np.nan, np.float32)
    rows = np.concatenate([absent if one is None else one for one in embedded])
    with _writing(out), out.open("wb") as file:  # to a mere path np.save would add an ending
        np.save(file, rows)
    click.echo(f"{printable(out)}: {len(rows)} × {dim}")


def _few(labels: Sequence[str]) -> str:
    more = ", ..." if len(labels) > 5 else ""
    return f"{len(labels)}: {', '.join(labels[:5])}{more}" if labels else "none"
