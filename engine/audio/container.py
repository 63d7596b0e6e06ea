"""Inspect the bytes of a file: its format, where its sound lies, whether it is complete."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO

from engine.audio.chunks import examine_au, examine_chunks
from engine.audio.frames import find_frames
from engine.audio.ogg import ogg_links
from engine.audio.tag_blocks import end_of_first_tags, start_of_last_tags
from engine.audio.view import Part, read_at

# Bytes at the beginning that are searched for the first frame of an MP3 or AAC stream.
_MAX_RUBBISH = 8 << 20
_MAX_BOXES = 100_000


def inspect(file: BinaryIO) -> list[Part]:
    """Find the parts of a file that hold sound.

    Parameters
    ----------
    file : binary file
        Seekable; its position afterwards is undefined.

    Returns
    -------
    list of Part
        One, or one for each link of a chained Ogg file.
    """
    n_bytes = file.seek(0, io.SEEK_END)
    start = end_of_first_tags(file)
    head = read_at(file, start, 4096)
    known = _identify(head)
    if known is None:
        found = find_frames(read_at(file, 0, _MAX_RUBBISH))
        if found is None:
            return [Part(0, n_bytes)]
        start, known = found[0], found[1]
    end = start_of_last_tags(file, start, n_bytes) if known in _WITHOUT_SIZE else n_bytes
    part = Part(start, end, known)
    if known == "ogg":
        return ogg_links(file, part)
    examine = _EXAMINERS.get(known)
    return [examine(file, part) if examine else part]


# -- formats by their first bytes --------------------------------------------------------------

_MAGIC = (
    (b"OggS", "ogg"),
    (b"fLaC", "flac"),
    (b"\x1aE\xdf\xa3", "matroska"),
    (b".snd", "au"),
    (b"caff", "caf"),
    (b"riff\x2e\x91\xcf\x11", "w64"),
    (b"RF64", "wav"),
    (b"BW64", "wav"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (b"FLV\x01", "flv"),
    (b"TTA1", "tta"),
    (b"wvpk", "wv"),
    (b"MAC ", "ape"),
    (b"MP+", "mpc"),
    (b"MPCK", "mpc8"),
    (b"tBaK", "tak"),
    (b"DSD ", "dsf"),
    (b"FRM8", "iff"),
    (b"#!AMR", "amr"),
    (b".RMF", "rm"),
    (b".ra\xfd", "rm"),
    (b"ajkg", "shn"),
    (b"Creative Voice File\x1a", "voc"),
    (b"NIST_1A", "nistsphere"),
    (b"nut/multimedia container", "nut"),
    (b"\0\0\1\xba", "mpeg"),
)
_FORMS = {
    b"RIFFWAVE": "wav",
    b"RIFXWAVE": "wav",
    b"RIFFAVI ": "avi",
    b"RIFFXWMA": "xwma",
    b"RIFFQLCM": "qcp",
    b"FORMAIFF": "aiff",
    b"FORMAIFC": "aiff",
    b"FORM8SVX": "iff",
    b"FORM16SV": "iff",
}
_MP4_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof"}
# Formats of frames alone, whose last one reaches to the end of the file, tags included.
_WITHOUT_SIZE = {"aac", "ac3", "ape", "dts", "flac", "mp3", "mpc", "mpc8", "tak", "tta", "wv"}
_TS_PACKETS = ((0, 188), (4, 192), (0, 204))  # where the first sync byte is, and their distance


def _identify(head: bytes) -> str | None:
    """FFmpeg's name of the format that begins with `head`; None if it is another."""
    for magic, demuxer in _MAGIC:
        if head.startswith(magic):
            return demuxer
    if head[4:8] in _MP4_BOXES:
        return "mov"
    if form := _FORMS.get(head[:4] + head[8:12]):
        return form
    for first, step in _TS_PACKETS:
        if len(head) >= 4 * step and set(head[first : 4 * step : step]) == {0x47}:
            return "mpegts"
    found = find_frames(head, last=0)
    return found[1] if found else None


# -- formats whose header states the size of the file ------------------------------------------

_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_EBML_SEGMENT = bytes.fromhex("18538067")


def _cut_off(part: Part, n_stated: int) -> Part:
    """Compare the size that the header states with the size of the file."""
    present = part.end - part.start
    if n_stated <= present + 1:
        return part
    return replace(
        part, problem=f"cut off: {present} of {n_stated} bytes are there", is_cut_off=True
    )


def _examine_avi(file: BinaryIO, part: Part) -> Part:
    (size,) = struct.unpack("<I", read_at(file, part.start + 4, 4).ljust(4, b"\0"))
    return _cut_off(part, 0 if size == 2**32 - 1 else size + 8)


def _examine_asf(file: BinaryIO, part: Part) -> Part:
    head = read_at(file, part.start, 4096)
    at = head.find(_ASF_PROPERTIES)
    part = replace(part, states_duration=True)
    return _cut_off(part, int.from_bytes(head[at + 40 : at + 48], "little") if at > 0 else 0)


def _examine_mp4(file: BinaryIO, part: Part) -> Part:
    """Walk over the boxes of the top level; the last one may reach beyond the end."""
    position, has_index = part.start, False
    for _ in range(_MAX_BOXES):
        header = read_at(file, position, 16)
        if len(header) < 8:
            break
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        elif size == 0:  # to the end of the file
            size = part.end - position
        if size < 8:
            break
        has_index |= header[4:8] == b"moov"
        position += size
    part = _cut_off(replace(part, states_duration=True), position - part.start)
    if part.is_cut_off and not has_index:
        problem = f"{part.problem}, and without its table of contents it cannot be decoded"
        return replace(part, problem=problem)
    return part


def _examine_matroska(file: BinaryIO, part: Part) -> Part:
    """Read the size of the segment; streams and live recordings leave it unknown."""
    head = read_at(file, part.start, 4096)
    at = head.find(_EBML_SEGMENT)
    part = replace(part, states_duration=True)
    if at < 0 or at + 5 > len(head):
        return part
    n_size = 9 - head[at + 4].bit_length()
    size = int.from_bytes(head[at + 4 : at + 4 + n_size], "big") & (1 << 7 * n_size) - 1
    unknown = size == (1 << 7 * n_size) - 1 or n_size > 8
    return _cut_off(part, 0 if unknown else at + 4 + n_size + size)


def _examine_mp3(file: BinaryIO, part: Part) -> Part:
    """Note whether the first frame is a table of contents, which states the number of frames."""
    first = read_at(file, part.start, 200)
    has_contents = any(tag in first for tag in (b"Xing", b"Info", b"VBRI"))
    return replace(part, states_duration=has_contents)


def _examine_flac(file: BinaryIO, part: Part) -> Part:
    """Note whether the number of samples is known; encoders that stream write 0."""
    n_samples = int.from_bytes(read_at(file, part.start + 18, 8), "big") & 0xF_FFFF_FFFF
    return replace(part, states_duration=n_samples > 0)


def _stating_duration(file: BinaryIO, part: Part) -> Part:
    return replace(part, states_duration=True)


_EXAMINERS: dict[str, Callable[[BinaryIO, Part], Part]] = {
    "wav": examine_chunks,
    "w64": examine_chunks,
    "aiff": examine_chunks,
    "caf": examine_chunks,
    "au": examine_au,
    "avi": _examine_avi,
    "asf": _examine_asf,
    "mov": _examine_mp4,
    "matroska": _examine_matroska,
    "flac": _examine_flac,
    "mp3": _examine_mp3,
    **dict.fromkeys(("ape", "dsf", "flv", "mpc8", "tak", "tta", "wv"), _stating_duration),
}
