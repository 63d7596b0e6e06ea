"""Degradations by loudspeakers, microphones and transmission, for whole batches at once.

Each function returns new waveforms of shape ``(n, n_samples)``. The :class:`Rng` selects the
examples to change and draws the strengths.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.augment.config import AugmentConfig
from training.augment.rng import Rng

_MIN_LEVEL = 1e-6


def filter_band(waveforms: Tensor, rng: Rng, config: AugmentConfig, sample_rate: int) -> Tensor:
    """Apply a high-pass, a low-pass and a spectral tilt to some of the waveforms."""
    selected = rng.select(len(waveforms), config.band_prob)
    n = len(selected)
    if not n:
        return waveforms
    octave = _octaves(waveforms, sample_rate)
    low, high = (rng.uniform(edge, n).log2()[:, None] for edge in (config.low_hz, config.high_hz))
    slopes = [rng.uniform(config.slope_db, n)[:, None] for _ in range(2)]
    gain_db = -slopes[0] * (low - octave).clamp(min=0) - slopes[1] * (octave - high).clamp(min=0)
    gain_db += rng.uniform(config.tilt_db, n)[:, None] * (octave - 10.0)
    return waveforms.index_copy(0, selected, _apply_gain(waveforms[selected], gain_db))


def equalise(waveforms: Tensor, rng: Rng, config: AugmentConfig, sample_rate: int) -> Tensor:
    """Apply the uneven response of a small speaker or microphone to some of the waveforms.

    The response is a sum of a few resonances and dips, each a bell in dB over log frequency.
    """
    selected = rng.select(len(waveforms), config.device_prob)
    n = len(selected)
    if not n:
        return waveforms
    octave = _octaves(waveforms, sample_rate)
    gain_db = torch.zeros(n, octave.shape[1], device=waveforms.device)
    for _ in range(config.n_resonances):
        centre = rng.uniform((6.5, 12.0), n)[:, None]  # 90 to 4096 Hz
        width = rng.uniform((0.1, 0.8), n)[:, None]
        height = rng.uniform(config.resonance_db, n)[:, None]
        gain_db += height * torch.exp(-0.5 * ((octave - centre) / width).square())
    return waveforms.index_copy(0, selected, _apply_gain(waveforms[selected], gain_db))


def compress(waveforms: Tensor, rng: Rng, config: AugmentConfig, sample_rate: int) -> Tensor:
    """Reduce the dynamic range of some of the waveforms, as automatic gain control does."""
    selected = rng.select(len(waveforms), config.compress_prob)
    if not len(selected):
        return waveforms
    sound = waveforms[selected]
    width = int(config.compress_s * sample_rate)
    energy = torch.nn.functional.pad(sound.square(), (width, 0)).cumsum(dim=1)
    level = (energy[:, width:] - energy[:, :-width]).clamp(min=_MIN_LEVEL**2).sqrt()
    strength = rng.uniform(config.compression, len(selected))[:, None]
    gain = (level / level.amax(dim=1, keepdim=True)).clamp(min=1e-2) ** -strength
    return waveforms.index_copy(0, selected, sound * gain)


def clip(waveforms: Tensor, rng: Rng, config: AugmentConfig) -> Tensor:
    """Clip the loudest samples of some of the waveforms."""
    selected = rng.select(len(waveforms), config.clip_prob)
    if not len(selected):
        return waveforms
    loudness = waveforms[selected].abs()
    rank = rng.uniform(config.clip_quantile, len(selected)) * (loudness.shape[1] - 1)
    limit = loudness.sort(dim=1).values.gather(1, rank.long()[:, None])
    return waveforms.index_copy(0, selected, waveforms[selected].clamp(-limit, limit))


def drop_samples(waveforms: Tensor, rng: Rng, config: AugmentConfig, sample_rate: int) -> Tensor:
    """Set short gaps in some of the waveforms to zero, as lost packets do."""
    selected = rng.select(len(waveforms), config.drop_prob)
    n, n_samples = len(selected), waveforms.shape[1]
    if not n:
        return waveforms
    at = torch.arange(n_samples, device=waveforms.device)
    kept = torch.ones(n, n_samples, device=waveforms.device)
    for _ in range(config.n_drops):
        length = rng.uniform(config.drop_s, n)[:, None] * sample_rate
        start = rng.uniform((0.0, 1.0), n)[:, None] * n_samples
        kept *= ~((at >= start) & (at < start + length))
    return waveforms.index_copy(0, selected, waveforms[selected] * kept)


def mask(features: Tensor, rng: Rng, config: AugmentConfig) -> Tensor:
    """Mask one range of frames and one of bands in some of the features.

    SpecAugment (Park et al. 2019, arXiv 1904.08779).

    Parameters
    ----------
    features : float32 tensor of shape (n, n_frames, n_mels), normalised
    rng : Rng
    config : AugmentConfig

    Returns
    -------
    float32 tensor of the same shape
        Masked values are 0, the mean of the features.
    """
    selected = rng.select(len(features), config.mask_prob)
    n = len(selected)
    if not n:
        return features
    masked = torch.zeros(n, 1, 1, dtype=torch.bool, device=features.device)
    for axis in (1, 2):
        size = features.shape[axis]
        width = rng.uniform(config.mask_width, n) * size
        start = rng.uniform((0.0, 1.0), n) * (size - width)
        at = torch.arange(size, device=features.device)
        stripe = (at >= start[:, None]) & (at < (start + width)[:, None])
        masked = masked | (stripe[:, :, None] if axis == 1 else stripe[:, None, :])
    return features.index_copy(0, selected, features[selected].masked_fill(masked, 0.0))


def _octaves(waveforms: Tensor, sample_rate: int) -> Tensor:
    hz = torch.fft.rfftfreq(waveforms.shape[1], 1 / sample_rate, device=waveforms.device)
    octaves: Tensor = hz.clamp(min=20.0).log2()[None]
    return octaves


def _apply_gain(waveforms: Tensor, gain_db: Tensor) -> Tensor:
    spectrum = torch.fft.rfft(waveforms) * 10 ** (gain_db.clamp(-80, 40) / 20)
    filtered: Tensor = torch.fft.irfft(spectrum, waveforms.shape[1])
    return filtered
