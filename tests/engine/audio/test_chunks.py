from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from engine.audio.chunks import NO_LENGTH
from engine.audio.container import inspect
from engine.audio.view import Part, View
from tests.audio_files import Tune, write_audio, write_wav

RATE = 8000
GIB = 1 << 30


def inspect_bytes(content: bytes) -> Part:
    (part,) = inspect(io.BytesIO(content))
    return part


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory, tune: Tune) -> Callable[[str], bytes]:
    """Give music(suffix), the bytes of a file of 2 s."""
    folder = tmp_path_factory.mktemp("music")

    def write(suffix: str) -> bytes:
        path = folder / f"music{suffix}"
        if suffix in (".w64", ".rf64", ".caf"):
            soundfile.write(path, tune(1, 2.0), RATE, format=suffix[1:].upper(), subtype="PCM_16")
        else:
            rate = 48000 if suffix in (".opus", ".webm") else RATE
            write_audio(path, tune(1, 2.0, rate), rate)
        return path.read_bytes()

    return write


SIZES = {  # where the size of the sound is, relative to its chunk, and how it is written
    ".wav": (b"data", 4, "<I"),
    ".aiff": (b"SSND", 4, ">I"),
    ".au": (b".snd", 8, ">I"),
    ".caf": (b"data", 4, ">Q"),
    ".w64": (b"data", 16, "<Q"),
    ".rf64": (b"ds64", 16, "<Q"),
}


def with_size(suffix: str, content: bytes, size: int) -> bytes:
    name, offset, form = SIZES[suffix]
    at = content.rindex(name, 0, 8192) + offset
    limit = 256 ** struct.calcsize(form)
    patch = struct.pack(form, size % limit)
    return content[:at] + patch + content[at + len(patch) :]


@pytest.mark.parametrize("size", [-1, 0, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF - 36])
@pytest.mark.parametrize("suffix", SIZES)
def test_inspect_placeholder_of_a_recorder_is_no_length(
    suffix: str, size: int, music: Callable[[str], bytes]
) -> None:
    content = with_size(suffix, music(suffix), size)
    part = inspect_bytes(content)
    assert (part.problem, part.is_cut_off, part.end) == (NO_LENGTH, False, len(content))


@pytest.mark.parametrize("suffix", SIZES)
def test_inspect_size_that_is_too_small_is_not_believed(
    suffix: str, tmp_path: Path, tune: Tune
) -> None:
    path = tmp_path / f"long{suffix}"
    form = {".aiff": "AIFF", ".au": "AU", ".wav": "WAV"}.get(suffix, suffix[1:].upper())
    soundfile.write(path, tune(1, 10.0), RATE, format=form, subtype="PCM_16")
    content = with_size(suffix, path.read_bytes(), 20_000)
    part = inspect_bytes(content)
    assert part.end == len(content)
    assert not part.is_cut_off
    assert part.problem is not None
    assert "read to the end of the file" in part.problem


@pytest.mark.parametrize(
    "tail", [b"", b"\0", b"LIST\4\0\0\0INFO", bytes(3000), b"TAG" + bytes(125)]
)
def test_inspect_what_follows_the_sound_is_no_problem(
    tail: bytes, music: Callable[[str], bytes]
) -> None:
    part = inspect_bytes(music(".wav") + tail)
    assert (part.problem, part.is_cut_off) == (None, False)


def test_inspect_missing_padding_byte_is_no_problem(music: Callable[[str], bytes]) -> None:
    assert inspect_bytes(music(".wav")[:-1]).problem is None
    assert inspect_bytes(music(".wav")[:-2]).is_cut_off


@pytest.mark.parametrize("n_bytes", [4 * GIB + 52_428_800, 9 * GIB])
def test_inspect_wav_whose_size_wrapped_is_read_to_its_end(
    n_bytes: int, tmp_path: Path, tune: Tune
) -> None:
    path = write_wav(tmp_path / "long.wav", tune(1, 2.0), RATE)
    content = path.read_bytes()
    path.write_bytes(with_size(".wav", content, n_bytes - 44))
    with path.open("r+b") as file:
        file.truncate(n_bytes)  # sparse: takes no space
    with path.open("rb") as file:
        (part,) = inspect(file)
        assert part.end == n_bytes
        assert part.problem is not None
        assert f"{n_bytes - 44} bytes" in part.problem
        view = View(file, part)
        view.seek(40)
        assert view.read(4) == bytes(4)  # for FFmpeg: to the end


def test_inspect_au_size_is_always_unknown_to_the_decoder(music: Callable[[str], bytes]) -> None:
    content = music(".au")
    view = View(io.BytesIO(content), inspect_bytes(content))
    assert view.read()[8:12] == b"\xff\xff\xff\xff"


def test_inspect_aiff_with_an_absurd_number_of_frames_clears_it(
    music: Callable[[str], bytes],
) -> None:
    content = bytearray(music(".aiff"))
    at = content.index(b"COMM") + 10
    content[at : at + 4] = b"\xff\xff\xff\xff"
    part = inspect_bytes(bytes(content))
    assert View(io.BytesIO(content), part).read()[at : at + 4] == bytes(4)
