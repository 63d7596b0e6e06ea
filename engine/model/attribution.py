"""Which parts of a spectrogram an answer rests on: three ways to tell, and a picture of it.

Gradient × input (Shrikumar et al. 2016, arXiv 1605.01713), attention rollout (Abnar and Zuidema
2020, arXiv 2005.00928) and occlusion (Zeiler and Fergus 2014, arXiv 1311.2901).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import ConfigError
from engine.figure import begin, save
from engine.model.network import AST, Block

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Importance = NDArray[np.float32]
"""float32 array of shape (n, n_frames, n_mels)."""

Score = Callable[[Tensor], Tensor]
"""Maps features of shape (n, n_frames, n_mels) to n numbers, for any n, each of its own input."""

Patch = tuple[slice, slice]
"""Frames and bands of one patch."""

# Inputs scored at once, so that memory does not grow with the number of patches.
BATCH_SIZE = 16

# The colours leave this share of the values out, lest one outlier leave all others pale.
_OUTLIERS = 0.002

_TICKS_HZ = (50, 100, 200, 500, 1000, 2000, 3000, 4000, 6000, 8000, 12000, 16000)


# -- the three ways --------------------------------------------------------------------------


def agreement(network: AST, features: Tensor) -> Score:
    """Make the score that asks what an embedding rests on: its length along where it points now.

    The cosine would not do: with itself it is the largest there is, and its gradient 0.

    Parameters
    ----------
    network : AST
        In evaluation mode.
    features : float32 tensor of shape (1, n_frames, n_mels), normalised

    Returns
    -------
    Score
    """
    with torch.inference_mode(False), torch.no_grad():
        direction = network.embed(features.clone())[0]

    def score(some: Tensor) -> Tensor:
        summary = network.summary(some)
        projected = network.projection(summary) if network.config.fingerprint_dim else summary
        return projected.float() @ direction

    return score


def gradient_times_input(score: Score, features: Tensor) -> Importance:
    """Multiply each value by how fast the score rises with it.

    Parameters
    ----------
    score : Score
        Differentiable; without dropout, or the result is random.
    features : float32 tensor of shape (n, n_frames, n_mels), normalised

    Returns
    -------
    float32 array of shape (n, n_frames, n_mels)
        Signed, negative where a value speaks against. Of a linear score they sum to the score.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = features.clone().detach().requires_grad_()
        (gradient,) = torch.autograd.grad(score(x).sum(), x)
    return _array(gradient * x)


@torch.no_grad()
def attention_rollout(network: AST, features: Tensor) -> Importance:
    """Follow the attention of the class tokens through all layers down to the patches.

    Parameters
    ----------
    network : AST
        In evaluation mode, or the result is random.
    features : float32 tensor of shape (n, n_frames, n_mels), normalised
        At most `network.config.target_length` frames.

    Returns
    -------
    float32 array of shape (n, n_frames, n_mels)
        Not negative, and of no class in particular: it shows where the network looks. The mean
        where patches overlap, 0 beyond the last patch.
    """
    n_class_tokens = network.config.n_class_tokens
    seen = [
        rollout(network, one)[:, :n_class_tokens, n_class_tokens:].mean(dim=1)
        for one in features.split(1)  # n_tokens squared for each head: the base model has 1214
    ]
    return _array(_put_back(torch.cat(seen), _patches_of(network, features), features))


def rollout(network: AST, features: Tensor) -> Tensor:
    """Share that each input token has in each output token, if attention were all there is.

    Parameters
    ----------
    network : AST
    features : float32 tensor of shape (n, n_frames, n_mels), normalised

    Returns
    -------
    float32 tensor of shape (n, n_tokens, n_tokens)
        Row i holds the shares in output token i, which sum to 1; tokens as in `network.tokens`.
    """
    x = network.tokens(features)
    shares = torch.eye(x.shape[1], device=x.device).expand(len(x), -1, -1)
    for block in network.blocks:
        assert isinstance(block, Block)
        # Half of what a layer gives is its input, which passes by the attention unchanged.
        shares = (_attention(block, x) @ shares + shares) / 2
        x = block(x)
    return shares


@torch.no_grad()
def occlusion(score: Score, features: Tensor, patch_size: int, stride: int) -> Importance:
    """Replace one patch after the other by the mean of its input, and see how far the score drops.

    Parameters
    ----------
    score : Score
        Called with batches of up to `BATCH_SIZE` variants of one input.
    features : float32 tensor of shape (n, n_frames, n_mels), normalised
    patch_size, stride : int
        Side of a patch and distance between patches; the last ones end where the features do.

    Returns
    -------
    float32 array of shape (n, n_frames, n_mels)
        Signed, negative where hiding raised the score. The mean where patches overlap.

    Raises
    ------
    ConfigError
        The patches are larger than the features, or leave some of them out.
    """
    _require_patches_fit(patch_size, stride, features)
    patches = [
        (slice(frame, frame + patch_size), slice(band, band + patch_size))
        for band in _starts(features.shape[2], patch_size, stride)
        for frame in _starts(features.shape[1], patch_size, stride)
    ]
    drops = [score(one) - _scores_without(score, one, patches) for one in features.split(1)]
    return _array(_put_back(torch.stack(drops), patches, features))


# -- patches ---------------------------------------------------------------------------------


