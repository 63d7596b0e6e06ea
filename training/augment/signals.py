"""Draw sounds that are no music: tones, sweeps and hum."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from training.augment.rng import Rng

_MAX_HARMONICS = 20
_FUNDAMENTAL_HZ = (40.0, 3500.0)
_HUM_HZ = (45.0, 65.0)
_TREMOLO_HZ = (0.5, 12.0)
_HUM_PROB, _SWEEP_PROB, _TREMOLO_PROB = 0.3, 0.3, 0.2
_PEAK = 0.5


def draw(rng: Rng, n: int, n_samples: int, sample_rate: int) -> Tensor:
    """Draw sums of harmonics of a fundamental that is steady or glides.

    Parameters
    ----------
    rng : Rng
    n, n_samples : int
        Number and length of the waveforms.
    sample_rate : int
        In Hz.

    Returns
    -------
    float32 tensor of shape (n, n_samples)
    """
    first_hz, last_hz = rng.log_uniform(_FUNDAMENTAL_HZ, n), rng.log_uniform(_FUNDAMENTAL_HZ, n)
    is_hum = rng.uniform((0.0, 1.0), n) < _HUM_PROB
    glides = (rng.uniform((0.0, 1.0), n) < _SWEEP_PROB) & ~is_hum
    first_hz = torch.where(is_hum, rng.uniform(_HUM_HZ, n), first_hz)
    last_hz = torch.where(glides, last_hz, first_hz)
    share = torch.linspace(0, 1, n_samples, device=rng.device)
    hertz = first_hz[:, None] * (last_hz / first_hz)[:, None] ** share
    cycles = (hertz.double() / sample_rate).cumsum(dim=1)
    out = torch.zeros(n, n_samples, device=rng.device)
    n_harmonics = torch.where(glides, 1, rng.integers(1, _MAX_HARMONICS + 1, n))
    for number in range(1, _MAX_HARMONICS + 1):
        sounds = (number <= n_harmonics)[:, None] & (number * hertz < sample_rate / 2)
        phase = cycles * number + rng.uniform((0.0, 1.0), n)[:, None]
        out += torch.where(sounds, (2 * math.pi * phase).sin().float() / number, 0.0)
    trembles = (rng.uniform((0.0, 1.0), n) < _TREMOLO_PROB).float()[:, None]
    times_s = share * n_samples / sample_rate
    tremolo = (2 * math.pi * rng.log_uniform(_TREMOLO_HZ, n)[:, None] * times_s).sin()
    out = out * (1 + trembles * tremolo * rng.uniform((0.2, 1.0), n)[:, None])
    return out / out.abs().amax(dim=1, keepdim=True).clamp(min=1e-6) * _PEAK
