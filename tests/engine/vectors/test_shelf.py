from __future__ import annotations

import numpy as np
import pytest

from engine.records import Vectors
from engine.vectors.shelf import Shelf
from tests.gpus import BOTH, OnCpu, gpu

DIM = 16
N_ROWS = 250
PART_ROWS = 40
PART_BYTES = PART_ROWS * (2 * DIM + 4)
N_PARTS = 7


def unit(rng: np.random.Generator, n: int) -> Vectors:
    vectors = rng.standard_normal((n, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Rows:
    """Vectors that note which of them were read."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self.read: list[int] = []

    def __call__(self, first: int, last: int) -> Vectors:
        self.read.append(first)
        return self.vectors[first:last]

    def shelf(self, n_bytes: int) -> Shelf:
        return Shelf(OnCpu(n_bytes), len(self.vectors), DIM, self, part_rows=PART_ROWS)


@pytest.fixture
def rows(rng: np.random.Generator) -> Rows:
    return Rows(unit(rng, N_ROWS))


@pytest.mark.parametrize("n_bytes", [0, PART_BYTES, 3 * PART_BYTES + 1, 100 * PART_BYTES])
@pytest.mark.parametrize("n", [1, 9, 60])
def test_search_in_turns_equals_brute_force(
    rows: Rows, rng: np.random.Generator, n_bytes: int, n: int
) -> None:
    queries = unit(rng, 20)
    shelf = rows.shelf(n_bytes)
    cosines = queries @ rows.vectors.T
    best = -np.sort(-cosines, axis=1)[:, :n]
    for _ in range(2):
        found = np.take_along_axis(cosines, shelf.search(queries, n), axis=1)
        np.testing.assert_allclose(found, best, atol=1e-3)


def test_search_pads_with_none(rows: Rows, rng: np.random.Generator) -> None:
    found = rows.shelf(2 * PART_BYTES).search(unit(rng, 3), N_ROWS + 2)
    assert (np.sort(found, axis=1) == [-1, -1, *range(N_ROWS)]).all()


def test_parts_that_fit_are_read_once(rows: Rows, rng: np.random.Generator) -> None:
    shelf = rows.shelf(N_PARTS * PART_BYTES)
    for _ in range(3):
        shelf.search(unit(rng, 2), 5)
    assert rows.read == list(range(0, N_ROWS, PART_ROWS))


def test_parts_that_do_not_fit_take_turns_with_the_oldest(
    rows: Rows, rng: np.random.Generator
) -> None:
    shelf = rows.shelf(5 * PART_BYTES)
    for _ in range(2):
        shelf.search(unit(rng, 2), 5)
    first, second = rows.read[:N_PARTS], rows.read[N_PARTS:]
    assert first == list(range(0, N_ROWS, PART_ROWS))
    assert second == first[:2]  # what is there is searched before anything takes its place


def test_never_more_parts_than_fit(rows: Rows, rng: np.random.Generator) -> None:
    shelf = rows.shelf(3 * PART_BYTES)
    held: list[int] = []
    reading = shelf._read

    def noting(first: int, last: int) -> Vectors:
        held.append(len(shelf._held))
        return reading(first, last)

    shelf._read = noting
    shelf.search(unit(rng, 2), 5)
    assert max(held) == 2  # before the one that is read joins them


@BOTH
def test_half_precision_is_near_enough(rng: np.random.Generator, kind: str) -> None:
    vectors, queries = unit(rng, 5000), unit(rng, 50)
    part = gpu(kind).flat(DIM, halved=True)
    part.add(vectors)
    cosines, rows = part.search(queries, 10)
    np.testing.assert_allclose(cosines, np.take_along_axis(queries @ vectors.T, rows, 1), atol=1e-3)


@pytest.mark.gpu
def test_room_is_less_than_there_is() -> None:
    assert 0 < gpu("gpu").room_bytes() < 1 << 40
