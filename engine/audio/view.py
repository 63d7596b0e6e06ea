"""Part of a file as a file of its own, with a corrected header."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import BinaryIO

_LAST_POSITION = 2**62  # headers may state sizes that make no position in any file


@dataclass(frozen=True)
class Part:
    """A stretch of a file that decodes by itself.

    Parameters
    ----------
    start, end : int
        Bytes of the file.
    demuxer : str, optional
        FFmpeg's name of the format; None if FFmpeg has to probe.
    patches : mapping of int to bytes
        Header fields to replace, by their position in the file.
    problem : str, optional
        Sentence about sizes that disagree.
    is_cut_off : bool
        The file ends before its header says.
    states_duration : bool
        The header of the format states a duration, rather than FFmpeg estimating one.
    """

    start: int
    end: int
    demuxer: str | None = None
    patches: dict[int, bytes] = field(default_factory=dict)
    problem: str | None = None
    is_cut_off: bool = False
    states_duration: bool = False


class View:
    """Part of a file as a binary file of its own, which never names the file.

    Several views of one file may be read in turns.

    Parameters
    ----------
    file : binary file
    part : Part
    """

    def __init__(self, file: BinaryIO, part: Part) -> None:
        self._file, self._part = file, part
        self._position = part.start

    def read(self, n_bytes: int = -1) -> bytes:
        """Read up to `n_bytes`, or to the end of the part."""
        left = self._part.end - self._position
        if left <= 0:
            return b""
        self._file.seek(self._position)
        content = self._file.read(left if n_bytes < 0 else min(n_bytes, left))
        first, self._position = self._position, self._position + len(content)
        for at, patch in self._part.patches.items():
            if first < at + len(patch) and at < self._position:
                content = _overwrite(content, at - first, patch)
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position in the part; return it, or -1 for one before the beginning."""
        bases = {
            io.SEEK_SET: self._part.start,
            io.SEEK_CUR: self._position,
            io.SEEK_END: self._part.end,
        }
        target = bases[whence] + offset
        if target < self._part.start:
            return -1
        self._position = target
        return self.tell()

    def tell(self) -> int:
        """Position in the part."""
        return self._position - self._part.start


def _overwrite(content: bytes, at: int, patch: bytes) -> bytes:
    """Replace what `patch` covers of `content`; it may stick out at either end."""
    patch = patch[max(-at, 0) : len(content) - at]
    at = max(at, 0)
    return content[:at] + patch + content[at + len(patch) :]


def read_at(file: BinaryIO, position: int, n_bytes: int) -> bytes:
    """Read up to `n_bytes` from a position; none from one that no file can have."""
    if position > _LAST_POSITION:
        return b""
    file.seek(position)
    return file.read(n_bytes)
