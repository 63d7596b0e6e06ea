"""A file or an array as a named stream of mono blocks at one sample rate."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from engine.audio import decode
from engine.audio.decode import Waveform
from engine.errors import AudioError, ConfigError


class AudioSource:
    """Mono blocks of one recording; counts the samples as they are read.

    Parameters
    ----------
    name : str
        The recording's name in results and errors.
    blocks : iterable of float32 arrays of shape (n_samples,)
    sample_rate : int
        Hz of the blocks.
    start_s : float
        Where in the recording the first block begins, in seconds.

    Attributes
    ----------
    n_samples : int
        Number of samples read so far.
    """

    def __init__(
        self, name: str, blocks: Iterable[Waveform], sample_rate: int, start_s: float = 0.0
    ) -> None:
        self.name, self.sample_rate, self.start_s = name, sample_rate, start_s
        self.n_samples = 0
        self._blocks = blocks

    def __iter__(self) -> Iterator[Waveform]:
        """Read the blocks; AudioError if the recording ends before `start_s`."""
        for block in self._blocks:
            self.n_samples += len(block)
            yield block
        if self.start_s and not self.n_samples:
            raise AudioError(self.name, f"it ends before {self.start_s:g} s; use an earlier start")

    @property
    def duration_s(self) -> float:
        """Seconds read so far."""
        return self.n_samples / self.sample_rate

    def read(self) -> Waveform:
        """Read all blocks into one float32 array of shape (n_samples,)."""
        blocks = list(self)
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def open_source(
    source: Any,
    sample_rate: int,
    *,
    array_rate: int | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> AudioSource:
    """Open a file or an array, resampled to one rate.

    Parameters
    ----------
    source : path-like or array
        Arrays have the shapes and types that :func:`engine.audio.decode.mono` takes.
    sample_rate : int
        Rate of the blocks in Hz.
    array_rate : int, optional
        Sample rate of an array in Hz; required for arrays, ignored for files.
    start_s, end_s : float, optional
        The part to read, in seconds.

    Returns
    -------
    AudioSource
        A file's name is its path; an array's name is "array". A file is opened, and its errors
        raised, when the blocks are read.

    Raises
    ------
    AudioError
        The array is not audio.
    ConfigError
        The part is empty or starts before 0, or an array comes without `array_rate`.
    """
    if start_s < 0 or (end_s is not None and end_s <= start_s):
        raise ConfigError.invalid(
            "(start_s, end_s)", (start_s, end_s), "must satisfy 0 <= start_s < end_s"
        )
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        blocks = decode.blocks(path, sample_rate, start_s=start_s, end_s=end_s)
        return AudioSource(path, blocks, sample_rate, start_s)
    if array_rate is None:
        raise ConfigError.invalid("sample_rate", None, "must be given for an array, in Hz")
    end = None if end_s is None else round(end_s * array_rate)
    part = decode.mono(source)[round(start_s * array_rate) : end]
    return AudioSource(
        "array", [decode.resample(part, array_rate, sample_rate)], sample_rate, start_s
    )
