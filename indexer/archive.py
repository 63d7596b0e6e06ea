"""Fingerprints in one file: an uncompressed zip of int8 arrays (.npy) and JSON lines.

Archives may come from anywhere: every member has a checksum, members are read by names that this
module generates, nothing is unpacked, and arrays cannot hold objects. The manifest is written last
and states the number of tracks.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from engine.config import require_hop
from engine.errors import ConfigError, printable
from engine.files import atomic_write, require_regular
from engine.records import NewTrack, StoredVectors, Vectors
from engine.validation import parse_json, to_record
from engine.vectors import quantizer
from engine.vectors.quantizer import Codes
from engine.vectors.track_lines import from_line, to_line
from indexer.sources import SETTINGS, Batch, OnProgress, TrackSource

FORMAT = "astound fingerprints"
VERSION = 2

_FOREIGN = "is not an export of astound"
_MANIFEST = "astound.json"
# What zipfile, json and numpy raise for damaged content.
_DAMAGES = (
    KeyError, OSError, EOFError, ValueError, TypeError, MemoryError, OverflowError,
    NotImplementedError, RuntimeError, SyntaxError, TokenError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


def write_archive(path: Path, source: TrackSource, on_progress: OnProgress) -> int:
    """Write all tracks of a source to a file, which is replaced as a whole.

    Parameters
    ----------
    path : Path
        An earlier export is replaced, any other file is not.
    source : TrackSource
    on_progress : callable
        Called now and then with the number of tracks written and in total.

    Returns
    -------
    int
        Number of tracks written.

    Raises
    ------
    ConfigError
        The file exists and is no export, or it cannot be written.
    """
    _refuse_to_replace(path)
    try:
        with atomic_write(path) as partial:
            return _write(partial, source, on_progress)
    except OSError as error:
        raise ConfigError(
            printable(path), f"cannot be written ({error.strerror or error})"
        ) from error


def _refuse_to_replace(path: Path) -> None:
    if not path.exists():
        return
    try:
        ArchiveSource(path).close()
    except ConfigError as error:
        reason = "exists and is no intact export of astound; remove it or choose another name"
        raise ConfigError(printable(path), reason) from error


def _write(path: Path, source: TrackSource, on_progress: OnProgress) -> int:
    counts = {"dim": 0, "n_batches": 0, "n_tracks": 0}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for batch in source.batches():
            if batch.tracks:
                counts["dim"] = _write_batch(archive, counts["n_batches"], batch)
                counts["n_batches"] += 1
                counts["n_tracks"] += len(batch.tracks)
                on_progress(counts["n_tracks"], source.n_tracks)
        manifest = {"format": FORMAT, "version": VERSION, **source.settings, **counts}
        archive.writestr(_MANIFEST, json.dumps(manifest, indent=1))
    return counts["n_tracks"]


def _write_batch(archive: zipfile.ZipFile, number: int, batch: Batch) -> int:
    names = _members(number)
    recordings = [batch.read(i) for i in range(len(batch.tracks))]
    archive.writestr(names[0], "".join(map(to_line, batch.tracks)))
    _write_array(archive, names[1], [one.embeddings for one in recordings])
    _write_array(archive, names[2], [one.clip_embeddings for one in recordings])
    return int(recordings[0].embeddings.shape[1])


def _write_array(archive: zipfile.ZipFile, name: str, parts: list[Vectors]) -> None:
    array = quantizer.encode(np.concatenate(parts))
    with archive.open(name, "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def _members(number: int) -> tuple[str, str, str]:
    return f"{number:06}/tracks.jsonl", f"{number:06}/segments.npy", f"{number:06}/clips.npy"


@dataclass(frozen=True, kw_only=True)
class _Manifest:
    format: str
    version: int
    recipe_id: str
    recipe: str
    segment_hop_s: str
    dim: int
    n_batches: int
    n_tracks: int


class ArchiveSource:
    """The tracks of an exported file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ConfigError
        The file is unreadable, truncated, no export, or of another format version.
    """

    def __init__(self, path: Path) -> None:
        self.name = printable(path)
        self._archive = _opened(path)
        try:
            manifest = self._manifest()
        except BaseException:
            self.close()
            raise
        self.settings = {key: str(getattr(manifest, key)) for key in SETTINGS}
        self.dim, self.n_tracks = manifest.dim, manifest.n_tracks
        self._n_batches = manifest.n_batches

    def __enter__(self) -> ArchiveSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def batches(self) -> Iterator[Batch]:
        """Yield all tracks; ConfigError if the file is damaged."""
        for number in range(self._n_batches):
            yield _ArchiveBatch(self, number)

    @contextmanager
    def reading(self, member: str) -> Iterator[bytes]:
        """Read a member; any error of its content in the ``with`` block is a ConfigError."""
        try:
            info = self._archive.getinfo(member)
            if info.compress_type != zipfile.ZIP_STORED:  # could expand to any size
                raise ValueError("compressed")
            yield self._archive.read(info)
        except _DAMAGES as error:
            detail = f" ({printable(error)})" if type(error) in (ValueError, ConfigError) else ""
            reason = f"is damaged: {member} is not valid{detail}; export it again"
            raise ConfigError(self.name, reason) from error

    def _manifest(self) -> _Manifest:
        if _MANIFEST not in self._archive.namelist():
            raise ConfigError(self.name, _FOREIGN)
        with self.reading(_MANIFEST) as content:
            manifest: Any = parse_json(content)
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise ConfigError(self.name, _FOREIGN)
        if manifest.get("version") != VERSION:
            found = manifest.get("version")
            reason = f"has format version {found}, this astound reads {VERSION}; update astound"
            raise ConfigError(self.name, reason)
        with self.reading(_MANIFEST):
            checked = to_record(_Manifest, manifest)
            require_hop(checked.segment_hop_s)
            for name in ("dim", "n_batches", "n_tracks"):
                count = getattr(checked, name)
                _require(count >= 0, f"invalid {name}={count}: must be 0 or more")
        return checked


class _ArchiveBatch:
    def __init__(self, archive: ArchiveSource, number: int) -> None:
        self._archive, self._members = archive, _members(number)
        with archive.reading(self._members[0]) as content:
            self.tracks = [_new_track(line) for line in content.splitlines()]

    def read(self, number: int) -> StoredVectors:
        settings = self._archive.settings
        return StoredVectors(
            embeddings=quantizer.decode(self._segments[number]),
            clip_embeddings=quantizer.decode(self._clips[number]),
            segment_hop_s=float(settings["segment_hop_s"]),
            recipe_id=settings["recipe_id"],
        )

    @cached_property
    def _segments(self) -> list[Codes]:
        return self._split(self._members[1], [track.n_segments for track in self.tracks])

    @cached_property
    def _clips(self) -> list[Codes]:
        return self._split(self._members[2], [track.n_clips for track in self.tracks])

    def _split(self, member: str, counts: list[int]) -> list[Codes]:
        with self._archive.reading(member) as content:
            array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
            shape = (sum(counts), self._archive.dim)
            is_right = array.dtype == np.int8 and array.shape == shape
            _require(is_right, f"must be 8-bit integers of shape {shape}")
        return np.split(array, list(accumulate(counts))[:-1])


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        require_regular(path)
        return zipfile.ZipFile(path)
    except OSError as error:
        raise ConfigError(printable(path), f"cannot be read ({error.strerror or error})") from error
    except _DAMAGES as error:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
        reason = "is truncated or damaged: its end is missing" if is_zip else _FOREIGN
        raise ConfigError(printable(path), reason) from error


def _new_track(line: bytes) -> NewTrack:
    track = from_line(line)
    for name in ("path", "content_hash"):
        _require(bool(getattr(track, name)), f"invalid {name}: must not be empty")
    for name, least in {"n_segments": 1, "n_clips": 0}.items():
        count = getattr(track, name)
        _require(count >= least, f"invalid {name}={count}: must be at least {least}")
    return track


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise ValueError(reason)
