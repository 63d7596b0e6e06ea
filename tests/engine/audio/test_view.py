from __future__ import annotations

import io

import pytest

from engine.audio.view import Part, View, read_at


def test_read_at_reads_up_to_the_end() -> None:
    file = io.BytesIO(b"0123456789")
    assert read_at(file, 3, 4) == b"3456"
    assert read_at(file, 8, 4) == b"89"
    assert read_at(file, 20, 4) == b""
    assert read_at(file, 2**64, 4) == b""


def test_view_is_a_file_of_its_own() -> None:
    view = View(io.BytesIO(b"0123456789"), Part(2, 8))
    assert view.read(3) == b"234"
    assert view.tell() == 3
    assert view.read() == b"567"
    assert view.read(5) == b""
    assert view.seek(1) == 1
    assert view.read(2) == b"34"
    assert view.seek(-2, io.SEEK_END) == 4
    assert view.read() == b"67"
    assert view.seek(-20, io.SEEK_CUR) == -1
    assert view.seek(100) == 100
    assert view.read() == b""


@pytest.mark.parametrize("n_bytes", [1, 2, 3, 4, 10])
def test_view_shows_its_patches_however_it_is_read(n_bytes: int) -> None:
    part = Part(1, 10, patches={2: b"ab", 7: b"xyz"})
    view = View(io.BytesIO(b"0123456789"), part)
    content = b""
    while piece := view.read(n_bytes):
        content += piece
    assert content == b"1ab456xyz"


def test_views_of_one_file_do_not_disturb_each_other() -> None:
    file = io.BytesIO(b"0123456789")
    first, second = View(file, Part(0, 10)), View(file, Part(0, 10))
    assert [first.read(2), second.read(3), first.read(2)] == [b"01", b"012", b"23"]
