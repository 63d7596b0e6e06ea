"""The state of a run in one small file, to resume it on another machine.

The file is a compressed safetensors file. Weights are exact; the optimizers' moments are rounded
to bfloat16, which changes the losses of the resumed steps by less than one percent.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor

from engine.config import load as load_config
from engine.errors import AstoundError, ModelError
from engine.files import atomic_write
from engine.recipe import Recipe
from training.augment.config import AugmentConfig
from training.config import TrainConfig
from training.run_log import LOG_FILE

CHECKPOINT = "checkpoint.safetensors"
_N_LOG_LINES = 2000
_LOG_KEY = "log"
_OPTIMIZER = "optimizer."


class Run(NamedTuple):
    """Settings of a run."""

    config: TrainConfig
    recipe: Recipe


def pack(out: Path, packed: Path) -> None:
    """Write the last checkpoint of a run and the end of its log to one file.

    Parameters
    ----------
    out : Path
        Folder of the run.
    packed : Path

    Raises
    ------
    ModelError
        The folder has no checkpoint.
    """
    checkpoint = out / CHECKPOINT
    if not checkpoint.exists():
        raise ModelError(checkpoint, "no such checkpoint; the run has not written one yet")
    with safe_open(checkpoint, framework="pt") as file:
        metadata = file.metadata()
    log = out / LOG_FILE
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    metadata[_LOG_KEY] = "".join(lines[-_N_LOG_LINES:])
    tensors = {name: _rounded(name, one) for name, one in load_file(checkpoint).items()}
    with atomic_write(packed) as partial:
        partial.write_bytes(gzip.compress(save(tensors, metadata), mtime=0))


def unpack(packed: Path, out: Path) -> Run:
    """Write what :func:`pack` packed into the folder of a run, unless that has a checkpoint.

    Degradations that are newer than the file stay off.

    Raises
    ------
    ModelError
        The file is damaged or another file.
    """
    try:
        content = gzip.decompress(packed.read_bytes())
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        run = Run(
            _config(json.loads(metadata["config"])),
            Recipe.from_dict(json.loads(metadata["recipe"])),
        )
    except (OSError, EOFError, zlib.error, SafetensorError, LookupError, ValueError) as error:
        raise ModelError(packed, f"not a packed run, or damaged ({error})") from error
    except AstoundError as error:
        raise ModelError(packed, f"packed by another version ({error})") from error
    if not (out / CHECKPOINT).exists():
        out.mkdir(parents=True, exist_ok=True)
        (out / LOG_FILE).write_text(metadata.pop(_LOG_KEY))
        with atomic_write(out / CHECKPOINT) as partial:
            save_file({name: one.float() for name, one in tensors.items()}, partial, metadata)
    return run


def _config(values: Mapping[str, Any]) -> TrainConfig:
    augment = dataclasses.asdict(AugmentConfig.disabled()) | values["augment"]
    return load_config(TrainConfig, {**values, "augment": augment})


def _rounded(name: str, tensor: Tensor) -> Tensor:
    """Round moments, but not the number of steps, which is a single number."""
    return tensor.bfloat16() if name.startswith(_OPTIMIZER) and tensor.ndim else tensor
