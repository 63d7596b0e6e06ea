"""The weights file: both networks with their recipe, training record and labels, as safetensors."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from engine.files import atomic_write
from engine.model.network import AST, ClipHead, new_clip_head, with_state
from engine.model.weights_file import StoredWeights, hash_tensors, parse_weights, read_weights
from engine.recipe import Recipe


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
    arrays = {key: tensor.numpy() for key, tensor in _tensors(weights).items()}
    recipe = dataclasses.replace(weights.recipe, weights_sha256=hash_tensors(arrays))
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
    return _with_networks(parse_weights(content, source))


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
    return _with_networks(read_weights(path))


def _with_networks(stored: StoredWeights) -> Weights:
    tensors, recipe, training_record, labels = stored
    network = with_state(lambda: AST(recipe.encoder), _with_prefix("model.", tensors))
    clip_head = with_state(lambda: new_clip_head(recipe), _with_prefix("clip_head.", tensors))
    return Weights(network, clip_head, recipe, training_record, labels)


def _tensors(weights: Weights) -> dict[str, Tensor]:
    tensors = {f"model.{k}": v for k, v in weights.network.state_dict().items()}
    tensors |= {f"clip_head.{k}": v for k, v in weights.clip_head.state_dict().items()}
    return {k: v.detach().cpu().contiguous() for k, v in sorted(tensors.items())}


def _with_prefix(prefix: str, tensors: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Select tensors; torch warns of arrays that it cannot write to, so they are copied."""
    return {
        key.removeprefix(prefix): torch.from_numpy(array.copy())
        for key, array in tensors.items()
        if key.startswith(prefix)
    }
