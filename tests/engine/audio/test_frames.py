from __future__ import annotations

import io
import time
from collections.abc import Callable

import pytest

from engine.audio.container import inspect
from engine.audio.frames import find_frames
from tests.audio_files import Tune, write_audio

RATE = 44100


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory, tune: Tune) -> Callable[[str], bytes]:
    """Give music(suffix), the bytes of a file of 2 s."""
    folder = tmp_path_factory.mktemp("music")
    return lambda suffix: write_audio(
        folder / f"music{suffix}", tune(1, 2.0, RATE), RATE
    ).read_bytes()


@pytest.mark.parametrize("n_bytes", [1, 1000, 300_000])
@pytest.mark.parametrize("suffix", [".mp3", ".aac"])
def test_find_frames_behind_rubbish(
    suffix: str, n_bytes: int, music: Callable[[str], bytes]
) -> None:
    rubbish = (b"HTTP/1.0 200 OK\r\n" * 20_000)[:n_bytes]
    content = rubbish + music(suffix)
    assert find_frames(content) == (n_bytes, suffix[1:])
    (part,) = inspect(io.BytesIO(content))
    assert (part.demuxer, part.start) == (suffix[1:], n_bytes)


@pytest.mark.parametrize("suffix", [".mp3", ".aac"])
def test_find_frames_at_the_beginning_only(suffix: str, music: Callable[[str], bytes]) -> None:
    content = music(suffix)
    assert find_frames(content, last=0) == (0, suffix[1:])
    assert find_frames(b"x" + content, last=0) is None


@pytest.mark.parametrize("content", [b"", b"\xff", b"\xff\xfb\x90", b"text" * 1000])
def test_find_frames_in_anything_else_finds_none(content: bytes) -> None:
    assert find_frames(content) is None


@pytest.mark.parametrize("pattern", [b"\xff", b"\xff\xfb\x90\x00", b"\xff\xf1\x50\x80\x02\x1f\xfc"])
def test_find_frames_in_hostile_rubbish_takes_no_time(pattern: bytes) -> None:
    began = time.process_time()
    find_frames((pattern * (8 << 20))[: 8 << 20])
    assert time.process_time() - began < 5.0
