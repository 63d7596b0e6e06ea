"""The encoder that turns segments into embeddings, and its weights file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from engine.errors import AstoundError, ModelError
from engine.files import atomic_write
from engine.model.network import AST, ClipHead, Network
from engine.recipe import Recipe

# Clips pooled at once, so that a day of audio takes no more memory than an hour.
CLIP_BATCH_SIZE = 256

_DAMAGES = (  # all that foreign or damaged bytes have been seen to raise
    SafetensorError,
    AstoundError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
)
SHIPPED_WEIGHTS = Path(__file__).parents[1] / "weights" / "astound-v3.safetensors"


class Encoder:
    """The segment model and the clip head with the recipe they belong to.

    Parameters
    ----------
    model : Network
    clip_head : ClipHead
    recipe : Recipe
    device : str or torch.device
    """

    def __init__(
        self, model: Network, clip_head: ClipHead, recipe: Recipe, device: str | torch.device
    ) -> None:
        self.device = torch.device(device)
        # What is no module, such as an ONNX graph, has its own idea of devices.
        self.model = model.to(self.device).eval() if isinstance(model, nn.Module) else model
        self.clip_head = clip_head.to(self.device).eval()
        self.recipe = recipe
        self.half = _has_fast_bfloat16(self.device)

    @torch.inference_mode()
    def embed_segments(self, features: Tensor) -> Tensor:
        """Embed normalised segments.

        Parameters
        ----------
        features : float32 tensor of shape (n, n_frames, n_mels)

        Returns
        -------
        float32 tensor of shape (n, fingerprint_length), unit norm, on the CPU
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.model.embed(features.to(self.device)).cpu()

    @torch.inference_mode()
    def embed_clips(self, embeddings: Tensor, absent: Tensor) -> Tensor:
        """Embed clips of consecutive segment embeddings; see :meth:`ClipHead.forward`."""
        batches = zip(embeddings.split(CLIP_BATCH_SIZE), absent.split(CLIP_BATCH_SIZE), strict=True)
        return torch.cat(
            [self.clip_head(some.to(self.device), no.to(self.device)).cpu() for some, no in batches]
        )


def new_models(recipe: Recipe) -> tuple[AST, ClipHead]:
    """Make freshly initialised models of the recipe's shape."""
    return AST(recipe.encoder), new_clip_head(recipe)


def new_clip_head(recipe: Recipe) -> ClipHead:
    """Make a freshly initialised clip head of the recipe's shape."""
    return ClipHead(recipe.encoder.fingerprint_length, recipe.clip)


class Weights(NamedTuple):
    """All that a weights file holds.

    Parameters
    ----------
    network : AST
    clip_head : ClipHead
    recipe : Recipe
        With the hash of the weights.
    record : mapping
        How they were trained.
    labels : tuple of str, optional
        Names of the classes, where there are any.
    """

    network: AST
    clip_head: ClipHead
    recipe: Recipe
    record: Mapping[str, Any] = MappingProxyType({})
    labels: tuple[str, ...] | None = None


def sealed(weights: Weights) -> Weights:
    """Put the hash of the weights into their recipe."""
    recipe = dataclasses.replace(weights.recipe, weights_sha256=_hash(_tensors(weights)))
    return weights._replace(recipe=recipe)


def to_bytes(weights: Weights) -> bytes:
    """Write weights with their recipe, record and labels as safetensors."""
    metadata = {
        "recipe": json.dumps(sealed(weights).recipe.to_dict()),
        "record": json.dumps(dict(weights.record)),
        "labels": json.dumps(weights.labels),
    }
    return save(_tensors(weights), metadata)


def from_bytes(content: bytes, source: str | os.PathLike[str] = "bytes") -> Weights:
    """Read what :func:`to_bytes` wrote.

    Raises
    ------
    ModelError
        It is something else, or damaged.
    """
    try:
        tensors = load(content)
        metadata = _metadata(content)
        recipe = Recipe.from_dict(json.loads(metadata["recipe"]))
        network, clip_head = new_models(recipe)
        network.load_state_dict(_below("model.", tensors))
        clip_head.load_state_dict(_below("clip_head.", tensors))
        record, labels = json.loads(metadata["record"]), json.loads(metadata.get("labels", "null"))
    except _DAMAGES as error:
        raise ModelError(source, f"not astound weights, or damaged ({error})") from error
    if _hash(tensors) != recipe.weights_sha256:
        raise ModelError(source, "the weights do not have the hash their recipe states")
    return Weights(network, clip_head, recipe, record, labels and tuple(labels))


def save_weights(path: Path, weights: Weights) -> Recipe:
    """Write a weights file; nothing is left half written.

    Returns
    -------
    Recipe
        The recipe with the hash of these weights.
    """
    with atomic_write(path) as partial:
        partial.write_bytes(to_bytes(weights))
    return sealed(weights).recipe


def load_weights(path: Path) -> Weights:
    """Read a file of :func:`save_weights`; ModelError when it is not one or is damaged."""
    try:
        return from_bytes(path.read_bytes(), path)
    except FileNotFoundError as error:
        raise ModelError(path, "no such weights file") from error
    except OSError as error:
        raise ModelError(path, f"cannot be read ({error.strerror})") from error


def load_encoder(path: Path = SHIPPED_WEIGHTS, device: str = "auto") -> Encoder:
    """Load weights onto a device.

    Parameters
    ----------
    path : Path
    device : {"auto", "cpu", "cuda"}
        "auto" takes CUDA where it is available.
    """
    network, clip_head, recipe, _, _ = load_weights(path)
    return Encoder(network, clip_head, recipe, resolve_device(device))


def resolve_device(device: str) -> str:
    """Turn "auto" into "cuda" or "cpu"; ModelError when CUDA is asked for and absent."""
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ModelError(
            "cuda", "no CUDA device, or torch was installed without CUDA; use --device cpu"
        )
    return ("cuda" if available else "cpu") if device == "auto" else device


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())  # no public test for it yet


def _tensors(weights: Weights) -> dict[str, Tensor]:
    tensors = {f"model.{k}": v for k, v in weights.network.state_dict().items()}
    tensors |= {f"clip_head.{k}": v for k, v in weights.clip_head.state_dict().items()}
    return {k: v.detach().cpu().contiguous() for k, v in sorted(tensors.items())}


def _metadata(content: bytes) -> dict[str, str]:
    """Read the header of a safetensors file: a length of 8 bytes, then JSON."""
    length = int.from_bytes(content[:8], "little")
    found: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return found


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _hash(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode())
        digest.update(tensors[key].numpy().tobytes())
    return digest.hexdigest()
