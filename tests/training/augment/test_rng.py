from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.augment.rng import Chance


def _drawn(chance: Chance) -> list[Tensor]:
    return [
        chance.struck(50, 0.5),
        chance.uniform((-1.0, 1.0), 50),
        chance.log_uniform((1.0, 8.0), 50),
        chance.integers(3, 9, 50),
        chance.normal(2, 50),
    ]


def test_the_key_decides_and_nothing_else() -> None:
    torch.manual_seed(0)
    first = _drawn(Chance((1, 2)))
    torch.manual_seed(5)
    assert all(map(torch.equal, first, _drawn(Chance((1, 2)))))
    assert not any(map(torch.equal, first, _drawn(Chance((1, 3)))))


def test_struck_are_about_the_share_and_in_order() -> None:
    struck = Chance((0,)).struck(1000, 0.3)
    assert len(struck) == pytest.approx(300, abs=50)
    assert torch.equal(struck, struck.unique())
    assert len(Chance((0,)).struck(1000, 0.0)) == 0
    assert len(Chance((0,)).struck(1000, 1.0)) == 1000


def test_log_uniform_has_as_much_in_every_octave() -> None:
    drawn = Chance((0,)).log_uniform((1.0, 8.0), 3000)
    octaves = drawn.log2().floor().long().bincount(minlength=3)
    assert octaves.tolist() == pytest.approx([1000] * 3, abs=100)


def test_ranges_are_kept() -> None:
    chance = Chance((0,))
    assert chance.integers(3, 9, 500).unique().tolist() == [3, 4, 5, 6, 7, 8]
    drawn = chance.uniform((-2.0, 3.0), 1000)
    assert -2 <= float(drawn.min()) < -1.9
    assert 2.9 < float(drawn.max()) <= 3
    assert float(chance.normal(1, 10_000).std()) == pytest.approx(1, abs=0.05)
