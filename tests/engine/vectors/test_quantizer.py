from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.vectors import quantizer
from engine.vectors.quantizer import Storage

DIM = 32


def unit(rng: np.random.Generator, n: int, dim: int = DIM) -> NDArray[np.float32]:
    vectors = rng.standard_normal((n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("dim", [2, 16, 128, 768])
def test_codes_approximate_vectors_and_are_stable(rng: np.random.Generator, dim: int) -> None:
    vectors = unit(rng, 500, dim)
    codes = quantizer.encode(vectors)
    decoded = quantizer.decode(codes)
    cosines = (vectors * decoded).sum(axis=1) / np.linalg.norm(decoded, axis=1)
    assert cosines.min() > 0.9995
    np.testing.assert_array_equal(quantizer.encode(decoded), codes)


def test_silence_stays_silent() -> None:
    assert not quantizer.decode(quantizer.encode(np.zeros((3, DIM), np.float32))).any()


def test_lists_grow_with_the_catalog_within_bounds() -> None:
    sizes = [1, 10_000, 1_000_000, 10_000_000, 10**12]
    counts = [quantizer.choose_nlist(n) for n in sizes]
    assert counts == sorted(counts)
    assert counts[3] == 4096
    assert all(count & (count - 1) == 0 for count in counts)
    assert all(0 < quantizer.choose_nprobe(count) <= count for count in counts)


@pytest.mark.parametrize("storage", ["full", "codes"])
def test_trained_index_is_empty_and_has_its_storage(
    rng: np.random.Generator, storage: Storage
) -> None:
    index = quantizer.train(unit(rng, 1200), 1200, storage)
    assert index.is_trained
    assert index.ntotal == 0
    assert quantizer.storage_of(index) == storage
    assert quantizer.lists_of(index).nlist == quantizer.choose_nlist(1200)


def test_training_is_seeded(rng: np.random.Generator) -> None:
    sample = unit(rng, 1200)
    trained = [quantizer.train(sample, 1200, "full", seed=3) for _ in range(2)]
    one, other = (quantizer.lists_of(index).quantizer.reconstruct_n(0, 4) for index in trained)
    np.testing.assert_array_equal(one, other)
