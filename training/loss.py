"""The contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def nt_xent(both: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Normalised temperature-scaled cross entropy over both views (Chen et al. 2020).

    Parameters
    ----------
    both : float32 tensor of shape (2 * n_pairs, dim), unit norm
        Row i and row n_pairs + i belong together and to nothing else.
    temperature : float

    Returns
    -------
    loss : float32 tensor of shape ()
    hit_rate : float32 tensor of shape ()
        Share of embeddings whose nearest neighbour in the batch is their partner.
    """
    similarity = both @ both.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    partner = torch.arange(len(both), device=both.device).roll(len(both) // 2)
    hit_rate = (similarity.argmax(dim=1) == partner).float().mean()
    return F.cross_entropy(similarity, partner), hit_rate.detach()
