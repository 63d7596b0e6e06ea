"""Pack the audio of a run into archives small enough to travel to another machine.

Each piece is a tar file with a random sample of all folders: unpacked over each other, any number
of pieces are folders to train on.
"""

from __future__ import annotations

import io
import logging
import os
import tarfile
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.audio import decode
from engine.errors import AudioError
from engine.files import atomic_write
from training.augment import codec
from training.augment.pool import audio_paths
from training.augment.reverb import MAX_ROOM_S
from training.sources import Sources

log = logging.getLogger(__name__)

MAX_PIECE_BYTES = 50_000_000
BIT_RATE = 24_000
"""Bits per second of Opus; docs/training.md#audio-in-pieces compares bit rates."""

_SEED = 0


class _Member(NamedTuple):
    name: str
    path: Path


def write_pieces(
    sources: Sources,
    out: Path,
    sample_rate: int,
    max_bytes: int = MAX_PIECE_BYTES,
    bit_rate: int = BIT_RATE,
) -> list[Path]:
    """Write the audio of a run as Opus, and room responses as WAV, in pieces.

    Parameters
    ----------
    sources : Sources
    out : Path
        Folder for ``audio-00.tar`` and so on.
    sample_rate : int
        Hz; 8000, 12000, 16000, 24000 or 48000, which Opus supports.
    max_bytes : int
        Size of a piece.
    bit_rate : int
        Bits per second.

    Returns
    -------
    list of Path

    Raises
    ------
    ConfigError
        A folder has no audio that can be decoded.
    """
    out.mkdir(parents=True, exist_ok=True)
    members = _members(sources)

    def encode(member: _Member) -> bytes | None:
        try:
            waveform = decode.read(member.path, sample_rate)
        except AudioError as error:
            log.warning("%s", error)
            return None
        if member.name.startswith("rooms/"):
            return _wav(waveform[: int(MAX_ROOM_S * sample_rate)], sample_rate)
        return codec.to_bytes(waveform, codec.OPUS, sample_rate, bit_rate)

    pieces: list[Path] = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        files = zip(members, threads.map(encode, members), strict=True)
        for batch in _batches(files, max_bytes):
            pieces.append(out / f"audio-{len(pieces):02}.tar")
            with atomic_write(pieces[-1]) as partial, tarfile.open(partial, "w") as archive:
                for name, content in batch:
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
            log.info("wrote %s with %d files", pieces[-1], len(batch))
    return pieces


def _members(sources: Sources) -> list[_Member]:
    """Name the files of all folders by their place in the sorted folder, in random order."""
    members = []
    for kind, folder in sources.folders().items():
        suffix = "wav" if kind == "rooms" else "ogg"
        paths = enumerate(audio_paths(folder))
        members += [_Member(f"{kind}/{i:06}.{suffix}", path) for i, path in paths]
    order = np.random.default_rng(_SEED).permutation(len(members))
    return [members[i] for i in order]


def _batches(
    files: Iterator[tuple[_Member, bytes | None]], max_bytes: int
) -> Iterator[list[tuple[str, bytes]]]:
    """Group files so that the archive of each group has at most `max_bytes`."""
    batch: list[tuple[str, bytes]] = []
    size = tarfile.RECORDSIZE  # the end of an archive is padded to it
    for member, content in files:
        if content is None:
            continue
        n_bytes = tarfile.BLOCKSIZE * (1 + -(-len(content) // tarfile.BLOCKSIZE))
        if batch and size + n_bytes > max_bytes:
            yield batch
            batch, size = [], tarfile.RECORDSIZE
        batch.append((member.name, content))
        size += n_bytes
    if batch:
        yield batch


def _wav(waveform: NDArray[np.float32], sample_rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(sample_rate)
        out.writeframes((waveform.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()
