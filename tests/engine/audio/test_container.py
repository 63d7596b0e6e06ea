from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.audio.container import read_by_libsndfile
from engine.errors import AudioError
from tests.audio_files import CODECS, Tune, Waveform, write_wav

RATE = 8000
WriteAudio = Callable[[Path, Waveform, int], Path]

LIBSNDFILE = {".wav", ".aiff", ".au", ".flac"}
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def decide(path: Path) -> bool:
    with path.open("rb") as file:
        return read_by_libsndfile(file, path)


def decide_bytes(tmp_path: Path, content: bytes) -> bool:
    path = tmp_path / "file"
    path.write_bytes(content)
    return decide(path)


def wav_head(tag: int, n_bytes: int = 28) -> bytes:
    """A RIFF header with one format chunk, `n_bytes` after its size field."""
    fmt = b"fmt " + (16).to_bytes(4, "little") + tag.to_bytes(2, "little") + bytes(14)
    return b"RIFF" + n_bytes.to_bytes(4, "little") + b"WAVE" + fmt


@pytest.mark.parametrize("suffix", CODECS)
def test_library_depends_on_the_format(
    suffix: str, tmp_path: Path, tune: Tune, write_audio: WriteAudio
) -> None:
    path = write_audio(tmp_path / f"music{suffix}", tune(1, 2.0, 48000), 48000)
    assert decide(path) == (suffix in LIBSNDFILE)


def test_library_depends_on_the_bytes_and_not_on_the_name(
    tmp_path: Path, tune: Tune, write_audio: WriteAudio
) -> None:
    flac = write_audio(tmp_path / "music.flac", tune(1, 2.0), RATE)
    mp3 = write_audio(tmp_path / "music.mp3", tune(1, 2.0), RATE)
    assert decide(flac.rename(tmp_path / "flac.mp3"))
    assert not decide(mp3.rename(tmp_path / "mp3.flac"))


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        *((tag, True) for tag in (1, 2, 3, 6, 7, 0x11, 0xFFFE)),
        *((tag, False) for tag in (0x31, 0x55, 0x161)),
    ],
)
def test_wav_with_a_codec_that_libsndfile_lacks_goes_to_pyav(
    tag: int, expected: bool, tmp_path: Path
) -> None:
    assert decide_bytes(tmp_path, wav_head(tag)) == expected


def test_wav_and_flac_of_unknown_length_go_to_pyav(
    tmp_path: Path, tune: Tune, write_audio: WriteAudio
) -> None:
    wav = bytearray(write_wav(tmp_path / "music.wav", tune(1, 2.0), RATE).read_bytes())
    wav[4:8] = bytes(4)
    assert not decide_bytes(tmp_path, bytes(wav))
    flac = bytearray(write_audio(tmp_path / "music.flac", tune(1, 2.0), RATE).read_bytes())
    flac[21] &= 0xF0
    flac[22:26] = bytes(4)
    assert not decide_bytes(tmp_path, bytes(flac))


@pytest.mark.parametrize(
    ("head", "n_declared"),
    [
        (wav_head(1, 1000), 1008),
        (b"RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0" + (1000).to_bytes(8, "little"), 1008),
        (b"FORM" + (1000).to_bytes(4, "big") + b"AIFF", 1008),
        (b".snd" + (24).to_bytes(4, "big") + (1000).to_bytes(4, "big"), 1024),
        (ASF + bytes(14) + ASF_PROPERTIES + bytes(24) + (1000).to_bytes(8, "little"), 1000),
    ],
    ids=["RIFF", "RF64", "AIFF", "au", "ASF"],
)
def test_file_shorter_than_its_header_states_is_refused(
    head: bytes, n_declared: int, tmp_path: Path
) -> None:
    decide_bytes(tmp_path, head.ljust(n_declared, b"\0"))
    decide_bytes(tmp_path, head.ljust(n_declared - 1, b"\0"))  # a padding byte may be missing
    with pytest.raises(AudioError, match=rf"truncated: {n_declared - 2} of {n_declared} bytes"):
        decide_bytes(tmp_path, head.ljust(n_declared - 2, b"\0"))


@pytest.mark.parametrize("size", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_header_of_a_stream_states_no_length(size: bytes, tmp_path: Path) -> None:
    decide_bytes(tmp_path, b"RIFF" + size + wav_head(1)[8:])


def test_ogg_without_its_last_page_is_refused(tmp_path: Path) -> None:
    first, last = (b"OggS\0" + bytes([flags]) + bytes(21) for flags in (2, 4))
    assert not decide_bytes(tmp_path, first + bytes(100_000) + last)
    for cut in (first + bytes(100), first + bytes(100_000), first + bytes(100) + b"OggS\0"):
        with pytest.raises(AudioError, match="truncated: its last page is missing"):
            decide_bytes(tmp_path, cut)


@pytest.mark.parametrize("content", [b"", b"R", b"ID3\x04", b"RIFF", b"fLaC", b"text" * 100])
def test_bytes_of_no_known_format_go_to_pyav(content: bytes, tmp_path: Path) -> None:
    assert not decide_bytes(tmp_path, content)
