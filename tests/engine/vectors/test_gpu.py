"""Training, filling and searching on a GPU against the same on the CPU and brute force."""

from __future__ import annotations

import functools
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.records import NO_ADDRESS, Fingerprint, Placement, Vectors, address
from engine.vectors import quantizer
from engine.vectors.gpu import MAX_K, GpuIndex, find_gpu
from engine.vectors.index import Index
from engine.vectors.quantizer import Storage
from engine.vectors.shard import Shard, write_shard
from engine.vectors.storage import LocalStorage
from tests.gpus import BOTH, OnCpu, gpu

DIM = 16
N_EACH = 200
N_TRACKS = 12
KINDS = ("flat", "full", "codes")


def music(number: int, n: int = N_EACH) -> Vectors:
    """Vectors that wander, one of them silent."""
    steps = np.random.default_rng(number).standard_normal((n, DIM)).cumsum(axis=0)
    vectors = steps.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[7] = 0
    return vectors


def queries(n: int = 40) -> Vectors:
    """Vectors near to some tracks' own."""
    found = music(3, n + 8)[8:] + 0.1 * music(4, n + 8)[8:]
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


@functools.cache
def _trained(storage: Storage) -> NDArray[np.uint8]:
    sample = np.concatenate([music(number) for number in range(N_TRACKS)])
    heard = sample[sample.any(axis=1)]
    return faiss.serialize_index(quantizer.train(heard, len(heard), storage))


def trained(storage: Storage) -> faiss.Index:
    return faiss.deserialize_index(_trained(storage))


class Stored:
    """Tracks in a shard of each kind."""

    def __init__(self, folder: Path, kinds: tuple[str, ...] = KINDS) -> None:
        self.shards = LocalStorage(folder)
        self.placements: list[Placement] = []
        for kind in kinds:
            first = len(self.placements)
            numbers = range(first, first + N_TRACKS // len(kinds))
            self._write([music(number) for number in numbers], first, kind)

    def _write(self, tracks: list[Vectors], first: int, kind: str) -> None:
        index = None if kind == "flat" else trained("full" if kind == "full" else "codes")
        written = write_shard(self.shards, map(_fingerprint, tracks), index)
        self.placements += written.placements(range(first, first + len(tracks)))

    def living(self, without: tuple[int, ...]) -> list[Placement]:
        return [one for one in self.placements if one.track_id not in without]

    def nearest(
        self, asked: Vectors, n: int, without: tuple[int, ...] = ()
    ) -> tuple[Vectors, dict[int, Vectors]]:
        """Compare with all that lives: the greatest cosines, and those of each address."""
        alive = self.living(without)
        numbers = [address(one.track_id, 0) + np.arange(one.n_segments) for one in alive]
        stored = [
            Shard(self.shards.path(one.shard)).vectors(one.first_row, one.n_segments)
            for one in alive
        ]
        cosines = asked @ np.concatenate(stored).T
        of_all = dict(zip(np.concatenate(numbers).tolist(), cosines.T, strict=True))
        return -np.sort(-cosines, axis=1)[:, :n], of_all


def _fingerprint(embeddings: Vectors) -> Fingerprint:
    return Fingerprint(
        embeddings=embeddings,
        clip_embeddings=embeddings[:1],
        segment_hop_s=0.5,
        segment_s=1.0,
        duration_s=len(embeddings) * 0.5 + 0.5,
        recipe_id="recipe",
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return Stored(tmp_path_factory.mktemp("gpu"))


# -- finding one ---------------------------------------------------------------------------------


def test_find_gpu_for_the_cpu_is_none(caplog: pytest.LogCaptureFixture) -> None:
    assert find_gpu("cpu") is None
    assert not caplog.records


@pytest.mark.skipif(faiss.get_num_gpus() > 0, reason="FAISS has a GPU here")
@pytest.mark.parametrize(("device", "n_warnings"), [("auto", 0), ("cuda", 1)])
def test_find_gpu_without_a_gpu_warns_for_cuda_only(
    caplog: pytest.LogCaptureFixture, device: str, n_warnings: int
) -> None:
    with caplog.at_level(logging.WARNING):
        assert find_gpu(device) is None
    assert ["astound[gpu]" in one.message for one in caplog.records] == [True] * n_warnings


# -- searching -----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("without", [(), (1, 5), (0, 1, 2, 3), (3, 4, 11)])
@pytest.mark.parametrize("k", [1, 20])
def test_search_equals_brute_force_over_the_given_tracks(
    stored: Stored, kind: str, k: int, without: tuple[int, ...]
) -> None:
    index = Index(stored.shards, stored.living(without), "recipe", gpu(kind))
    hits = index.search(queries(), k)
    cosines, of_all = stored.nearest(queries(), k, without)
    np.testing.assert_allclose(hits.cosines, cosines, atol=1e-6)
    for i, found in enumerate(hits.addresses.tolist()):
        assert len(set(found)) == k
        np.testing.assert_allclose([of_all[one][i] for one in found], cosines[i], atol=1e-6)


@BOTH
def test_search_for_more_than_all_rows_pads_with_no_address(tmp_path: Path, kind: str) -> None:
    few = Stored(tmp_path, ("flat",))
    alive = few.placements[1:3]  # rows that live begin behind one that does not
    hits = Index(LocalStorage(tmp_path), alive, "recipe", gpu(kind)).search(
        queries(3), 2 * N_EACH + 5
    )
    assert hits.addresses.shape == hits.cosines.shape == (3, 2 * N_EACH + 5)
    assert (hits.addresses[:, -5:] == NO_ADDRESS).all()
    assert all(len(np.unique(one)) == 2 * N_EACH + 1 for one in hits.addresses)


@BOTH
@pytest.mark.parametrize("n_queries", [0, 4])
def test_search_of_an_empty_catalog_finds_nothing(
    tmp_path: Path, kind: str, n_queries: int
) -> None:
    hits = Index(LocalStorage(tmp_path), [], "recipe", gpu(kind)).search(queries(4)[:n_queries], 20)
    assert hits.addresses.shape == (n_queries, 20)
    assert (hits.addresses == NO_ADDRESS).all()


def test_search_without_queries_finds_nothing(stored: Stored) -> None:
    index = Index(stored.shards, stored.placements, "recipe", OnCpu())
    assert index.search(np.zeros((0, DIM), np.float32), 5).addresses.shape == (0, 5)


def test_search_for_more_than_max_k_runs_on_the_cpu(stored: Stored) -> None:
    index = Index(stored.shards, stored.placements, "recipe", OnCpu())
    assert index.search(queries(2), MAX_K + 1).cosines.shape == (2, MAX_K + 1)


def test_narrowed_index_finds_its_tracks_only(stored: Stored) -> None:
    index = Index(stored.shards, stored.placements, "recipe", OnCpu()).among([2, 9])
    found = index.search(queries(5), 30).addresses
    assert set(np.unique(found >> 24)) <= {2, 9}


@BOTH
def test_search_from_many_threads_equals_brute_force(stored: Stored, kind: str) -> None:
    index = Index(stored.shards, stored.placements, "recipe", gpu(kind))
    asked = [queries()[first : first + 5] for first in range(0, 40, 5)] * 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: index.search(one, 10).cosines, asked))
    for one, cosines in zip(asked, found, strict=True):
        np.testing.assert_allclose(cosines, stored.nearest(one, 10)[0], atol=1e-6)


