"""Resample mono waveforms to another rate or another speed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from engine.records import Waveform

MIN_RATE, MAX_RATE = 1_000, 1_000_000
"""Sample rates that recordings may have, in Hz."""


def resample(waveform: Waveform, from_rate: int, to_rate: int) -> Waveform:
    """Resample a mono waveform.

    Parameters
    ----------
    waveform : float32 array of shape (n_samples,)
    from_rate, to_rate : int
        Hz.

    Returns
    -------
    float32 array of shape (n_samples * to_rate / from_rate,)
    """
    parts = list(resampled(iter([waveform]), from_rate, to_rate))
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def resampled(blocks: Iterable[Waveform], from_rate: int, to_rate: int) -> Iterator[Waveform]:
    """Resample consecutive mono blocks as one waveform.

    Parameters
    ----------
    blocks : iterable of float32 arrays of shape (n_samples,)
    from_rate, to_rate : int
        Hz.

    Yields
    ------
    float32 array of shape (n_samples,)
    """
    if from_rate == to_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32")
    for block in blocks:
        if len(part := stream.resample_chunk(block)):
            yield part
    if len(rest := stream.resample_chunk(np.zeros(0, np.float32), last=True)):
        yield rest


def change_speed(waveform: Waveform, sample_rate: int, factor: float) -> Waveform:
    """Resample a mono waveform so that it plays faster or slower; the pitch changes with it.

    Parameters
    ----------
    waveform : float32 array of shape (n_samples,)
    sample_rate : int
        Hz.
    factor : float
        Playback speed; 2 halves the length.

    Returns
    -------
    float32 array of shape (n_samples / factor,)
    """
    return np.asarray(soxr.resample(waveform, sample_rate * factor, sample_rate), np.float32)
