from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import astound
from astound.catalog import Catalog
from benchmarks.suites.clips import ClipsConfig, Ranking, ranking, run, summarise
from engine.audio import decode
from engine.compare.similar import ClipIndex

N_QUERIES = 2


@pytest.fixture(scope="module")
def config(sounds: Path, tiny_model: Path) -> ClipsConfig:
    return ClipsConfig(
        references=[sounds / "music"], distractors=[sounds / "absent"], noise=sounds / "noise",
        rooms=sounds / "rooms", catalog=sounds / "catalog", out=sounds / "clips.json",
        n_queries=N_QUERIES, model=tiny_model, device="cpu", jobs=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(config: ClipsConfig) -> dict[str, Any]:
    return run(config)


@pytest.fixture
def catalog(config: ClipsConfig, results: dict[str, Any]) -> Iterator[Catalog]:
    with astound.open(config.catalog, model=config.model, device="cpu") as catalog:
        yield catalog


def test_run_ranks_every_query_in_every_cell(results: dict[str, Any], config: ClipsConfig) -> None:
    assert [cell["cell"].split()[0] for cell in results["cells"]] == [
        "clean", "noise10", "noise0", "noise-5", "room5", "room0", "mp3-32k", "tempo±8", "speed±3",
    ]  # fmt: skip
    for cell in results["cells"]:
        assert cell["n_errors"] == 0
        assert cell["top"][100]["n"] == N_QUERIES
        assert cell["top"][100]["value"] == 1.0  # there are fewer tracks than that
    assert json.loads(config.out.read_text())["table"] == results["table"]
    assert results["catalog"]["n_tracks"] == 7


def test_clip_of_a_track_is_most_similar_to_the_track(catalog: Catalog) -> None:
    stored = ClipIndex(catalog.index.track_ids, catalog.index.clips)
    for track in catalog.tracks():
        waveform = decode.read(track.path, catalog.fingerprinter.sample_rate)
        clips = catalog.fingerprinter.fingerprint([waveform], 0.5).clip_embeddings[:1]
        cosines = stored.scores(clips)
        assert stored.track_ids[int(np.argmax(cosines))] == track.id
        stored_norm = np.linalg.norm(catalog.index.clips(track.id)[0])  # int8: nearly 1
        assert cosines.max() == pytest.approx(stored_norm, abs=1e-3)


def test_ranking_counts_tracks_that_are_at_least_as_similar() -> None:
    cosines = np.array([0.5, 0.9, 0.5, 0.7], np.float32)
    assert [ranking(cosines, i).rank for i in range(4)] == [4, 1, 4, 2]
    assert ranking(cosines, 1).wrong_cosine == pytest.approx(0.7)
    assert ranking(cosines, 3).wrong_cosine == pytest.approx(0.9)
    assert ranking(cosines[:1], 0) == Ranking(rank=1, right_cosine=0.5, wrong_cosine=None)


def test_summarise_counts_queries_without_embedding_as_not_found() -> None:
    ranks = (1, 5, 6, 100, 101, None)
    row = summarise("c", [Ranking(rank=rank, right_cosine=0.5) for rank in ranks[:-1]])
    assert [share.n_yes for share in row.top.values()] == [1, 2, 3, 4]
    row = summarise("c", [Ranking(rank=rank) for rank in ranks])
    assert [(share.n_yes, share.n) for share in row.top.values()] == [
        (1, 6),
        (2, 6),
        (3, 6),
        (4, 6),
    ]
    assert row.n_errors == 1
    assert row.median_right_cosine is None
