"""One immutable file group: a FAISS index, the clip-level vectors and a header.

The flat index stores float16 vectors and is their only copy: search and exact rescoring read the
same bytes. A shard is written under a temporary name, synced and renamed; it counts as existing
only once the database has a row for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from engine.errors import RecipeMismatchError, ShardError
from engine.records import Fingerprint, Vectors

FORMAT = "astound shard"
VERSION = 1
PARTIAL_PREFIX = ".partial-"

_HEADER_KEYS = {"recipe_id", "segment_hop_s", "n_segments", "n_clips", "dim", "sha256"}
_HEADER, _INDEX, _CLIPS = "header.json", "segments.faiss", "clips.npy"


def write_shard(folder: Path, fingerprints: Sequence[Fingerprint]) -> tuple[str, int]:
    """Write fingerprints as a new shard.

    Parameters
    ----------
    folder : Path
        The catalog's folder of shards.
    fingerprints : sequence of Fingerprint
        At least one; all of one recipe and hop. Their rows follow each other in this order.

    Returns
    -------
    name : str
    n_bytes : int
        What it takes on disk.
    """
    name = uuid.uuid4().hex
    partial = folder / f"{PARTIAL_PREFIX}{name}"
    partial.mkdir(parents=True)
    vectors = np.concatenate([one.embeddings for one in fingerprints])
    clips = np.concatenate([one.clip_embeddings for one in fingerprints])
    faiss.write_index(_flat_index(vectors), str(partial / _INDEX))
    np.save(partial / _CLIPS, clips.astype(np.float16))
    header = {
        "format": FORMAT,
        "version": VERSION,
        "recipe_id": fingerprints[0].recipe_id,
        "segment_hop_s": fingerprints[0].segment_hop_s,
        "n_segments": len(vectors),
        "n_clips": len(clips),
        "dim": vectors.shape[1],
        "sha256": {file: _sha256(partial / file) for file in (_INDEX, _CLIPS)},
    }
    (partial / _HEADER).write_text(json.dumps(header, indent=1))
    _sync(partial)
    partial.rename(folder / name)
    _sync_folder(folder)
    return name, sum(file.stat().st_size for file in (folder / name).iterdir())


def sweep(folder: Path, known: set[str]) -> list[str]:
    """Delete what a crash left behind: every shard the database does not know.

    Returns
    -------
    list of str
        Names of the removed folders.
    """
    orphans = [entry for entry in folder.iterdir() if entry.is_dir() and entry.name not in known]
    for orphan in orphans:
        shutil.rmtree(orphan)
    return [orphan.name for orphan in orphans]


class Shard:
    """An open shard.

    Parameters
    ----------
    path : Path
        Its folder.

    Raises
    ------
    ShardError
        A file is missing, truncated, or not a shard of a known version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = _read_header(path)
        self.clips: NDArray[np.float16] = _load_clips(path / _CLIPS, self.header)
        self._index = _load_index(path / _INDEX, self.header)
        # A view into the index's own memory, which therefore must live as long as this object.
        codes = faiss.rev_swig_ptr(self._index.codes.data(), self._index.codes.size())
        self._vectors = codes.view(np.float16).reshape(self.n_segments, self.header["dim"])

    @property
    def n_segments(self) -> int:
        """Number of frame-level vectors."""
        return int(self.header["n_segments"])

    @property
    def segment_hop_s(self) -> float:
        """Distance of its segments in seconds."""
        return float(self.header["segment_hop_s"])

    def require_recipe(self, recipe_id: str) -> None:
        """Raise RecipeMismatchError unless the shard was made with this recipe."""
        if self.header["recipe_id"] != recipe_id:
            raise RecipeMismatchError(
                recipe_id, self.header["recipe_id"], f"shard {self.path.name}"
            )

    def search(
        self, queries: Vectors, top_k: int, alive: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the nearest stored vectors.

        Parameters
        ----------
        queries : float32 array of shape (n_queries, dim), unit norm
        top_k : int
        alive : bool array of shape (n_segments,), optional
            Rows that may be found; all by default.

        Returns
        -------
        rows : int64 array of shape (n_queries, top_k)
            -1 where there are fewer.
        cosines : float32 array of shape (n_queries, top_k)
        """
        params = None
        if alive is not None:
            bits = np.packbits(alive, bitorder="little")  # lives as long as the selector reads it
            params = faiss.SearchParameters()
            params.sel = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        cosines, rows = self._index.search(np.ascontiguousarray(queries), top_k, params=params)
        return rows, cosines

    def vectors(self, first_row: int, n_rows: int) -> Vectors:
        """Read stored vectors.

        Returns
        -------
        float32 array of shape (n_rows, dim)
        """
        return self._vectors[first_row : first_row + n_rows].astype(np.float32)

    def damage(self) -> list[str]:
        """Compare the files with the hashes in the header; one line for each that differs."""
        return [
            f"{self.path / file}: its bytes have changed since it was written"
            for file, expected in self.header["sha256"].items()
            if _sha256(self.path / file) != expected
        ]


def _flat_index(vectors: Vectors) -> faiss.IndexScalarQuantizer:
    index = faiss.IndexScalarQuantizer(
        vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    index.train(vectors[:1])
    index.add(vectors)
    return index


def _read_header(path: Path) -> dict[str, Any]:
    try:
        header: Any = json.loads((path / _HEADER).read_text())
    except (OSError, ValueError) as error:
        raise ShardError(path, f"its header cannot be read ({error})") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ShardError(path, "not an astound shard")
    if header.get("version") != VERSION:
        raise ShardError(
            path, f"format version {header.get('version')}; this astound reads {VERSION}"
        )
    if missing := _HEADER_KEYS - header.keys():
        raise ShardError(path, f"its header lacks {', '.join(sorted(missing))}")
    return dict(header)


def _load_clips(path: Path, header: dict[str, Any]) -> NDArray[np.float16]:
    try:
        clips: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, SyntaxError, TokenError) as error:
        raise ShardError(path, f"cannot be read ({error})") from error
    if clips.shape != (header["n_clips"], header["dim"]):
        raise ShardError(path, f"has shape {clips.shape}, its header says otherwise")
    return clips


def _load_index(path: Path, header: dict[str, Any]) -> faiss.IndexScalarQuantizer:
    try:
        index = faiss.read_index(str(path))
    except (RuntimeError, MemoryError) as error:
        raise ShardError(path, "cannot be read: truncated or not a FAISS index") from error
    if (
        not isinstance(index, faiss.IndexScalarQuantizer)
        or index.ntotal != header["n_segments"]
        or index.d != header["dim"]
    ):
        raise ShardError(path, "does not hold the vectors its header promises")
    return index


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    for entry in folder.iterdir():
        with entry.open("rb") as file:
            os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
