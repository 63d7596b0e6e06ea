"""Mix channels to one, without losing sound that is in opposite phase."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.records import Waveform

MAX_CHANNELS = 64  # of libswresample
WINDOW_S = 0.5
# Channels cancel where their sum has less than this fraction of the power that the loudest one has
# alone (-7 dB). The rest may be no more than the noise of a lossy codec.
_CANCELLED = 0.2


def mix(channels: NDArray[np.float32], sample_rate: int) -> Waveform:
    """Average channels; where they cancel each other, take the loudest one.

    Parameters
    ----------
    channels : float32 array of shape (n_samples, n_channels)
    sample_rate : int
        Hz.

    Returns
    -------
    float32 array of shape (n_samples,)
        Decided for each half second by itself.
    """
    n_channels = channels.shape[1]
    if n_channels == 1:
        return channels[:, 0]
    mean = channels[:, 0].copy()
    for i in range(1, n_channels):
        mean += channels[:, i]
    mean /= np.float32(n_channels)
    if not len(mean):
        return mean
    window = max(round(WINDOW_S * sample_rate), 1)
    starts = np.arange(0, len(mean), window)
    energies = np.stack([_energies(channels[:, i], starts) for i in range(n_channels)])
    cancelled = _energies(mean, starts) * n_channels**2 < _CANCELLED * energies.max(axis=0)
    for number in np.flatnonzero(cancelled):
        stretch = slice(starts[number], starts[number] + window)
        mean[stretch] = channels[stretch, energies[:, number].argmax()]
    return mean


def _energies(samples: Waveform, starts: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.asarray(np.add.reduceat(np.square(samples), starts))


def without_bad_samples(channels: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Replace samples that are not numbers, or far too large, by 0.

    Parameters
    ----------
    channels : float32 array

    Returns
    -------
    float32 array of the same shape
        The same array if there are none.
    int
        How many were replaced.
    """
    # Two passes without a copy; both results are NaN if a sample is.
    if not channels.size or (channels.max() <= _LARGEST and channels.min() >= -_LARGEST):
        return channels, 0
    good = np.abs(channels) <= _LARGEST
    return np.where(good, channels, np.float32(0)), int(good.size - np.count_nonzero(good))


# Files of 32-bit integers stored as floats reach 2^31; squares of larger samples overflow.
_LARGEST = np.float32(2**32)
