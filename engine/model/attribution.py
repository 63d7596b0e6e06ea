"""Attribute an output of the network to parts of its input spectrogram, and plot the result.

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
from engine.figure import new_figure, save_figure
from engine.model.network import AST, Block

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Importance = NDArray[np.float32]
"""float32 array of shape (n, n_frames, n_mels)."""

Score = Callable[[Tensor], Tensor]
"""Maps features of shape (n, n_frames, n_mels) to n numbers, for any n, each of its own input."""

Patch = tuple[slice, slice]
"""Frames and bands of one patch."""

BATCH_SIZE = 16
"""Inputs scored at once, so that memory does not grow with the number of patches."""

# The colour scale leaves out this fraction of the values, so that one outlier does not make all
# others pale.
_OUTLIERS = 0.002

_TICKS_HZ = (50, 100, 200, 500, 1000, 2000, 3000, 4000, 6000, 8000, 12000, 16000)


# -- methods ---------------------------------------------------------------------------------


def embedding_score(network: AST, features: Tensor) -> Score:
    """Build a score for the embedding of one input: its length along its current direction.

    The cosine is no use: an embedding's cosine with itself is the maximum, where the gradient is 0.

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

    def score(batch: Tensor) -> Tensor:
        summary = network.summary(batch)
        projected = network.projection(summary) if network.config.fingerprint_dim else summary
        return projected.float() @ direction

    return score


def gradient_times_input(score: Score, features: Tensor) -> Importance:
    """Multiply each value by the gradient of the score with respect to it.

    Parameters
    ----------
    score : Score
        Differentiable and without dropout.
    features : float32 tensor of shape (n, n_frames, n_mels), normalised

    Returns
    -------
    float32 array of shape (n, n_frames, n_mels)
        Negative values lower the score. For a linear score they sum to the score.
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
        In evaluation mode, because dropout would make the result random.
    features : float32 tensor of shape (n, n_frames, n_mels), normalised
        At most `network.config.target_length` frames.

    Returns
    -------
    float32 array of shape (n, n_frames, n_mels)
        Not negative and independent of any class. The mean where patches overlap, 0 beyond the
        last patch.
    """
    n_class_tokens = network.config.n_class_tokens
    shares = [
        rollout(network, single)[:, :n_class_tokens, n_class_tokens:].mean(dim=1)
        for single in features.split(1)  # memory grows with n_tokens squared; the base model: 1214
    ]
    return _array(_put_back(torch.cat(shares), _patches_of(network, features), features))


def rollout(network: AST, features: Tensor) -> Tensor:
    """Compute the share of each input token in each output token from the attention alone.

    Parameters
    ----------
    network : AST
    features : float32 tensor of shape (n, n_frames, n_mels), normalised

    Returns
    -------
    float32 tensor of shape (n, n_tokens, n_tokens)
        Row i holds the shares in output token i, which sum to 1. The tokens are those of
        `network.tokens`.
    """
    x = network.tokens(features)
    shares = torch.eye(x.shape[1], device=x.device).expand(len(x), -1, -1)
    for block in network.blocks:
        assert isinstance(block, Block)
        # The residual connection passes the input on unchanged; it counts as one half.
        shares = (_attention(block, x) @ shares + shares) / 2
        x = block(x)
    return shares


@torch.no_grad()
def occlusion(score: Score, features: Tensor, patch_size: int, stride: int) -> Importance:
    """Compute the loss of score when one patch after the other is replaced by the input's mean.

    Parameters
    ----------
    score : Score
        Called with batches of up to `BATCH_SIZE` variants of one input.
    features : float32 tensor of shape (n, n_frames, n_mels), normalised
    patch_size, stride : int
        Side of a patch and distance between patches. The last patches end where the features end.

    Returns
    -------
    float32 array of shape (n, n_frames, n_mels)
        Negative where masking raised the score. The mean where patches overlap.

    Raises
    ------
    ConfigError
        The patches are larger than the features, or there are gaps between them.
    """
    _require_patches_fit(patch_size, stride, features)
    patches = [
        (slice(frame, frame + patch_size), slice(band, band + patch_size))
        for band in _starts(features.shape[2], patch_size, stride)
        for frame in _starts(features.shape[1], patch_size, stride)
    ]
    drops = [score(single) - _masked_scores(score, single, patches) for single in features.split(1)]
    return _array(_put_back(torch.stack(drops), patches, features))


