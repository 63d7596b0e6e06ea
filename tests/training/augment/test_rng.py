from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.augment.rng import Rng


def _drawn(rng: Rng) -> list[Tensor]:
    return [
        rng.select(50, 0.5),
        rng.uniform((-1.0, 1.0), 50),
        rng.log_uniform((1.0, 8.0), 50),
        rng.integers(3, 9, 50),
        rng.normal(2, 50),
    ]


def test_rng_depends_on_its_key_only() -> None:
    torch.manual_seed(0)
    first = _drawn(Rng((1, 2)))
    torch.manual_seed(5)
    assert all(map(torch.equal, first, _drawn(Rng((1, 2)))))
    assert not any(map(torch.equal, first, _drawn(Rng((1, 3)))))


def test_select_is_near_the_probability_and_in_order() -> None:
    selected = Rng((0,)).select(1000, 0.3)
    assert len(selected) == pytest.approx(300, abs=50)
    assert torch.equal(selected, selected.unique())
    assert len(Rng((0,)).select(1000, 0.0)) == 0
    assert len(Rng((0,)).select(1000, 1.0)) == 1000


def test_log_uniform_has_as_much_in_every_octave() -> None:
    drawn = Rng((0,)).log_uniform((1.0, 8.0), 3000)
    octaves = drawn.log2().floor().long().bincount(minlength=3)
    assert octaves.tolist() == pytest.approx([1000] * 3, abs=100)


def test_ranges_are_kept() -> None:
    rng = Rng((0,))
    assert rng.integers(3, 9, 500).unique().tolist() == [3, 4, 5, 6, 7, 8]
    drawn = rng.uniform((-2.0, 3.0), 1000)
    assert -2 <= float(drawn.min()) < -1.9
    assert 2.9 < float(drawn.max()) <= 3
    assert float(rng.normal(1, 10_000).std()) == pytest.approx(1, abs=0.05)
