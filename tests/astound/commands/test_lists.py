from __future__ import annotations

import codecs
import io
import os
from pathlib import Path

import pytest

from astound.commands.lists import read_list
from engine.errors import ConfigError


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


PLS = b"""[playlist]
File2=file:///m/b%20c.ogg
Title2=File3=x
file10=/m/100%25.wav
File1=sub/caf\xe9.wav
File3=
NumberOfEntries=3
"""
XSPF = b"""<?xml version="1.0" encoding="UTF-8"?>
<!-- mine --><playlist version="1" xmlns="http://xspf.org/ns/0/"><location>/list.xspf</location>
<trackList>
 <track><location>file:///m/a%26b%E9.wav</location><location>other.wav</location></track>
 <track><title>No file</title></track>
 <track><title>x</title><location> sub/c%20\xc3\xa4&amp;d.wav </location></track>
</trackList></playlist>
"""


@pytest.mark.parametrize("name", ["songs.PLS", "songs"])
def test_pls_playlist_is_in_the_order_of_its_numbers(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PLS)
    with (tmp_path / name).open("rb") as stream:
        odd = os.fsdecode(b"caf\xe9.wav")
        assert read_list(stream) == [f"{tmp_path}/sub/{odd}", "/m/b c.ogg", "/m/100%25.wav"]


@pytest.mark.parametrize("name", ["songs.xspf", "songs"])
def test_xspf_playlist_has_urls(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(XSPF)
    with (tmp_path / name).open("rb") as stream:
        odd = os.fsdecode(b"/m/a&b\xe9.wav")
        assert read_list(stream) == [odd, f"{tmp_path}/sub/c ä&d.wav"]


def test_xspf_playlist_reads_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("/secret.wav")
    entity = f'<!DOCTYPE playlist [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]>'
    track = "<playlist><trackList><track><location>&x;</location></track></trackList></playlist>"
    with pytest.raises(ConfigError, match="not a valid XSPF playlist"):
        read_list(io.BytesIO(f'<?xml version="1.0"?>{entity}{track}'.encode()))


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
