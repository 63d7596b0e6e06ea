"""All randomness of one training step: what is decided, and the noise it takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.config import Range


class Chance:
    """Draws the same for the same key, wherever and whenever a step is run.

    Parameters
    ----------
    key : sequence of int
        For example the seed and the number of the step.
    device : str or torch.device
        Where tensors are made.
    """

    def __init__(self, key: Sequence[int], device: str | torch.device = "cpu") -> None:
        self.rng = np.random.default_rng(tuple(key))
        self.device = torch.device(device)
        self._bulk = torch.Generator(self.device).manual_seed(int(self.rng.integers(2**62)))

    def struck(self, n: int, share: float) -> Tensor:
        """Choose which of n examples something happens to, int64 tensor of shape (n_struck,)."""
        return self.tensor(np.flatnonzero(self.rng.random(n) < share))

    def uniform(self, bounds: Range, n: int) -> Tensor:
        """Draw from a range, float32 tensor of shape (n,)."""
        return self.tensor(self.rng.uniform(*bounds, size=n)).float()

    def log_uniform(self, bounds: Range, n: int) -> Tensor:
        """Draw from a range, each octave of it as likely, float32 tensor of shape (n,)."""
        return self.uniform((float(np.log(bounds[0])), float(np.log(bounds[1]))), n).exp()

    def integers(self, low: int, high: int, n: int) -> Tensor:
        """Draw from low to high - 1, int64 tensor of shape (n,)."""
        return self.tensor(self.rng.integers(low, high, size=n))

    def normal(self, n: int, n_samples: int) -> Tensor:
        """Draw white noise, float32 tensor of shape (n, n_samples)."""
        return torch.randn(n, n_samples, generator=self._bulk, device=self.device)

    def tensor(self, values: NDArray[np.generic]) -> Tensor:
        """Bring an array to the device."""
        return torch.from_numpy(values).to(self.device)
