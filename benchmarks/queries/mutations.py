"""Ways to damage files and rows, and the formats of the audio files to damage."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from benchmarks.queries.datasets import RATE, Waveform

_CODEC_RATE = 48_000

FORMATS = {
    "wav": ("wav", "pcm_s16le"),
    "wav 24": ("wav", "pcm_s24le"),
    "wav float": ("wav", "pcm_f32le"),
    "w64": ("w64", "pcm_s16le"),
    "aiff": ("aiff", "pcm_s16be"),
    "au": ("au", "pcm_s16be"),
    "caf": ("caf", "pcm_s16be"),
    "flac": ("flac", "flac"),
    "mp3": ("mp3", "mp3"),
    "mp2": ("mp2", "mp2"),
    "m4a": ("ipod", "aac"),
    "m4a alac": ("ipod", "alac"),
    "aac": ("adts", "aac"),
    "ac3": ("ac3", "ac3"),
    "ogg opus": ("ogg", "libopus"),
    "mka": ("matroska", "pcm_s16le"),
    "webm": ("webm", "libopus"),
    "wma": ("asf", "wmav2"),
}
"""Container and codec of each format."""

PAGED = ("ogg opus", "aac")
"""Formats whose decoders drop pages or several frames for a flipped bit, so that sound moves."""

VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 10**9, 2**63 - 1, -(2**63), 2.0**63, float("inf"), 0.5, 1e-300),
    *("", "x", "../../x", "\x1b[2J", "9" * 5000, b"\xff\x00", [], ["x"], {"x": 1}),
)
"""Values that no field should have, or not this one."""


class Mutation(NamedTuple):
    """A way to damage bytes; sound keeps its place unless `moves` is true."""

    apply: Callable[[bytearray, np.random.Generator], bytearray]
    moves: bool = False


def _cut(content: bytearray, rng: np.random.Generator) -> bytearray:
    return content[: int(rng.integers(0, len(content)))]


def _flip(content: bytearray, rng: np.random.Generator) -> bytearray:
    for at in rng.integers(0, len(content), int(rng.integers(1, 33))):
        content[at] ^= 1 << int(rng.integers(8))
    return content


def _flip_header(content: bytearray, rng: np.random.Generator) -> bytearray:
    for at in rng.integers(0, min(len(content), 256), int(rng.integers(1, 9))):
        content[at] = int(rng.integers(256))
    return content


def _span(content: bytearray, rng: np.random.Generator) -> slice:
    start, stop = sorted(rng.integers(0, len(content) + 1, 2))
    return slice(int(start), int(stop))


def _zero(content: bytearray, rng: np.random.Generator) -> bytearray:
    span = _span(content, rng)
    content[span] = bytes(span.stop - span.start)
    return content


def _randomise(content: bytearray, rng: np.random.Generator) -> bytearray:
    span = _span(content, rng)
    content[span] = rng.bytes(span.stop - span.start)
    return content


def _remove(content: bytearray, rng: np.random.Generator) -> bytearray:
    del content[_span(content, rng)]
    return content


def _duplicate(content: bytearray, rng: np.random.Generator) -> bytearray:
    span = _span(content, rng)
    return content[: span.stop] + content[span] + content[span.stop :]


MUTATIONS = {
    "cut off": Mutation(_cut),
    "flipped bits": Mutation(_flip),
    "random header": Mutation(_flip_header, moves=True),
    "zeroed range": Mutation(_zero, moves=True),  # decoders drop empty frames
    "random range": Mutation(_randomise, moves=True),
    "removed range": Mutation(_remove, moves=True),
    "repeated range": Mutation(_duplicate, moves=True),
}
"""Ways to damage a file, by name."""


def encode(waveform: Waveform, container: str, codec: str) -> bytes:
    """Encode a waveform at RATE into bytes of a container with a codec."""
    with tempfile.NamedTemporaryFile() as file:
        with av.open(file.name, "w", format=container) as out:
            stream = out.add_stream(codec, rate=_CODEC_RATE, layout="mono")
            assert isinstance(stream, av.AudioStream)
            stream.bit_rate = 64_000
            frame = av.AudioFrame.from_ndarray(waveform[None], "flt", "mono")
            frame.sample_rate = RATE
            resampler = av.AudioResampler(stream.format.name, "mono", _CODEC_RATE,
                                          stream.frame_size or None)  # fmt: skip
            for part in (frame, None):
                for resampled in resampler.resample(part):
                    out.mux(stream.encode(resampled))
            out.mux(stream.encode(None))
        return Path(file.name).read_bytes()
