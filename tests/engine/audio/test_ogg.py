from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.audio.container import inspect
from engine.audio.view import Part
from tests.audio_files import Sound, Tune, write_audio, write_streams

RATE = 8000


def inspect_bytes(content: bytes) -> Part:
    (part,) = inspect(io.BytesIO(content))
    return part


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory, tune: Tune) -> Callable[[str], bytes]:
    """Give music(suffix), the bytes of a file of 2 s."""
    folder = tmp_path_factory.mktemp("music")
    return lambda suffix: write_audio(
        folder / f"music{suffix}", tune(1, 2.0, 48000), 48000
    ).read_bytes()


def test_inspect_chained_ogg_has_a_part_for_each_link(music: Callable[[str], bytes]) -> None:
    first, second = music(".ogg"), music(".opus")
    parts = inspect(io.BytesIO(first + second + first))
    n, m = len(first), len(second)
    assert [(part.start, part.end) for part in parts] == [(0, n), (n, n + m), (n + m, 2 * n + m)]


def test_inspect_ogg_streams_side_by_side_are_one_part(tmp_path: Path, tune: Tune) -> None:
    sounds = [Sound(tune(1, 2.0, 48000)), Sound(tune(2, 2.0, 48000))]
    path = write_streams(tmp_path / "two.ogg", sounds, 48000)
    assert len(inspect(io.BytesIO(path.read_bytes()))) == 1


def test_inspect_ogg_without_its_last_page_is_cut_off(music: Callable[[str], bytes]) -> None:
    content = music(".ogg")
    part = inspect_bytes(content[:-1000])
    assert (part.problem, part.is_cut_off) == ("cut off: its last page is missing", True)
