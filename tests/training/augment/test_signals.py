from __future__ import annotations

import pytest
import torch

from training.augment import signals
from training.augment.rng import Rng

RATE = 8000


def test_signals_have_few_frequencies() -> None:
    drawn = signals.draw(Rng((0,)), 40, 2 * RATE, RATE)
    assert drawn.shape == (40, 2 * RATE)
    spectra = torch.fft.rfft(drawn * torch.hann_window(2 * RATE)).abs().square()
    strongest = spectra.sort(dim=1, descending=True).values
    # A tone has most of its power in a few of 8001 bins; a sweep has not.
    shares = strongest[:, :100].sum(dim=1) / strongest.sum(dim=1)
    assert 0.5 < (shares > 0.9).float().mean() < 0.95


def test_signals_differ_and_have_one_level() -> None:
    drawn = signals.draw(Rng((0,)), 10, RATE, RATE)
    assert drawn.abs().amax(dim=1) == pytest.approx(0.5 * torch.ones(10))
    similarity = torch.nn.functional.normalize(drawn) @ torch.nn.functional.normalize(drawn).T
    assert (similarity - torch.eye(10)).abs().max() < 0.9


def test_same_key_gives_the_same_signals() -> None:
    one, same, other = (signals.draw(Rng((seed,)), 3, RATE, RATE) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
