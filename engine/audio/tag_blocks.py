"""Where tags around the sound of a file begin and end; FFmpeg takes some of them for sound."""

from __future__ import annotations

from typing import BinaryIO

from engine.audio.view import read_at

_ID3V1_BYTES = 128
_APE_FOOTER_BYTES = 32
_LYRICS_END_BYTES = 15  # six digits and the magic


def end_of_first_tags(file: BinaryIO) -> int:
    """Return where the ID3v2 tags at the beginning end; their pictures need not be unpacked."""
    end = 0
    while (header := read_at(file, end, 10))[:3] == b"ID3" and len(header) == 10:
        size = 0
        for byte in header[6:10]:
            size = size << 7 | byte & 0x7F
        end += 10 + size + (10 if header[5] & 0x10 else 0)
    return end


def start_of_last_tags(file: BinaryIO, start: int, end: int) -> int:
    """Return where the ID3v1, APEv2 and Lyrics3 tags at the end begin, in any order.

    Parameters
    ----------
    file : binary file
    start, end : int
        Where the sound begins, and the file ends.
    """
    while n_bytes := _last_tag_bytes(file, end):
        if end - n_bytes < start:
            break
        end -= n_bytes
    return end


def _last_tag_bytes(file: BinaryIO, end: int) -> int:
    """Size of the tag that ends at a position; 0 if there is none."""
    tail = read_at(file, max(end - _ID3V1_BYTES, 0), min(_ID3V1_BYTES, end))
    if tail.startswith(b"TAG") and len(tail) == _ID3V1_BYTES:
        return _ID3V1_BYTES
    ape = tail[-_APE_FOOTER_BYTES:]
    if ape.startswith(b"APETAGEX"):
        has_header = ape[23] & 0x80
        return int.from_bytes(ape[12:16], "little") + (_APE_FOOTER_BYTES if has_header else 0)
    lyrics = tail[-_LYRICS_END_BYTES:]
    if lyrics.endswith(b"LYRICS200") and lyrics[:6].isdigit():
        return int(lyrics[:6]) + _LYRICS_END_BYTES
    return 0
