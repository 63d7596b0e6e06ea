"""Read published checkpoints of the Audio Spectrogram Transformer and adapt them to other shapes.

Two formats are read: folders of Hugging Face's ASTForAudioClassification and ``.pth`` files of the
original repository. They name the same weights differently.

Gong, Chung, Glass: AST: Audio Spectrogram Transformer. Interspeech 2021 (arXiv 2104.01778).
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from engine.config import load
from engine.errors import ModelError
from engine.model.network import AST
from engine.model.weights_file import DAMAGED_FILE_ERRORS
from engine.recipe import ASTConfig, SpectrogramConfig
from engine.validation import parse_json

State = dict[str, Tensor]

_DAMAGED_CHECKPOINT_ERRORS: tuple[type[Exception], ...] = (  # torch.load raises even more
    *DAMAGED_FILE_ERRORS,
    *(EOFError, ArithmeticError, AssertionError, MemoryError, struct.error),
)
_HUGGING_FACE_NAMES = {  # replaced in this order
    "audio_spectrogram_transformer.": "",
    "embeddings.patch_embeddings.projection": "patches",
    "embeddings.position_embeddings": "positions",
    "embeddings.cls_token": "class_token",
    "embeddings.distillation_token": "distillation_token",
    "encoder.layer": "blocks",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.attention": "attention",
    "attention.output.dense": "attention.out",
    "intermediate.dense": "mlp.0",
    "output.dense": "mlp.3",
    "classifier.layernorm": "classifier.0",
    "classifier.dense": "classifier.1",
    "layernorm": "norm",
}
_ORIGINAL_NAMES = {
    "module.": "",
    "v.patch_embed.proj": "patches",
    "v.pos_embed": "positions",
    "v.cls_token": "class_token",
    "v.dist_token": "distillation_token",
    "v.blocks": "blocks",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
    "v.norm": "norm",
    "mlp_head": "classifier",
}
_UNUSED = ("v.head.", "v.head_dist.")  # image classifiers
_HUGGING_FACE_SETTINGS = {  # by our names
    "embedding_dim": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "patch_size": "patch_size",
    "stride": "time_stride",
    "num_mel_bands": "num_mel_bins",
    "target_length": "max_length",
    "dropout": "hidden_dropout_prob",
    "norm_eps": "layer_norm_eps",
}
_MULTI_LABEL = "multi_label_classification"
_SUPPORTED_SETTINGS = {
    "model_type": ("audio-spectrogram-transformer",),
    "hidden_act": ("gelu",),
    "problem_type": (None, "single_label_classification", _MULTI_LABEL),
}
_N_AUDIOSET_CLASSES = 527  # several can be present at once: multi-label

# Settings that files of the original repository do not contain.
_HEAD_DIM = 64
_STRIDES = (10, 12, 14, 16)
_STATISTICS = {  # mean and deviation of its data sets, by their number of frames
    1024: (SpectrogramConfig.mean, SpectrogramConfig.deviation),  # AudioSet
    512: (-6.6268077, 5.358466),  # ESC-50
    128: (-6.845978, 5.5654526),  # Speech Commands
}


class Checkpoint(NamedTuple):
    """A published network.

    Parameters
    ----------
    config : ASTConfig
    spectrogram : SpectrogramConfig
        The front end it was trained with.
    state : dict of str to float32 tensor
        The weights under the names of :class:`engine.model.network.AST`.
    labels : tuple of str, or None
        Names of the classes, if the checkpoint contains them.
    """

    config: ASTConfig
    spectrogram: SpectrogramConfig
    state: State
    labels: tuple[str, ...] | None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a published checkpoint without running code in it.

    Parameters
    ----------
    path : Path
        A folder with ``config.json``, ``model.safetensors`` and optionally
        ``preprocessor_config.json``, or a ``.pth`` file.

    Returns
    -------
    Checkpoint

    Raises
    ------
    ModelError
        The checkpoint is neither, is damaged, or has a feature the network does not support.
    """
    if not path.exists():
        raise ModelError(path, "no such file or folder")
    try:
        return _read_folder(path) if path.is_dir() else _read_original(path)
    except ModelError:
        raise
    except UnpicklingError as error:  # torch's own message advises to allow running the code
        reason = "it contains more than plain tensors, and is not opened for safety"
        raise ModelError(path, reason) from error
    except _DAMAGED_CHECKPOINT_ERRORS as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(path, f"not a published checkpoint, or damaged ({reason})") from error


