"""Contrastive losses: what belongs together attracts, everything else repels.

Each takes embeddings ``(2 * n_pairs, dim)`` of unit norm, in which row i and row n_pairs + i belong
together and to nothing else, and gives a loss of shape ().
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from training.config import TrainConfig


def choose(config: TrainConfig) -> Callable[[Tensor], Tensor]:
    """Give the loss that a run asks for."""
    losses: dict[str, Callable[[Tensor], Tensor]] = {
        "nt_xent": lambda both: nt_xent(both, config.temperature),
        "decoupled": lambda both: decoupled(both, config.temperature),
        "triplet": lambda both: triplet(both, config.margin),
    }
    return losses[config.loss]


def nt_xent(both: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy (Chen et al. 2020, arXiv 2002.05709)."""
    return F.cross_entropy(_similarity(both, -torch.inf) / temperature, _partners(both))


def decoupled(both: Tensor, temperature: float) -> Tensor:
    """NT-Xent whose denominator leaves the partner out (Yeh et al. 2022, arXiv 2110.06848)."""
    similarity = _similarity(both, -torch.inf) / temperature
    partner = _partners(both)[:, None]
    attracted = similarity.gather(1, partner)[:, 0]
    repelled = similarity.scatter(1, partner, -torch.inf).logsumexp(dim=1)
    return (repelled - attracted).mean()


def triplet(both: Tensor, margin: float) -> Tensor:
    """Squared distances to the partner and to the nearest stranger farther off than it.

    Semi-hard negatives (Schroff et al. 2015, arXiv 1503.03832); where none is farther off, the
    farthest of all stands in.
    """
    partner = _partners(both)[:, None]
    distance = (2 - 2 * _similarity(both, 1.0)).clamp(min=0)  # rounding makes it negative
    to_partner = distance.gather(1, partner)
    strangers = distance.scatter(1, partner, 0.0)
    beyond = strangers.masked_fill(strangers <= to_partner, torch.inf).amin(dim=1)
    negative = torch.where(beyond.isfinite(), beyond, strangers.amax(dim=1))
    return (to_partner[:, 0] - negative + margin).clamp(min=0).mean()


@torch.no_grad()
def hit_rate(both: Tensor) -> float:
    """Share of embeddings whose nearest neighbour in the batch is their partner."""
    nearest = _similarity(both, -torch.inf).argmax(dim=1)
    return float((nearest == _partners(both)).float().mean())


def _similarity(both: Tensor, with_itself: float) -> Tensor:
    same = torch.eye(len(both), dtype=torch.bool, device=both.device)
    return (both @ both.T).masked_fill(same, with_itself)


def _partners(both: Tensor) -> Tensor:
    return torch.arange(len(both), device=both.device).roll(len(both) // 2)
