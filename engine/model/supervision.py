"""What training with labels needs: mixed and masked inputs, targets, the loss.

As the published models were trained (Gong, Chung, Glass 2021, arXiv 2104.01778): mixup (Tokozume et
al. 2018, arXiv 1711.10282) of half the inputs, and SpecAugment (Park et al. 2019, arXiv 1904.08779)
with one mask along each axis. All that is random comes from a generator on the CPU, so a seed gives
the same on every device.
"""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from engine.errors import ConfigError
from engine.recipe import ASTConfig


def mixup(
    waveforms: Tensor, targets: Tensor, generator: Generator, share: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Mix some waveforms of a batch with others of it, and their targets alike.

    A mixed one is ``weight * one + (1 - weight) * other`` with a weight from Beta(10, 10).

    Parameters
    ----------
    waveforms : float tensor of shape (n, n_samples)
    targets : float tensor of shape (n, num_classes)
        As :func:`as_targets` gives them.
    generator : torch.Generator
    share : float
        How likely one is mixed, in [0, 1].

    Returns
    -------
    waveforms : float tensor of shape (n, n_samples)
    targets : float tensor of shape (n, num_classes)
    """
    if not 0 <= share <= 1:
        raise ConfigError.invalid("share", share, "must be in [0, 1]")
    n = len(waveforms)
    others = torch.randperm(n, generator=generator)
    # The median of 19 uniform numbers follows Beta(10, 10).
    weights = torch.rand(n, 19, generator=generator).median(dim=1).values
    weights[torch.rand(n, generator=generator) >= share] = 1.0
    return _mixed(waveforms, others, weights), _mixed(targets, others, weights)


def _mixed(values: Tensor, others: Tensor, weights: Tensor) -> Tensor:
    weights = weights[:, None].to(values)
    return weights * values + (1 - weights) * values[others.to(values.device)]


def spec_augment(
    features: Tensor, generator: Generator, freq_mask: int = 48, time_mask: int = 192
) -> Tensor:
    """Hide a range of bands and a range of frames of each input, wherever they happen to lie.

    Parameters
    ----------
    features : float tensor of shape (n, n_frames, n_mels), normalised
    generator : torch.Generator
    freq_mask, time_mask : int
        Most bands and most frames hidden; fewer are as likely, down to none. The defaults are
        those published for 128 bands and 1024 frames.

    Returns
    -------
    float tensor of shape (n, n_frames, n_mels)
        0, which normalised features have as their mean, where hidden.

    Raises
    ------
    ConfigError
        A mask would be negative or larger than the features.
    """
    n, n_frames, n_mels = features.shape
    frames = _range(n, n_frames, _fitting("time_mask", time_mask, n_frames), generator)
    bands = _range(n, n_mels, _fitting("freq_mask", freq_mask, n_mels), generator)
    hidden = frames[:, :, None] | bands[:, None, :]
    return features.masked_fill(hidden.to(features.device), 0.0)


def _range(n: int, length: int, longest: int, generator: Generator) -> Tensor:
    """Draw a range of 0 to `longest` of `length` places, bool tensor of shape (n, length)."""
    n_places = torch.randint(longest + 1, (n, 1), generator=generator)
    first = (torch.rand(n, 1, generator=generator) * (length - n_places + 1)).long()
    places = torch.arange(length)
    return (places >= first) & (places < first + n_places)


def _fitting(key: str, mask: int, length: int) -> int:
    if not 0 <= mask <= length:
        raise ConfigError.invalid(key, mask, f"must be from 0 to {length}")
    return mask


def default_loss(config: ASTConfig) -> nn.Module:
    """Make the loss that fits: of independent classes each on its own, else of one among all.

    Returns
    -------
    torch.nn.Module
        Called with logits and targets, both of shape (n, num_classes); gives their mean loss.
    """
    return nn.BCEWithLogitsLoss() if config.multi_label else nn.CrossEntropyLoss()


def as_targets(targets: Tensor | ArrayLike, config: ASTConfig) -> Tensor:
    """Bring targets into the one form that the losses and :func:`mixup` take.

    Parameters
    ----------
    targets : array-like of shape (n,) or (n, num_classes)
        The index of each input's class, or how far each class holds: numbers in [0, 1] that sum
        to 1 unless `config.multi_label`.
    config : ASTConfig

    Returns
    -------
    float32 tensor of shape (n, num_classes)

    Raises
    ------
    ConfigError
        They are neither, or the model has no classes.
    """
    if not config.num_classes:
        raise ConfigError.invalid("num_classes", 0, "must be positive to learn from targets")
    try:
        given = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError("targets", f"must be numbers of one shape ({error})") from error
    if given.ndim == 1 and not given.is_floating_point():
        return _one_hot(given, config.num_classes)
    return _shares(given.float(), config)


def _one_hot(indices: Tensor, num_classes: int) -> Tensor:
    wrong = indices[(indices < 0) | (indices >= num_classes)]
    if len(wrong):
        raise ConfigError.invalid("targets", int(wrong[0]), f"must be from 0 to {num_classes - 1}")
    return F.one_hot(indices.long(), num_classes).float()


def _shares(shares: Tensor, config: ASTConfig) -> Tensor:
    if shares.ndim != 2 or shares.shape[1] != config.num_classes:
        raise ConfigError.invalid(
            "targets.shape",
            tuple(shares.shape),
            f"must be (n,) for indices or (n, {config.num_classes}) for numbers",
        )
    if not ((shares >= 0) & (shares <= 1)).all():
        raise ConfigError("targets", "must be in [0, 1]")
    if not config.multi_label and not torch.allclose(
        shares.sum(dim=1), torch.ones_like(shares[:, 0]), atol=1e-3
    ):
        raise ConfigError("targets", "each row must sum to 1, because exactly one class is right")
    return shares
