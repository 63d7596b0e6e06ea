"""Open one file with FFmpeg, and nothing else, and decode one of its sound streams.

FFmpeg gets an open file without a name. Formats that refer to other files or to the network are
not on the list, no protocol is allowed, and every further open is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, groupby
from typing import NamedTuple, cast

import av
import av.error
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from engine.audio.clock import Placed, Timed, place
from engine.audio.mix import MAX_CHANNELS
from engine.audio.resample import MAX_RATE, MIN_RATE
from engine.audio.view import Part, View
from engine.errors import AudioError

BLOCK_S = 60.0
# Samples of all channels in a block: bounds memory whatever rate and channels a file has.
_MAX_BLOCK_SAMPLES = 1 << 24

_FORMATS = (
    *("aac", "ac3", "aiff", "amr", "amrnb", "amrwb", "ape", "aptx", "asf", "au", "avi", "caf"),
    *("dsf", "dts", "dtshd", "eac3", "flac", "flv", "gsm", "iff", "loas", "matroska", "mlp", "mov"),
    *("mp3", "mpc", "mpc8", "mpeg", "mpegts", "mxf", "nistsphere", "nut", "ogg", "oma", "qcp"),
    *("rm", "shn", "tak", "truehd", "tta", "voc", "w64", "wav", "wtv", "wv", "xwma"),
)
_CODECS = frozenset(
    (
        *("8svx_exp", "8svx_fib", "aac", "aac_latm", "ac3", "alac", "als", "amrnb", "amrwb", "ape"),
        *("aptx", "aptx_hd", "atrac1", "atrac3", "atrac3plus", "atrac9", "cook", "dca", "dvaudio"),
        *("dsd_lsbf", "dsd_lsbf_planar", "dsd_msbf", "dsd_msbf_planar", "dst", "eac3", "flac"),
        *("g722", "g723_1", "g726", "g726le", "g729", "gsm", "gsm_ms", "ilbc", "mace3", "mace6"),
        *("libopencore_amrnb", "libopencore_amrwb", "libopus", "mlp", "mp1", "mp1float", "mp2"),
        *("mp2float", "mp3", "mp3adu", "mp3adufloat", "mp3float", "mp3on4", "mp3on4float", "mpc7"),
        *("mpc8", "nellymoser", "opus", "qcelp", "qdm2", "qdmc", "real_144", "real_288", "s302m"),
        *("shorten", "sipr", "speex", "tak", "truehd", "truespeech", "tta", "vorbis"),
        *("wavpack", "wmalossless", "wmapro", "wmav1", "wmav2", "wmavoice", "xma1", "xma2"),
        *("adpcm_adx", "adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "adpcm_swf", "adpcm_yamaha"),
        *("pcm_alaw", "pcm_bluray", "pcm_dvd", "pcm_f16le", "pcm_f24le", "pcm_f32be", "pcm_f32le"),
        *("pcm_f64be", "pcm_f64le", "pcm_mulaw", "pcm_s16be", "pcm_s16be_planar", "pcm_s16le"),
        *("pcm_s16le_planar", "pcm_s24be", "pcm_s24daud", "pcm_s24le", "pcm_s24le_planar"),
        *("pcm_s32be", "pcm_s32le", "pcm_s32le_planar", "pcm_s64be", "pcm_s64le", "pcm_s8"),
        *("pcm_s8_planar", "pcm_u16be", "pcm_u16le", "pcm_u24be", "pcm_u24le", "pcm_u32be"),
        *("pcm_u32le", "pcm_u8"),
    )
)
_OPTIONS = {
    "protocol_whitelist": "",
    "format_whitelist": ",".join(_FORMATS),
    "codec_whitelist": ",".join(sorted(_CODECS)),
}
# FFmpeg searches the samples of a WAV file for DTS, which takes longer than decoding a clip, and
# reads them in small packets.
_WAV_OPTIONS = {"probesize": "8192", "max_size": "65536"}
# Formats that store time stamps. In the others FFmpeg counts packets, damaged ones too.
_CLOCKED = frozenset(
    ("asf", "avi", "flv", "matroska", "mov", "mpeg", "mpegts", "mxf", "nut", "ogg", "rm", "wtv")
)
_MOSTLY_LOSSY = ("dts",)  # lossless in a rare profile only
_FINE_FORMATS = frozenset(("s32", "s32p", "s64", "s64p", "dbl", "dblp"))
_FINE_CODECS = ("pcm_f", "wavpack", "tta", "alac", "dsd_")


class Run(NamedTuple):
    """Blocks of one sample rate that follow each other without a gap.

    Parameters
    ----------
    jump_s : float
        Seconds of silence before them if positive; seconds to drop from them if negative.
    sample_rate : int
    blocks : iterator of float32 arrays of shape (n_samples, n_channels)
        Must be used up before the next run is taken.
    """

    jump_s: float
    sample_rate: int
    blocks: Iterator[NDArray[np.float32]]


class SoundStream:
    """One sound stream of an open container.

    Parameters
    ----------
    container : InputContainer
    stream : AudioStream
    number : int
        Its number among the sound streams, from 1.

    Attributes
    ----------
    n_damaged : int
        Packets so far that could not be decoded.
    others_end_s : float
        Where the packets of other streams read so far end on the container's clock.
    """

    def __init__(self, container: InputContainer, stream: av.AudioStream, number: int) -> None:
        self._container, self._stream, self.number = container, stream, number
        self._is_clocked = bool(_CLOCKED.intersection(container.format.name.split(",")))
        self._origin_s = (container.start_time or 0) / av.time_base
        self.n_damaged = 0
        self.others_end_s = 0.0

    @property
    def name(self) -> str:
        """Number, and what the file says about it."""
        return _described(self._stream, self.number)

    @property
    def others(self) -> list[str]:
        """Names of the other sound streams."""
        streams = enumerate(self._container.streams.audio, 1)
        return [_described(one, number) for number, one in streams if number != self.number]

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec, whatever decodes it."""
        return self._stream.codec_context.codec.canonical_name

    @property
    def is_lossless(self) -> bool:
        """Whether nothing was lost when the sound was encoded, by the name of the codec."""
        return self._stream.codec_context.codec.lossless and self.codec not in _MOSTLY_LOSSY

    @property
    def sample_rate(self) -> int:
        """Hz, as the header states it."""
        return self._stream.sample_rate

    @property
    def n_channels(self) -> int:
        """Number of channels, as the header states it."""
        return self._stream.codec_context.layout.nb_channels

    @property
    def is_fine(self) -> bool:
        """Whether samples have more than 16 bits; lossy codecs have less."""
        codec = self._stream.codec_context
        form: av.AudioFormat | None = codec.format  # None, against PyAV's types, if unknown
        if form is not None and form.name in _FINE_FORMATS:
            return True
        return codec.name.startswith(_FINE_CODECS)

    @property
    def stated_end_s(self) -> float:
        """Where the stream ends on the container's clock, by the header or FFmpeg's estimate."""
        ends = [(self._container.duration or 0) / av.time_base]
        stream = self._stream
        if stream.duration and stream.time_base:
            ends.append((self._start_s or 0.0) + float(stream.duration * stream.time_base))
        return min(ends)

    def packets(self) -> Iterator[bytes]:
        """Read the undecoded packets, as they are in any container."""
        is_aac = self.codec == "aac"
        for packet in self._packets():
            content = b"" if packet is None else bytes(packet)
            yield _without_adts(content) if is_aac else content

    def runs(self) -> Iterator[Run]:
        """Decode the stream."""
        placed = place(self._timed_frames(), self._start_s)
        for _, group in groupby(placed, key=_run_and_format):
            first = next(group)
            frames = (one.frame for one in chain([first], group))
            rate = first.frame.sample_rate
            yield Run(first.jump_s, rate, _joined(frames, rate, first.frame.layout.nb_channels))

    @property
    def _start_s(self) -> float | None:
        stream = self._stream
        if not self._is_clocked or stream.start_time is None or stream.time_base is None:
            return None
        return float(stream.start_time * stream.time_base) - self._origin_s

    def _timed_frames(self) -> Iterator[Timed[av.AudioFrame]]:
        for packet in self._packets():
            for frame in self._decoded(packet):
                time_s = None
                if self._is_clocked and frame.time is not None:
                    time_s = frame.time - self._origin_s
                yield Timed(frame, time_s, frame.samples / frame.sample_rate)

    def _packets(self) -> Iterator[av.Packet[av.AudioStream] | None]:
        """Read packets until the file ends or breaks off; None stands for the end."""
        try:
            for packet in self._container.demux():
                if packet.stream is self._stream:
                    yield cast("av.Packet[av.AudioStream]", packet)
                elif packet.pts is not None and packet.time_base:
                    end = packet.pts + (packet.duration or 0)
                    end_s = float(end * packet.time_base) - self._origin_s
                    self.others_end_s = max(self.others_end_s, end_s)
        except (av.error.FFmpegError, IndexError):
            # PyAV raises IndexError at the end if streams were found on the way.
            yield None

    def _decoded(self, packet: av.Packet[av.AudioStream] | None) -> Iterator[av.AudioFrame]:
        """Decode a packet; skip it if it is damaged, as players do."""
        try:
            frames = self._stream.decode(packet)
        except MemoryError:
            raise
        except av.error.EOFError:  # the decoder was at its end already
            return
        except (av.error.FFmpegError, ValueError):
            self.n_damaged += 1
            return
        for frame in frames:
            is_sane = MIN_RATE <= frame.sample_rate <= MAX_RATE
            if not is_sane or frame.layout.nb_channels > MAX_CHANNELS:
                self.n_damaged += 1
            elif frame.samples:
                yield frame


