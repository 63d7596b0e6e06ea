from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from training import loss
from training.config import LOSSES, TrainConfig

Rows = list[list[float]]


def unit(n: int, dim: int = 16, seed: int = 0) -> Tensor:
    return normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def pairs(n: int, noise: float = 0.7) -> Tensor:
    return torch.cat([unit(n), normalize(unit(n) + noise * unit(n, seed=1), dim=1)])


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def cross_entropy_by_hand(both: Rows, temperature: float, *, with_partner: bool) -> float:
    """Equation (1) of Chen et al. 2020, or equation (6) of Yeh et al. 2022."""
    total, n = 0.0, len(both)
    for i in range(n):
        partner = (i + n // 2) % n
        scale = 0.0
        for k in range(n):
            if k not in ({i} if with_partner else {i, partner}):
                scale += math.exp(cosine(both[i], both[k]) / temperature)
        total += math.log(scale) - cosine(both[i], both[partner]) / temperature
    return total / n


def triplet_by_hand(both: Rows, margin: float) -> float:
    total, n = 0.0, len(both)
    for i in range(n):
        partner = (i + n // 2) % n
        far = [math.dist(both[i], other) ** 2 for other in both]
        strangers = [far[k] for k in range(n) if k not in (i, partner)]
        beyond = [one for one in strangers if one > far[partner]]
        total += max(far[partner] - min(beyond, default=max(strangers)) + margin, 0.0)
    return total / n


@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("n_pairs", [2, 3, 9])
def test_nt_xent_equals_the_formula(n_pairs: int, temperature: float) -> None:
    both = pairs(n_pairs)
    expected = cross_entropy_by_hand(both.double().tolist(), temperature, with_partner=True)
    assert float(loss.nt_xent(both, temperature)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("n_pairs", [2, 3, 9])
def test_decoupled_equals_the_formula(n_pairs: int, temperature: float) -> None:
    both = pairs(n_pairs)
    expected = cross_entropy_by_hand(both.double().tolist(), temperature, with_partner=False)
    assert float(loss.decoupled(both, temperature)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("noise", [0.2, 0.7, 3.0])
@pytest.mark.parametrize("n_pairs", [2, 3, 9, 20])
def test_triplet_equals_the_formula(n_pairs: int, noise: float) -> None:
    both = pairs(n_pairs, noise)
    expected = triplet_by_hand(both.double().tolist(), 0.5)
    assert float(loss.triplet(both, 0.5)) == pytest.approx(expected, abs=1e-4)


def test_triplet_of_perfect_pairs_looks_at_strangers_only() -> None:
    both = unit(20, dim=128).repeat(2, 1)
    expected = triplet_by_hand(both.double().tolist(), 2.5)
    assert float(loss.triplet(both, 2.5)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("n_different", [1, 3], ids=["all alike", "duplicates"])
def test_gradient_with_duplicates_is_finite(name: str, n_different: int) -> None:
    both = unit(n_different).repeat(12 // n_different, 1).requires_grad_()
    value = loss.choose(TrainConfig(loss=name))(both)
    value.backward()
    assert torch.isfinite(value)
    assert both.grad is not None
    assert torch.isfinite(both.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_descent_brings_partners_together(name: str) -> None:
    choice: Callable[[Tensor], Tensor] = loss.choose(TrainConfig(loss=name, temperature=0.1))
    both = pairs(12).requires_grad_()
    value = choice(both)
    value.backward()
    assert both.grad is not None
    better = normalize((both - 0.05 * both.grad).detach(), dim=1)
    assert choice(better) < value


def test_choice_passes_temperature_and_margin_on() -> None:
    both = pairs(9)
    values = {
        "nt_xent": loss.nt_xent(both, 0.3),
        "decoupled": loss.decoupled(both, 0.3),
        "triplet": loss.triplet(both, 0.8),
    }
    for name in LOSSES:
        config = TrainConfig(loss=name, temperature=0.3, margin=0.8)
        assert loss.choose(config)(both) == values[name]


def test_nt_xent_embeddings_all_alike_know_nothing() -> None:
    value = loss.nt_xent(unit(1).expand(20, -1), 0.05)
    assert float(value) == pytest.approx(math.log(19), abs=1e-4)


def test_hit_rate_counts_nearest_neighbours() -> None:
    clean = unit(10)
    assert loss.hit_rate(clean.repeat(2, 1)) == 1
    assert loss.hit_rate(torch.cat([clean, clean.roll(1, dims=0)])) == 0
    half = torch.cat([clean, torch.cat([clean[:5], clean[5:].roll(1, dims=0)])])
    assert loss.hit_rate(half) == 0.5
