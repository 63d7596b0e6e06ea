"""Decode any audio or video file to mono blocks at one sample rate.

The file's first bytes alone decide which library decodes it (:mod:`engine.audio.container`),
because two decoders trim and dither differently. soundfile (libsndfile) reads uncompressed and
lossless formats, PyAV (FFmpeg) reads the rest. libsndfile 1.2.2 fails at the end of many Opus
files, and decodes Vorbis and MP3 at little more than half of PyAV's speed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, groupby
from pathlib import Path
from typing import NamedTuple

import av
import av.error
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from engine.audio.container import read_by_libsndfile
from engine.errors import AudioError

Waveform = NDArray[np.float32]

EXTENSIONS = frozenset(
    (
        *("3g2", "3gp", "aac", "ac3", "aif", "aiff", "alac", "amr", "ape", "asf", "au", "avi"),
        *("caf", "dts", "flac", "flv", "m4a", "m4b", "m4v", "mka", "mkv", "mov", "mp1", "mp2"),
        *("mp3", "mp4", "mpc", "mpeg", "mpg", "oga", "ogg", "ogv", "opus", "ra", "rf64", "snd"),
        *("spx", "tak", "ts", "tta", "w64", "wav", "webm", "wma", "wmv", "wv"),
    )
)
"""File name extensions that a search in a folder accepts; an explicit path may have any."""

BLOCK_S = 60.0

# A file may be this much shorter than its header states, because encoders pad and round.
_TOLERATED_LOSS = 0.02
_TOLERATED_LOSS_S = 1.0


class _Source(NamedTuple):
    """Mono blocks at the native rate, and the length that the header states."""

    sample_rate: int
    declared_s: float | None
    blocks: Iterator[Waveform]


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
        The file cannot be opened or decoded, is truncated, or contains no audio.
    """
    parts = list(blocks(path, sample_rate, start_s=start_s, end_s=end_s))
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def blocks(
    path: str | os.PathLike[str],
    sample_rate: int,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> Iterator[Waveform]:
    """Decode a file block by block; memory does not grow with its length.

    Parameters and errors are those of :func:`read`.

    Yields
    ------
    float32 array of shape (n_samples,)
        About a minute each; :func:`read` returns them concatenated.
    """
    with _decoding(path), _open(Path(path)) as source:
        part = _between(source.blocks, source.sample_rate, start_s, end_s)
        n_samples = 0
        for block in _resampled(_finite(part, path), source.sample_rate, sample_rate):
            n_samples += len(block)
            yield block
        whole = start_s == 0.0 and end_s is None
        if whole and source.declared_s is not None:
            _refuse_truncated(path, n_samples / sample_rate, source.declared_s)


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
    parts = list(_resampled(iter([waveform]), from_rate, to_rate))
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


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


def mono(samples: NDArray[np.generic]) -> Waveform:
    """Convert an array of samples to a mono waveform.

    Parameters
    ----------
    samples : array of shape (n_samples,), (n_samples, n_channels) or (n_channels, n_samples)
        Floats in [-1, 1], or signed integers scaled to the full range of their type. The shorter
        axis holds the channels.

    Returns
    -------
    float32 array of shape (n_samples,), in [-1, 1]

    Raises
    ------
    AudioError
        Another shape or type, or samples that are not finite.
    """
    if samples.ndim not in (1, 2):
        reason = f"shape {samples.shape} is not (n_samples,) or (n_samples, n_channels)"
        raise AudioError("array", reason)
    if np.issubdtype(samples.dtype, np.signedinteger):
        floats = samples.astype(np.float32) / np.float32(2 ** (8 * samples.itemsize - 1))
    elif np.issubdtype(samples.dtype, np.floating):
        floats = samples.astype(np.float32)
    else:
        raise AudioError("array", f"{samples.dtype} samples; floats or signed integers are needed")
    if floats.ndim == 2:
        floats = floats.mean(axis=int(np.argmin(floats.shape)))
    if not np.isfinite(floats).all():
        raise AudioError("array", "it contains samples that are not finite numbers")
    return np.ascontiguousarray(floats)


@contextmanager
def _decoding(path: str | os.PathLike[str]) -> Iterator[None]:
    """Convert the decoders' exceptions to AudioError."""
    try:
        yield
    except av.error.FFmpegError as error:
        reason = "not audio, damaged, or in a format that cannot be read"
        if not isinstance(error, av.error.InvalidDataError):
            reason = f"cannot be decoded ({error.strerror})"
        raise AudioError(path, reason) from error
    except soundfile.LibsndfileError as error:
        raise AudioError(path, f"cannot be decoded ({error.error_string.rstrip('.')})") from error
    except OSError as error:
        raise AudioError(path, error.strerror or str(error)) from error
    except ValueError as error:  # a zero byte in the path, parameters that PyAV cannot express
        raise AudioError(path, str(error)) from error


@contextmanager
def _open(path: Path) -> Iterator[_Source]:
    if path.is_dir():
        raise AudioError(path, "a folder, not a file")
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise AudioError(path, "empty file")
        if read_by_libsndfile(file, path):
            file.seek(0)
            with soundfile.SoundFile(file) as sound:
                declared_s = sound.frames / sound.samplerate
                yield _Source(sound.samplerate, declared_s, _from_soundfile(sound))
        else:
            file.seek(0)
            with av.open(file, mode="r", metadata_errors="ignore") as container:
                yield _from_av(container, path)


def _from_soundfile(sound: soundfile.SoundFile) -> Iterator[Waveform]:
    n_block = int(BLOCK_S * sound.samplerate)
    while len(block := sound.read(n_block, dtype="float32", always_2d=True)):
        yield block.mean(axis=1) if block.shape[1] > 1 else block[:, 0]


def _from_av(container: av.container.InputContainer, path: Path) -> _Source:
    if not container.streams.audio:
        raise AudioError(path, "no sound in it")
    stream = container.streams.audio[0]
    if not stream.rate:
        raise AudioError(path, "not audio, or in a format that cannot be read")
    declared_s = container.duration / av.time_base if container.duration else None
    return _Source(stream.rate, declared_s, _av_blocks(container, stream))


def _av_blocks(
    container: av.container.InputContainer, stream: av.AudioStream
) -> Iterator[Waveform]:
    rate = stream.rate  # read now: it changes with the decoder if the file changes its rate
    for _, frames in groupby(_av_frames(container, stream), key=_frame_format):
        # FFmpeg joins the codec's small frames 1.4 times as fast as numpy. It does not mix down to
        # mono by the mean, so numpy does that.
        joined = av.AudioResampler("fltp", rate=rate, frame_size=int(BLOCK_S * rate))
        for frame in chain(frames, [None]):
            for block in joined.resample(frame):
                channels = block.to_ndarray()
                yield channels.mean(axis=0) if len(channels) > 1 else channels[0]


def _av_frames(
    container: av.container.InputContainer, stream: av.AudioStream
) -> Iterator[av.AudioFrame]:
    """Decode packet by packet and skip damaged packets, as players do."""
    for packet in container.demux(stream):
        with suppress(av.error.InvalidDataError):
            yield from packet.decode()


def _frame_format(frame: av.AudioFrame) -> tuple[str, str, int]:
    """Format a resampler is bound to; concatenated files change it in the middle."""
    return frame.format.name, frame.layout.name, frame.sample_rate


def _between(
    native: Iterator[Waveform], sample_rate: int, start_s: float, end_s: float | None
) -> Iterator[Waveform]:
    """Drop the samples before `start_s` and stop at `end_s`."""
    first = round(start_s * sample_rate)
    last = None if end_s is None else round(end_s * sample_rate)
    position = 0
    for block in native:
        low = max(first - position, 0)
        high = len(block) if last is None else min(last - position, len(block))
        if low < high:
            yield block[low:high]
        position += len(block)
        if last is not None and position >= last:
            return


def _finite(native: Iterator[Waveform], path: str | os.PathLike[str]) -> Iterator[Waveform]:
    """Pass blocks on; AudioError if a sample is not a finite number."""
    for block in native:
        if not np.isfinite(block).all():
            raise AudioError(path, "it contains samples that are not finite numbers")
        yield block


def _resampled(native: Iterator[Waveform], from_rate: int, to_rate: int) -> Iterator[Waveform]:
    if from_rate == to_rate:
        yield from native
        return
    stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32")
    for block in native:
        if len(resampled := stream.resample_chunk(block)):
            yield resampled
    if len(rest := stream.resample_chunk(np.zeros(0, np.float32), last=True)):
        yield rest


def _refuse_truncated(path: str | os.PathLike[str], found_s: float, declared_s: float) -> None:
    if found_s == 0.0:
        raise AudioError(path, "no sound in it")
    if found_s < declared_s * (1 - _TOLERATED_LOSS) - _TOLERATED_LOSS_S:
        raise AudioError(
            path, f"truncated: its header states {declared_s:.1f} s, {found_s:.1f} s are there"
        )