@contextmanager
def open_stream(
    view: View, part: Part, path: str | os.PathLike[str], number: int | None
) -> Iterator[SoundStream]:
    """Open a sound stream of a file.

    Parameters
    ----------
    view : View
    part : Part
        What :func:`engine.audio.container.inspect` found about it.
    path : path-like
        For errors.
    number : int, optional
        Which of the sound streams, from 1; by default the first that is marked as the default one.

    Yields
    ------
    SoundStream

    Raises
    ------
    AudioError
        There is no such stream, or it cannot be decoded.
    FFmpegError
        The file cannot be opened.
    """
    with av.open(
        view,
        mode="r",
        format=part.demuxer,
        container_options=_OPTIONS | (_WAV_OPTIONS if part.demuxer == "wav" else {}),
        metadata_errors="ignore",
        io_open=_refuse,
    ) as container:
        yield _chosen(container, path, number)


def _refuse(url: str, flags: int, options: dict[str, str]) -> None:
    raise PermissionError(f"{url}: no other file is opened")


def _chosen(
    container: InputContainer, path: str | os.PathLike[str], number: int | None
) -> SoundStream:
    streams = container.streams.audio
    if not streams:
        raise AudioError(path, "no sound in it")
    if number is None:
        defaults = [i for i, one in enumerate(streams, 1) if _is_default(one)]
        readable = [i for i, one in enumerate(streams, 1) if _is_readable(one)]
        number = next((i for i in defaults if i in readable), readable[0] if readable else 1)
    if not 1 <= number <= len(streams):
        names = ", ".join(_described(one, i) for i, one in enumerate(streams, 1))
        raise AudioError(path, f"it has no sound stream {number}; its sound streams: {names}")
    stream = streams[number - 1]
    if not _is_readable(stream):
        raise AudioError(path, "its sound is in a codec that cannot be read")
    _check(stream, path)
    return SoundStream(container, stream, number)


