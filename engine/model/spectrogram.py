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

import dataclasses
from functools import lru_cache

import torch
from torch import Tensor

from engine.model import features
from engine.recipe import SpectrogramConfig


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
    window, filters = _window_and_filters(config, waveform.device, torch.float32)
    frames = waveform.unfold(-1, config.n_fft, config.hop_length) * window
    spectrum = torch.fft.rfft(frames)
    power = spectrum.real.square() + spectrum.imag.square()  # abs() takes roots, 30 times as long
    bands: Tensor = power @ filters
    return bands.clamp(min=features.min_power(config)).log()


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
    floored = torch.maximum(raw, peak - config.floor_db * features.LOG10_TO_NATS)
    centred = floored - floored.mean(dim=(-2, -1), keepdim=True)
    deviation = centred.square().mean(dim=(-2, -1), keepdim=True).sqrt()
    return centred / deviation.clamp(min=features.MIN_DEVIATION)


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
    loudest = raw.exp().sum(dim=-1).amax(dim=-1)
    return loudest < features.silence_power(config)


def mel_filters(config: SpectrogramConfig) -> Tensor:
    """Compute triangular filters that are equally spaced on the mel scale.

    Returns
    -------
    float32 tensor of shape (n_fft // 2 + 1, n_mels), peak 1
    """
    return torch.from_numpy(features.filters(config)).float()


def band_centres_hz(config: SpectrogramConfig) -> Tensor:
    """Compute the peak frequency of each mel band, float64 tensor of shape (n_mels,)."""
    return torch.from_numpy(features.band_centres_hz(config))


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # the cached tensors must also serve a later backward pass
def _window_and_filters(
    config: SpectrogramConfig, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    arrays = features.window(config), features.filters(config)
    window, filters = (torch.from_numpy(array).to(device, dtype) for array in arrays)
    return window, filters


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
    config = dataclasses.replace(config, front_end="kaldi")
    window, filters = _window_and_filters(config, waveform.device, waveform.dtype)
    frames = waveform.unfold(-1, config.n_fft, config.hop_length)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)  # the first precedes itself
    emphasised = (frames - features.KALDI_PRE_EMPHASIS * previous) * window
    spectrum = torch.fft.rfft(emphasised, features.fft_length(config))
    power = spectrum.real.square() + spectrum.imag.square()
    bands: Tensor = power @ filters
    return bands.clamp(min=features.min_power(config)).log()
