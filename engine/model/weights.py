"""The weights file: both networks with their recipe, training record and labels, as safetensors."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from engine.errors import AstoundError, ConfigError, ModelError
from engine.files import atomic_write
from engine.model.network import AST, ClipHead, new_clip_head, with_state
from engine.recipe import Recipe
from engine.validation import check_value, parse_json, to_record

SHIPPED_WEIGHTS = Path(__file__).parents[1] / "weights" / "astound-v3.safetensors"

DAMAGED_FILE_ERRORS: tuple[type[Exception], ...] = (
    *(SafetensorError, AstoundError, OSError, LookupError),
    *(ValueError, TypeError, AttributeError, RuntimeError),
)
"""Everything that reading a damaged or foreign file of tensors has been found to raise."""


class Weights(NamedTuple):
    """The content of a weights file.

    Parameters
    ----------
    network : AST
    clip_head : ClipHead
    recipe : Recipe
        With the hash of the weights, unless they were just made.
    training_record : mapping
        How the weights were trained, in JSON types.
    labels : tuple of str, optional
        Names of the classes, if the network has any.
    """

    network: AST
    clip_head: ClipHead
    recipe: Recipe
    training_record: Mapping[str, Any] = MappingProxyType({})
    labels: tuple[str, ...] | None = None


def with_weights_hash(weights: Weights) -> Weights:
    """Store the hash of the weights in their recipe."""
    recipe = dataclasses.replace(weights.recipe, weights_sha256=_hash(_tensors(weights)))
    return weights._replace(recipe=recipe)


def to_bytes(weights: Weights) -> bytes:
    """Serialise weights with their recipe, training record and labels as safetensors."""
    metadata = {
        "recipe": json.dumps(with_weights_hash(weights).recipe.to_dict()),
        "training_record": json.dumps(dict(weights.training_record)),
        "labels": json.dumps(weights.labels),
    }
    return save(_tensors(weights), metadata)


def from_bytes(content: bytes, source: str | os.PathLike[str] = "bytes") -> Weights:
    """Read what :func:`to_bytes` wrote.

    Parameters
    ----------
    content : bytes
    source : path-like or str
        Name for error messages.

    Returns
    -------
    Weights

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
        network = with_state(lambda: AST(recipe.encoder), _with_prefix("model.", tensors))
        clip_head = with_state(lambda: new_clip_head(recipe), _with_prefix("clip_head.", tensors))
    except DAMAGED_FILE_ERRORS as error:
        raise ModelError(source, f"not astound weights, or damaged ({error})") from error
    if _hash(tensors) != recipe.weights_sha256:
        raise ModelError(source, "damaged: the weights do not match the hash in their recipe")
    return Weights(network, clip_head, recipe, training_record, labels)


def parse_labels(text: str, recipe: Recipe) -> tuple[str, ...] | None:
    """Parse the names of the classes; ValueError unless there are none, or one for each class."""
    labels: tuple[str, ...] | None = check_value(tuple[str, ...] | None, parse_json(text), "labels")
    n_classes = recipe.encoder.num_classes
    if labels and len(labels) != n_classes:
        raise ValueError(f"invalid labels: must be {n_classes} names, not {len(labels)}")
    return labels


def save_weights(path: Path, weights: Weights) -> Recipe:
    """Write a weights file atomically.

    Returns
    -------
    Recipe
        The recipe with the hash of these weights.
    """
    with atomic_write(path) as partial:
        partial.write_bytes(to_bytes(weights))
    return with_weights_hash(weights).recipe


def load_weights(path: Path) -> Weights:
    """Read a weights file; ModelError if it is missing, damaged or another file."""
    try:
        return from_bytes(path.read_bytes(), path)
    except FileNotFoundError as error:
        raise ModelError(path, "no such weights file") from error
    except OSError as error:
        raise ModelError(path, f"cannot be read ({error.strerror})") from error


def _tensors(weights: Weights) -> dict[str, Tensor]:
    tensors = {f"model.{k}": v for k, v in weights.network.state_dict().items()}
    tensors |= {f"clip_head.{k}": v for k, v in weights.clip_head.state_dict().items()}
    return {k: v.detach().cpu().contiguous() for k, v in sorted(tensors.items())}


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


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _hash(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode())
        digest.update(tensors[key].numpy().tobytes())
    return digest.hexdigest()