def _attention(block: Block, x: Tensor) -> Tensor:
    """Weights of one layer, mean over its heads, (n, n_tokens, width) to (n, n_tokens, n_tokens).

    Computed again: the fused attention that the network uses does not give them out.
    """
    heads = block.attention.qkv(block.norm1(x)).unflatten(-1, (3, block.attention.num_heads, -1))
    q, k, _ = heads.permute(2, 0, 3, 1, 4)  # each (n, num_heads, n_tokens, width / num_heads)
    weights: Tensor = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1)
    return weights.mean(dim=1)


def _patches_of(network: AST, features: Tensor) -> list[Patch]:
    """Patches in the order of the network's tokens, frequency-major."""
    size, stride = network.config.patch_size, network.config.stride
    _, n_frames, n_mels = features.shape
    return [
        (slice(frame, frame + size), slice(band, band + size))
        for band in range(0, n_mels - size + 1, stride)
        for frame in range(0, n_frames - size + 1, stride)
    ]


def _starts(length: int, patch_size: int, stride: int) -> list[int]:
    last = length - patch_size
    return [*range(0, last, stride), last]


def _scores_without(score: Score, one: Tensor, patches: list[Patch]) -> Tensor:
    """Scores of one input, (1, n_frames, n_mels), with each patch hidden, to (n_patches,)."""
    scores = []
    for first in range(0, len(patches), BATCH_SIZE):
        batch = patches[first : first + BATCH_SIZE]
        hidden = one.repeat(len(batch), 1, 1)
        for variant, (frames, bands) in zip(hidden, batch, strict=True):
            variant[frames, bands] = one.mean()
        scores.append(score(hidden))
    return torch.cat(scores)


def _put_back(values: Tensor, patches: list[Patch], features: Tensor) -> Tensor:
    """Values of patches, (n, n_patches), to the shape of the features: their mean in each place."""
    total = torch.zeros_like(features)
    n_over = torch.zeros_like(features[0])
    for column, (frames, bands) in zip(values.T, patches, strict=True):
        total[:, frames, bands] += column[:, None, None]
        n_over[frames, bands] += 1
    return total / n_over.clamp(min=1)


def _require_patches_fit(patch_size: int, stride: int, features: Tensor) -> None:
    n_frames, n_mels = features.shape[1:]
    if not 1 <= patch_size <= min(n_frames, n_mels):
        requirement = f"must be from 1 to {min(n_frames, n_mels)}"
        raise ConfigError.invalid("patch_size", patch_size, requirement)
    if not 1 <= stride <= patch_size:
        raise ConfigError.invalid("stride", stride, f"must be from 1 to patch_size={patch_size}")


def _array(values: Tensor) -> Importance:
    return values.detach().float().cpu().numpy()


# -- the picture -----------------------------------------------------------------------------


def plot(
    features: NDArray[np.float32],
    importance: NDArray[np.float32],
    seconds_per_frame: float,
    mel_hz: NDArray[np.floating],
    path: Path,
    title: str = "",
) -> None:
    """Draw a spectrogram and, below it, which parts of it are important.

    Parameters
    ----------
    features, importance : float32 array of shape (n_frames, n_mels)
    seconds_per_frame : float
        Distance of the frames.
    mel_hz : float array of shape (n_mels,), rising
        Middle of each band.
    path : Path
        What to write; one of engine.figure.PICTURES by its ending.
    title : str, optional

    Raises
    ------
    ConfigError
        The ending of the path is of no picture.
    AstoundError
        matplotlib is not installed, or the picture cannot be written.
    """
    figure = begin(path, height=6.0)
    above, below = figure.subplots(2, 1, sharex=True, sharey=True)
    extent = (0.0, len(features) * seconds_per_frame, -0.5, len(mel_hz) - 0.5)
    _draw(above, features, extent, "level, normalised", _span(features))
    _draw(below, importance, extent, "importance", _balance(importance))
    # A title is often a file's name, and a dollar sign in it begins no formula.
    figure.suptitle(title, parse_math=False)
    below.set_xlabel("time (s)")
    _label_hz(below, mel_hz)
    save(figure, path)


def _draw(
    axes: Axes,
    values: NDArray[np.float32],
    extent: tuple[float, float, float, float],
    label: str,
    colours: dict[str, Any],
) -> None:
    layout: dict[str, Any] = {"origin": "lower", "aspect": "auto", "interpolation": "nearest"}
    image = axes.imshow(values.T, extent=extent, **layout, **colours)
    axes.figure.colorbar(image, ax=axes, label=label)
    axes.set_ylabel("frequency (Hz)")


def _span(values: NDArray[np.float32]) -> dict[str, Any]:
    low, high = np.quantile(values, [_OUTLIERS, 1 - _OUTLIERS])
    return {"cmap": "magma", "vmin": low, "vmax": high}


def _balance(values: NDArray[np.float32]) -> dict[str, Any]:
    """White at 0, red for and blue against, where values can be negative."""
    if not (values < 0).any():
        return _span(values)
    high = np.quantile(np.abs(values), 1 - _OUTLIERS)
    return {"cmap": "RdBu_r", "vmin": -high, "vmax": high}


def _label_hz(axes: Axes, mel_hz: NDArray[np.floating]) -> None:
    """Name round frequencies where they lie among the bands, which are not evenly spaced."""
    bands = np.arange(len(mel_hz))
    shown: list[tuple[float, str]] = []
    for hz in _TICKS_HZ:
        at = float(np.interp(hz, mel_hz, bands))
        room = at - shown[-1][0] if shown else len(bands)
        if mel_hz[0] <= hz <= mel_hz[-1] and room > len(bands) / 20:  # or labels overlap
            shown.append((at, f"{hz}"))
    axes.set_yticks([at for at, _ in shown], [name for _, name in shown])
