"""Fixtures that make audio files of every kind, good and broken, from composed music.

    tune(seed, duration_s, sample_rate)    a read-only waveform, composed once per session
    write_audio(path, waveform, rate)      a file in the format its ending names
    broken_file(name)                      one of BROKEN_FILES, in the test's own folder
    write_streams(path, sounds, ...)       a container with several streams, gaps, delays

A waveform of shape (n_samples, 2) makes a stereo file. `stereo(waveform)` makes one whose mean is
the waveform again.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import mutagen
import mutagen.id3
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from astound.demo.composer import compose

Waveform = NDArray[np.float32]
Tune = Callable[..., Waveform]


class Codec(NamedTuple):
    """How a file of some ending is written; PyAV writes it when it names a codec."""

    container: str
    subtype: str | None = None
    codec: str | None = None
    has_video: bool = False


CODECS = {
    ".wav": Codec("WAV", "PCM_16"),
    ".aiff": Codec("AIFF", "PCM_16"),
    ".au": Codec("AU", "PCM_16"),
    ".flac": Codec("FLAC", "PCM_16"),
    ".ogg": Codec("OGG", "VORBIS"),
    ".mp3": Codec("MP3", "MPEG_LAYER_III"),
    ".opus": Codec("OGG", "OPUS"),
    ".m4a": Codec("ipod", codec="aac"),
    ".aac": Codec("adts", codec="aac"),
    ".wma": Codec("asf", codec="wmav2"),
    ".mka": Codec("matroska", codec="pcm_s16le"),
    ".webm": Codec("webm", codec="libopus"),
    ".mp4": Codec("mp4", codec="aac", has_video=True),
}
LOSSLESS = frozenset({".wav", ".aiff", ".au", ".flac", ".mka"})


@pytest.fixture(scope="session")
def tune() -> Tune:
    """Give tune(seed, duration_s=10.0, sample_rate=8000), a read-only float32 array."""
    return cached_tune


@functools.lru_cache(maxsize=256)
def cached_tune(seed: int, duration_s: float = 10.0, sample_rate: int = 8000) -> Waveform:
    waveform = compose(seed, duration_s, sample_rate)
    waveform.flags.writeable = False
    return waveform


@pytest.fixture(scope="session", name="write_audio")
def write_audio_fixture() -> Callable[[Path, Waveform, int], Path]:
    """Give :func:`write_audio`."""
    return write_audio


def write_audio(path: Path, waveform: Waveform, sample_rate: int) -> Path:
    """Write a waveform in the format that the ending of `path` names, and return the path."""
    codec = CODECS[path.suffix]
    if codec.codec:
        _write_with_av(path, waveform, sample_rate, codec)
    else:
        _write_with_soundfile(path, waveform, sample_rate, codec)
    return path


def write_wav(path: Path, waveform: Waveform, sample_rate: int, subtype: str = "PCM_16") -> Path:
    """Write a WAV file of any `subtype` that libsndfile knows, and return its path."""
    soundfile.write(os.fsencode(path), waveform, sample_rate, subtype=subtype, format="WAV")
    return path


def write_tags(path: Path, **tags: str) -> None:
    """Write a title or an artist into a WAV or AIFF file; its time of change is another one."""
    file = mutagen.File(path)
    if file.tags is None:
        file.add_tags()
    for name, text in tags.items():
        frame = {"title": "TIT2", "artist": "TPE1"}[name]
        file.tags.setall(frame, [mutagen.id3.Frames[frame](3, [text])])
    later_ns = path.stat().st_mtime_ns + 10**9
    file.save()
    os.utime(path, ns=(later_ns, later_ns))


def stereo(waveform: Waveform) -> Waveform:
    """Two different channels whose mean is `waveform`, of shape (n_samples, 2)."""
    side = 0.05 * np.sin(np.arange(len(waveform)) * 0.05).astype(np.float32)
    return np.stack([waveform + side, waveform - side], axis=1).astype(np.float32)


def _write_with_soundfile(path: Path, waveform: Waveform, sample_rate: int, codec: Codec) -> None:
    n_channels = 1 if waveform.ndim == 1 else waveform.shape[1]
    form = {"subtype": codec.subtype, "format": codec.container}
    with soundfile.SoundFile(os.fsencode(path), "w", sample_rate, n_channels, **form) as file:
        # libsndfile 1.2.2 overflows its stack when it gets a minute of Vorbis at once.
        for start in range(0, len(waveform), sample_rate):
            file.write(waveform[start : start + sample_rate])


def _write_with_av(path: Path, waveform: Waveform, sample_rate: int, codec: Codec) -> None:
    assert codec.codec is not None
    channels = waveform.reshape(len(waveform), -1).T
    with av.open(str(path), "w", format=codec.container) as container:
        layout = {1: "mono", 2: "stereo"}[len(channels)]
        sound = container.add_stream(codec.codec, rate=sample_rate, layout=layout)
        assert isinstance(sound, av.AudioStream)
        sound.bit_rate = 128_000
        if codec.has_video:
            _write_black_video(container, len(waveform) / sample_rate)
        joined = av.AudioResampler(sound.format, layout, sample_rate, sound.frame_size or 4096)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, 0, Fraction(1, sample_rate)
        for given in (frame, None):
            for part in joined.resample(given):
                container.mux(sound.encode(part))
        container.mux(sound.encode(None))


def _write_black_video(container: av.container.OutputContainer, duration_s: float) -> None:
    video = container.add_stream("mpeg4", rate=5, width=32, height=32, pix_fmt="yuv420p")
    black = np.zeros((32, 32, 3), np.uint8)
    for i in range(round(5 * duration_s)):
        frame = av.VideoFrame.from_ndarray(black, "rgb24")
        frame.pts, frame.time_base = i, Fraction(1, 5)
        container.mux(video.encode(frame))
    container.mux(video.encode(None))


# -- containers with several streams -----------------------------------------------------------


@dataclass(frozen=True)
class Sound:
    """One sound stream of a container.

    Parameters
    ----------
    waveform : float32 array of shape (n_samples,)
    start_s : float
        Time stamp of its first sample.
    gap_s : tuple of (float, float)
        From which of its seconds on, and by how many seconds, later time stamps jump.
    language : str
    is_default : bool, optional
        Mark it, or not, as the default stream; left to FFmpeg by default.
    """

    waveform: Waveform
    start_s: float = 0.0
    gap_s: tuple[float, float] = (0.0, 0.0)
    language: str = "und"
    is_default: bool | None = None


def write_streams(
    path: Path,
    sounds: Sequence[Sound],
    sample_rate: int,
    *,
    codec: str = "flac",
    video_s: float = 0.0,
    options: dict[str, str] | None = None,
) -> Path:
    """Write sound streams, and black video if it shall last longer than 0 s; return the path."""
    with av.open(os.fspath(path), "w", options=options) as container:
        streams = [_add_sound(container, codec, sample_rate) for _ in sounds]
        for stream, sound in zip(streams, sounds, strict=True):
            stream.metadata["language"] = sound.language
            if sound.is_default is not None:
                stream.disposition = av.stream.Disposition(int(sound.is_default))
        video = container.add_stream("mpeg4", rate=5, width=32, height=32) if video_s else None
        packets = [
            packet
            for stream, sound in zip(streams, sounds, strict=True)
            for packet in _encoded(stream, sound, sample_rate)
        ]
        if video:
            packets += _encoded_video(video, video_s)
        for packet in sorted(packets, key=lambda one: float((one.dts or 0) * one.time_base)):
            container.mux(packet)
    return path


def remux(given: Path, path: Path, **options: str) -> Path:
    """Copy the sound of a file to another container, and return its path."""
    with (
        av.open(os.fspath(given)) as source,
        av.open(os.fspath(path), "w", options=options) as made,
    ):
        stream = made.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    return path


def _add_sound(
    container: av.container.OutputContainer, codec: str, sample_rate: int
) -> av.AudioStream:
    stream = container.add_stream(codec, rate=sample_rate, layout="mono")
    assert isinstance(stream, av.AudioStream)
    return stream


def _encoded(stream: av.AudioStream, sound: Sound, sample_rate: int) -> list[av.Packet]:
    packets: list[av.Packet] = []
    step = 1024
    for first in range(0, len(sound.waveform), step):
        frame = av.AudioFrame.from_ndarray(
            sound.waveform[None, first : first + step], "flt", "mono"
        )
        jump_s = sound.gap_s[1] if first >= sound.gap_s[0] * sample_rate else 0.0
        frame.pts = first + round((sound.start_s + jump_s) * sample_rate)
        frame.sample_rate, frame.time_base = sample_rate, Fraction(1, sample_rate)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _encoded_video(stream: av.VideoStream, duration_s: float) -> list[av.Packet]:
    stream.pix_fmt = "yuv420p"
    black = np.zeros((32, 32, 3), np.uint8)
    packets: list[av.Packet] = []
    for i in range(round(5 * duration_s)):
        frame = av.VideoFrame.from_ndarray(black, "rgb24")
        frame.pts, frame.time_base = i, Fraction(1, 5)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


# -- files that are wrong in some way ----------------------------------------------------------


@pytest.fixture
def broken_file(tmp_path: Path) -> Callable[[str], Path]:
    """Give broken_file(name): write the one of the dictionaries below that is so called."""

    def write(name: str) -> Path:
        return {**BROKEN_FILES, **WARNED_FILES, **ODD_FILES}[name](tmp_path)

    return write


def _cut(folder: Path, suffix: str) -> Path:
    """Write 10 s of music and keep the first half of its bytes."""
    rate = 48000 if suffix in (".opus", ".webm") else 22050
    return cut(write_audio(folder / f"cut{suffix}", cached_tune(1, 10.0, rate), rate))


def cut(path: Path, kept: float = 0.5) -> Path:
    """Keep the first part of a file's bytes."""
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    return path


