"""Waveform to normalised log-mel segments, each a function of its own samples only.

Frames are never centred or padded, and level and range are normalised per segment, so the same
second of music gives the same numbers in a long track and in a short clip. The front end "kaldi"
is that of the published models: :mod:`engine.model.filter_bank`, and one normalisation for all
segments.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from engine.model.filter_bank import fbank, mel
from engine.recipe import SpectrogramConfig

_LOG10_TO_NATS = 0.2302585092994046  # ln(10) / 10: dB of power to nats
_SMALLEST_POWER = 1e-12


def log_mel(waveform: Tensor, config: SpectrogramConfig) -> Tensor:
    """Compute the log-mel power spectrogram without padding.

    Parameters
    ----------
    waveform : float32 tensor of shape (..., n_samples), in [-1, 1]
    config : SpectrogramConfig

    Returns
    -------
    float32 tensor of shape (..., n_frames, n_mels), natural log of power
        ``n_frames = (n_samples - n_fft) // hop_length + 1``; none when the waveform is shorter
        than one window.
    """
    if config.front_end == "kaldi":
        return fbank(waveform, config)
    if waveform.shape[-1] < config.n_fft:
        return waveform.new_zeros((*waveform.shape[:-1], 0, config.n_mels))
    window, filters = _analysis(config, waveform.device)
    frames = waveform.unfold(-1, config.n_fft, config.hop_length) * window
    spectrum = torch.fft.rfft(frames)
    power = spectrum.real.square() + spectrum.imag.square()  # abs() takes roots, 30 times as long
    bands: Tensor = power @ filters
    return bands.clamp(min=_SMALLEST_POWER).log()


def segments(spectrogram: Tensor, hop_frames: int, config: SpectrogramConfig) -> Tensor:
    """Cut a spectrogram into overlapping segments.

    Parameters
    ----------
    spectrogram : float32 tensor of shape (n_frames, n_mels)
    hop_frames : int
        Frames between the starts of two segments.
    config : SpectrogramConfig

    Returns
    -------
    float32 tensor of shape (n_segments, config.n_frames, n_mels); a view, not yet normalised
    """
    if spectrogram.shape[0] < config.n_frames:
        return spectrogram.new_zeros((0, config.n_frames, config.n_mels))
    return spectrogram.unfold(0, config.n_frames, hop_frames).transpose(1, 2)


def normalise(raw: Tensor, config: SpectrogramConfig) -> Tensor:
    """Floor each segment below its own maximum, then give it zero mean and unit variance.

    With the front end "kaldi" subtract the configured mean, and divide by twice the deviation.

    Parameters
    ----------
    raw : float32 tensor of shape (n_segments, n_frames, n_mels), natural log of power
    config : SpectrogramConfig

    Returns
    -------
    float32 tensor of the same shape; with "segment" close to zero where a segment is constant
    """
    if config.front_end == "kaldi":
        return (raw - config.mean) / (2 * config.deviation)
    peak = raw.amax(dim=(-2, -1), keepdim=True)
    floored = torch.maximum(raw, peak - config.floor_db * _LOG10_TO_NATS)
    centred = floored - floored.mean(dim=(-2, -1), keepdim=True)
    deviation = centred.square().mean(dim=(-2, -1), keepdim=True).sqrt()
    return centred / deviation.clamp(min=1e-3)


def silent(raw: Tensor, config: SpectrogramConfig) -> Tensor:
    """Tell which segments hold nothing to recognise.

    Parameters
    ----------
    raw : float32 tensor of shape (n_segments, n_frames, n_mels), natural log of power
    config : SpectrogramConfig

    Returns
    -------
    bool tensor of shape (n_segments,)
    """
    # A full-scale sine puts (sum of the window / 2)^2 of power into one bin.
    full_scale = (config.n_fft / 4) ** 2
    loudest = raw.exp().sum(dim=-1).amax(dim=-1)
    return loudest < full_scale * 10 ** (config.silence_db / 10)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is kept must serve a later backward pass too
def _analysis(config: SpectrogramConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    window = torch.hann_window(config.n_fft, device=device)
    return window, mel_filters(config).to(device)


def mel_filters(config: SpectrogramConfig) -> Tensor:
    """Make triangular filters, equally spaced on the mel scale (O'Shaughnessy 1987).

    Returns
    -------
    float32 tensor of shape (n_fft // 2 + 1, n_mels), peak 1
    """
    hz = torch.arange(config.n_fft // 2 + 1, dtype=torch.float64)
    hz *= config.sample_rate / config.n_fft
    edges = _band_edges_hz(config)
    rising = (hz[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()


def band_centres_hz(config: SpectrogramConfig) -> Tensor:
    """Where each mel band is most sensitive, float64 tensor of shape (n_mels,)."""
    return _band_edges_hz(config)[1:-1]


def _band_edges_hz(config: SpectrogramConfig) -> Tensor:
    """Equally spaced on the mel scale, the ends included; (n_mels + 2,)."""
    low, high = mel(torch.tensor([config.f_min_hz, config.f_max_hz], dtype=torch.float64))
    mels = torch.linspace(float(low), float(high), config.n_mels + 2, dtype=torch.float64)
    return 700.0 * ((mels / 1127.0).exp() - 1.0)
