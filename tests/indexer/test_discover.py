from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from indexer.discover import FoundFile, discover
from indexer.report import Failure


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def found(paths: Iterable[str | os.PathLike[str]], folder: Path) -> list[str]:
    """What a scan finds, relative to `folder`; it must not fail anywhere."""
    files = list(discover(paths))
    assert [file for file in files if isinstance(file, Failure)] == []
    return [os.path.relpath(file.path, folder) for file in files]


def test_folder_is_searched_through_all_subfolders_in_order(tmp_path: Path) -> None:
    for name in ("b.wav", "a.wav", "two/d/e.wav", "two/c.wav", "one/f.wav"):
        touch(tmp_path / name)
    expected = ["a.wav", "b.wav", "one/f.wav", "two/c.wav", "two/d/e.wav"]
    assert found([tmp_path], tmp_path) == expected


def test_folder_gives_only_audio(tmp_path: Path) -> None:
    for name in ("a.mp3", "b.FLAC", "c.txt", "d", "e.wav.part", ".wav", "f.jpg", "g.mkv"):
        touch(tmp_path / name)
    assert found([tmp_path], tmp_path) == ["a.mp3", "b.FLAC", "g.mkv"]


def test_what_systems_leave_in_folders_is_passed_over_unless_given_itself(tmp_path: Path) -> None:
    for name in ("._a.mp3", "b.mp3"):
        touch(tmp_path / name)
    assert found([tmp_path], tmp_path) == ["b.mp3"]
    assert found([tmp_path / "._a.mp3"], tmp_path) == ["._a.mp3"]


def test_file_given_itself_may_have_any_name(tmp_path: Path) -> None:
    given = [touch(tmp_path / name) for name in ("z", "notes.txt", ".wav", "._a.mp3")]
    assert found(given, tmp_path) == ["z", "notes.txt", ".wav", "._a.mp3"]


def test_paths_keep_the_order_in_which_they_are_given(tmp_path: Path) -> None:
    given = [touch(tmp_path / name) for name in ("b.wav", "c.wav", "a.wav")]
    assert found(given, tmp_path) == ["b.wav", "c.wav", "a.wav"]


def test_each_file_is_found_once(tmp_path: Path) -> None:
    file = touch(tmp_path / "sub" / "a.wav")
    again = f"{tmp_path}/sub/../sub/a.wav"
    assert found([file, tmp_path, str(file), again, tmp_path / "sub"], tmp_path) == ["sub/a.wav"]


def test_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a.wav")
    monkeypatch.chdir(tmp_path)
    assert [file.path for file in discover(["a.wav"])] == [str(tmp_path / "a.wav")]


def test_file_has_its_size_and_time_of_change(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"12345")
    os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    assert list(discover([path])) == [FoundFile(str(path), 5, 1_600_000_000_123_456_789)]


def test_missing_path_is_a_failure_in_its_place(tmp_path: Path) -> None:
    first, last = touch(tmp_path / "a.wav"), touch(tmp_path / "c.wav")
    answers = list(discover([first, tmp_path / "b.wav", last]))
    assert answers[1] == Failure(str(tmp_path / "b.wav"), "No such file or directory")
    assert [answer.path for answer in answers] == [
        str(tmp_path / name) for name in ("a.wav", "b.wav", "c.wav")
    ]


@pytest.mark.parametrize("as_folder", [True, False])
def test_name_that_is_not_utf8_is_found(tmp_path: Path, as_folder: bool) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9.wav")
    file = touch(odd / "a.wav" if as_folder else odd)
    (answer,) = discover([tmp_path])
    assert isinstance(answer, FoundFile)
    assert os.fsencode(answer.path) == os.fsencode(file)


def test_unreadable_folder_is_a_failure_and_the_rest_is_found(tmp_path: Path) -> None:
    closed = touch(tmp_path / "closed" / "a.wav").parent
    touch(tmp_path / "open" / "b.wav")
    closed.chmod(0)
    try:
        if os.access(closed, os.R_OK):
            pytest.skip("permissions do not bind the superuser")
        answers = list(discover([tmp_path]))
    finally:
        closed.chmod(0o700)
    assert Failure(str(closed), "Permission denied") in answers
    assert [answer.path for answer in answers if isinstance(answer, FoundFile)] == [
        str(tmp_path / "open" / "b.wav")
    ]


def test_links_in_a_circle_do_not_hang(tmp_path: Path) -> None:
    touch(tmp_path / "sub" / "a.wav")
    (tmp_path / "sub" / "back").symlink_to(tmp_path)
    assert found([tmp_path], tmp_path) == ["sub/a.wav"]


def test_linked_folder_given_itself_is_searched(tmp_path: Path) -> None:
    touch(tmp_path / "far" / "a.wav")
    (tmp_path / "near").symlink_to(tmp_path / "far")
    assert found([tmp_path / "near"], tmp_path) == ["near/a.wav"]


@pytest.mark.parametrize("target", ["nowhere", "loop.wav"])
def test_link_to_nothing_is_a_failure(tmp_path: Path, target: str) -> None:
    (tmp_path / "loop.wav").symlink_to(tmp_path / target)
    answers = list(discover([tmp_path]))
    assert [type(answer) for answer in answers] == [Failure]


def test_pipe_is_a_failure(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")  # opening it would wait forever for somebody to write
    answers = list(discover([tmp_path]))
    assert answers == [Failure(str(tmp_path / "pipe.wav"), "not a regular file")]


def test_name_with_a_nul_byte_is_a_failure(tmp_path: Path) -> None:
    (answer,) = discover([f"{tmp_path}/a\0b.wav"])
    assert answer == Failure(f"{tmp_path}/a\0b.wav", "NUL byte in the name; no file has one")


def test_no_paths_and_an_empty_folder_give_nothing(tmp_path: Path) -> None:
    assert list(discover([])) == []
    assert list(discover([tmp_path])) == []