def _cut_pcm(folder: Path, suffix: str, form: str) -> Path:
    path = folder / f"cut{suffix}"
    soundfile.write(path, cached_tune(1, 10.0, 22050), 22050, format=form, subtype="PCM_16")
    return cut(path)


def _cut_fragmented(folder: Path) -> Path:
    """Cut an MP4 file that has a table of contents for each fragment."""
    options = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}
    sound = Sound(cached_tune(1, 10.0, 22050))
    path = folder / "fragmented.m4a"
    return cut(write_streams(path, [sound], 22050, codec="aac", options=options))


def _with_bytes(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def _streamable_mp4(folder: Path) -> Path:
    """Cut an MP4 file that begins with its table of contents."""
    whole = write_audio(folder / "whole.mp4", cached_tune(1, 10.0, 22050), 22050)
    return cut(remux(whole, folder / "streamable.mp4", movflags="faststart"))


def _folder(folder: Path) -> Path:
    (folder / "folder.wav").mkdir()
    return folder / "folder.wav"


def _unreadable(folder: Path) -> Path:
    """Write a file nobody may read; for the superuser permissions do not bind, so skip there."""
    path = write_wav(folder / "unreadable.wav", cached_tune(1, 1.0), 8000)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("permissions do not bind this user")
    return path


def _not_a_number(folder: Path) -> Path:
    waveform = cached_tune(1, 2.0).copy()
    waveform[5000] = np.nan
    return write_wav(folder / "nan.wav", waveform, 8000, "FLOAT")


def _video_without_sound(folder: Path) -> Path:
    with av.open(str(folder / "silent.mp4"), "w") as container:
        _write_black_video(container, 2.0)
    return folder / "silent.mp4"


def _undecodable_name(folder: Path) -> Path:
    """Write a good file whose name is not UTF-8."""
    return write_wav(folder / os.fsdecode(b"caf\xe9.wav"), cached_tune(1, 2.0), 8000)


_GARBAGE = np.random.default_rng(0).bytes(40_000)

BROKEN_FILES: dict[str, Callable[[Path], Path]] = {
    "missing": lambda folder: folder / "missing.wav",
    "empty": _with_bytes("empty.wav", b""),
    "garbage": _with_bytes("garbage.mp3", _GARBAGE),
    "garbage wav": _with_bytes("garbage.wav", b"RIFF\x40\x9c\x00\x00WAVE" + _GARBAGE),
    "text": _with_bytes("text.flac", b"All work and no play makes Jack a dull boy.\n" * 100),
    "header only": _with_bytes("header.wav", b"RIFF\x08\0\0\0WAVEfmt "),
    "no samples": lambda folder: write_wav(folder / "zero.wav", np.zeros(0, np.float32), 8000),
    "truncated m4a": lambda folder: _cut(folder, ".m4a"),
    "truncated mp4": lambda folder: _cut(folder, ".mp4"),
    "video without sound": _video_without_sound,
    "folder": _folder,
    "unreadable": _unreadable,
}
"""Files that cannot be decoded, by what is wrong with them."""

CUT_FILES: dict[str, Callable[[Path], Path]] = {
    "truncated wav": lambda folder: _cut(folder, ".wav"),
    "truncated w64": lambda folder: _cut_pcm(folder, ".w64", "W64"),
    "truncated rf64": lambda folder: _cut_pcm(folder, ".rf64", "RF64"),
    "truncated caf": lambda folder: _cut_pcm(folder, ".caf", "CAF"),
    "truncated aiff": lambda folder: _cut(folder, ".aiff"),
    "truncated au": lambda folder: _cut(folder, ".au"),
    "truncated flac": lambda folder: _cut(folder, ".flac"),
    "truncated ogg": lambda folder: _cut(folder, ".ogg"),
    "truncated opus": lambda folder: _cut(folder, ".opus"),
    "truncated mp3": lambda folder: _cut(folder, ".mp3"),
    "truncated wma": lambda folder: _cut(folder, ".wma"),
    "truncated mka": lambda folder: _cut(folder, ".mka"),
    "truncated webm": lambda folder: _cut(folder, ".webm"),
    "truncated streamable mp4": _streamable_mp4,
    "truncated fragmented m4a": _cut_fragmented,
}
"""Files of 10 s that end after about half of it."""

WARNED_FILES = {**CUT_FILES, "not a number": _not_a_number}
"""Files that are read although something is wrong with them."""

ODD_FILES: dict[str, Callable[[Path], Path]] = {
    "silent": lambda folder: write_wav(folder / "silent.wav", np.zeros(40000, np.float32), 8000),
    "short": lambda folder: write_wav(folder / "short.wav", cached_tune(1, 0.2), 8000),
    "undecodable name": _undecodable_name,
}
"""Files that decode but that later stages have to face."""
