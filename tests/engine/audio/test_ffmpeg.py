from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from engine.audio import decode
from engine.audio.container import inspect
from engine.audio.ffmpeg import open_stream
from engine.audio.view import View
from engine.errors import AudioError
from tests.audio_files import Sound, Tune, Waveform, write_streams, write_wav

RATE = 8000
WriteAudio = Callable[[Path, Waveform, int], Path]


def stream_name(path: Path, number: int | None = None) -> str:
    with path.open("rb") as file:
        (part,) = inspect(file)
        with open_stream(View(file, part), part, path, number) as sound:
            return sound.name


# -- FFmpeg opens nothing else -----------------------------------------------------------------


class Listener:
    """A server that counts connections and datagrams."""

    def __init__(self) -> None:
        self._sockets = [socket.socket(), socket.socket(type=socket.SOCK_DGRAM)]
        for one in self._sockets:
            one.bind(("127.0.0.1", 0))
        self._sockets[0].listen()
        self.tcp_port, self.udp_port = (one.getsockname()[1] for one in self._sockets)
        self.n_contacts = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._sockets[0].accept()
            except OSError:
                return
            self.n_contacts += 1
            connection.close()

    def close(self) -> None:
        for one in self._sockets:
            one.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def is_port_free(port: int) -> bool:
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


PLAYLISTS = {
    "session description": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\n"
    "t=0 0\r\nm=audio {free} RTP/AVP 14\r\n",
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:{tcp}/a.ts\n"
    "#EXT-X-ENDLIST\n",
    "HLS of files": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{music}\n"
    "#EXT-X-ENDLIST\n",
    "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT10S"><Period><AdaptationSet mimeType="audio/mp4">'
    '<Representation id="1" bandwidth="1"><BaseURL>http://127.0.0.1:{tcp}/a.mp4</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "ffconcat": "ffconcat version 1.0\nfile '{music}'\n",
    "ffconcat beside": "ffconcat version 1.0\nfile music.wav\n",
    "M3U": "{music}\n",
    "RTSP": "rtsp://127.0.0.1:{tcp}/a\n",
}


@pytest.mark.parametrize("name", ["x.mp3", "x.m3u8", "x.sdp", "x.txt"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_text_that_refers_to_other_files_is_refused(
    kind: str, name: str, tmp_path: Path, tune: Tune, listener: Listener
) -> None:
    music = write_wav(tmp_path / "music.wav", tune(1, 3.0), RATE)
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    text = PLAYLISTS[kind].format(free=free, tcp=listener.tcp_port, music=music)
    (tmp_path / name).write_text(text)
    with pytest.raises(AudioError):
        decode.read(tmp_path / name, RATE)
    assert listener.n_contacts == 0
    assert is_port_free(free)


def test_movie_that_refers_to_another_file_does_not_open_it(tmp_path: Path, tune: Tune) -> None:
    """A QuickTime reference movie: its sound lies in another file, named by a relative path."""
    path = write_streams(tmp_path / "movie.mov", [Sound(tune(1, 2.0))], RATE, codec="pcm_s16le")
    content = path.read_bytes()
    alias = content.index(b"url \0\0\0\1")
    name = b"other.raw"
    (tmp_path / "other.raw").write_bytes(np.full(40_000, 0x1234, "<i2").tobytes())
    reference = content[:alias] + b"url \0\0\0\0" + name + content[alias + 8 + len(name) :]
    path.write_bytes(reference)
    try:
        samples = decode.read(path, RATE)
    except AudioError:
        return
    assert not (np.abs(samples - 0x1234 / 32768) < 1e-3).any()


# -- what is no sound --------------------------------------------------------------------------


def wav(rate: int = 8000, n_channels: int = 1, tag: int = 1, bits: int = 16) -> bytes:
    frame_bytes = n_channels * bits // 8 % 65536
    fmt = struct.pack(
        "<HHIIHH", tag, n_channels, rate, rate * frame_bytes % 2**32, frame_bytes, bits
    )
    sound = np.random.default_rng(1).bytes(40_000)
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt
    chunks += b"data" + struct.pack("<I", len(sound)) + sound
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (wav(rate=1), "invalid sample rate of 1 Hz: must be 1 kHz to 1 MHz"),
        (wav(rate=999), "invalid sample rate of 999 Hz"),
        (wav(rate=100_000_000), "invalid sample rate of 100000000 Hz"),
        (wav(rate=1_000_001), "invalid sample rate"),
        (wav(rate=0), None),
        (wav(rate=2**32 - 1), None),
        (wav(n_channels=0), None),
        (wav(n_channels=65), None),
        (wav(n_channels=1000), None),
        (wav(n_channels=65535), None),
        (wav(tag=0x1234), "its sound is in a codec that cannot be read"),
        (wav(tag=0xFFFF), None),
        (wav(bits=0), None),
        (wav(bits=65535), None),
    ],
)
def test_absurd_headers_are_refused_in_one_line(
    content: bytes, reason: str | None, tmp_path: Path
) -> None:
    (tmp_path / "absurd.wav").write_bytes(content)
    with pytest.raises(AudioError) as caught:
        decode.read(tmp_path / "absurd.wav", RATE)
    assert "\n" not in caught.value.reason
    if reason:
        assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize("rate", [1000, 1_000_000])
