"""A shard: an immutable folder with a FAISS index, vectors, clip-level vectors, tracks, a header.

There are three kinds:

- "flat": a small shard; queries are compared with every vector, and the index stores the vectors.
- "full": a large shard; short codes are searched, and candidates rescored with stored vectors.
- "codes": a large shard that stores no vectors; they are reconstructed from longer codes.

A shard belongs to the catalog only once the database has a row for it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from engine.config import SearchConfig, require_hop
from engine.errors import NewerShardError, RecipeMismatchError, ShardError
from engine.records import NewTrack, Rows, StoredVectors, Vectors, WrittenShard
from engine.validation import parse_json, to_record
from engine.vectors import quantizer
from engine.vectors.gpu import Gpu
from engine.vectors.storage import ShardStorage
from engine.vectors.track_lines import from_line, to_line
from engine.vectors.vector_file import VectorFile

FORMAT = "astound shard"
VERSION = 4
_OLDEST_VERSION = 3  # without tracks, and therefore impossible to restore

_HEADER, _INDEX, _CLIPS = "header.json", "segments.faiss", "clips.i8"
_VECTORS = "segments.i8"  # of "full"; in "flat" they are in the index
_SILENCE = "silence.bits"  # of "codes", which cannot encode a zero vector
_TRACKS = "tracks.jsonl"
_FILES = {
    "flat": (_INDEX, _CLIPS),
    "full": (_INDEX, _CLIPS, _VECTORS),
    "codes": (_INDEX, _CLIPS, _SILENCE),
}
_MAX_HEADER_BYTES = 1 << 20
_WRITE_BYTES = 1 << 20
_BATCH_ROWS = 65_536
# A flat index rounds the query too, and returns rows slightly out of order.
_FLAT_OVERSAMPLING = 2
# Queries rescored at once: rows that they share are read once.
_BLOCK_QUERIES = 64
_MAX_TABLE_BYTES = 1 << 26
_LIMITED = threading.Lock()


def write_shard(
    storage: ShardStorage,
    recordings: Iterable[StoredVectors],
    trained: faiss.Index | None = None,
    gpu: Gpu | None = None,
    tracks: Sequence[NewTrack] = (),
) -> WrittenShard:
    """Write the vectors of recordings as a new shard.

    Parameters
    ----------
    storage : ShardStorage
    recordings : iterable of StoredVectors
        At least one; all of one recipe and hop. Memory holds no more than 65,536 rows of them at
        once, or one recording.
    trained : faiss.Index, optional
        Index of :func:`engine.vectors.quantizer.train`, which is filled, written and emptied. The
        shard is flat without one.
    gpu : Gpu, optional
        Assigns vectors to the lists of `trained`; the CPU by default.
    tracks : sequence of NewTrack
        The track of each recording, from which its row in the database can be restored. A shard
        without them cannot be restored.

    Returns
    -------
    WrittenShard
        Its rows are in the order of `recordings`.

    Raises
    ------
    ShardError
        A file does not contain what was written.
    OSError
        A file cannot be written, such as on a full disk.
    """
    with storage.create() as (name, folder):
        header, rows, index_hash = _write_rows(folder, recordings, trained, gpu)
        (folder / _TRACKS).write_text("".join(map(to_line, tracks)), "utf-8")
        files = (*_FILES[header["kind"]], _TRACKS)
        header["sha256"] = {file: _sha256(folder / file) for file in files}
        if header["sha256"][_INDEX] != index_hash:
            raise ShardError(folder / _INDEX, "does not contain what was written; check the disk")
        (folder / _HEADER).write_text(json.dumps(header, indent=1))
        n_bytes = sum(file.stat().st_size for file in folder.iterdir())
    return WrittenShard(name=name, recipe_id=header["recipe_id"], n_bytes=n_bytes, rows=rows)


def _write_rows(
    folder: Path,
    recordings: Iterable[StoredVectors],
    trained: faiss.Index | None,
    gpu: Gpu | None,
) -> tuple[dict[str, Any], tuple[Rows, ...], str]:
    """Write all files but the tracks and the header; return header, rows, hash of the index."""
    kind = "flat" if trained is None else quantizer.storage_of(trained)
    index, first = trained, None
    counts: list[tuple[int, int]] = []
    silent: list[NDArray[np.bool_]] = []
    with (folder / _CLIPS).open("wb") as clips, (folder / _VECTORS).open("wb") as vectors:
        for batch in _batches(recordings):
            first = first or batch[0]
            codes = quantizer.encode(np.concatenate([one.embeddings for one in batch]))
            index = quantizer.flat_index(codes.shape[1]) if index is None else index
            if kind == "flat":
                index.add(codes.astype(np.float32))
            else:
                quantizer.add(index, quantizer.decode(codes), gpu)
            silent.append(np.asarray(~codes.any(axis=1)))
            if kind == "full":
                vectors.write(codes.tobytes())
            for one in batch:
                clips.write(quantizer.encode(one.clip_embeddings).tobytes())
                counts.append((len(one.embeddings), len(one.clip_embeddings)))
    assert first is not None
    assert index is not None
    index_hash = _write_index(index, folder / _INDEX)
    if kind == "codes":
        np.packbits(np.concatenate(silent)).tofile(folder / _SILENCE)
    if kind != "full":
        (folder / _VECTORS).unlink()
    if trained is not None:
        trained.reset()
    header = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "recipe_id": first.recipe_id,
        "segment_hop_s": first.segment_hop_s,
        "n_segments": sum(n_segments for n_segments, _ in counts),
        "n_clips": sum(n_clips for _, n_clips in counts),
        "dim": first.embeddings.shape[1],
    }
    return header, _consecutive_rows(counts), index_hash


def _write_index(index: faiss.Index, path: Path) -> str:
    """Write an index through a Python file, for FAISS's hide a full disk; return its SHA-256."""
    written, failures = hashlib.sha256(), []
    with path.open("wb") as file:

        def write(part: bytes) -> int:
            try:
                file.write(part)
            except BaseException as error:  # FAISS would replace it with its own
                failures.append(error)
                raise
            written.update(part)
            return len(part)

        try:
            callback: Any = faiss.PyCallbackIOWriter  # type: ignore[attr-defined]
            faiss.write_index(index, callback(write, _WRITE_BYTES))
        except BaseException as error:
            raise (failures or [error])[0] from error
        if failures:
            raise failures[0]
    return written.hexdigest()


