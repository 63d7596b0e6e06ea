from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.config import SearchConfig
from engine.records import Fingerprint, Vectors
from engine.search.calibration import N_FEATURES, Calibration
from engine.search.clips import Clip
from engine.search.context import SearchContext
from engine.search.searcher import Searcher
from engine.vectors import quantizer
from engine.vectors.index import Index
from engine.vectors.shard import write_shard
from engine.vectors.storage import LocalStorage
from tests.catalogs import Spectra

DIM, HOP_S = 32, 0.5
N_SEGMENTS, N_TRACKS, TRUE = 40, 30, 7
IN_A_ROW = slice(10, 22)
SILENCE = np.zeros(0, np.float32)
NEVER_SURE = Calibration(recipe_id="recipe", weights=(0.0,) * N_FEATURES, min_confidence=1.0)


def unit(vectors: NDArray[Any]) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def fingerprint(embeddings: Vectors) -> Fingerprint:
    return Fingerprint(
        embeddings=embeddings,
        clip_embeddings=embeddings[:1],
        segment_hop_s=HOP_S,
        segment_s=1.0,
        duration_s=(len(embeddings) - 1) * HOP_S + 1.0,
        recipe_id="recipe",
    )


@pytest.fixture(scope="module")
def query() -> Fingerprint:
    return fingerprint(unit(np.random.default_rng(1).standard_normal((12, DIM))))


@pytest.fixture(scope="module")
def music(query: Fingerprint) -> dict[int, Vectors]:
    """Tracks with nearer neighbours of each segment in random order; TRUE has all in a row."""
    rng = np.random.default_rng(2)
    tracks = {one: unit(rng.standard_normal((N_SEGMENTS, DIM))) for one in range(1, N_TRACKS + 1)}
    for one, embeddings in tracks.items():
        noise = rng.standard_normal((12, DIM)) / np.sqrt(DIM)
        if one == TRUE:
            embeddings[IN_A_ROW] = unit(query.embeddings + 0.5 * noise)
        else:
            places = rng.permutation(N_SEGMENTS)[:12]
            embeddings[places] = unit(query.embeddings + 0.3 * noise)
    return tracks


def searcher(folder: Path, music: dict[int, Vectors], *, large: bool, n_fallback: int) -> Searcher:
    everything = np.concatenate(list(music.values()))
    trained = quantizer.train(everything, len(everything), "full") if large else None
    shards = LocalStorage(folder)
    placements = write_shard(shards, map(fingerprint, music.values()), trained).placements(music)
    return Searcher(
        fingerprinter=Spectra(),
        calibration=NEVER_SURE,
        context=SearchContext(
            index=Index(shards, placements, "recipe"),
            reference_hop_s=HOP_S,
            search=SearchConfig(
                k=5, n_fallback_neighbours=n_fallback, nprobe=16, speeds=(), query_hop_s=HOP_S
            ),
        ),
    )


@pytest.mark.parametrize(("large", "n_fallback", "is_found"), [
    (True, 200, True), (True, 0, False), (False, 200, False),
])  # fmt: skip
def test_unsure_query_is_searched_again_in_a_large_catalog(
    tmp_path: Path,
    music: dict[int, Vectors],
    query: Fingerprint,
    large: bool,
    n_fallback: int,
    is_found: bool,
) -> None:
    unsure = searcher(tmp_path, music, large=large, n_fallback=n_fallback)
    found = unsure.passages(Clip(start_s=0.0, fingerprint=query, waveform=SILENCE))
    assert found
    assert (found[0].track_id == TRUE) == is_found
