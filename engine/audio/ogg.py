"""The links of a chained Ogg file; FFmpeg reads only one if they differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from engine.audio.view import Part, read_at

_OGG_BEGINS = b"OggS\0\2"  # flags of a page that begins a stream, and is not continued
_OGG_LAST_PAGE = 4
_OGG_PAGE_BYTES = 65536
_SEARCHED_AT_ONCE = 1 << 22


def ogg_links(file: BinaryIO, part: Part) -> list[Part]:
    """Cut a file where a new group of streams begins.

    A link begins with the first pages of all its streams, one behind the other.
    """
    starts, after = [part.start], part.start
    for position in _ogg_beginnings(file, part):
        if position != after and position != part.start:
            starts.append(position)
        after = position + _ogg_page_bytes(file, position)
    ends = [*starts[1:], part.end]
    links = [replace(part, start=a, end=b) for a, b in zip(starts, ends, strict=True)]
    if not _ends_with_last_page(file, part):
        links[-1] = replace(links[-1], problem="cut off: its last page is missing", is_cut_off=True)
    return links


def _ogg_beginnings(file: BinaryIO, part: Part) -> Iterator[int]:
    """Positions of the pages that begin a stream."""
    position, kept = part.start, b""
    while content := read_at(file, position, min(_SEARCHED_AT_ONCE, part.end - position)):
        joined, first = kept + content, position - len(kept)
        at = joined.find(_OGG_BEGINS)
        while at >= 0:
            yield first + at
            at = joined.find(_OGG_BEGINS, at + 1)
        position += len(content)
        kept = joined[1 - len(_OGG_BEGINS) :]


def _ogg_page_bytes(file: BinaryIO, position: int) -> int:
    header = read_at(file, position, 27 + 255)
    n_segments = header[26] if len(header) > 26 else 0
    return 27 + n_segments + sum(header[27 : 27 + n_segments])


def _ends_with_last_page(file: BinaryIO, part: Part) -> bool:
    first = max(part.end - _OGG_PAGE_BYTES, part.start)
    tail = read_at(file, first, part.end - first)
    page = tail.rfind(b"OggS")
    flags = tail[page + 5 : page + 6]
    if page < 0 or not flags or not flags[0] & _OGG_LAST_PAGE:
        return False
    return first + page + _ogg_page_bytes(file, first + page) <= part.end