# -- patches ---------------------------------------------------------------------------------


def _attention(block: Block, x: Tensor) -> Tensor:
    """Attention of one layer, mean over its heads, (n, n_tokens, width) to (n, n_tokens, n_tokens).

    Computed again, because the fused attention of the network does not return it.
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


def _masked_scores(score: Score, single: Tensor, patches: list[Patch]) -> Tensor:
    """Score one input, (1, n_frames, n_mels), with each patch masked, to (n_patches,)."""
    scores = []
    for first in range(0, len(patches), BATCH_SIZE):
        batch = patches[first : first + BATCH_SIZE]
        masked = single.repeat(len(batch), 1, 1)
        for variant, (frames, bands) in zip(masked, batch, strict=True):
            variant[frames, bands] = single.mean()
        scores.append(score(masked))
    return torch.cat(scores)


def _put_back(values: Tensor, patches: list[Patch], features: Tensor) -> Tensor:
    """Average the values of patches, (n, n_patches), at each place of the features."""
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


# -- plot ------------------------------------------------------------------------------------


def plot(
    features: NDArray[np.float32],
    importance: NDArray[np.float32],
    seconds_per_frame: float,
    mel_hz: NDArray[np.floating],
    path: Path,
    title: str = "",
) -> None:
    """Plot a spectrogram and, below it, the importance of its parts.

    Parameters
    ----------
    features, importance : float32 array of shape (n_frames, n_mels)
    seconds_per_frame : float
        Distance of the frames.
    mel_hz : float array of shape (n_mels,), rising
        Centre of each band.
    path : Path
        File to write, with a suffix of :data:`engine.figure.FIGURE_SUFFIXES`.
    title : str, optional

    Raises
    ------
    ConfigError
        The path has another suffix.
    AstoundError
        matplotlib is not installed, or the file cannot be written.
    """
    figure = new_figure(path, height=6.0)
    above, below = figure.subplots(2, 1, sharex=True, sharey=True)
    extent = (0.0, len(features) * seconds_per_frame, -0.5, len(mel_hz) - 0.5)
    _draw(above, features, extent, "level, normalised", _sequential(features))
    _draw(below, importance, extent, "importance", _diverging(importance))
    # The title often contains a file name, in which a dollar sign does not start a formula.
    figure.suptitle(title, parse_math=False)
    below.set_xlabel("time (s)")
    _label_hz(below, mel_hz)
    save_figure(figure, path)


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


def _sequential(values: NDArray[np.float32]) -> dict[str, Any]:
    low, high = np.quantile(values, [_OUTLIERS, 1 - _OUTLIERS])
    return {"cmap": "magma", "vmin": low, "vmax": high}


def _diverging(values: NDArray[np.float32]) -> dict[str, Any]:
    """Diverging colours around 0 if there are negative values, else a sequential scale."""
    if not (values < 0).any():
        return _sequential(values)
    high = np.quantile(np.abs(values), 1 - _OUTLIERS)
    return {"cmap": "RdBu_r", "vmin": -high, "vmax": high}


def _label_hz(axes: Axes, mel_hz: NDArray[np.floating]) -> None:
    """Label round frequencies at their place among the bands, which are not evenly spaced."""
    bands = np.arange(len(mel_hz))
    ticks: list[tuple[float, str]] = []
    for hz in _TICKS_HZ:
        at = float(np.interp(hz, mel_hz, bands))
        room = at - ticks[-1][0] if ticks else len(bands)
        if mel_hz[0] <= hz <= mel_hz[-1] and room > len(bands) / 20:  # or labels overlap
            ticks.append((at, f"{hz}"))
    axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks])