def test_lowest_and_highest_sample_rates_are_read(rate: int, tmp_path: Path, tune: Tune) -> None:
    path = write_wav(tmp_path / "tune.wav", np.tile(tune(1, 2.0), 1 + rate // 8000), rate)
    duration_s = soundfile.info(path).duration
    assert len(decode.read(path, RATE)) / RATE == pytest.approx(duration_s, abs=0.01)


@pytest.mark.parametrize("n_channels", [7, 8, 9, 24, 64])
@pytest.mark.parametrize("form", ["WAV", "CAF", "FLAC"])
def test_many_channels_are_read(form: str, n_channels: int, tmp_path: Path, tune: Tune) -> None:
    if form == "FLAC" and n_channels > 8:
        pytest.skip("FLAC has eight channels at most")
    music = tune(1, 1.0)
    path = tmp_path / "channels"
    soundfile.write(path, np.repeat(music[:, None], n_channels, 1), RATE, format=form)
    np.testing.assert_allclose(decode.read(path, RATE), music, atol=1 / 32000)


# -- streams -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("defaults", "expected"),
    [((None, None), 1), ((True, False), 1), ((False, True), 2), ((False, False), 1)],
)
def test_default_stream_is_chosen(
    defaults: tuple[bool | None, bool | None], expected: int, tmp_path: Path, tune: Tune
) -> None:
    sounds = [
        Sound(tune(seed, 1.0), language=language, is_default=default)
        for seed, language, default in zip((1, 2), ("eng", "ger"), defaults, strict=True)
    ]
    path = write_streams(tmp_path / "film.mkv", sounds, RATE, video_s=1.0)
    name = stream_name(path)
    assert name == ("1 (eng, flac)" if expected == 1 else "2 (ger, flac)")
    assert stream_name(path, 2) == "2 (ger, flac)"


def test_stream_that_does_not_exist_is_refused_with_those_that_do(
    tmp_path: Path, tune: Tune
) -> None:
    sounds = [Sound(tune(1, 1.0), language="eng"), Sound(tune(2, 1.0))]
    path = write_streams(tmp_path / "film.mkv", sounds, RATE, video_s=1.0)
    with pytest.raises(AudioError) as caught:
        stream_name(path, 3)
    reason = "it has no sound stream 3; its sound streams: 1 (eng, flac), 2 (flac)"
    assert caught.value.reason == reason


def test_stream_in_an_unknown_codec_is_passed_over(tmp_path: Path, tune: Tune) -> None:
    path = write_streams(tmp_path / "film.mkv", [Sound(tune(1, 1.0)), Sound(tune(2, 1.0))], RATE)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"A_FLAC", b"A_XXXX", 1))
    assert stream_name(path) == "2 (flac)"
    with pytest.raises(AudioError, match="codec that cannot be read"):
        stream_name(path, 1)
