"""Inspect the first bytes of a file: which library decodes it, and how long it should be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from engine.errors import AudioError

_PCM_AND_ADPCM_TAGS = {1, 2, 3, 6, 7, 0x11, 0xFFFE}
_SIZE_UNKNOWN = {0, 0xFFFFFFFF}  # written by programs that stream and do not know the size yet
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_OGG_PAGE_BYTES = 65536
_OGG_LAST_PAGE = 4


def read_by_libsndfile(file: BinaryIO, path: Path) -> bool:
    """Decide by the first bytes whether libsndfile or PyAV decodes a file.

    Also refuse truncated files that both libraries would read without an error.

    Parameters
    ----------
    file : binary file
        At its beginning; its position afterwards is undefined.
    path : Path
        For error messages.

    Returns
    -------
    bool
        True for libsndfile, False for PyAV.

    Raises
    ------
    AudioError
        The file is shorter than its header states.
    """
    head = file.read(4096)
    n_bytes = os.fstat(file.fileno()).st_size
    if head[:4] == b"OggS":
        _refuse_incomplete_ogg(file, n_bytes, path)
    n_declared = _declared_bytes(head)
    if n_declared > n_bytes + 1:
        raise AudioError(path, f"truncated: {n_bytes} of {n_declared} bytes are there")
    # A streaming writer stores 0 as the length when it does not know it; libsndfile would read
    # such a file as empty.
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        at = head.find(b"fmt ")
        tag = int.from_bytes(head[at + 8 : at + 10], "little")
        return any(head[4:8]) and (at < 0 or tag in _PCM_AND_ADPCM_TAGS)
    if head[:4] == b"fLaC":
        n_samples = int.from_bytes(head[18:26], "big") & 0xF_FFFF_FFFF
        return n_samples > 0
    return head[:4] == b".snd" or (head[:4] == b"FORM" and head[8:12] == b"AIFF")


def _declared_bytes(head: bytes) -> int:
    """Size of the whole file according to its header; 0 if the header does not state it."""
    properties = head.find(_ASF_PROPERTIES)
    if head[:4] == b"RIFF":
        before, size = 8, int.from_bytes(head[4:8], "little")
    elif head[:8] == b"RF64\xff\xff\xff\xff":
        before, size = 8, int.from_bytes(head[20:28], "little")
    elif head[:4] == b"FORM":
        before, size = 8, int.from_bytes(head[4:8], "big")
    elif head[:4] == b".snd":
        before, size = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
    elif head[:16] == _ASF and properties > 0:
        before, size = 0, int.from_bytes(head[properties + 40 : properties + 48], "little")
    else:
        return 0
    return 0 if size in _SIZE_UNKNOWN else before + size


def _refuse_incomplete_ogg(file: BinaryIO, n_bytes: int, path: Path) -> None:
    file.seek(max(n_bytes - _OGG_PAGE_BYTES, 0))
    tail = file.read()
    page = tail.rfind(b"OggS")
    flags = tail[page + 5 : page + 6]
    if page < 0 or not flags or not flags[0] & _OGG_LAST_PAGE:
        raise AudioError(path, "truncated: its last page is missing")
