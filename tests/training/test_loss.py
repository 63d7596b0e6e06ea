from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from training.loss import nt_xent


def unit(n: int, dim: int = 16, seed: int = 0) -> Tensor:
    return normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def by_hand(both: list[list[float]], temperature: float) -> tuple[float, float]:
    """Equation (1) of Chen et al. 2020 in plain loops, and the share of right neighbours."""
    n = len(both)
    total, n_right = 0.0, 0
    for i in range(n):
        partner = (i + n // 2) % n
        cosines = {
            k: sum(a * b for a, b in zip(both[i], both[k], strict=True)) for k in range(n) if k != i
        }
        scale = sum(math.exp(cosine / temperature) for cosine in cosines.values())
        total -= math.log(math.exp(cosines[partner] / temperature) / scale)
        n_right += max(cosines, key=lambda k: cosines[k]) == partner
    return total / n, n_right / n


@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("n_pairs", [1, 2, 9])
def test_nt_xent_equals_the_formula(n_pairs: int, temperature: float) -> None:
    clean = unit(n_pairs)
    both = torch.cat([clean, normalize(clean + 0.7 * unit(n_pairs, seed=1), dim=1)])
    loss, hit_rate = nt_xent(both, temperature)
    expected = by_hand(both.double().tolist(), temperature)
    assert (float(loss), float(hit_rate)) == pytest.approx(expected, abs=1e-4)


def test_nt_xent_identical_pairs_all_hit() -> None:
    both = unit(20).repeat(2, 1)
    loss, hit_rate = nt_xent(both, 0.05)
    assert hit_rate == 1
    assert loss < 0.1


def test_nt_xent_embeddings_all_alike_know_nothing() -> None:
    loss, _ = nt_xent(unit(1).expand(20, -1), 0.05)
    assert float(loss) == pytest.approx(math.log(19), abs=1e-4)


def test_nt_xent_wrong_partners_never_hit() -> None:
    clean = unit(10)
    loss, hit_rate = nt_xent(torch.cat([clean, clean.roll(1, dims=0)]), 0.05)
    assert hit_rate == 0
    assert loss > 5


def test_nt_xent_descent_brings_partners_together() -> None:
    both = unit(12).requires_grad_()
    loss, hit_rate = nt_xent(both, 0.1)
    assert not hit_rate.requires_grad
    loss.backward()
    assert both.grad is not None
    better = normalize((both - 0.1 * both.grad).detach(), dim=1)
    assert nt_xent(better, 0.1)[0] < loss
