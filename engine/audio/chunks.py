"""WAV, RF64, Wave64, AIFF, CAF and AU: where the sound ends, whatever the header says.

A recorder that streams writes a placeholder as the size, and one that runs for hours wraps it at
4 GiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO, NamedTuple

from engine.audio.view import Part, read_at

NO_LENGTH = "its header does not state a valid length; it was read to the end of the file"

# What may follow the samples of a file without being a chunk: padding, a tag of another format.
_MAX_TRAILER = 4096
# Recorders write a size near one of these, less a header, when they do not know the true one.
_PLACEHOLDERS = (2**31, 2**32)
_PLACEHOLDER_SLACK = 65536
_MAX_CHUNKS = 100_000


class _Style(NamedTuple):
    """How a format writes its chunks: a name, a size, and the content."""

    n_name: int
    size: str
    first: int
    alignment: int = 1

    @property
    def n_header(self) -> int:
        return self.n_name + struct.calcsize(self.size)


class _Size(NamedTuple):
    """A header field that states how many bytes of sound there are."""

    at: int
    form: str
    value: int

    def patch(self, value: int) -> dict[int, bytes]:
        """Write another value, or the largest that the field holds."""
        largest = 2 ** (8 * struct.calcsize(self.form)) - 1
        return {self.at: struct.pack(self.form, min(value, largest))}


class _Chunk(NamedTuple):
    name: bytes
    size: _Size
    start: int


_RIFF = _Style(4, "<I", 12, 2)
_STYLES = {
    b"RIFF": _RIFF,
    b"RF64": _RIFF,
    b"BW64": _RIFF,
    b"RIFX": _Style(4, ">I", 12, 2),
    b"FORM": _Style(4, ">I", 12, 2),
    b"caff": _Style(4, ">Q", 8),
    b"riff": _Style(16, "<Q", 40, 8),
}
_SOUND = {b"data", b"SSND"}
_W64_HEADER = 24  # which the sizes of Wave64 include


def _chunks(file: BinaryIO, position: int, end: int, style: _Style) -> Iterator[_Chunk]:
    """Read the headers of consecutive chunks; sizes count the content only."""
    own = _W64_HEADER if style.n_name == 16 else 0
    for _ in range(_MAX_CHUNKS):
        header = read_at(file, position, style.n_header)
        if len(header) < style.n_header or position >= end:
            return
        (size,) = struct.unpack(style.size, header[style.n_name :])
        start = position + style.n_header
        yield _Chunk(header[:4], _Size(position + style.n_name, style.size, size), start)
        position = start + max(size - own, 0)
        position += -position % style.alignment


def examine_chunks(file: BinaryIO, part: Part) -> Part:
    """Find the sound of a file of chunks, and correct the size that its header states."""
    magic = read_at(file, part.start, 4)
    style = _STYLES[magic]
    long_size = None
    patches: dict[int, bytes] = {}
    for name, size, start in _chunks(file, part.start + style.first, part.end, style):
        if name == b"ds64":
            (value,) = struct.unpack("<Q", read_at(file, start + 8, 8).ljust(8, b"\0"))
            long_size = _Size(start + 8, "<Q", value)
        elif name == b"COMM":
            patches |= _without_absurd_count(file, start)
        elif name in _SOUND:
            if long_size and size.value == 0xFFFFFFFF:
                size = long_size
            extent = _true_extent(file, start, part.end, size, style)
            return _with_extent(replace(part, patches=patches), start, size, extent, magic)
    return part


def _without_absurd_count(file: BinaryIO, comm: int) -> dict[int, bytes]:
    """Clear a number of sample frames that FFmpeg takes for negative."""
    count = _Size(comm + 2, ">I", int.from_bytes(read_at(file, comm + 2, 4), "big"))
    return count.patch(0) if count.value >= 2**31 else {}


class _Extent(NamedTuple):
    """Where the sound ends, and what is wrong with the size in the header."""

    end: int
    problem: str | None = None
    is_cut_off: bool = False


def _true_extent(
    file: BinaryIO, start: int, end: int, size: _Size, style: _Style | None
) -> _Extent:
    """Find where the sound that begins at `start` ends.

    The size in the header is believed if the file ends there, or another chunk begins there.
    """
    present = end - start
    own = _W64_HEADER if style and style.n_name == 16 else 0
    stated = size.value - own
    unknown = size.value in (0, 256 ** struct.calcsize(size.form) - 1)
    if 0 <= stated <= present:
        after = start + stated
        after += -after % style.alignment if style else 0
        if after >= end or (style and _is_followed_by_chunks(file, after, end, style)):
            return _Extent(min(start + stated, end))
        if not unknown and end - after <= _MAX_TRAILER:
            return _Extent(start + stated)
    elif present < stated <= present + 1:  # a padding byte may be missing
        return _Extent(end)
    if unknown or stated < 0 or _is_placeholder(stated, present):
        return _Extent(end, NO_LENGTH)
    if stated > present:
        return _Extent(end, f"cut off: {present} of {stated} bytes of sound are there", True)
    problem = f"its header states {stated} bytes of sound; it was read to the end of the file"
    return _Extent(end, f"{problem}, {present} bytes")


def _is_placeholder(stated: int, present: int) -> bool:
    """Decide whether a size is what recorders write that do not know it yet."""
    return stated > present and any(
        limit - _PLACEHOLDER_SLACK <= stated <= limit for limit in _PLACEHOLDERS
    )


def _is_followed_by_chunks(file: BinaryIO, position: int, end: int, style: _Style) -> bool:
    """Decide whether nothing but chunks with plausible names lies up to the end."""
    reach = position
    own = _W64_HEADER if style.n_name == 16 else 0
    for name, size, start in _chunks(file, position, end, style):
        reach = start + size.value - own
        if not all(32 <= byte < 127 for byte in name) or reach > end + 1:
            return False
    return position < reach and end - reach <= style.n_header + style.alignment


def _with_extent(part: Part, start: int, size: _Size, extent: _Extent, magic: bytes) -> Part:
    """End a part where its sound ends, and write that into its header if it says otherwise."""
    patches = dict(part.patches)
    if extent.problem:
        true = extent.end - start
        if magic == b"riff":
            patches |= size.patch(true + _W64_HEADER) | _Size(part.start + 16, "<Q", 0).patch(
                part.end
            )
        elif magic == b"caff":
            patches |= size.patch(2**64 - 1)  # -1: the sound reaches to the end of the file
        elif magic == b"FORM":
            patches |= size.patch(true - true % 2)
            patches |= _Size(part.start + 4, ">I", 0).patch(start + true - true % 2 - 8)
        elif size.form == "<I":
            patches |= size.patch(0)  # to the end: there may be more than the field holds
        else:
            patches |= size.patch(true)
    return replace(
        part,
        # Tables that a compressed format keeps behind its sound must stay readable.
        end=extent.end if extent.problem else part.end,
        patches=patches,
        problem=extent.problem,
        is_cut_off=extent.is_cut_off,
    )


def examine_au(file: BinaryIO, part: Part) -> Part:
    """Find the sound of an AU file, which ends with the file.

    The decoder gets a size of 0xFFFFFFFF, which stands for an unknown one.
    """
    first, stated = struct.unpack(">II", read_at(file, part.start + 4, 8).ljust(8, b"\0"))
    size = _Size(part.start + 8, ">I", stated)
    extent = _true_extent(file, part.start + first, part.end, size, None)
    patches = size.patch(2**32 - 1)
    return replace(
        part, patches=patches, problem=extent.problem, is_cut_off=extent.is_cut_off, end=extent.end
    )
