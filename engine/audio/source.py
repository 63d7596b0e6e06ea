"""A file, an open file or an array as a named stream of mono blocks at one sample rate."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from engine.audio import arrays, child
from engine.audio.opening import as_path, name_of, named
from engine.audio.report import ReadReport
from engine.audio.resample import MAX_RATE, MIN_RATE, resample
from engine.errors import AudioError, AudioTooLongError, ConfigError, SilentAudioError
from engine.records import Waveform

_BEHIND_S = 1.0  # decoded behind the longest part, to see that a recording goes on


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
    report : ReadReport, optional
        What whoever makes the blocks reports about the recording.
    max_s : float, optional
        Where in the recording it must have ended.

    Attributes
    ----------
    n_samples : int
        Number of samples read so far.
    """

    def __init__(
        self,
        name: str,
        blocks: Iterable[Waveform],
        sample_rate: int,
        start_s: float = 0.0,
        report: ReadReport | None = None,
        max_s: float | None = None,
    ) -> None:
        self.name, self.sample_rate, self.start_s = name, sample_rate, start_s
        self.max_s = math.inf if max_s is None else max_s
        self.report = ReadReport() if report is None else report
        self.n_samples = 0
        self._blocks = blocks

    def __iter__(self) -> Iterator[Waveform]:
        """Read the blocks.

        Raises
        ------
        AudioTooLongError
            The recording goes on behind `max_s`.
        AudioError
            It ends before `start_s`.
        """
        for block in self._blocks:
            self.n_samples += len(block)
            if self.start_s + self.duration_s > self.max_s:
                raise AudioTooLongError(self.name, self.max_s)
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

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the recording; complete after the last block."""
        return tuple(self.report.warnings)

    @contextmanager
    def explaining_silence(self) -> Iterator[None]:
        """Add the warnings to an error that the recording is silent: another stream may not be."""
        try:
            yield
        except SilentAudioError as error:
            if not self.warnings:
                raise
            reason = "; ".join((error.reason, *self.warnings))
            raise SilentAudioError(self.name, reason) from error


def open_source(  # noqa: PLR0913 - one for each thing about a recording that may be chosen
    source: Any,
    sample_rate: int,
    *,
    array_rate: int | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    stream: int | None = None,
    name: str | None = None,
    max_s: float | None = None,
) -> AudioSource:
    """Open a file or an array, resampled to one rate.

    Files are decoded in a child process with limits: :mod:`engine.audio.child`.

    Parameters
    ----------
    source : path-like, binary file or array
        Arrays have the shapes and types that :func:`engine.audio.arrays.mono` takes.
    sample_rate : int
        Rate of the blocks in Hz.
    array_rate : int, optional
        Sample rate of an array in Hz; required for arrays, ignored for files.
    start_s, end_s : float, optional
        The part to read, in seconds.
    stream : int, optional
        Which of a file's sound streams, from 1; by default the one that it marks as the default.
    name : str, optional
        Name of a file in results and errors; its path by default.
    max_s : float, optional
        Where in the recording the part must have ended; nothing behind it is decoded.

    Returns
    -------
    AudioSource
        A file is opened, and its errors raised, when the blocks are read.

    Raises
    ------
    AudioError
        The array is not audio.
    AudioTooLongError
        The part begins behind `max_s`.
    ConfigError
        The part is empty or starts before 0, there can be no such stream, or an array comes without
        `array_rate`.
    """
    _require_part(start_s, end_s)
    if stream is not None and stream < 1:
        raise ConfigError.invalid("stream", stream, "must be 1 or more")
    report = ReadReport()
    file_name = _file_name(source)
    name = name or file_name or "array"
    if max_s is not None:
        if start_s >= max_s:
            raise AudioTooLongError(name, max_s)
        end_s = min(math.inf if end_s is None else end_s, max_s + _BEHIND_S)
    if file_name is not None:
        options = {"start_s": start_s, "end_s": end_s, "stream": stream}
        blocks = _decoded(source, name, sample_rate, report, options)
        return AudioSource(name, blocks, sample_rate, start_s, report, max_s)
    if array_rate is None:
        raise ConfigError.invalid("sample_rate", None, "must be given for an array, in Hz")
    if not MIN_RATE <= array_rate <= MAX_RATE:
        requirement = f"must be from {MIN_RATE} to {MAX_RATE} Hz"
        raise ConfigError.invalid("sample_rate", array_rate, requirement)
    end = None if end_s is None else round(end_s * array_rate)
    part = arrays.mono(source, array_rate, report)[round(start_s * array_rate) : end]
    part = resample(part, array_rate, sample_rate)
    return AudioSource(name, [part], sample_rate, start_s, report, max_s)


def _require_part(start_s: float, end_s: float | None) -> None:
    if start_s < 0:
        raise ConfigError.invalid("start_s", start_s, "must be 0 or more")
    if end_s is not None and end_s <= start_s:
        raise ConfigError.invalid("end_s", end_s, f"must be more than start_s, {start_s}")


def _file_name(source: Any) -> str | None:
    """Name of a file, open or not; None for an array."""
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        raise AudioError(
            type(source).__name__, "bytes, neither samples nor a file; wrap them in io.BytesIO"
        )
    if not hasattr(source, "read"):
        return None
    if isinstance(source.read(0), str):
        raise AudioError(name_of(source), "opened as text; open it with mode 'rb'")
    return name_of(source)


def _decoded(
    source: Any, name: str, sample_rate: int, report: ReadReport, options: dict[str, Any]
) -> Iterator[Waveform]:
    with named(name), as_path(source) as path:
        yield from child.blocks(path, sample_rate, report, **options)
