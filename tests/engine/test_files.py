from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from engine.files import atomic_write, is_path, path_from_text, path_to_text


def test_atomic_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with atomic_write(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_atomic_write_error_in_the_block_keeps_the_old_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as partial:  # noqa: PT012
        partial.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_ignores_what_a_killed_process_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.with_name("a.json.partial").write_text("a longer half of something else")
    with atomic_write(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_into_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "no" / "a.json") as partial:
        partial.write_text("new")
    assert not list(tmp_path.iterdir())


def test_atomic_write_over_a_folder_is_an_os_error(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="folder"), atomic_write(path) as partial:
        partial.write_text("new")
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_does_not_replace_a_pipe_or_device(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"), atomic_write(path):
        pytest.fail("the block is not entered")
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/music/ä 100%.ogg", "/music/ä 100%.ogg"),
        (os.fsdecode(b"/music/caf\xe9 100%.ogg"), "file:///music/caf%E9%20100%25.ogg"),
        (os.fsdecode("/ä".encode() + b"\xff"), "file:///%C3%A4%FF"),
        ("file:///x", "file://file%3A///x"),
        ("", ""),
    ],
)
def test_every_path_has_text_from_which_it_returns(path: str, text: str) -> None:
    assert path_to_text(path) == text
    assert path_from_text(text) == path


def test_path_has_no_nul_byte_and_no_foreign_surrogate() -> None:
    paths = ["/a", "/caf\udce9", "/a\0", "/\ud800", "/\udc7f"]
    assert [is_path(path) for path in paths] == [True, True, False, False, False]
