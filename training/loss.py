"""Contrastive losses: embeddings of the same moment attract, all others repel.

Each loss takes unit-norm embeddings of shape ``(2 * n_pairs, dim)``, in which rows i and
n_pairs + i are the two views of a pair, and returns a tensor of shape ().
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from training.config import TrainConfig


def choose(config: TrainConfig) -> Callable[[Tensor], Tensor]:
    """Return the loss that the config names."""
    losses: dict[str, Callable[[Tensor], Tensor]] = {
        "nt_xent": lambda embeddings: nt_xent(embeddings, config.temperature),
        "decoupled": lambda embeddings: decoupled(embeddings, config.temperature),
        "triplet": lambda embeddings: triplet(embeddings, config.margin),
    }
    return losses[config.loss]


def nt_xent(embeddings: Tensor, temperature: float) -> Tensor:
    """Compute the normalised temperature-scaled cross entropy (Chen et al. 2020, 2002.05709)."""
    logits = _similarity(embeddings, -torch.inf) / temperature
    return F.cross_entropy(logits, _partners(embeddings))


def decoupled(embeddings: Tensor, temperature: float) -> Tensor:
    """Compute NT-Xent without the partner in the denominator (Yeh et al. 2022, 2110.06848)."""
    similarity = _similarity(embeddings, -torch.inf) / temperature
    partner = _partners(embeddings)[:, None]
    positive = similarity.gather(1, partner)[:, 0]
    negative = similarity.scatter(1, partner, -torch.inf).logsumexp(dim=1)
    return (negative - positive).mean()


def triplet(embeddings: Tensor, margin: float) -> Tensor:
    """Compute the triplet loss of squared distances with semi-hard negatives.

    The negative is the nearest one that is farther away than the partner (Schroff et al. 2015,
    arXiv 1503.03832), or the farthest of all if none is.
    """
    partner = _partners(embeddings)[:, None]
    distance = (2 - 2 * _similarity(embeddings, 1.0)).clamp(min=0)  # rounding makes it negative
    positive = distance.gather(1, partner)
    negatives = distance.scatter(1, partner, 0.0)
    semi_hard = negatives.masked_fill(negatives <= positive, torch.inf).amin(dim=1)
    negative = torch.where(semi_hard.isfinite(), semi_hard, negatives.amax(dim=1))
    return (positive[:, 0] - negative + margin).clamp(min=0).mean()


@torch.no_grad()
def hit_rate(embeddings: Tensor) -> float:
    """Compute the share of embeddings whose nearest neighbour in the batch is their partner."""
    nearest = _similarity(embeddings, -torch.inf).argmax(dim=1)
    return float((nearest == _partners(embeddings)).float().mean())


def _similarity(embeddings: Tensor, with_itself: float) -> Tensor:
    """Cosines between all embeddings, with a fixed value on the diagonal."""
    same = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    return (embeddings @ embeddings.T).masked_fill(same, with_itself)


def _partners(embeddings: Tensor) -> Tensor:
    """Index of the other view of each embedding."""
    n = len(embeddings)
    return torch.arange(n, device=embeddings.device).roll(n // 2)
