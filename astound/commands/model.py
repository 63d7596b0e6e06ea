"""The commands `astound model ...`: describe, apply, explain, import and export a model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from astound.commands.options import (
    Session,
    drop_unset,
    echo,
    echo_err,
    format_option,
    time_option,
)
from astound.output.terminal import write_json_line, write_record, write_table
from engine.errors import AstoundError, AudioError, ConfigError, ModelError, printable

if TYPE_CHECKING:
    from engine.model.ast_model import ASTModel
    from engine.records import Vectors, Waveform

T = TypeVar("T")
Classes = list[tuple[str, float]]


def _require_folder(_: click.Context, __: click.Parameter, path: Path) -> Path:
    """Refuse an output path before the work is done instead of after it."""
    if not path.parent.is_dir():
        raise click.BadParameter(f"folder {printable(path.parent)} does not exist")
    return path


_PATH = click.Path(path_type=Path)
_FILES = click.argument("files", nargs=-1, required=True, type=_PATH, metavar="FILE...")
_FILE = click.argument("file", type=_PATH)
_WEIGHTS = click.option(
    *("-m", "--weights"), type=_PATH, metavar="FILE", help="Model file; that of --model by default."
)


def _out(*names: str, metavar: str, text: str) -> Callable[[Any], Any]:
    """Make the option for the output file."""
    return click.option(
        *names,
        "out",
        type=click.Path(path_type=Path, dir_okay=False),
        required=True,
        callback=_require_folder,
        metavar=metavar,
        help=text,
    )


@click.group(epilog="Example: astound model classify street.wav --weights audioset.safetensors")
def model() -> None:
    """Use the Audio Spectrogram Transformer by itself, without a catalog.

    A model file is astound's weights (.safetensors), an ONNX graph written by `astound model
    export` (.onnx), a checkpoint of the original repository (.pth), or a Hugging Face folder.
    """


@model.command(epilog="Example: astound model info audioset.safetensors --format json")
@click.argument("file", required=False, type=_PATH)
@format_option(("table", "json"))
@click.pass_obj
def info(session: Session, file: Path | None, form: str) -> None:
    """Describe a model: shape, front end, labels, recipe and training."""
    metadata = _load(session, file).metadata()
    write_record(metadata if form == "json" else _summarise(metadata), form, sys.stdout)


@model.command(epilog="Example: astound model classify street.wav -m audioset.safetensors")
@_FILES
@_WEIGHTS
@click.option(
    *("-k", "--top-k"), type=click.IntRange(1), default=5, show_default=True, metavar="N",
    help="Show the N most likely classes.",
)  # fmt: skip
@format_option(("table", "jsonl"))
@click.pass_context
def classify(
    ctx: click.Context, files: tuple[Path, ...], weights: Path | None, top_k: int, form: str
) -> None:
    """Classify the sounds in files."""
    loaded = _load(ctx.obj, weights)
    if not loaded.num_classes:
        reason = "model has no classes; name one that has with --weights"
        raise ModelError(weights or ctx.obj.model or "the shipped model", reason)
    failed: list[Path] = []
    results = _each(files, lambda path: loaded.classify(_read(loaded, path), top_k), failed)
    CLASS_FORMATS[form](((path, classes) for path, classes in results if classes), sys.stdout)
    ctx.exit(1 if failed else 0)


@model.command(epilog="Example: astound model embed *.wav -o clips.npy")
@_FILES
@_out("-o", "--out", metavar="FILE.npy", text="Output array.")
@_WEIGHTS
@click.option("--frames", is_flag=True, help="Write the frame-level fingerprint of one file.")
@click.pass_context
def embed(
    ctx: click.Context, files: tuple[Path, ...], out: Path, weights: Path | None, frames: bool
) -> None:
    """Write the embedding of each file as a row of a NumPy array.

    The row of a file that fails is NaN, so that rows correspond to files.
    """
    if frames and len(files) != 1:
        raise click.UsageError("--frames takes one FILE")
    loaded = _load(ctx.obj, weights)
    failed: list[Path] = []
    embeddings = [rows for _, rows in _each(files, _embedding(loaded, frames), failed)]
    if len(failed) < len(files):
        _save(out, embeddings)
    ctx.exit(1 if failed else 0)


@model.command(epilog="Example: astound model export --onnx astound.onnx")
@click.argument("file", required=False, type=_PATH, metavar="[MODEL]")
@_out("--onnx", metavar="OUT", text="Output graph.")
@click.pass_obj
def export(session: Session, file: Path | None, out: Path) -> None:
    """Export a model as an ONNX graph that contains its recipe and labels."""
    loaded = _load(session, file)
    with _writing(out):
        loaded.export_onnx(out)
    echo(out)


@model.command("import", epilog="Example: astound model import ast-audioset -o ast.safetensors")
@click.argument("source", type=_PATH, metavar="DIR|FILE")
@_out("-o", "--out", metavar="OUT.safetensors", text="Output weights.")
@click.option(
    "--target-length", type=click.IntRange(1), metavar="N", help="Length of the input in frames."
)
@click.option(
    "--fingerprint-dim", type=click.IntRange(0), metavar="N", help="Dimension of the fingerprints."
)
@click.option(
    "--labels", type=click.File(encoding="utf-8"), metavar="FILE", help="Class labels, one a line."
)
@click.pass_obj
def import_(
    session: Session, /, source: Path, out: Path, labels: IO[str] | None, **changes: int | None
) -> None:
    """Convert a published checkpoint to astound's weights.

    DIR is a Hugging Face folder of ASTForAudioClassification, FILE a .pth of the original
    repository. No code in them is executed.
    """
    from engine.model.ast_model import ASTModel

    imported = ASTModel.from_pretrained(
        source,
        labels=[line for line in labels.read().split("\n") if line] if labels else None,
        device=session.device,
        **drop_unset(changes),
    )
    with _writing(out):
        imported.save(out)
    echo(f"{out}: recipe {imported.recipe_id}")


@model.command(epilog="Example: astound model importance clip.wav -o why.png --method rollout")
@_FILE
@_out("-o", "--out", metavar="PICTURE", text="Output picture: .png, .svg or .pdf.")
@_WEIGHTS
@click.option(
    "--method",
    type=click.Choice(["gradient", "rollout", "occlusion"]),
    default="gradient",
    show_default=True,
    help="Attribution method.",
)
@click.option(
    "--class", "target", metavar="LABEL", help="Class to explain; the most likely one by default."
)
@click.option(
    *("--start", "start_s"),
    type=time_option,
    default=0.0,
    metavar="T",
    help="Start at time T: seconds or m:ss.",
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
    """Draw how important each time and frequency of one segment is for the output."""
    if target is not None and method == "rollout":
        raise click.UsageError("--method rollout does not depend on a class; omit --class")
    loaded = _load(session, weights)
    if target is not None and target not in loaded.labels:
        raise ConfigError.invalid("--class", target, "must be a class of the model")
    with _about(file):
        waveform = _read(loaded, file, start_s, start_s + loaded.segment_s)
        loaded.plot_importance(waveform, out, method, target)
    echo(out)


# -- models and audio ------------------------------------------------------------------------


def _load(session: Session, path: Path | None) -> ASTModel:
    """Load a model of any kind: from `path`, else from --model, else the shipped one."""
    from engine.model.ast_model import ASTModel

    path = path or session.model
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
    """Return a function from a file to rows of shape (1, dim), or (n_segments, dim) for frames."""
    if frames:
        return lambda path: loaded.fingerprint(_read(loaded, path)).embeddings
    return lambda path: loaded.extract_embedding(_read(loaded, path)).numpy()


def _each(
    files: Iterable[Path], work: Callable[[Path], T], failed: list[Path]
) -> Iterator[tuple[Path, T | None]]:
    """Yield each file and its result; print errors to stderr and yield None in their place."""
    for path in files:
        try:
            with _about(path):
                yield path, work(path)
        except AstoundError as error:
            echo_err(str(error))
            failed.append(path)
            yield path, None


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Name the file in errors that a model raises about its samples."""
    try:
        yield
    except AudioError as error:
        if error.source != "array":
            raise
        raise AudioError(path, error.reason) from error


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Name the output file in errors of the operating system."""
    try:
        yield
    except OSError as error:
        raise AstoundError(f"{printable(out)}: {error.strerror or error}") from error


# -- results ---------------------------------------------------------------------------------


def _summarise(metadata: dict[str, Any]) -> dict[str, Any]:
    """Summarise the metadata of a model in a few lines for people."""
    shape, front_end = metadata["config"], metadata["recipe"]["spectrogram"]
    n_parameters, labels = metadata["n_parameters"], metadata["labels"]
    return {
        "name": metadata["name"],
        "parameters": f"{n_parameters:,}" if n_parameters else "in a graph",
        "shape": "{num_layers} layers, {num_heads} heads, {embedding_dim} wide".format_map(shape),
        "patches": "{patch_size} × {patch_size}, {stride} apart".format_map(shape),
        "input": "{target_length} frames × {num_mel_bands} bands".format_map(shape),
        "fingerprints": f"{shape['fingerprint_dim'] or shape['embedding_dim']} dimensions",
        "front end": (
            "{front_end}: {sample_rate} Hz, {n_fft} samples every {hop_length}, "
            "{f_min_hz:g} to {f_max_hz:g} Hz".format_map(front_end)
        ),
        "labels": _count_labels(labels),
        "recipe": metadata["recipe_id"],
        **_training_lines(metadata["training"]),
    }


def _count_labels(labels: Sequence[str]) -> str:
    more = ", ..." if len(labels) > 5 else ""
    return f"{len(labels)}: {', '.join(labels[:5])}{more}" if labels else "none"


def _training_lines(record: dict[str, Any]) -> dict[str, str]:
    """Return the scalars of a training record; its lists and settings would fill pages."""
    scalars = {key: value for key, value in record.items() if isinstance(value, (str, int, float))}
    return {
        f"training {key}": f"{value:.4g}" if isinstance(value, float) else str(value)
        for key, value in scalars.items()
    }


def _write_jsonl(results: Iterable[tuple[Path, Classes]], out: IO[str]) -> None:
    for path, classes in results:
        pairs = [{"label": label, "probability": probability} for label, probability in classes]
        write_json_line({"path": printable(path), "classes": pairs}, out)


def _write_table(results: Iterable[tuple[Path, Classes]], out: IO[str]) -> None:
    rows = (
        ("" if rank else path, label, f"{probability:.3f}")
        for path, classes in results
        for rank, (label, probability) in enumerate(classes)
    )
    write_table(("file", "class", "probability"), rows, out, right=("probability",))


CLASS_FORMATS: dict[str, Callable[[Iterable[tuple[Path, Classes]], IO[str]], None]] = {
    "table": _write_table,
    "jsonl": _write_jsonl,
}


def _save(out: Path, embeddings: Sequence[Vectors | None]) -> None:
    """Save rows of embeddings as one array, with a row of NaN in place of None."""
    import numpy as np

    dim = next(rows.shape[1] for rows in embeddings if rows is not None)
    absent = np.full((1, dim), np.nan, np.float32)
    array = np.concatenate([absent if rows is None else rows for rows in embeddings])
    with _writing(out), out.open("wb") as file:  # np.save would append a suffix to a path
        np.save(file, array)
    echo(f"{out}: {len(array)} × {dim}")
