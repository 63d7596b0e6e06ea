"""Read a weights file into arrays: tensors, recipe, training record and labels; without torch."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from engine.errors import AstoundError, ConfigError, ModelError
from engine.recipe import Recipe
from engine.validation import check_value, parse_json, to_record

SHIPPED_WEIGHTS = Path(__file__).parents[1] / "weights" / "astound-v4.safetensors"

DAMAGED_FILE_ERRORS: tuple[type[Exception], ...] = (
    *(SafetensorError, AstoundError, OSError, LookupError),
    *(ValueError, TypeError, AttributeError, RuntimeError),
)
"""Everything that reading a damaged or foreign file of tensors has been found to raise."""

Arrays = Mapping[str, NDArray[Any]]


class StoredWeights(NamedTuple):
    """The content of a weights file.

    Parameters
    ----------
    tensors : mapping of str to array
        Those of the network as "model.NAME", those of the clip head as "clip_head.NAME"; names and
        shapes are those of :func:`tensor_shapes`.
    recipe : Recipe
    training_record : dict
        How the weights were trained, in JSON types.
    labels : tuple of str or None
        Names of the classes, if the network has any.
    """

    tensors: Arrays
    recipe: Recipe
    training_record: dict[str, Any]
    labels: tuple[str, ...] | None


def read_weights(path: Path) -> StoredWeights:
    """Read a weights file; ModelError if it is missing, damaged or another file."""
    try:
        return parse_weights(path.read_bytes(), path)
    except FileNotFoundError as error:
        raise ModelError(path, "no such weights file") from error
    except OSError as error:
        raise ModelError(path, f"cannot be read ({error.strerror})") from error


def parse_weights(content: bytes, source: str | os.PathLike[str] = "bytes") -> StoredWeights:
    """Read the content of a weights file.

    Parameters
    ----------
    content : bytes
    source : path-like or str
        Name for error messages.

    Raises
    ------
    ModelError
        The content is something else, or damaged.
    """
    try:
        tensors = load(content)
        metadata = to_record(_Metadata, _metadata(content))
        recipe = Recipe.from_dict(parse_json(metadata.recipe))
        training_record = _training_record(metadata.training_record)
        labels = parse_labels(metadata.labels, recipe)
        _check_shapes(tensors, recipe)
    except DAMAGED_FILE_ERRORS as error:
        raise ModelError(source, f"not astound weights, or damaged ({error})") from error
    if hash_tensors(tensors) != recipe.weights_sha256:
        raise ModelError(source, "damaged: the weights do not match the hash in their recipe")
    return StoredWeights(tensors, recipe, training_record, labels)


def parse_labels(text: str, recipe: Recipe) -> tuple[str, ...] | None:
    """Parse the names of the classes; ValueError unless there are none, or one for each class."""
    labels: tuple[str, ...] | None = check_value(tuple[str, ...] | None, parse_json(text), "labels")
    n_classes = recipe.encoder.num_classes
    if labels and len(labels) != n_classes:
        raise ValueError(f"invalid labels: must be {n_classes} names, not {len(labels)}")
    return labels


def hash_tensors(tensors: Arrays) -> str:
    """Hash names and numbers of tensors, as the recipe stores it."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(tensors[key]).data)
    return digest.hexdigest()


def tensor_shapes(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """Compute the shapes of the tensors of both networks, by name."""
    config, dim = recipe.encoder, recipe.encoder.fingerprint_length
    width, hidden = config.embedding_dim, int(config.embedding_dim * config.mlp_ratio)
    n_tokens = config.n_class_tokens + config.n_patches[0] * config.n_patches[1]
    network: dict[str, tuple[int, ...]] = {
        "class_tokens": (1, config.n_class_tokens, width),
        "positions": (1, n_tokens, width),
        "patches.weight": (width, 1, config.patch_size, config.patch_size),
        "patches.bias": (width,),
        **_norm("norm", width),
    }
    for i in range(config.num_layers):
        network |= _norm(f"blocks.{i}.norm1", width) | _norm(f"blocks.{i}.norm2", width)
        network |= _linear(f"blocks.{i}.attention.qkv", width, 3 * width)
        network |= _linear(f"blocks.{i}.attention.out", width, width)
        network |= _linear(f"blocks.{i}.mlp.0", width, hidden)
        network |= _linear(f"blocks.{i}.mlp.3", hidden, width)
    if config.num_classes:
        network |= _norm("classifier.0", width)
        network |= _linear("classifier.1", width, config.num_classes)
    if config.fingerprint_dim:
        network |= _linear("projection.0", width, config.projection_dim)
        network |= _linear("projection.2", config.projection_dim, config.fingerprint_dim)
    clip_head: dict[str, tuple[int, ...]] = {
        "positions": (1, recipe.clip.n_segments, dim),
        "query": (1, 1, dim),
        "attention.in_proj_weight": (3 * dim, dim),
        "attention.in_proj_bias": (3 * dim,),
        **_linear("attention.out_proj", dim, dim),
        **_linear("mlp.0", dim, 4 * dim),
        **_linear("mlp.2", 4 * dim, dim),
    }
    shapes = {f"model.{name}": shape for name, shape in network.items()}
    return shapes | {f"clip_head.{name}": shape for name, shape in clip_head.items()}


def _linear(name: str, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _check_shapes(tensors: Arrays, recipe: Recipe) -> None:
    """Raise ValueError, with the first tensor that is missing, unknown or of another shape."""
    needed = tensor_shapes(recipe)
    for name in sorted(needed.keys() | tensors.keys()):
        found = tensors[name].shape if name in tensors else "missing"
        if found != needed.get(name):
            raise ValueError(f"invalid {name}: {found}, must be {needed.get(name, 'left out')}")


@dataclasses.dataclass(frozen=True)
class _Metadata:
    recipe: str
    training_record: str
    labels: str


def _metadata(content: bytes) -> dict[str, str]:
    """Read the header of a safetensors file: a length of 8 bytes, then JSON."""
    length = int.from_bytes(content[:8], "little")
    metadata = parse_json(content[8 : 8 + length]).get("__metadata__", {})
    known = [field.name for field in dataclasses.fields(_Metadata)]
    return {name: metadata[name] for name in known if name in metadata}


def _training_record(text: str) -> dict[str, Any]:
    record = parse_json(text)
    if not isinstance(record, dict):
        raise ConfigError.invalid("training_record", record, "must be an object")
    return record