def _consecutive_rows(counts: Iterable[tuple[int, int]]) -> tuple[Rows, ...]:
    rows: list[Rows] = []
    first_row = first_clip = 0
    for n_segments, n_clips in counts:
        rows.append(Rows(first_row, n_segments, first_clip, n_clips))
        first_row, first_clip = first_row + n_segments, first_clip + n_clips
    return tuple(rows)


def _batches(recordings: Iterable[StoredVectors]) -> Iterator[Sequence[StoredVectors]]:
    batch: list[StoredVectors] = []
    for one in recordings:
        batch.append(one)
        if sum(len(each.embeddings) for each in batch) >= _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


class Shard:
    """An open shard.

    Parameters
    ----------
    path : Path
        Its folder.

    Raises
    ------
    ShardError
        A file is missing or truncated, or the format is not known.
    NewerShardError
        A newer astound wrote it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = read_header(path)
        self.kind: str = self.header["kind"]
        self._index: Any = _load_index(path / _INDEX, self.header)
        self._clips = VectorFile(path / _CLIPS, self.n_clips, self.dim)
        if self.kind == "flat":
            # A view of the memory of the index, which must live as long as the view.
            raw = faiss.rev_swig_ptr(self._index.codes.data(), self._index.codes.size())
            self._codes: NDArray[np.uint8] = raw.reshape(self.n_segments, self.dim)
        elif self.kind == "full":
            self._vectors = VectorFile(path / _VECTORS, self.n_segments, self.dim)
        else:
            self._silent = _load_bits(path / _SILENCE, self.n_segments)

    @property
    def n_segments(self) -> int:
        """Number of frame-level vectors."""
        return int(self.header["n_segments"])

    @property
    def n_clips(self) -> int:
        """Number of clip-level vectors."""
        return int(self.header["n_clips"])

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.header["dim"])

    @property
    def segment_hop_s(self) -> float:
        """Distance of its segments in seconds."""
        return float(self.header["segment_hop_s"])

    @property
    def nlist(self) -> int:
        """Number of lists; 0 for a flat shard."""
        return 0 if self.kind == "flat" else int(quantizer.lists_of(self._index).nlist)

    def read_trained(self) -> faiss.Index | None:
        """Read its trained index without vectors, for a new shard; None for a flat shard."""
        if self.kind == "flat":
            return None
        index: faiss.Index = _read_index(self.path / _INDEX)
        index.reset()
        return index

    def require_recipe(self, recipe_id: str) -> None:
        """Raise RecipeMismatchError unless the shard was made with this recipe."""
        if self.header["recipe_id"] != recipe_id:
            raise RecipeMismatchError(
                recipe_id, self.header["recipe_id"], f"shard {self.path.name}"
            )

    def candidates(
        self,
        queries: Vectors,
        k: int,
        alive: NDArray[np.bool_] | None = None,
        *,
        n_rescored: int = SearchConfig.n_rescored,
        nprobe: int | None = None,
    ) -> NDArray[np.int64]:
        """Find rows among which the k nearest are, to be rescored with :meth:`cosines`.

        Parameters
        ----------
        queries : float32 array of shape (n_queries, dim), unit norm
        k : int
        alive : bool array of shape (n_segments,), optional
            Rows that may be found; all by default.
        n_rescored : int
            Least number of candidates in a large shard.
        nprobe : int, optional
            Lists scanned in a large shard; chosen by their number by default.

        Returns
        -------
        int64 array of shape (n_queries, n)
            n is at least k. The order is undefined, and -1 stands for no row.
        """
        is_flat = self.kind == "flat"
        n = _FLAT_OVERSAMPLING * k if is_flat else max(k, n_rescored)
        rounded = quantizer.encode(queries).astype(np.float32) if is_flat else queries
        params, _referenced = self._search_parameters(alive, nprobe)
        _, rows = self._index.search(np.ascontiguousarray(rounded), n, params=params)
        return np.asarray(rows, np.int64)

    def cosines(self, queries: Vectors, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute the exact cosines of queries with stored vectors.

        Parameters
        ----------
        queries : float32 array of shape (n_queries, dim), unit norm
        rows : int64 array of shape (n_queries, n)
            Rows to compare each query with; -1 for no row.

        Returns
        -------
        float32 array of shape (n_queries, n)
            -inf for no row.
        """
        cosines = np.empty(rows.shape, np.float32)
        for first in range(0, len(queries), _BLOCK_QUERIES):
            block = slice(first, first + _BLOCK_QUERIES)
            # Neighbouring segments of a query overlap, so they share many rows.
            unique, at = np.unique(rows[block].clip(min=0), return_inverse=True)
            cosines[block] = quantizer.inner_products(
                queries[block], self._read_rows(unique), at.reshape(rows[block].shape)
            )
        return np.where(rows >= 0, cosines, np.float32(-np.inf))

    def vectors(self, first_row: int, n_rows: int) -> Vectors:
        """Read stored vectors.

        Returns
        -------
        float32 array of shape (n_rows, dim)
            All zeros for a silent segment.
        """
        last = min(first_row + n_rows, self.n_segments)
        if self.kind == "codes":
            return self._reconstruct(np.arange(first_row, last))
        if self.kind == "flat":
            return _decode_unsigned(self._codes[first_row:last])
        return quantizer.decode(self._vectors.read(first_row, last))

    def clips(self, first_clip: int = 0, n_clips: int | None = None) -> Vectors:
        """Read clip-level vectors, all by default.

        Returns
        -------
        float32 array of shape (n_clips, dim)
        """
        last = self.n_clips if n_clips is None else min(first_clip + n_clips, self.n_clips)
        return quantizer.decode(self._clips.read(first_clip, last))

    def tracks(self) -> list[NewTrack]:
        """Read the tracks as they were when the shard was written, in the order of its rows.

        Raises
        ------
        ShardError
            The shard has none, as those of format version 3, or they are damaged.
        """
        path = self.path / _TRACKS
        try:
            tracks = [from_line(line) for line in path.read_bytes().splitlines()]
        except OSError as error:
            raise ShardError(path, f"cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise ShardError(path, f"is damaged: {error}") from error
        counts = [sum(getattr(one, key) for one in tracks) for key in ("n_segments", "n_clips")]
        if counts != [self.n_segments, self.n_clips]:
            raise ShardError(path, "does not have the tracks of all segments")
        return tracks

    def damage(self) -> list[str]:
        """Compare the files with their hashes; return a message for each damaged file."""
        return [
            f"{self.path / file}: content has changed since it was written"
            for file, expected in self.header["sha256"].items()
            if _sha256(self.path / file) != expected
        ]

    def _search_parameters(
        self, alive: NDArray[np.bool_] | None, nprobe: int | None
    ) -> tuple[faiss.SearchParameters, object]:
        """Return FAISS's parameters, and what they refer to, which must live as long."""
        is_flat = self.kind == "flat"
        params: Any = faiss.SearchParameters() if is_flat else faiss.SearchParametersIVF()
        bits = None
        if alive is not None:
            bits = np.packbits(alive, bitorder="little")
            params.sel = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        if is_flat:
            return params, bits
        params.nprobe = min(nprobe or quantizer.choose_nprobe(self.nlist), self.nlist)
        outer: Any = faiss.SearchParametersPreTransform
        return outer(index_params=params), (params, bits)

    def _read_rows(self, rows: NDArray[np.int64]) -> Vectors:
        """Read the vectors of rows in rising order."""
        if self.kind == "codes":
            return self._reconstruct(rows)
        if self.kind == "flat":
            return _decode_unsigned(self._codes[rows])
        return quantizer.decode(self._vectors.read_rows(rows))

    def _reconstruct(self, rows: NDArray[np.int64]) -> Vectors:
        """Reconstruct vectors from their codes."""
        vectors: Vectors = self._index.reconstruct_batch(rows)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-6)
        vectors[self._silent[rows]] = 0
        return vectors


