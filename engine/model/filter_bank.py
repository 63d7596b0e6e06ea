"""The log mel filter bank of the published models, as kaldi computes it.

Of the two front ends in use with these models it is the one of Hugging Face's extractor. The
original repository subtracts the mean of the whole waveform first, which is not done here: every
frame loses its own mean anyway, and features must never look outside their segment. For the same
reason nothing is padded.

Povey et al.: The Kaldi Speech Recognition Toolkit. ASRU 2011.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from engine.recipe import SpectrogramConfig

_PRE_EMPHASIS = 0.97
_SMALLEST_POWER = torch.finfo(torch.float32).eps


def fbank(waveform: Tensor, config: SpectrogramConfig) -> Tensor:
    """Compute the log mel filter bank, differentiable with respect to the waveform.

    Parameters
    ----------
    waveform : float tensor of shape (..., n_samples), in [-1, 1]
        Not scaled to the range of 16 bits, as the published models were trained.
    config : SpectrogramConfig

    Returns
    -------
    float tensor of shape (..., n_frames, n_mels), natural log of power
        ``n_frames = (n_samples - n_fft) // hop_length + 1``; none when the waveform is shorter
        than one window.
    """
    if waveform.shape[-1] < config.n_fft:
        return waveform.new_zeros((*waveform.shape[:-1], 0, config.n_mels))
    window, filters = _analysis(config, waveform.device, waveform.dtype)
    frames = waveform.unfold(-1, config.n_fft, config.hop_length)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)  # the first precedes itself
    spectrum = torch.fft.rfft((frames - _PRE_EMPHASIS * previous) * window, _fft_length(config))
    power = spectrum.real.square() + spectrum.imag.square()
    bands: Tensor = power @ filters
    return bands.clamp(min=_SMALLEST_POWER).log()


def mel(hz: Tensor) -> Tensor:
    """Convert frequencies to the mel scale (O'Shaughnessy 1987).

    Parameters
    ----------
    hz : float tensor of any shape

    Returns
    -------
    float tensor of the same shape
    """
    return 1127.0 * (1.0 + hz / 700.0).log()


def _fft_length(config: SpectrogramConfig) -> int:
    """Next power of two."""
    return 1 << (config.n_fft - 1).bit_length()


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is kept must serve a later backward pass too
def _analysis(
    config: SpectrogramConfig, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    window = torch.hann_window(config.n_fft, periodic=False, dtype=torch.float64)
    return window.to(device, dtype), _filters(config).to(device, dtype)


def _filters(config: SpectrogramConfig) -> Tensor:
    """Triangles that are straight on the mel scale, of shape (n_bins, n_mels), peak 1."""
    n_bins = _fft_length(config) // 2 + 1
    bins = mel(torch.linspace(0, config.sample_rate / 2, n_bins, dtype=torch.float64))
    low, high = mel(torch.tensor([config.f_min_hz, config.f_max_hz], dtype=torch.float64))
    edges = torch.linspace(float(low), float(high), config.n_mels + 2, dtype=torch.float64)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)