# -- training and filling ------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("storage", ["full", "codes"])
def test_centroids_trained_on_a_gpu_are_as_good_as_on_the_cpu(kind: str, storage: Storage) -> None:
    sample = np.concatenate([music(number)[8:] for number in range(N_TRACKS)])
    indexes = [trained(storage), quantizer.train(sample, len(sample), storage, gpu=gpu(kind))]
    near = []
    for index in indexes:
        inner = quantizer.lists_of(index)
        centroids = faiss.downcast_index(inner.quantizer).reconstruct_n(0, inner.nlist)
        near.append((sample @ faiss.vector_to_array(_rotation(index).A).reshape(DIM, DIM).T)
                    @ centroids.T)  # fmt: skip
    assert near[1].max(axis=1).mean() == pytest.approx(near[0].max(axis=1).mean(), rel=0.01)
    assert quantizer.lists_of(indexes[1]).clustering_index is None


def _rotation(index: Any) -> Any:
    return faiss.downcast_VectorTransform(index.chain.at(0))


@BOTH
@pytest.mark.parametrize("storage", ["full", "codes"])
def test_lists_filled_on_a_gpu_equal_those_of_the_cpu(kind: str, storage: Storage) -> None:
    indexes = [trained(storage), trained(storage)]
    for index, device in zip(indexes, (None, gpu(kind)), strict=True):
        for number in range(N_TRACKS):
            quantizer.add(index, music(number), device)
    for index in indexes:
        quantizer.lists_of(index).nprobe = 4
    (cosines, rows), (others, other_rows) = (index.search(queries(), 10) for index in indexes)
    assert indexes[1].ntotal == N_TRACKS * N_EACH
    assert (rows == other_rows).mean() > 0.98
    np.testing.assert_allclose(cosines[rows == other_rows], others[rows == other_rows], atol=1e-3)