def adapt(state: Mapping[str, Tensor], source: ASTConfig, target: ASTConfig) -> State:
    """Adapt weights to a network with another input size, other patches or other heads.

    Positions are cut from the middle if the target has fewer, and interpolated if it has more.
    Heads of another size are left out; the target keeps its fresh ones.

    Parameters
    ----------
    state : mapping of str to float tensor
        All weights of a network of `source`.
    source, target : ASTConfig

    Returns
    -------
    dict of str to float tensor
        For ``load_state_dict(..., strict=False)`` of a network of `target`.

    Raises
    ------
    ModelError
        The transformers differ in width, layers, heads or perceptrons.
    """
    for key in ("embedding_dim", "num_layers", "num_heads", "mlp_ratio"):
        value, required = getattr(source, key), getattr(target, key)
        if value != required:
            raise ModelError("checkpoint", f"its {key} is {value}, which cannot become {required}")
    adapted = {key: tensor for key, tensor in state.items() if _is_kept(key, source, target)}
    adapted["class_tokens"] = _adapt_class_tokens(state["class_tokens"], target.n_class_tokens)
    adapted["positions"] = _adapt_positions(state["positions"], source, target)
    adapted["patches.weight"] = _resize_kernel(state["patches.weight"], target.patch_size)
    return adapted


# -- Hugging Face ----------------------------------------------------------------------------


def _read_folder(path: Path) -> Checkpoint:
    for name in ("config.json", "model.safetensors"):
        if not (path / name).is_file():
            raise ModelError(path, f"the folder has no {name}")
    settings = parse_json((path / "config.json").read_bytes())
    preprocessor = path / "preprocessor_config.json"
    front_end = parse_json(preprocessor.read_bytes()) if preprocessor.exists() else {}
    _require_supported(path, settings, front_end)
    state = _translate(load_file(path / "model.safetensors"), _HUGGING_FACE_NAMES)
    num_classes = _num_classes(state)
    problem = settings.get("problem_type")
    shape = {ours: settings[theirs] for ours, theirs in _HUGGING_FACE_SETTINGS.items()}
    rest = {
        "sample_rate": front_end.get("sampling_rate", ASTConfig.sample_rate),
        "mlp_ratio": settings["intermediate_size"] / settings["hidden_size"],
        "num_classes": num_classes,
        "multi_label": problem == _MULTI_LABEL if problem else num_classes == _N_AUDIOSET_CLASSES,
    }
    config = load(ASTConfig, {**shape, **rest})
    _check(path, config, state)
    labels = _labels(path, settings.get("id2label") or {}, num_classes)
    return Checkpoint(config, _spectrogram_config(config, front_end), state, labels)


def _require_supported(path: Path, settings: dict[str, Any], front_end: dict[str, Any]) -> None:
    """Raise ModelError for unsupported settings and for files that contradict each other."""
    for key, supported in _SUPPORTED_SETTINGS.items():
        if (value := settings.get(key)) not in supported:
            raise ModelError(path, f"its {key} is {value!r}, supported is {supported[-1]!r}")
    bands, times = settings["frequency_stride"], settings["time_stride"]
    if bands != times:
        reason = f"its strides differ: {bands} along frequency, {times} along time"
        raise ModelError(path, f"{reason}; equal strides are supported")
    for key in ("num_mel_bins", "max_length"):
        if front_end.get(key, settings[key]) != settings[key]:
            raise ModelError(path, f"config.json and preprocessor_config.json differ in {key}")


def _spectrogram_config(config: ASTConfig, front_end: dict[str, Any]) -> SpectrogramConfig:
    kaldi = SpectrogramConfig.kaldi(config)
    if not front_end.get("do_normalize", True):
        return replace(kaldi, mean=0.0, deviation=0.5)  # the identity
    mean, deviation = front_end.get("mean", kaldi.mean), front_end.get("std", kaldi.deviation)
    return replace(kaldi, mean=mean, deviation=deviation)


def _labels(path: Path, names: dict[str, str], num_classes: int) -> tuple[str, ...] | None:
    if all(name == f"LABEL_{number}" for number, name in names.items()):
        return None
    if names.keys() != {str(number) for number in range(num_classes)}:
        raise ModelError(
            path, f"its id2label does not fit the {num_classes} classes of its weights"
        )
    return tuple(names[str(number)] for number in range(num_classes))


# -- the original repository -----------------------------------------------------------------


def _read_original(path: Path) -> Checkpoint:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about files that it then refuses
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    state = _translate(tensors, _ORIGINAL_NAMES)
    config = _infer_config(path, state)
    _check(path, config, state)
    mean, deviation = _STATISTICS[config.target_length]
    kaldi = SpectrogramConfig.kaldi(config)
    return Checkpoint(config, replace(kaldi, mean=mean, deviation=deviation), state, None)


