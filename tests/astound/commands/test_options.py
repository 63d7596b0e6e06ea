from __future__ import annotations

import codecs
import io
import os
from pathlib import Path

import click
import pytest

from astound.commands.options import parse_time, read_list
from engine.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "time_s"),
    [
        ("0", 0.0),
        ("62.5", 62.5),
        (".5", 0.5),
        ("90", 90.0),
        ("1:02.5", 62.5),
        ("90:00", 5400.0),
        ("1:02:03.25", 3723.25),
        ("12:00:00", 43200.0),
    ],
)
def test_time_is_read_in_each_form(text: str, time_s: float) -> None:
    assert parse_time(text) == time_s


@pytest.mark.parametrize(
    "text",
    ["", "-1", "nan", "inf", "1e3", "1:60", "1:60:00", "1:2:3:4", "1:", ":30", "1.5:00", "1m", "٣"],
)
def test_bad_time_is_one_sentence(text: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        parse_time(text)
    reason = f"invalid time {text!r}: must be seconds, m:ss or h:mm:ss"
    assert caught.value.format_message() == f"Invalid value: {reason}"


@pytest.mark.parametrize(
    ("raw", "paths"),
    [
        (b"", []),
        (b"a.wav\n\nb c.wav\n", ["a.wav", "b c.wav"]),
        (b"a.wav\r\nb.wav\r\n", ["a.wav", "b.wav"]),
        (b"\xef\xbb\xbfa.wav\n", ["a.wav"]),
        (codecs.BOM_UTF16_LE + "ä.wav\nb.wav".encode("utf-16-le"), ["ä.wav", "b.wav"]),
        (codecs.BOM_UTF16_BE + "ä.wav\r\n".encode("utf-16-be"), ["ä.wav"]),
        (b"#x.mp3\n a.wav \n", ["#x.mp3", " a.wav "]),
        (b"#EXTM3U\n#EXTINF:3,Song\na.wav\n", ["a.wav"]),
        (b"\xef\xbb\xbf#EXTM3U\r\na.wav\r\n", ["a.wav"]),
        (b"file:///m/a%20b%23.wav\nFILE://localhost/c.wav\n", ["/m/a b#.wav", "/c.wav"]),
        (b"file:///caf%E9.wav\n", [os.fsdecode(b"/caf\xe9.wav")]),
        (b"file%20a.wav\n/m/100%41.wav\n", ["file%20a.wav", "/m/100%41.wav"]),
        (b"a\nb.wav\0c.wav\0", ["a\nb.wav", "c.wav"]),
        (b"caf\xe9.wav\n", [os.fsdecode(b"caf\xe9.wav")]),
        ("a\u2028b\x0c.wav\n".encode(), ["a\u2028b\x0c.wav"]),
    ],
)
def test_list_is_read_in_each_form(raw: bytes, paths: list[str]) -> None:
    assert read_list(io.BytesIO(raw)) == paths


def test_playlist_is_relative_to_its_folder(tmp_path: Path) -> None:
    playlist = tmp_path / "songs.M3U8"
    playlist.write_bytes(b"# mine\nsub/a.wav\n/b.wav\nfile:///c.wav\n")
    with playlist.open("rb") as stream:
        assert read_list(stream) == [f"{tmp_path}/sub/a.wav", "/b.wav", "/c.wav"]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"a.wav\nb\0.wav\n", "contains a NUL byte; end every path with one, or none"),
        (codecs.BOM_UTF16_LE + b"a", "begins as UTF-16, but is not valid UTF-16"),
    ],
)
def test_bad_list_is_one_sentence(raw: bytes, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_list(io.BytesIO(raw))
    assert str(caught.value) == f"-: {reason}"
