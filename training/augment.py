"""From a clean excerpt to what a microphone in a bar hears, for whole batches at once.

Each function takes waveforms ``(n, n_samples)`` and a numpy generator and gives new waveforms;
the generator alone decides, so a step can be repeated exactly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from training.config import AugmentConfig, Range

Sampler = Callable[[np.random.Generator, int, int], Tensor]
"""Draws ``(n, n_samples)`` waveforms: (generator, n, n_samples)."""


def degrade(
    music: Tensor,
    rng: np.random.Generator,
    config: AugmentConfig,
    sample_rate: int,
    noises: Sampler,
    rooms: Tensor | None,
) -> Tensor:
    """Play music in a room, add noise, pass it through a cheap microphone.

    Parameters
    ----------
    music : float32 tensor of shape (n, n_samples)
    rng : numpy generator
    config : AugmentConfig
    sample_rate : int
    noises : Sampler
    rooms : float32 tensor of shape (n_rooms, n_samples) or None
        Recorded room responses.

    Returns
    -------
    float32 tensor of shape (n, n_samples)
    """
    music = reverberate(music, rng, config, sample_rate, rooms)
    music = add_noise(music, rng, config, noises)
    music = filter_band(music, rng, config, sample_rate)
    return clip(music, rng, config)


def change_speed(waveforms: Tensor, speeds: Tensor, starts: Tensor, n_samples: int) -> Tensor:
    """Read waveforms faster or slower by cubic (Catmull-Rom) interpolation.

    Parameters
    ----------
    waveforms : float32 tensor of shape (n, n_source_samples)
    speeds, starts : float tensors of shape (n,)
        Source samples per sample, and where to begin in the source.
    n_samples : int

    Returns
    -------
    float32 tensor of shape (n, n_samples)
    """
    at = starts[:, None] + speeds[:, None] * torch.arange(n_samples)
    low = at.floor().long().clamp(1, waveforms.shape[1] - 3)
    f = (at - low).float()
    a, b, c, d = (waveforms.gather(1, low + k) for k in (-1, 0, 1, 2))
    return b + 0.5 * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)))


def reverberate(
    music: Tensor,
    rng: np.random.Generator,
    config: AugmentConfig,
    sample_rate: int,
    rooms: Tensor | None,
) -> Tensor:
    """Convolve a share of the waveforms with recorded or synthesised room responses."""
    struck = _struck(rng, len(music), config.room_share)
    if not len(struck):
        return music
    responses = synthesise_rooms(rng, len(struck), config, sample_rate)
    if rooms is not None:
        recorded = _struck(rng, len(struck), config.recorded_room_share)
        chosen = rooms[rng.integers(len(rooms), size=len(recorded))]
        length = min(chosen.shape[1], responses.shape[1])
        responses[recorded] = 0
        responses[recorded, :length] = chosen[:, :length]
    return music.index_copy(0, struck, _convolve(music[struck], responses))


def synthesise_rooms(
    rng: np.random.Generator, n: int, config: AugmentConfig, sample_rate: int
) -> Tensor:
    """Make room responses: a direct path, then noise that decays exponentially (Moorer 1979)."""
    n_samples = int(config.room_s[1] * sample_rate)
    time_s = torch.arange(n_samples) / sample_rate
    decay_s = _uniform(rng, config.room_s, n)
    tails = _normal(rng, n, n_samples) * torch.exp(-6.9 * time_s / decay_s[:, None])
    gap = torch.from_numpy(rng.integers(1, int(0.02 * sample_rate), size=n))
    tails[torch.arange(n_samples) < gap[:, None]] = 0
    tails /= tails.norm(dim=1, keepdim=True)
    tails[:, 0] = 10 ** (_uniform(rng, config.direct_db, n) / 20)
    return tails


def add_noise(
    music: Tensor, rng: np.random.Generator, config: AugmentConfig, noises: Sampler
) -> Tensor:
    """Add noise to a share of the waveforms at a random signal-to-noise ratio."""
    struck = _struck(rng, len(music), config.noise_share)
    if not len(struck):
        return music
    noise = noises(rng, len(struck), music.shape[1])
    gain = _rms(music[struck]) / _rms(noise).clamp(min=1e-6)
    gain *= 10 ** (-_uniform(rng, config.snr_db, len(struck))[:, None] / 20)
    return music.index_add(0, struck, noise * gain)


def filter_band(
    waveforms: Tensor, rng: np.random.Generator, config: AugmentConfig, sample_rate: int
) -> Tensor:
    """Cut lows and highs and tilt the spectrum of a share of the waveforms."""
    struck = _struck(rng, len(waveforms), config.band_share)
    n = len(struck)
    if not n:
        return waveforms
    n_samples = waveforms.shape[1]
    hz = torch.fft.rfftfreq(n_samples, 1 / sample_rate).clamp(min=20.0)
    octave = hz.log2()[None]
    low, high = (_uniform(rng, band, n).log2()[:, None] for band in (config.low_hz, config.high_hz))
    slopes = [_uniform(rng, config.slope_db, n)[:, None] for _ in range(2)]
    gain_db = -slopes[0] * (low - octave).clamp(min=0) - slopes[1] * (octave - high).clamp(min=0)
    gain_db += _uniform(rng, config.tilt_db, n)[:, None] * (octave - 10.0)
    spectrum = torch.fft.rfft(waveforms[struck]) * 10 ** (gain_db.clamp(-80, 40) / 20)
    return waveforms.index_copy(0, struck, torch.fft.irfft(spectrum, n_samples))


def clip(waveforms: Tensor, rng: np.random.Generator, config: AugmentConfig) -> Tensor:
    """Cut off the loudest samples of a share of the waveforms."""
    struck = _struck(rng, len(waveforms), config.clip_share)
    if not len(struck):
        return waveforms
    loudness = waveforms[struck].abs()
    rank = _uniform(rng, config.clip_quantile, len(struck)) * (loudness.shape[1] - 1)
    limit = loudness.sort(dim=1).values.gather(1, rank.long()[:, None])
    return waveforms.index_copy(0, struck, waveforms[struck].clamp(-limit, limit))


def _convolve(waveforms: Tensor, responses: Tensor) -> Tensor:
    n_samples = waveforms.shape[1]
    n_fft = 1 << (n_samples + responses.shape[1] - 2).bit_length()
    spectrum = torch.fft.rfft(waveforms, n_fft) * torch.fft.rfft(responses, n_fft)
    return torch.fft.irfft(spectrum, n_fft)[:, :n_samples]


def _struck(rng: np.random.Generator, n: int, share: float) -> Tensor:
    return torch.from_numpy(np.flatnonzero(rng.random(n) < share))


def _uniform(rng: np.random.Generator, bounds: Range, n: int) -> Tensor:
    return torch.from_numpy(rng.uniform(*bounds, size=n)).float()


def _normal(rng: np.random.Generator, n: int, n_samples: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal((n, n_samples), dtype=np.float32))


def _rms(waveforms: Tensor) -> Tensor:
    return waveforms.square().mean(dim=1, keepdim=True).sqrt()
