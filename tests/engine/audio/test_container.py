from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.audio.container import inspect
from engine.audio.view import Part, View
from tests.audio_files import (
    CODECS,
    CUT_FILES,
    Tune,
    write_audio,
)

RATE = 8000

DEMUXERS = {
    ".wav": "wav",
    ".aiff": "aiff",
    ".au": "au",
    ".flac": "flac",
    ".ogg": "ogg",
    ".mp3": "mp3",
    ".opus": "ogg",
    ".m4a": "mov",
    ".aac": "aac",
    ".wma": "asf",
    ".mka": "matroska",
    ".webm": "matroska",
    ".mp4": "mov",
}


def inspect_bytes(content: bytes) -> Part:
    (part,) = inspect(io.BytesIO(content))
    return part


def inspect_path(path: Path) -> Part:
    return inspect_bytes(path.read_bytes())


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory, tune: Tune) -> Callable[[str], bytes]:
    """Give music(suffix), the bytes of a file of 2 s."""
    folder = tmp_path_factory.mktemp("music")

    def write(suffix: str) -> bytes:
        rate = 48000 if suffix in (".opus", ".webm") else RATE
        return write_audio(folder / f"music{suffix}", tune(1, 2.0, rate), rate).read_bytes()

    return write


# -- formats -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", CODECS)
def test_inspect_whole_file_has_its_format_and_no_problem(
    suffix: str, music: Callable[[str], bytes]
) -> None:
    content = music(suffix)
    part = inspect_bytes(content)
    assert part.demuxer == DEMUXERS[suffix]
    assert (part.start, part.end, part.problem, part.is_cut_off) == (0, len(content), None, False)
    assert View(io.BytesIO(content), part).read() == content or suffix == ".au"


@pytest.mark.parametrize("content", [b"", b"R", b"ID3\x04", b"RIFF", b"text" * 100, bytes(5000)])
def test_inspect_bytes_of_no_known_format_are_left_to_probing(content: bytes) -> None:
    assert inspect_bytes(content) == Part(0, len(content))


@pytest.mark.parametrize("suffix", [".mp3", ".aac", ".flac", ".wav"])
def test_inspect_id3_tag_is_passed_over(suffix: str, music: Callable[[str], bytes]) -> None:
    tag = b"ID3\x04\0\0" + bytes([0, 0, 2, 0]) + bytes(256)
    part = inspect_bytes(tag + music(suffix))
    assert (part.demuxer, part.start) == (DEMUXERS[suffix], len(tag))


def test_inspect_mp3_states_its_duration_only_with_a_table_of_contents(
    music: Callable[[str], bytes],
) -> None:
    content = music(".mp3")
    assert inspect_bytes(content).states_duration
    second_frame = content.index(content[:2], 100)
    assert not inspect_bytes(content[second_frame:]).states_duration


def test_inspect_flac_states_its_duration_unless_it_is_zero(music: Callable[[str], bytes]) -> None:
    content = bytearray(music(".flac"))
    assert inspect_bytes(bytes(content)).states_duration
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    assert not inspect_bytes(bytes(content)).states_duration


# -- sizes that are wrong ----------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in CUT_FILES if "flac" not in n and "mp3" not in n])
def test_inspect_cut_file_is_cut_off(name: str, tmp_path: Path) -> None:
    part = inspect_path(CUT_FILES[name](tmp_path))
    assert part.is_cut_off
    assert part.problem is not None
    assert part.problem.startswith("cut off: ")


def test_inspect_mp4_without_table_of_contents_says_so(music: Callable[[str], bytes]) -> None:
    part = inspect_bytes(music(".m4a")[:-2000])
    assert part.problem is not None
    assert "without its table of contents" in part.problem