def _decode_unsigned(codes: NDArray[np.uint8]) -> Vectors:
    """Decode codes as FAISS stores them: signed bytes as unsigned ones, 128 higher."""
    return quantizer.decode((codes ^ 128).view(np.int8))


def read_header(path: Path) -> dict[str, Any]:
    """Read the header of a shard; ShardError, or NewerShardError, if it is not valid."""
    try:
        with (path / _HEADER).open("rb") as file:
            header: Any = parse_json(file.read(_MAX_HEADER_BYTES))
    except (OSError, ValueError) as error:
        raise ShardError(path, f"header cannot be read ({error})") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ShardError(path, "not an astound shard")
    version = header.get("version")
    if type(version) is int and version > VERSION:
        raise NewerShardError(path, version, VERSION)
    if type(version) is not int or version < _OLDEST_VERSION:
        reason = f"format version {version!r}, this astound reads {_OLDEST_VERSION} to {VERSION}"
        raise ShardError(path, f"{reason}; add the files to a new catalog")
    try:
        return _checked(header)
    except ValueError as error:
        raise ShardError(path / _HEADER, str(error)) from error


@dataclass(frozen=True, kw_only=True)
class _Header:
    format: str
    version: int
    kind: str
    recipe_id: str
    segment_hop_s: float
    n_segments: int
    n_clips: int
    dim: int
    sha256: Mapping[str, str]


