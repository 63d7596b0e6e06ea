"""Decode any audio or video file to mono blocks at one sample rate.

Whatever plays is read, as far as it can be read, and what is wrong with it is a warning. Only a
file without any sound that can be decoded is an error. Times are those a player shows:
:mod:`engine.audio.clock`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import av
import av.error
import numpy as np

from engine.audio.opening import opened
from engine.audio.recording import Recording, amplified
from engine.audio.report import ReadReport
from engine.errors import AudioError
from engine.records import Waveform


def read(
    path: str | os.PathLike[str],
    sample_rate: int,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> Waveform:
    """Read a file, or a part of it, into memory.

    Parameters
    ----------
    path : path-like
    sample_rate : int
        Rate of the result in Hz.
    start_s, end_s : float, optional
        The part to read, in seconds.

    Returns
    -------
    float32 array of shape (n_samples,)
        In [-1, 1], unless the file itself exceeds that range.

    Raises
    ------
    AudioError
        The file cannot be opened, or contains no sound that can be decoded.
    """
    parts = list(blocks(path, sample_rate, start_s=start_s, end_s=end_s))
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def blocks(
    path: str | os.PathLike[str],
    sample_rate: int,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    stream: int | None = None,
    report: ReadReport | None = None,
) -> Iterator[Waveform]:
    """Decode a file block by block; memory does not grow with its length.

    Parameters
    ----------
    path, sample_rate, start_s, end_s
        As in :func:`read`.
    stream : int, optional
        Which of its sound streams, from 1; by default the one that the file marks as the default.
    report : ReadReport, optional
        Collects what is wrong with the file; complete after the last block.

    Yields
    ------
    float32 array of shape (n_samples,)
        About a minute each; :func:`read` returns them concatenated.
    """
    report = ReadReport() if report is None else report
    with decoding(path), opened(path) as file:
        recording = Recording(file, path, sample_rate, stream)
        yield from amplified(recording, start_s, end_s, report)


@contextmanager
def decoding(path: str | os.PathLike[str]) -> Iterator[None]:
    """Convert what opening and decoding a file raises to AudioError."""
    try:
        yield
    except AudioError:
        raise
    except MemoryError as error:
        raise AudioError(path, "decoding it needs more memory than is allowed") from error
    except av.error.FFmpegError as error:
        raise AudioError(path, "not audio, damaged, or in a format that cannot be read") from error
    except OSError as error:
        raise AudioError(path, error.strerror or str(error)) from error
    except ValueError as error:  # a zero byte in the path, parameters that PyAV cannot express
        raise AudioError(path, str(error)) from error
    except Exception as error:  # PyAV raises anything on damaged files
        raise AudioError(path, f"damaged ({type(error).__name__}: {error})") from error
