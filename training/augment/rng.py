"""Random numbers of one training step: decisions on the CPU, noise on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.augment.config import Range


class Rng:
    """Random number generator that gives the same numbers for the same key.

    Parameters
    ----------
    key : sequence of int
        For example the seed and the number of the step.
    device : str or torch.device
        Device of the tensors.

    Attributes
    ----------
    generator : numpy.random.Generator
    """

    def __init__(self, key: Sequence[int], device: str | torch.device = "cpu") -> None:
        self.generator = np.random.default_rng(tuple(key))
        self.device = torch.device(device)
        seed = int(self.generator.integers(2**62))
        self._device_generator = torch.Generator(self.device).manual_seed(seed)

    def select(self, n: int, prob: float) -> Tensor:
        """Select each of n examples with a probability, int64 tensor of shape (n_selected,)."""
        return self.tensor(np.flatnonzero(self.generator.random(n) < prob))

    def uniform(self, bounds: Range, n: int) -> Tensor:
        """Draw uniformly from a range, float32 tensor of shape (n,)."""
        return self.tensor(self.generator.uniform(*bounds, size=n)).float()

    def log_uniform(self, bounds: Range, n: int) -> Tensor:
        """Draw from a range with a uniform logarithm, float32 tensor of shape (n,)."""
        return self.uniform((float(np.log(bounds[0])), float(np.log(bounds[1]))), n).exp()

    def integers(self, low: int, high: int, n: int) -> Tensor:
        """Draw integers from low to high - 1, int64 tensor of shape (n,)."""
        return self.tensor(self.generator.integers(low, high, size=n))

    def normal(self, n: int, n_samples: int) -> Tensor:
        """Draw white noise, float32 tensor of shape (n, n_samples)."""
        return torch.randn(n, n_samples, generator=self._device_generator, device=self.device)

    def tensor(self, values: NDArray[np.generic]) -> Tensor:
        """Copy an array to the device."""
        return torch.from_numpy(values).to(self.device)
