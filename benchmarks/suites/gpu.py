"""GPU: time to train, fill and search large shards, compared with FAISS's IVF-PQ on the CPU.

All vectors are synthetic and drawn one batch at a time, in bounded memory. Queries are stored
vectors with noise. Each search probes the fewest lists that reach the required recall.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from astound.storage import DATABASE_FILE, local_shards
from benchmarks.metrics.exact import ExactIndex, share_found
from benchmarks.queries.distractors import TRACK_SEGMENTS, Distractors
from benchmarks.queries.synthetic import SyntheticBatch, SyntheticTracks
from benchmarks.reports.report import table, write
from benchmarks.runs.progress import log
from benchmarks.runs.provenance import provenance
from engine.errors import ConfigError
from engine.records import POSITION_BITS, Hits, Placement, StoredVectors, Vectors
from engine.store.store import Store
from engine.vectors import quantizer
from engine.vectors.gpu import Gpu, find_gpu
from engine.vectors.index import Index
from engine.vectors.shard import Shard, write_shard
from engine.vectors.storage import LocalStorage
from indexer.sources import CatalogSource

TOP_K = 10
_MIN_RECALL = 0.95
_BATCH = 40
"""Segments of a query of five seconds."""
_NOISE = 0.75
"""Norm of the noise in a query; the cosine of query and stored segment is about 0.8."""
_BLOCK_ROWS = 65_536
_MIN_VECTORS = 20_000
_SHARD_BATCHES = 20
"""Batches of 200,000 vectors in a shard, which is the size that compaction makes."""

Search = Callable[[Vectors], Hits]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class GpuConfig:
    """Settings of the benchmark.

    Parameters
    ----------
    distractors_from : Path
        A catalog of music to fit the synthetic vectors to.
    out : Path
        JSON file to write.
    n_vectors : int
    n_queries : int
    work : Path or None
        Folder for shards, removed afterwards; beside `out` by default.
    seed : int
    device : {"auto", "cpu", "cuda"}
    """

    distractors_from: Path
    out: Path
    n_vectors: int = 100_000_000
    n_queries: int = 200
    work: Path | None = None
    seed: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        for key, least in (("n_vectors", _MIN_VECTORS), ("n_queries", 1)):
            if (value := getattr(self, key)) < least:
                raise ConfigError.invalid(key, value, f"must be at least {least}")

    @property
    def work_folder(self) -> Path:
        """Folder of the shards."""
        return self.work or self.out.with_suffix(".work")


def run(config: GpuConfig) -> dict[str, Any]:
    """Run the benchmark, write the results as JSON and return them.

    Raises
    ------
    AstoundError
        The catalog cannot be read, or contains too little music.
    """
    device = find_gpu(config.device)
    shards = _Shards(config, device)
    try:
        results = {
            **provenance(),
            "has_gpu": device is not None,
            "n_vectors": shards.n_vectors,
            "n_queries": config.n_queries,
            "seed": config.seed,
            "top_k": TOP_K,
            "build": shards.build(),
        }
        results["searches"] = _Searches(config, shards, device).measure(results["build"])
    finally:
        shutil.rmtree(shards.storage.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty
            shards.storage.folder.parent.rmdir()
    results["table"] = _build_table(results)
    results["tables"] = {"searches": _searches_table(results)}
    write(config.out, results)
    return results


class _Shards:
    """Synthetic tracks in large shards on disk."""

    def __init__(self, config: GpuConfig, device: Gpu | None) -> None:
        self.storage = LocalStorage(config.work_folder / "shards")
        self.seed, self.device = config.seed, device
        folder = config.distractors_from
        with Store.open(folder / DATABASE_FILE) as store:
            source = CatalogSource(f"catalog {folder}", store, local_shards(folder))
            embeddings = [
                batch.read(i).embeddings
                for batch in source.batches()
                for i in range(len(batch.tracks))
            ]
            distractors = Distractors.fit(embeddings, config.seed)
            self.tracks = SyntheticTracks.filling(
                config.n_vectors, distractors, source.settings, config.seed
            )
        self.recipe_id = self.tracks.settings["recipe_id"]
        self.n_vectors = self.tracks.n_tracks * TRACK_SEGMENTS
        self.placements: list[Placement] = []

    def train(self, storage: quantizer.Storage) -> tuple[float, Any]:
        """Train an index; return the seconds taken and the index."""
        sample = self._sample()
        return _timed(
            lambda: quantizer.train(sample, self.n_vectors, storage, self.seed, self.device)
        )

    def _sample(self) -> Vectors:
        """Draw vectors to train on, not among those that are stored."""
        n = quantizer.N_TRAINING_PER_LIST * quantizer.choose_nlist(self.n_vectors)
        other = SyntheticTracks(self.tracks.distractors, self.tracks.settings, 0, self.seed + 1)
        parts: list[Vectors] = []
        while sum(map(len, parts)) < n:
            parts.append(np.concatenate(other.draw(len(parts))))
        return np.concatenate(parts)[:n]

    def build(self) -> dict[str, float]:
        """Train and write the shards.

        Returns
        -------
        dict
            train_s; write_s, without drawing vectors; n_bytes on disk.
        """
        train_s, trained = self.train("full")
        start, n_bytes = time.perf_counter(), 0
        batches = self.tracks.batches()
        while (n_before := len(self.placements)) < self.tracks.n_tracks:
            recordings = _recordings(islice(batches, _SHARD_BATCHES))
            written = write_shard(self.storage, recordings, trained, self.device)
            n_bytes += written.n_bytes
            self.placements += written.placements(range(n_before, n_before + len(written.rows)))
            log(f"wrote {len(self.placements) * TRACK_SEGMENTS:,} of {self.n_vectors:,} vectors")
        write_s = time.perf_counter() - start - self.tracks.draw_s
        return {"train_s": train_s, "write_s": write_s, "n_bytes": n_bytes}

    def blocks(self) -> Iterator[Vectors]:
        """Yield all stored vectors in the order of track ids."""
        for name in dict.fromkeys(placement.shard for placement in self.placements):
            shard = Shard(self.storage.path(name))
            for first in range(0, shard.n_segments, _BLOCK_ROWS):
                yield shard.vectors(first, _BLOCK_ROWS)


def _recordings(batches: Iterable[SyntheticBatch]) -> Iterator[StoredVectors]:
    for batch in batches:
        for number in range(len(batch.tracks)):
            yield batch.read(number)


class _Searches:
    """The same queries, searched in several ways."""

    def __init__(self, config: GpuConfig, shards: _Shards, device: Gpu | None) -> None:
        self.shards, self.device = shards, device
        self.on_cpu = self._index(None)
        rng = np.random.default_rng([config.seed, 1])
        self.queries = self._noisy(rng, config.n_queries)
        log("exact search")
        exact = ExactIndex(shards.storage, shards.placements, shards.recipe_id)
        self.exact = exact.search(self.queries, TOP_K)

    def _index(self, device: Gpu | None) -> Index:
        return Index(self.shards.storage, self.shards.placements, self.shards.recipe_id, device)

    def _noisy(self, rng: np.random.Generator, n: int) -> Vectors:
        chosen = rng.integers(self.shards.n_vectors, size=n).tolist()
        places = [divmod(one, TRACK_SEGMENTS) for one in chosen]
        stored = [self.on_cpu.vectors(track, at, at + 1) for track, at in places]
        vectors = np.concatenate(stored)
        noise = rng.standard_normal(vectors.shape, np.float32) / np.sqrt(vectors.shape[1])
        vectors = vectors + np.float32(_NOISE) * noise.astype(np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def measure(self, build: dict[str, float]) -> list[dict[str, Any]]:
        """Measure each search; add the build time of FAISS's own index to `build`."""
        rows = []
        if self.device is not None:
            index = self._index(self.device)
            load_s, _ = _timed(lambda: index.search(self.queries[:1], TOP_K))
            build["load_s"] = load_s
            rows.append(self._row("GPU, all vectors", None, lambda q: index.search(q, TOP_K)))
        rows.append(self._fewest_lists("astound, CPU", self._with_lists))
        build["ivf_pq_s"], index_pq = _timed(self._ivf_pq)
        rows.append(self._fewest_lists("IVF-PQ, CPU", lambda n: _in_lists(index_pq, n)))
        return rows

    def _with_lists(self, n_probe: int) -> Search:
        return lambda queries: self.on_cpu.search(queries, TOP_K, nprobe=n_probe)

    def _ivf_pq(self) -> Any:
        """Build FAISS's own IVF-PQ of all vectors."""
        _, index = self.shards.train("codes")
        for block in self.shards.blocks():
            quantizer.add(index, block, self.device)
            log(f"IVF-PQ: {index.ntotal:,} of {self.shards.n_vectors:,} vectors")
        return index

    def _fewest_lists(self, name: str, search: Callable[[int], Search]) -> dict[str, Any]:
        """Double the number of probed lists until the recall is reached or all are probed."""
        n_lists, n_probe = quantizer.choose_nlist(self.shards.n_vectors), 4
        row: dict[str, Any] = {}
        while n_probe < n_lists and row.get("recall", 0.0) < _MIN_RECALL:
            n_probe *= 2
            row = self._row(name, n_probe, search(n_probe))
        return row

    def _row(self, name: str, n_probe: int | None, search: Search) -> dict[str, Any]:
        firsts = range(0, len(self.queries), _BATCH)
        batches = [self.queries[first : first + _BATCH] for first in firsts]
        search(batches[0])  # warm up
        seconds, found = _timed(lambda: [search(one) for one in batches])
        addresses = np.concatenate([one.addresses for one in found])
        cosines = np.concatenate([one.cosines for one in found])
        recall = share_found(self.exact, Hits(addresses=addresses, cosines=cosines))
        log(f"{name}: recall {recall:.3f} with {n_probe or 'no'} lists")
        return {
            "name": name,
            "n_probe": n_probe,
            "recall": recall,
            "queries_per_s": len(self.queries) / seconds,
        }


def _in_lists(index: Any, n_probe: int) -> Search:
    def search(queries: Vectors) -> Hits:
        quantizer.lists_of(index).nprobe = n_probe
        cosines, rows = index.search(queries, TOP_K)
        addresses = rows // TRACK_SEGMENTS << POSITION_BITS | rows % TRACK_SEGMENTS
        return Hits(addresses=addresses, cosines=cosines)

    return search


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _build_table(results: dict[str, Any]) -> str:
    rows = [
        [what.replace("_", " "), f"{value:,.1f}" if what.endswith("_s") else f"{value:,}"]
        for what, value in results["build"].items()
    ]
    return table([f"{results['n_vectors']:,} vectors", "value"], rows)


def _searches_table(results: dict[str, Any]) -> str:
    rows = [
        [
            row["name"],
            "all" if row["n_probe"] is None else f"{row['n_probe']:,}",
            f"{row['recall']:.3f}",
            f"{row['queries_per_s']:,.0f}",
        ]
        for row in results["searches"]
    ]
    return table(["search", "lists", f"recall of {TOP_K}", "query segments/s"], rows)