def _checked(header: object) -> dict[str, Any]:
    values = vars(to_record(_Header, header))
    if values["kind"] not in _FILES:
        raise ValueError(f"invalid kind={values['kind']!r}: must be one of {', '.join(_FILES)}")
    require_hop(values["segment_hop_s"])
    for name, least in {"n_segments": 1, "n_clips": 0, "dim": 1}.items():
        if values[name] < least:
            raise ValueError(f"invalid {name}={values[name]!r}: must be at least {least}")
    files = {*_FILES[values["kind"]], *((_TRACKS,) if values["version"] >= VERSION else ())}
    if values["sha256"].keys() != files:
        raise ValueError(f"invalid sha256: must name {', '.join(sorted(files))}")
    return values


def _load_bits(path: Path, n_bits: int) -> NDArray[np.bool_]:
    try:
        packed = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ShardError(path, f"cannot be read ({error.strerror})") from error
    if len(packed) != (expected := -(-n_bits // 8)):
        raise ShardError(path, f"has {len(packed)} bytes, but the header states {expected}")
    return np.unpackbits(packed, count=n_bits).astype(np.bool_)


def _load_index(path: Path, header: dict[str, Any]) -> Any:
    try:
        index = _read_index(path)
    except OSError as error:
        raise ShardError(path, f"cannot be read ({error.strerror})") from error
    except (RuntimeError, MemoryError) as error:
        raise ShardError(path, "cannot be read: truncated or not a FAISS index") from error
    is_flat = isinstance(index, faiss.IndexScalarQuantizer)
    if (
        is_flat != (header["kind"] == "flat")
        or index.ntotal != header["n_segments"]
        or index.d != header["dim"]
    ):
        raise ShardError(path, "does not hold the vectors that the header states")
    if header["kind"] == "codes":
        quantizer.lists_of(index).make_direct_map()
    return index


def _read_index(path: Path) -> Any:
    """Read an index; RuntimeError or MemoryError if it is damaged.

    FAISS would allocate what a damaged size states. Nothing in an index is larger than its file,
    except tables of a small one. The limit is one for all threads.
    """
    with _LIMITED:
        faiss.set_deserialization_vector_byte_limit(path.stat().st_size + _MAX_TABLE_BYTES)
        return faiss.read_index(str(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