def _infer_config(path: Path, state: State) -> ASTConfig:
    """Infer the shape of the network from the shapes of its tensors."""
    width = state["positions"].shape[2]
    if width % _HEAD_DIM:
        raise ModelError(path, f"its embedding_dim, {width}, is not a multiple of {_HEAD_DIM}")
    num_classes = _num_classes(state)
    any_length = ASTConfig(
        num_classes=num_classes,
        embedding_dim=width,
        num_layers=sum(key.endswith(".norm1.weight") for key in state),
        num_heads=width // _HEAD_DIM,
        patch_size=state["patches.weight"].shape[-1],
        mlp_ratio=state["blocks.0.mlp.0.weight"].shape[0] / width,
        multi_label=num_classes == _N_AUDIOSET_CLASSES,
    )
    n_patches = state["positions"].shape[1] - any_length.n_class_tokens
    shapes = product(_STRIDES, _STATISTICS)
    known = [replace(any_length, stride=stride, target_length=length) for stride, length in shapes]
    matching = [config for config in known if math.prod(config.n_patches) == n_patches]
    if len(matching) == 1:
        return matching[0]
    expected = sorted(math.prod(config.n_patches) for config in known)
    raise ModelError(path, f"it has {n_patches} patches; its shape is known only for {expected}")


# -- tensors ---------------------------------------------------------------------------------


def _num_classes(state: State) -> int:
    return len(state["classifier.1.weight"]) if "classifier.1.weight" in state else 0


def _translate(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> State:
    """Rename tensors to the network's names, convert to float32, and join split tensors."""
    state: State = {}
    for key, tensor in tensors.items():
        for theirs, ours in names.items():
            key = key.replace(theirs, ours)
        if not key.startswith(_UNUSED):
            state[key] = tensor.float()
    _join(state, "class_tokens", ("class_token", "distillation_token"), dim=1)
    for key in [key for key in state if ".attention.query." in key]:
        parts = [key.replace("query", part) for part in ("query", "key", "value")]
        _join(state, key.replace("query", "qkv"), parts, dim=0)
    return state


def _join(state: State, whole: str, parts: Iterable[str], dim: int) -> None:
    state[whole] = torch.cat([state.pop(part) for part in parts], dim)


def _check(path: Path, config: ASTConfig, state: State) -> None:
    """Raise ModelError unless these are exactly the weights of this network."""
    with torch.device("meta"):
        expected = AST(config).state_dict()
    for key in sorted(expected.keys() | state.keys()):
        found, needed = (tuple(s[key].shape) if key in s else "absent" for s in (state, expected))
        if found != needed:
            raise ModelError(path, f"its {key} is {found}, the network's {needed}")


def _is_kept(key: str, source: ASTConfig, target: ASTConfig) -> bool:
    """Whether a tensor belongs to no head, or to a head of the same size."""
    if key.startswith("classifier."):
        return source.num_classes == target.num_classes
    if key.startswith("projection."):
        sizes = {(config.fingerprint_dim, config.projection_dim) for config in (source, target)}
        return len(sizes) == 1
    return True


def _adapt_class_tokens(tokens: Tensor, n_tokens: int) -> Tensor:
    """Drop the distillation token, or copy the class token to make one; (1, n, dim)."""
    kept = tokens[:, :n_tokens]
    return torch.cat([kept, kept[:, : n_tokens - kept.shape[1]]], dim=1)


def _adapt_positions(positions: Tensor, source: ASTConfig, target: ASTConfig) -> Tensor:
    n_tokens = source.n_class_tokens
    classes, patches = positions[:, :n_tokens], positions[:, n_tokens:]
    grid = patches.unflatten(1, source.n_patches).permute(0, 3, 1, 2)  # (1, dim, n_bands, n_times)
    for axis, n_patches in enumerate(target.n_patches, start=2):
        grid = _resize_axis(grid, axis, n_patches)
    adapted = grid.flatten(2).transpose(1, 2)
    return torch.cat([_adapt_class_tokens(classes, target.n_class_tokens), adapted], dim=1)


def _resize_axis(grid: Tensor, axis: int, size: int) -> Tensor:
    """Cut one axis from the middle if it gets shorter, else interpolate it."""
    known = grid.shape[axis]
    if size <= known:
        return grid.narrow(axis, known // 2 - size // 2, size)
    sizes = [size if other == axis else grid.shape[other] for other in (2, 3)]
    return F.interpolate(grid, sizes, mode="bilinear")


def _resize_kernel(kernel: Tensor, size: int) -> Tensor:
    """Resize the patch weights so that an enlarged patch gives the same token as before.

    Uses the pseudo-inverse of bilinear interpolation (Beyer et al.: FlexiViT. CVPR 2023).
    Interpolated weights would give larger tokens, because a larger patch has more values to sum.
    """
    known = kernel.shape[-1]
    if size == known:
        return kernel
    resize = F.interpolate(torch.eye(known).unsqueeze(1), size, mode="linear").squeeze(1)
    inverse = torch.linalg.pinv(resize)  # (size, known), for rows and for columns alike
    resized: Tensor = inverse @ kernel @ inverse.T
    return resized