@BOTH
@pytest.mark.parametrize("storage", ["full", "codes"])
def test_shard_filled_on_a_gpu_is_searched_without_one(
    tmp_path: Path, kind: str, storage: Storage
) -> None:
    tracks = [music(number) for number in range(N_TRACKS)]
    shards = LocalStorage(tmp_path)
    written = write_shard(shards, map(_fingerprint, tracks), trained(storage), gpu(kind))
    shard = Shard(shards.path(written.name))
    rows = shard.candidates(queries(), 1, nprobe=shard.nlist)
    cosines = shard.cosines(queries(), rows).max(axis=1, keepdims=True)
    exact = queries() @ shard.vectors(0, shard.n_segments).T
    assert shard.kind == storage
    np.testing.assert_allclose(cosines[:, 0], exact.max(axis=1), atol=0.02)


def test_error_while_filling_restores_the_centroids() -> None:
    index = trained("full")
    with pytest.raises(AssertionError):
        quantizer.add(index, np.zeros((3, DIM + 1), np.float32), OnCpu())
    quantizer.add(index, music(1))
    assert index.ntotal == N_EACH


# -- rows in parts -------------------------------------------------------------------------------

N_ROWS = 250
PART_ROWS = 40
PART_BYTES = PART_ROWS * (2 * DIM + 4)
N_PARTS = 7


def unit(rng: np.random.Generator, n: int) -> Vectors:
    vectors = rng.standard_normal((n, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class CountingRows:
    """Vectors that record which parts of them were read."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self.read: list[int] = []

    def __call__(self, first: int, last: int) -> Vectors:
        self.read.append(first)
        return self.vectors[first:last]

    def index(self, n_bytes: int) -> GpuIndex:
        return GpuIndex(OnCpu(n_bytes), len(self.vectors), DIM, self, part_rows=PART_ROWS)


@pytest.fixture
def rows(rng: np.random.Generator) -> CountingRows:
    return CountingRows(unit(rng, N_ROWS))


@pytest.mark.parametrize("n_bytes", [0, PART_BYTES, 3 * PART_BYTES + 1, 100 * PART_BYTES])
@pytest.mark.parametrize("n", [1, 9, 60])
def test_search_in_parts_equals_brute_force(
    rows: CountingRows, rng: np.random.Generator, n_bytes: int, n: int
) -> None:
    queries = unit(rng, 20)
    index = rows.index(n_bytes)
    cosines = queries @ rows.vectors.T
    best = -np.sort(-cosines, axis=1)[:, :n]
    for _ in range(2):
        found = np.take_along_axis(cosines, index.search(queries, n), axis=1)
        np.testing.assert_allclose(found, best, atol=1e-3)


def test_search_pads_with_none(rows: CountingRows, rng: np.random.Generator) -> None:
    found = rows.index(2 * PART_BYTES).search(unit(rng, 3), N_ROWS + 2)
    assert (np.sort(found, axis=1) == [-1, -1, *range(N_ROWS)]).all()


def test_parts_that_fit_are_read_once(rows: CountingRows, rng: np.random.Generator) -> None:
    index = rows.index(N_PARTS * PART_BYTES)
    for _ in range(3):
        index.search(unit(rng, 2), 5)
    assert rows.read == list(range(0, N_ROWS, PART_ROWS))


def test_parts_that_do_not_fit_replace_the_least_recently_used(
    rows: CountingRows, rng: np.random.Generator
) -> None:
    index = rows.index(5 * PART_BYTES)
    for _ in range(2):
        index.search(unit(rng, 2), 5)
    first, second = rows.read[:N_PARTS], rows.read[N_PARTS:]
    assert first == list(range(0, N_ROWS, PART_ROWS))
    assert second == first[:2]  # what is there is searched before anything takes its place


def test_never_more_parts_than_fit(rows: CountingRows, rng: np.random.Generator) -> None:
    index = rows.index(3 * PART_BYTES)
    held: list[int] = []
    reading = index._read

    def noting(first: int, last: int) -> Vectors:
        held.append(len(index._parts))
        return reading(first, last)

    index._read = noting
    index.search(unit(rng, 2), 5)
    assert max(held) == 2  # before the one that is read joins them


@BOTH
def test_half_precision_is_near_enough(rng: np.random.Generator, kind: str) -> None:
    vectors, queries = unit(rng, 5000), unit(rng, 50)
    part = gpu(kind).flat_index(DIM, half_precision=True)
    part.add(vectors)
    cosines, rows = part.search(queries, 10)
    np.testing.assert_allclose(cosines, np.take_along_axis(queries @ vectors.T, rows, 1), atol=1e-3)


@pytest.mark.gpu
def test_usable_bytes_are_positive_and_bounded() -> None:
    assert 0 < gpu("gpu").usable_bytes() < 1 << 40
