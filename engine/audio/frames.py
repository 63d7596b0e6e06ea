"""MPEG audio and ADTS AAC: frames without a header, which rubbish may precede."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_N_FRAMES_IN_ROW = 3
# Positions that are tried: rubbish may consist of nothing but the first bytes of a frame.
_MAX_SYNCS = 100_000

_MPEG_RATES = (44100, 48000, 32000)
_MPEG_KBITS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def find_frames(content: bytes, last: int | None = None) -> tuple[int, str] | None:
    """Find where consecutive frames begin.

    Parameters
    ----------
    content : bytes
    last : int, optional
        The last position to try; everywhere by default.

    Returns
    -------
    (int, str) or None
        Position, and FFmpeg's name of the format.
    """
    octets = np.frombuffer(content if last is None else content[: last + 2], np.uint8)
    syncs = np.flatnonzero((octets[:-1] == 0xFF) & (octets[1:] >= 0xE0))
    for at in map(int, syncs[:_MAX_SYNCS]):
        for demuxer, frame_bytes in (("mp3", _mpeg_frame_bytes), ("aac", _adts_frame_bytes)):
            if _are_frames(content, at, frame_bytes):
                return at, demuxer
    return None


def _are_frames(content: bytes, at: int, frame_bytes: Callable[[bytes], int]) -> bool:
    """Decide whether frames of one kind follow each other from `at` on."""
    first = content[at : at + 4]
    for n_found in range(_N_FRAMES_IN_ROW):
        header = content[at : at + 7]
        size = frame_bytes(header)
        # Version, layer and sampling rate are those of the first frame.
        if not size or header[1] & 0xFE != first[1] & 0xFE or (header[2] ^ first[2]) & 0x0C:
            return False
        at += size
        if at == len(content) and n_found:
            return True
    return True


def _mpeg_frame_bytes(header: bytes) -> int:
    """Size of the MPEG audio frame with this header (ISO 11172-3, 2.4.1.3); 0 if it is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bit_rate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3:
        return 0
    hz = _MPEG_RATES[rate] >> (0, 1, 2)[(3, 2, 0).index(version)]
    bits = 1000 * _MPEG_KBITS[1 if version == 3 else 2, layer][bit_rate - 1]
    if layer == 1:
        return (12 * bits // hz + padding) * 4
    n_samples = 576 if layer == 3 and version != 3 else 1152
    return n_samples // 8 * bits // hz + padding


def _adts_frame_bytes(header: bytes) -> int:
    """Size of the ADTS frame with this header (ISO 13818-7, 6.2); 0 if it is none."""
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return 0
    size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return size if size > 7 else 0
