from __future__ import annotations

import io

import pytest

from engine.audio.tag_blocks import end_of_first_tags, start_of_last_tags

SOUND = b"\xff\xfb" * 1000
ID3V1 = b"TAG".ljust(128, b"x")
LYRICS = b"LYRICSBEGIN" + b"x" * 20 + b"000031LYRICS200"


def id3v2(n_bytes: int, *, footer: bool = False) -> bytes:
    size = bytes([n_bytes >> 21 & 127, n_bytes >> 14 & 127, n_bytes >> 7 & 127, n_bytes & 127])
    flags = b"\x10" if footer else b"\0"
    return b"ID3\4\0" + flags + size + bytes(n_bytes) + (b"3DI".ljust(10, b"\0") if footer else b"")


def ape(*, header: bool) -> bytes:
    def end(flags: int) -> bytes:
        fields = (2000, 32 + 50, 1, flags)
        return b"APETAGEX" + b"".join(one.to_bytes(4, "little") for one in fields) + bytes(8)

    flags = header << 31
    return (end(flags | 1 << 29) if header else b"") + b"x" * 50 + end(flags)


@pytest.mark.parametrize("tags", [b"", id3v2(300), id3v2(5, footer=True), id3v2(1) + id3v2(2)])
def test_first_tags_end_where_sound_begins(tags: bytes) -> None:
    assert end_of_first_tags(io.BytesIO(tags + SOUND)) == len(tags)


@pytest.mark.parametrize(
    "tags",
    [
        b"",
        ID3V1,
        ape(header=True),
        ape(header=False),
        LYRICS + ID3V1,
        ape(header=True) + ID3V1,
        ID3V1 + ape(header=False),
        LYRICS + ape(header=True) + ID3V1,
    ],
)
def test_last_tags_begin_where_sound_ends(tags: bytes) -> None:
    content = id3v2(30) + SOUND + tags
    file = io.BytesIO(content)
    assert start_of_last_tags(file, 40, len(content)) == 40 + len(SOUND)


@pytest.mark.parametrize(
    "tail",
    [
        b"APETAGEX" + b"\xff" * 24,
        b"APETAGEX" + bytes(24),
        b"TAG",
        b"999999LYRICS200",
        b"xxxxxxLYRICS200",
    ],
)
def test_tag_that_states_an_impossible_size_is_sound(tail: bytes) -> None:
    content = SOUND + tail
    assert start_of_last_tags(io.BytesIO(content), 0, len(content)) == len(content)
