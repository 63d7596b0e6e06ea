"""Convert a waveform to normalised log-mel segments; each depends on its own samples only.

Frames are neither centred nor padded, and level and range are normalised per segment. The same
second of music therefore gives the same numbers in a long track and in a short clip.

The front end "kaldi" computes the filter bank of the published models with one fixed normalisation
(Povey et al.: The Kaldi Speech Recognition Toolkit. ASRU 2011), as Hugging Face's feature extractor
does. The models' original repository first subtracts the mean of the whole waveform. That is left
out here: each frame loses its own mean anyway, and features must not depend on samples outside
their segment. Nothing is padded for the same reason.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from engine.recipe import SpectrogramConfig

_LOG10_TO_NATS = 0.2302585092994046  # ln(10) / 10: dB of power to nats
_MIN_POWER = 1e-12

_KALDI_MIN_POWER = torch.finfo(torch.float32).eps
_KALDI_PRE_EMPHASIS = 0.97


def log_mel(waveform: Tensor, config: SpectrogramConfig) -> Tensor:
    """Compute the log-mel power spectrogram without padding.

    Parameters
    ----------
    waveform : float32 tensor of shape (..., n_samples), in [-1, 1]
    config : SpectrogramConfig

    Returns
    -------
    float32 tensor of shape (..., n_frames, n_mels), natural log of power
        ``n_frames = (n_samples - n_fft) // hop_length + 1``; 0 if the waveform is shorter than
        one window.
    """
    if config.front_end == "kaldi":
        return kaldi_log_mel(waveform, config)
    if waveform.shape[-1] < config.n_fft:
        return waveform.new_zeros((*waveform.shape[:-1], 0, config.n_mels))
    window, filters = _window_and_filters(config, waveform.device)
    frames = waveform.unfold(-1, config.n_fft, config.hop_length) * window
    spectrum = torch.fft.rfft(frames)
    power = spectrum.real.square() + spectrum.imag.square()  # abs() takes roots, 30 times as long
    bands: Tensor = power @ filters
    return bands.clamp(min=_MIN_POWER).log()


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
    float32 tensor of shape (n_segments, config.n_frames, n_mels)
        A view, not yet normalised.
    """
    if spectrogram.shape[0] < config.n_frames:
        return spectrogram.new_zeros((0, config.n_frames, config.n_mels))
    return spectrogram.unfold(0, config.n_frames, hop_frames).transpose(1, 2)


def normalise(raw: Tensor, config: SpectrogramConfig) -> Tensor:
    """Floor each segment below its own maximum, then give it zero mean and unit variance.

    With the front end "kaldi", subtract the configured mean and divide by twice the deviation.

    Parameters
    ----------
    raw : float32 tensor of shape (n_segments, n_frames, n_mels), natural log of power
    config : SpectrogramConfig

    Returns
    -------
    float32 tensor of the same shape
        With the front end "segment", a constant segment is close to zero.
    """
    if config.front_end == "kaldi":
        return (raw - config.mean) / (2 * config.deviation)
    peak = raw.amax(dim=(-2, -1), keepdim=True)
    floored = torch.maximum(raw, peak - config.floor_db * _LOG10_TO_NATS)
    centred = floored - floored.mean(dim=(-2, -1), keepdim=True)
    deviation = centred.square().mean(dim=(-2, -1), keepdim=True).sqrt()
    return centred / deviation.clamp(min=1e-3)


def silent(raw: Tensor, config: SpectrogramConfig) -> Tensor:
    """Find the segments without an audible frame.

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


def mel_filters(config: SpectrogramConfig) -> Tensor:
    """Compute triangular filters that are equally spaced on the mel scale.

    Returns
    -------
    float32 tensor of shape (n_fft // 2 + 1, n_mels), peak 1
    """
    hz = torch.arange(config.n_fft // 2 + 1, dtype=torch.float64)
    hz *= config.sample_rate / config.n_fft
    return _triangles(hz, _band_edges_hz(config)).float()


def band_centres_hz(config: SpectrogramConfig) -> Tensor:
    """Compute the peak frequency of each mel band, float64 tensor of shape (n_mels,)."""
    return _band_edges_hz(config)[1:-1]


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # the cached tensors must also serve a later backward pass
def _window_and_filters(config: SpectrogramConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.hann_window(config.n_fft, device=device), mel_filters(config).to(device)


def _band_edges_hz(config: SpectrogramConfig) -> Tensor:
    return 700.0 * ((_band_edges_mel(config) / 1127.0).exp() - 1.0)


def _band_edges_mel(config: SpectrogramConfig) -> Tensor:
    """Space the edges of all bands equally on the mel scale, both ends included; (n_mels + 2,)."""
    low, high = mel(torch.tensor([config.f_min_hz, config.f_max_hz], dtype=torch.float64))
    return torch.linspace(float(low), float(high), config.n_mels + 2, dtype=torch.float64)


def _triangles(bins: Tensor, edges: Tensor) -> Tensor:
    """Evaluate the triangles between each three edges, of shape (n_bins, n_mels), peak 1."""
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


# -- the filter bank of the published models -------------------------------------------------


def kaldi_log_mel(waveform: Tensor, config: SpectrogramConfig) -> Tensor:
    """Compute kaldi's log mel filter bank; differentiable with respect to the waveform.

    Parameters
    ----------
    waveform : float tensor of shape (..., n_samples), in [-1, 1]
        Not scaled to the range of 16 bits, as in the training of the published models.
    config : SpectrogramConfig

    Returns
    -------
    float tensor of shape (..., n_frames, n_mels), natural log of power
        ``n_frames = (n_samples - n_fft) // hop_length + 1``; 0 if the waveform is shorter than
        one window.
    """
    if waveform.shape[-1] < config.n_fft:
        return waveform.new_zeros((*waveform.shape[:-1], 0, config.n_mels))
    window, filters = _kaldi_window_and_filters(config, waveform.device, waveform.dtype)
    frames = waveform.unfold(-1, config.n_fft, config.hop_length)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)  # the first precedes itself
    emphasised = (frames - _KALDI_PRE_EMPHASIS * previous) * window
    spectrum = torch.fft.rfft(emphasised, _kaldi_fft_length(config))
    power = spectrum.real.square() + spectrum.imag.square()
    bands: Tensor = power @ filters
    return bands.clamp(min=_KALDI_MIN_POWER).log()


def _kaldi_fft_length(config: SpectrogramConfig) -> int:
    """Next power of two."""
    return 1 << (config.n_fft - 1).bit_length()


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # the cached tensors must also serve a later backward pass
def _kaldi_window_and_filters(
    config: SpectrogramConfig, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    window = torch.hann_window(config.n_fft, periodic=False, dtype=torch.float64)
    n_bins = _kaldi_fft_length(config) // 2 + 1
    bins = mel(torch.linspace(0, config.sample_rate / 2, n_bins, dtype=torch.float64))
    filters = _triangles(bins, _band_edges_mel(config))  # straight on the mel scale, unlike ours
    return window.to(device, dtype), filters.to(device, dtype)
