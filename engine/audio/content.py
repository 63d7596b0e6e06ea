"""What identifies a recording: its undecoded sound, whatever its tags and its container are."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import replace

import av.error

from engine.audio.container import inspect
from engine.audio.decode import decoding
from engine.audio.ffmpeg import open_stream
from engine.audio.opening import opened
from engine.audio.view import View
from engine.errors import AudioError
from engine.records import Sound

_FRAMES = ("aac", "ac3", "dts", "mp3")
"""Formats of frames alone, whose length FFmpeg guesses from the first ones."""


def read_duration(path: str | os.PathLike[str]) -> float | None:
    """Return the seconds of sound that a file's headers state; None if they do not.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    AudioError
        The file contains no sound that can be decoded.
    """
    total_s, is_stated = 0.0, True
    with decoding(path), opened(path) as file:
        for part in inspect(file):
            with open_stream(View(file, part), part, path, None) as sound:
                total_s += sound.stated_end_s
                is_guess = part.demuxer in _FRAMES and not part.states_duration
                is_stated &= not is_guess and not part.is_cut_off
    return total_s if is_stated and total_s > 0 else None


def read_sound(path: str | os.PathLike[str]) -> tuple[str, Sound] | None:
    """Hash the packets of a file's default sound stream, and describe them.

    A file keeps its hash when its tags or pictures change, and when its sound is copied to another
    container. Headers do not count: those of Vorbis and Opus contain the tags.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    content_hash : str
        SHA-256 of codec, sample rate, channels and packets, hex.
    sound : Sound
        Of the first part of a chained file. None instead of both if no packet can be read.
    """
    digest, n_bytes = hashlib.sha256(), 0
    first: Sound | None = None
    with suppress(AudioError), decoding(path), opened(path) as file:
        for part in inspect(file):
            with (
                suppress(AudioError, av.error.FFmpegError),  # the other parts count, as in decoding
                open_stream(View(file, part), part, path, None) as sound,
            ):
                first = first or Sound(
                    codec=sound.codec,
                    is_lossless=sound.is_lossless,
                    sample_rate=sound.sample_rate,
                )
                digest.update(f"{sound.codec} {sound.sample_rate} {sound.n_channels}\n".encode())
                for packet in sound.packets():
                    digest.update(packet)
                    n_bytes += len(packet)
    if first is None or not n_bytes:
        return None
    return digest.hexdigest(), replace(first, n_bytes=n_bytes)
