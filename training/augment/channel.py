"""What loudspeakers, microphones and recorders do to sound, for whole batches at once.

Each function takes waveforms ``(n, n_samples)`` and gives new ones; a :class:`Chance` decides.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.augment.rng import Chance
from training.config import AugmentConfig

_QUIETEST = 1e-6


def filter_band(
    waveforms: Tensor, chance: Chance, config: AugmentConfig, sample_rate: int
) -> Tensor:
    """Cut lows and highs and tilt the spectrum of a share of the waveforms."""
    struck = chance.struck(len(waveforms), config.band_share)
    n = len(struck)
    if not n:
        return waveforms
    octave = _octaves(waveforms, sample_rate)
    low, high = (chance.uniform(one, n).log2()[:, None] for one in (config.low_hz, config.high_hz))
    slopes = [chance.uniform(config.slope_db, n)[:, None] for _ in range(2)]
    gain_db = -slopes[0] * (low - octave).clamp(min=0) - slopes[1] * (octave - high).clamp(min=0)
    gain_db += chance.uniform(config.tilt_db, n)[:, None] * (octave - 10.0)
    return waveforms.index_copy(0, struck, _equalise(waveforms[struck], gain_db))


def colour(waveforms: Tensor, chance: Chance, config: AugmentConfig, sample_rate: int) -> Tensor:
    """Give a share of the waveforms the uneven response of a small speaker or microphone.

    A sum of a few resonances and dips, each a bell in dB over log frequency.
    """
    struck = chance.struck(len(waveforms), config.device_share)
    n = len(struck)
    if not n:
        return waveforms
    octave = _octaves(waveforms, sample_rate)
    gain_db = torch.zeros(n, octave.shape[1], device=waveforms.device)
    for _ in range(config.n_resonances):
        centre = chance.uniform((6.5, 12.0), n)[:, None]  # 90 to 4096 Hz
        width = chance.uniform((0.1, 0.8), n)[:, None]
        height = chance.uniform(config.resonance_db, n)[:, None]
        gain_db += height * torch.exp(-0.5 * ((octave - centre) / width).square())
    return waveforms.index_copy(0, struck, _equalise(waveforms[struck], gain_db))


def compress(waveforms: Tensor, chance: Chance, config: AugmentConfig, sample_rate: int) -> Tensor:
    """Even out the loudness of a share of the waveforms, as automatic gain controls do."""
    struck = chance.struck(len(waveforms), config.compress_share)
    if not len(struck):
        return waveforms
    sound = waveforms[struck]
    width = int(config.compress_s * sample_rate)
    energy = torch.nn.functional.pad(sound.square(), (width, 0)).cumsum(dim=1)
    level = (energy[:, width:] - energy[:, :-width]).clamp(min=_QUIETEST**2).sqrt()
    strength = chance.uniform(config.compression, len(struck))[:, None]
    gain = (level / level.amax(dim=1, keepdim=True)).clamp(min=1e-2) ** -strength
    return waveforms.index_copy(0, struck, sound * gain)


def clip(waveforms: Tensor, chance: Chance, config: AugmentConfig) -> Tensor:
    """Cut off the loudest samples of a share of the waveforms."""
    struck = chance.struck(len(waveforms), config.clip_share)
    if not len(struck):
        return waveforms
    loudness = waveforms[struck].abs()
    rank = chance.uniform(config.clip_quantile, len(struck)) * (loudness.shape[1] - 1)
    limit = loudness.sort(dim=1).values.gather(1, rank.long()[:, None])
    return waveforms.index_copy(0, struck, waveforms[struck].clamp(-limit, limit))


def drop_samples(
    waveforms: Tensor, chance: Chance, config: AugmentConfig, sample_rate: int
) -> Tensor:
    """Lose short stretches of a share of the waveforms, as lost packets do."""
    struck = chance.struck(len(waveforms), config.drop_share)
    n, n_samples = len(struck), waveforms.shape[1]
    if not n:
        return waveforms
    at = torch.arange(n_samples, device=waveforms.device)
    kept = torch.ones(n, n_samples, device=waveforms.device)
    for _ in range(config.n_drops):
        length = chance.uniform(config.drop_s, n)[:, None] * sample_rate
        start = chance.uniform((0.0, 1.0), n)[:, None] * n_samples
        kept *= ~((at >= start) & (at < start + length))
    return waveforms.index_copy(0, struck, waveforms[struck] * kept)


def mask(features: Tensor, chance: Chance, config: AugmentConfig) -> Tensor:
    """Hide a stretch of time and a band of frequencies in a share of the features.

    SpecAugment (Park et al. 2019, arXiv 1904.08779), on features of zero mean.

    Parameters
    ----------
    features : float32 tensor of shape (n, n_frames, n_mels), normalised

    Returns
    -------
    float32 tensor of the same shape
    """
    struck = chance.struck(len(features), config.mask_share)
    n = len(struck)
    if not n:
        return features
    hidden = torch.zeros(n, 1, 1, dtype=torch.bool, device=features.device)
    for axis in (1, 2):
        size = features.shape[axis]
        width = chance.uniform(config.mask_width, n) * size
        start = chance.uniform((0.0, 1.0), n) * (size - width)
        at = torch.arange(size, device=features.device)
        stripe = (at >= start[:, None]) & (at < (start + width)[:, None])
        hidden = hidden | (stripe[:, :, None] if axis == 1 else stripe[:, None, :])
    return features.index_copy(0, struck, features[struck].masked_fill(hidden, 0.0))


def _octaves(waveforms: Tensor, sample_rate: int) -> Tensor:
    hz = torch.fft.rfftfreq(waveforms.shape[1], 1 / sample_rate, device=waveforms.device)
    return hz.clamp(min=20.0).log2()[None]


def _equalise(waveforms: Tensor, gain_db: Tensor) -> Tensor:
    spectrum = torch.fft.rfft(waveforms) * 10 ** (gain_db.clamp(-80, 40) / 20)
    return torch.fft.irfft(spectrum, waveforms.shape[1])
