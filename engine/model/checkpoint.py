"""Published checkpoints of the Audio Spectrogram Transformer, read and fitted to other shapes.

They come as folders of Hugging Face's ASTForAudioClassification and as ``.pth`` files of the
original repository, which name the same weights differently.

Gong, Chung, Glass: AST: Audio Spectrogram Transformer. Interspeech 2021 (arXiv 2104.01778).
"""

from __future__ import annotations

import json
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
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from engine.errors import AstoundError, ModelError
from engine.model.network import AST
from engine.recipe import ASTConfig, SpectrogramConfig

State = dict[str, Tensor]

_DAMAGES = (  # all that foreign or damaged files have been seen to raise
    *(SafetensorError, AstoundError, OSError, EOFError, LookupError, ValueError, TypeError),
    *(AttributeError, RuntimeError, ArithmeticError, AssertionError, MemoryError, struct.error),
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
_UNUSED = ("v.head.", "v.head_dist.")  # classifiers of images
_SETTINGS = {  # ours and Hugging Face's
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
_KNOWN = {
    "model_type": ("audio-spectrogram-transformer",),
    "hidden_act": ("gelu",),
    "problem_type": (None, "single_label_classification", _MULTI_LABEL),
}
_N_AUDIOSET_CLASSES = 527  # sounds that may occur together

# What files of the original repository do not say about themselves.
_WIDTH_OF_A_HEAD = 64
_STRIDES = (10, 12, 14, 16)
_STATISTICS = {  # mean and deviation by the frames of its recipes
    1024: (SpectrogramConfig.mean, SpectrogramConfig.deviation),  # AudioSet
    512: (-6.6268077, 5.358466),  # ESC-50
    128: (-6.845978, 5.5654526),  # Speech Commands
}


class Checkpoint(NamedTuple):
    """A trained network as it was published.

    Parameters
    ----------
    config : ASTConfig
    spectrogram : SpectrogramConfig
        The front end it was trained with.
    state : dict of str to float32 tensor
        The weights by the names of :class:`engine.model.network.AST`.
    labels : tuple of str, or None
        What the classes are called, if the checkpoint says so.
    """

    config: ASTConfig
    spectrogram: SpectrogramConfig
    state: State
    labels: tuple[str, ...] | None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a published checkpoint; no code in it is ever run.

    Parameters
    ----------
    path : Path
        A folder with ``config.json``, ``model.safetensors`` and perhaps
        ``preprocessor_config.json``, or a ``.pth`` file.

    Returns
    -------
    Checkpoint

    Raises
    ------
    ModelError
        It is neither, is damaged, or is of a kind the network cannot be.
    """
    if not path.exists():
        raise ModelError(path, "no such file or folder")
    try:
        return _read_folder(path) if path.is_dir() else _read_original(path)
    except ModelError:
        raise
    except UnpicklingError as error:  # torch's own text would advise to run the code
        reason = "it is no file of plain tensors, and nothing else is ever opened"
        raise ModelError(path, reason) from error
    except _DAMAGES as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(path, f"no published checkpoint, or damaged ({reason})") from error


def adapt(state: Mapping[str, Tensor], source: ASTConfig, target: ASTConfig) -> State:
    """Fit weights to a network of another input, other patches or other heads.

    Positions are cut from the middle where fewer are wanted and interpolated where more are. Heads
    of another size are left out: the new network has fresh ones.

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
        has, wanted = getattr(source, key), getattr(target, key)
        if has != wanted:
            raise ModelError("checkpoint", f"its {key} is {has}, which cannot become {wanted}")
    fitted = {key: tensor for key, tensor in state.items() if _fits(key, source, target)}
    fitted["class_tokens"] = _fit_classes(state["class_tokens"], target.n_class_tokens)
    fitted["positions"] = _fit_positions(state["positions"], source, target)
    fitted["patches.weight"] = _fit_kernel(state["patches.weight"], target.patch_size)
    return fitted


def _read_folder(path: Path) -> Checkpoint:
    for name in ("config.json", "model.safetensors"):
        if not (path / name).is_file():
            raise ModelError(path, f"there is no {name} in this folder")
    settings = json.loads((path / "config.json").read_text("utf-8"))
    preprocessor = path / "preprocessor_config.json"
    hearing = json.loads(preprocessor.read_text("utf-8")) if preprocessor.exists() else {}
    _refuse_others(path, settings, hearing)
    state = _translate(load_file(path / "model.safetensors"), _HUGGING_FACE_NAMES)
    num_classes = _num_classes(state)
    problem = settings.get("problem_type")
    config = ASTConfig(
        **{ours: settings[theirs] for ours, theirs in _SETTINGS.items()},
        sample_rate=hearing.get("sampling_rate", ASTConfig.sample_rate),
        mlp_ratio=settings["intermediate_size"] / settings["hidden_size"],
        num_classes=num_classes,
        multi_label=problem == _MULTI_LABEL if problem else num_classes == _N_AUDIOSET_CLASSES,
    )
    _check(path, config, state)
    labels = _labels(path, settings.get("id2label") or {}, num_classes)
    return Checkpoint(config, _front_end(config, hearing), state, labels)


def _refuse_others(path: Path, settings: dict[str, Any], hearing: dict[str, Any]) -> None:
    """Raise ModelError on what the network cannot do and on files that contradict each other."""
    for key, known in _KNOWN.items():
        if settings.get(key) not in known:
            raise ModelError(path, f"its {key} is {settings.get(key)!r}, known is {known[-1]!r}")
    bands, times = settings["frequency_stride"], settings["time_stride"]
    if bands != times:
        raise ModelError(
            path, f"its stride is {bands} along frequency and {times} along time, one is supported"
        )
    for key in ("num_mel_bins", "max_length"):
        if hearing.get(key, settings[key]) != settings[key]:
            raise ModelError(path, f"config.json and preprocessor_config.json differ in {key}")


def _front_end(config: ASTConfig, hearing: dict[str, Any]) -> SpectrogramConfig:
    kaldi = SpectrogramConfig.kaldi(config)
    if not hearing.get("do_normalize", True):
        return replace(kaldi, mean=0.0, deviation=0.5)  # which change nothing
    mean, deviation = hearing.get("mean", kaldi.mean), hearing.get("std", kaldi.deviation)
    return replace(kaldi, mean=mean, deviation=deviation)


def _labels(path: Path, names: dict[str, str], num_classes: int) -> tuple[str, ...] | None:
    if all(name == f"LABEL_{number}" for number, name in names.items()):
        return None
    if names.keys() != {str(number) for number in range(num_classes)}:
        raise ModelError(
            path, f"its id2label does not fit the {num_classes} classes of its weights"
        )
    return tuple(names[str(number)] for number in range(num_classes))


def _read_original(path: Path) -> Checkpoint:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about files that it then refuses
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    state = _translate(tensors, _ORIGINAL_NAMES)
    config = _infer(path, state)
    _check(path, config, state)
    mean, deviation = _STATISTICS[config.target_length]
    kaldi = SpectrogramConfig.kaldi(config)
    return Checkpoint(config, replace(kaldi, mean=mean, deviation=deviation), state, None)


def _infer(path: Path, state: State) -> ASTConfig:
    """Infer the shape of the network from those of its tensors."""
    width = state["positions"].shape[2]
    if width % _WIDTH_OF_A_HEAD:
        raise ModelError(path, f"the width of its tokens, {width}, is no multiple of 64")
    num_classes = _num_classes(state)
    any_length = ASTConfig(
        num_classes=num_classes,
        embedding_dim=width,
        num_layers=sum(key.endswith(".norm1.weight") for key in state),
        num_heads=width // _WIDTH_OF_A_HEAD,
        patch_size=state["patches.weight"].shape[-1],
        mlp_ratio=state["blocks.0.mlp.0.weight"].shape[0] / width,
        multi_label=num_classes == _N_AUDIOSET_CLASSES,
    )
    n_patches = state["positions"].shape[1] - any_length.n_class_tokens
    shapes = product(_STRIDES, _STATISTICS)
    known = [replace(any_length, stride=one, target_length=length) for one, length in shapes]
    fitting = [config for config in known if math.prod(config.n_patches) == n_patches]
    if len(fitting) == 1:
        return fitting[0]
    expected = sorted(math.prod(config.n_patches) for config in known)
    raise ModelError(path, f"it has {n_patches} patches, which tells its shape only for {expected}")


def _num_classes(state: State) -> int:
    return len(state["classifier.1.weight"]) if "classifier.1.weight" in state else 0


def _translate(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> State:
    """Rename to the network's names, make float32, and join what it holds in one tensor."""
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
        wanted = AST(config).state_dict()
    for key in sorted(wanted.keys() | state.keys()):
        has, needed = (tuple(one[key].shape) if key in one else "absent" for one in (state, wanted))
        if has != needed:
            raise ModelError(path, f"its {key} is {has}, the network's {needed}")


def _fits(key: str, source: ASTConfig, target: ASTConfig) -> bool:
    """Tell whether a tensor belongs to no head, or to one of the same size."""
    if key.startswith("classifier."):
        return source.num_classes == target.num_classes
    if key.startswith("projection."):
        sizes = {(one.fingerprint_dim, one.projection_dim) for one in (source, target)}
        return len(sizes) == 1
    return True


def _fit_classes(tokens: Tensor, n_wanted: int) -> Tensor:
    """Drop the distillation token, or make one like the class token; (1, n, dim)."""
    kept = tokens[:, :n_wanted]
    return torch.cat([kept, kept[:, : n_wanted - kept.shape[1]]], dim=1)


def _fit_positions(positions: Tensor, source: ASTConfig, target: ASTConfig) -> Tensor:
    n_tokens = source.n_class_tokens
    classes, patches = positions[:, :n_tokens], positions[:, n_tokens:]
    grid = patches.unflatten(1, source.n_patches).permute(0, 3, 1, 2)  # (1, dim, n_bands, n_times)
    for axis, n_wanted in enumerate(target.n_patches, start=2):
        grid = _fit_axis(grid, axis, n_wanted)
    fitted = grid.flatten(2).transpose(1, 2)
    return torch.cat([_fit_classes(classes, target.n_class_tokens), fitted], dim=1)


def _fit_axis(grid: Tensor, axis: int, n_wanted: int) -> Tensor:
    """Cut from the middle or interpolate, whatever happens to the other axis."""
    n_known = grid.shape[axis]
    if n_wanted <= n_known:
        return grid.narrow(axis, n_known // 2 - n_wanted // 2, n_wanted)
    size = [n_wanted if one == axis else grid.shape[one] for one in (2, 3)]
    return F.interpolate(grid, size, mode="bilinear")


def _fit_kernel(kernel: Tensor, size: int) -> Tensor:
    """Resize the patches' weights so that an enlarged patch gives the token of the patch it was.

    By the pseudo-inverse of bilinear interpolation (Beyer et al.: FlexiViT. CVPR 2023), for with
    more numbers in a patch plainly interpolated weights would give larger tokens.
    """
    known = kernel.shape[-1]
    if size == known:
        return kernel
    resize = F.interpolate(torch.eye(known).unsqueeze(1), size, mode="linear").squeeze(1)
    inverse = torch.linalg.pinv(resize)  # (size, known), for rows and for columns alike
    resized: Tensor = inverse @ kernel @ inverse.T
    return resized
