from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.config import SearchConfig
from engine.model.fingerprinter import Fingerprinter
from engine.records import Fingerprint, Vectors
from engine.search import alignment
from engine.search.calibration import N_FEATURES, Calibration
from engine.search.clips import Clip
from engine.search.context import SearchContext
from engine.search.passages import PassageFinder
from engine.search.searcher import Searcher
from engine.vectors import quantizer
from engine.vectors.index import Index
from engine.vectors.shard import write_shard
from engine.vectors.storage import LocalStorage
from tests.audio_files import Waveform, cached_tune
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


# -- few segments first ----------------------------------------------------------------------------

RATE, TUNE_S = 8000, 8.0
SHORT_HOP_S, QUERY_HOP_S = 0.25, 0.125


@pytest.fixture(scope="module")
def of_tunes(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """A searcher of tunes 0 to 11 with the shipped weights and calibration."""
    fingerprinter = Fingerprinter.load(device="cpu")
    prints = [fingerprinter.fingerprint([cached_tune(n, TUNE_S)], HOP_S) for n in range(12)]
    shards = LocalStorage(tmp_path_factory.mktemp("shards"))
    placements = write_shard(shards, prints).placements(range(12))
    index = Index(shards, placements, fingerprinter.recipe_id)
    search = SearchConfig(speeds=())
    return Searcher(
        fingerprinter=fingerprinter,
        calibration=replace(Calibration.load(), search=search),
        context=SearchContext(index=index, reference_hop_s=HOP_S, search=search),
    )


def hops_s_of(searcher: Searcher, waveform: Waveform) -> list[float]:
    """Hops of the fingerprints that a clip is searched by, one after the other."""
    hops_s: list[float] = []
    find = PassageFinder.__init__

    def recording_hops(self: PassageFinder, query: Fingerprint, *others: Any) -> None:
        hops_s.append(query.segment_hop_s)
        find(self, query, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PassageFinder, "__init__", recording_hops)
        searcher.passages(searcher.clip([waveform], "clip"))
    return hops_s


def in_noise(waveform: Waveform, ratio: float) -> Waveform:
    noise = np.random.default_rng(3).normal(0, ratio * float(waveform.std()), len(waveform))
    return (waveform + noise).astype(np.float32)


def test_sure_clip_is_answered_by_half_of_its_segments(of_tunes: Searcher) -> None:
    waveform = cached_tune(3, TUNE_S)[RATE : 6 * RATE]
    assert hops_s_of(of_tunes, waveform) == [SHORT_HOP_S]
    (best, *_) = of_tunes.passages(of_tunes.clip([waveform], "clip"))
    assert (best.track_id, round(best.offset_s, 1)) == (3, 1.0)


def test_unsure_clip_is_answered_by_all_of_its_segments(of_tunes: Searcher) -> None:
    waveform = in_noise(cached_tune(3, TUNE_S)[RATE : 6 * RATE], 4.0)
    assert hops_s_of(of_tunes, waveform) == [SHORT_HOP_S, QUERY_HOP_S]


def test_clip_with_several_places_is_answered_by_all_of_its_segments(
    of_tunes: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of two nearly equal places is right takes all of them to decide."""
    waveform = cached_tune(3, TUNE_S)[RATE : 6 * RATE]
    monkeypatch.setattr(alignment._LineScorer, "other_places", lambda *_: (9.0,))
    assert hops_s_of(of_tunes, waveform) == [SHORT_HOP_S, QUERY_HOP_S]


def test_partly_known_clip_is_answered_by_all_of_its_segments(of_tunes: Searcher) -> None:
    known, unknown = cached_tune(3, TUNE_S)[: 4 * RATE], cached_tune(77, TUNE_S)[: 5 * RATE]
    assert hops_s_of(of_tunes, np.concatenate([known, unknown]))[-1] == QUERY_HOP_S


def test_unlike_clip_is_searched_by_all_of_its_segments(of_tunes: Searcher) -> None:
    noise = np.random.default_rng(4).normal(0, 0.1, 5 * RATE).astype(np.float32)
    assert hops_s_of(of_tunes, noise) == [SHORT_HOP_S, QUERY_HOP_S]


def test_long_clip_has_all_segments_at_once(of_tunes: Searcher) -> None:
    waveform = np.tile(cached_tune(3, TUNE_S), 2)
    assert hops_s_of(of_tunes, waveform) == [QUERY_HOP_S]


def test_stretch_of_a_long_clip_is_judged_as_one_window_of_many(
    of_tunes: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search at other speeds must not accept what was too doubtful at the clip's own."""
    monkeypatch.setattr(Calibration, "confidence", lambda *_: 0.9)
    always = replace(of_tunes.calibration, min_confidence=0.85)
    unknown = np.concatenate([cached_tune(n, TUNE_S) for n in range(70, 75)])
    searcher = replace(of_tunes, calibration=always)
    found = searcher.passages(searcher.clip([unknown], "clip"))
    assert found
    assert always.accepted(found) == []
