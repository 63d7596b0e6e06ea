"""Log-mel features in numpy: what :mod:`engine.model.spectrogram` computes, without torch.

Also the windows and mel filters of both, and the rules for them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from engine.recipe import SpectrogramConfig
from engine.records import Waveform

Floats = NDArray[np.float32]

LOG10_TO_NATS = 0.2302585092994046  # ln(10) / 10: dB of power to nats
MIN_DEVIATION = 1e-3
KALDI_PRE_EMPHASIS = 0.97

_MIN_POWER = {"segment": 1e-12, "kaldi": float(np.finfo(np.float32).eps)}
_CHUNK_FRAMES = 128  # transformed at once, so that they stay in the cache


def power_spectra(waveform: Waveform, config: SpectrogramConfig) -> Floats:
    """Compute the power spectrum of each whole frame.

    Parameters
    ----------
    waveform : float32 array of shape (n_samples,), in [-1, 1]
    config : SpectrogramConfig

    Returns
    -------
    float32 array of shape (n_frames, fft_length // 2 + 1)
        ``n_frames = (n_samples - n_fft) // hop_length + 1``; 0 if the waveform is shorter than
        one window.
    """
    n_bins = fft_length(config) // 2 + 1
    if len(waveform) < config.n_fft:
        return np.zeros((0, n_bins), np.float32)
    frames = sliding_window_view(waveform, config.n_fft)[:: config.hop_length]
    out = np.empty((len(frames), n_bins), np.float32)
    for start in range(0, len(frames), _CHUNK_FRAMES):
        chunk = slice(start, start + _CHUNK_FRAMES)
        spectrum = np.fft.rfft(_windowed(frames[chunk], config), fft_length(config))
        np.square(spectrum.real, out=out[chunk])
        out[chunk] += np.square(spectrum.imag)
    return out


def segments(spectrogram: Floats, hop_frames: int, config: SpectrogramConfig) -> Floats:
    """Cut a spectrogram into overlapping segments.

    Parameters
    ----------
    spectrogram : float32 array of shape (n_frames, n_mels)
    hop_frames : int
        Frames between the starts of two segments.
    config : SpectrogramConfig

    Returns
    -------
    float32 array of shape (n_segments, config.n_frames, n_mels)
        A view, not yet normalised.
    """
    if len(spectrogram) < config.n_frames:
        return np.zeros((0, config.n_frames, config.n_mels), np.float32)
    windows = sliding_window_view(spectrogram, config.n_frames, axis=0)[::hop_frames]
    return windows.transpose(0, 2, 1)


def normalise(raw: Floats, config: SpectrogramConfig) -> Floats:
    """Normalise each segment; see :func:`engine.model.spectrogram.normalise`.

    Parameters
    ----------
    raw : float32 array of shape (n_segments, n_frames, n_mels), natural log of power
    config : SpectrogramConfig

    Returns
    -------
    float32 array of the same shape
    """
    if config.front_end == "kaldi":
        return np.asarray((raw - config.mean) / (2 * config.deviation), np.float32)
    lowest = raw.max(axis=(1, 2), keepdims=True) - np.float32(config.floor_db * LOG10_TO_NATS)
    out: Floats = np.maximum(raw, lowest)
    out -= out.mean(axis=(1, 2), keepdims=True)
    deviation = np.sqrt(np.square(out).mean(axis=(1, 2), keepdims=True))
    out /= np.maximum(deviation, np.float32(MIN_DEVIATION))
    return out


def silent(raw: Floats, config: SpectrogramConfig) -> NDArray[np.bool_]:
    """Find the segments without an audible frame.

    Parameters
    ----------
    raw : float32 array of shape (n_segments, n_frames, n_mels), natural log of power
    config : SpectrogramConfig

    Returns
    -------
    bool array of shape (n_segments,)
    """
    loudest = np.exp(raw).sum(axis=2).max(axis=1)
    return np.asarray(loudest < silence_power(config))


def silence_power(config: SpectrogramConfig) -> float:
    """Compute the power, summed over the mel bands, below which a frame is silent."""
    # A full-scale sine puts (sum of the window / 2)^2 of power into one bin.
    return (config.n_fft / 4) ** 2 * float(10 ** (config.silence_db / 10))


def min_power(config: SpectrogramConfig) -> float:
    """Return the power to which that of each mel band is raised before the logarithm."""
    return _MIN_POWER[config.front_end]


# -- windows and filters ---------------------------------------------------------------------


def fft_length(config: SpectrogramConfig) -> int:
    """Return the length of the transform; for "kaldi" the next power of two."""
    return 1 << (config.n_fft - 1).bit_length() if config.front_end == "kaldi" else config.n_fft


@lru_cache(maxsize=8)
def window(config: SpectrogramConfig) -> NDArray[np.float64]:
    """Compute the Hann window, float64 array of shape (n_fft,); for "kaldi" a symmetric one."""
    period = max(config.n_fft - (config.front_end == "kaldi"), 1)
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.n_fft) / period)


@lru_cache(maxsize=8)
def filters(config: SpectrogramConfig) -> NDArray[np.float64]:
    """Compute triangular filters that are equally spaced on the mel scale.

    Those of "segment" are straight on the scale of Hz, those of "kaldi" on the mel scale.

    Returns
    -------
    float64 array of shape (fft_length // 2 + 1, n_mels), peak 1
    """
    n_fft = fft_length(config)
    hz = np.arange(n_fft // 2 + 1, dtype=np.float64) * (config.sample_rate / n_fft)
    edges = _band_edges_mel(config)
    if config.front_end == "kaldi":
        return _triangles(mel(hz), edges)
    return _triangles(hz, _hz(edges))


def band_centres_hz(config: SpectrogramConfig) -> NDArray[np.float64]:
    """Compute the peak frequency of each mel band, float64 array of shape (n_mels,)."""
    return _hz(_band_edges_mel(config))[1:-1]


def mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert frequencies to the mel scale (O'Shaughnessy 1987).

    Parameters
    ----------
    hz : float64 array of any shape

    Returns
    -------
    float64 array of the same shape
    """
    return 1127.0 * np.log(1.0 + hz / 700.0)


def _windowed(frames: Floats, config: SpectrogramConfig) -> Floats:
    if config.front_end == "kaldi":
        centred = frames - frames.mean(axis=1, keepdims=True)
        frames = centred - KALDI_PRE_EMPHASIS * _previous(centred)
    return frames * window(config).astype(np.float32)


def _previous(frames: Floats) -> Floats:
    """Return the sample before each one; the first precedes itself."""
    return np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)


def _hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    return 700.0 * (np.exp(mels / 1127.0) - 1.0)


def _band_edges_mel(config: SpectrogramConfig) -> NDArray[np.float64]:
    """Space the edges of all bands equally on the mel scale, both ends included; (n_mels + 2,)."""
    low, high = mel(np.array([config.f_min_hz, config.f_max_hz]))
    return np.asarray(np.linspace(low, high, config.n_mels + 2), np.float64)


def _triangles(bins: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate the triangles between each three edges, of shape (n_bins, n_mels), peak 1."""
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rising, falling), 0)