def _check(stream: av.AudioStream, path: str | os.PathLike[str]) -> None:
    rate, n_channels = stream.sample_rate, stream.codec_context.layout.nb_channels
    if not rate:
        raise AudioError(path, "not audio, or in a format that cannot be read")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(path, f"invalid sample rate of {rate} Hz: must be 1 kHz to 1 MHz")
    if n_channels > MAX_CHANNELS:
        raise AudioError(
            path, f"invalid number of channels {n_channels}: must be {MAX_CHANNELS} at most"
        )


def _is_readable(stream: av.AudioStream) -> bool:
    codec = _codec(stream)
    return codec is not None and codec.codec.name in _CODECS


def _codec(stream: av.AudioStream) -> av.AudioCodecContext | None:
    """Get the decoder of a stream; None, against PyAV's types, if its codec has none."""
    return stream.codec_context


def _is_default(stream: av.AudioStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.default)


def _described(stream: av.AudioStream, number: int) -> str:
    """Name a stream: "2 (ger, aac)"."""
    codec = _codec(stream)
    details = [
        stream.metadata.get("language"),
        stream.metadata.get("title"),
        codec.name if codec else "unknown codec",
    ]
    return f"{number} ({', '.join(one[:40] for one in details if one and one != 'und')})"


def _without_adts(packet: bytes) -> bytes:
    """Remove the header that frames of AAC have where there is no container."""
    if packet[:1] != b"\xff" or packet[1] & 0xF6 != 0xF0:  # no frame without one begins so
        return packet
    return packet[7 if packet[1] & 1 else 9 :]


def _run_and_format(placed: Placed[av.AudioFrame]) -> tuple[int, str, str, int]:
    """Run and format of a frame; concatenated files change the format in the middle."""
    frame = placed.frame
    return placed.run, frame.format.name, frame.layout.name, frame.sample_rate


def _joined(
    frames: Iterator[av.AudioFrame], rate: int, n_channels: int
) -> Iterator[NDArray[np.float32]]:
    """Join the codec's small frames, as floats; FFmpeg does it 1.4 times as fast as numpy.

    Not as planes: PyAV reads beyond the end of the list of planes if there are eight or more.
    """
    n_block = int(min(BLOCK_S, max(_MAX_BLOCK_SAMPLES // (n_channels * rate), 1)) * rate)
    joined = av.AudioResampler("flt", rate=rate, frame_size=n_block)
    for frame in chain(frames, [None]):
        for block in joined.resample(frame):
            samples = cast(NDArray[np.float32], block.to_ndarray())
            yield samples.reshape(-1, n_channels)
