from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import astound
from astound.catalog import Catalog
from astound.storage import DATABASE_FILE
from benchmarks.metrics import recall
from benchmarks.metrics.exact import Exact, share_found
from benchmarks.metrics.recall import Quiz
from benchmarks.queries.datasets import RATE, Recordings, Rooms
from benchmarks.queries.distractors import TRACK_SEGMENTS, Distractors
from benchmarks.queries.synthetic import MadeUp
from benchmarks.reports import scale_tables
from benchmarks.reports.scale_page import page, publish
from benchmarks.runs import catalogs, cold_start, library
from benchmarks.runs.catalogs import Growth
from benchmarks.runs.corpus import Stock
from benchmarks.suites import scale
from benchmarks.suites.scale import ScaleConfig
from engine.errors import ConfigError
from engine.records import NO_ADDRESS
from engine.store.store import Store
from tests.audio_files import cached_tune

N_REFERENCES = 4
N_OTHERS = 8
OTHER_S = 24.0
REFERENCE_SEGMENTS = 31
OTHER_SEGMENTS = 47


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sounds: Path, tiny_model: Path) -> Path:
    """A folder with two catalogs, references and others."""
    folder = tmp_path_factory.mktemp("scale")
    (folder / "music").mkdir()
    for seed in range(N_OTHERS):
        waveform = cached_tune(60 + seed, OTHER_S, RATE)
        soundfile.write(folder / "music" / f"{seed}.wav", waveform, RATE)
    references = sorted((sounds / "music").iterdir())[:N_REFERENCES]
    for name, paths in (
        ("references", references),
        # What both catalogs know is a reference.
        ("others", [*sorted((folder / "music").iterdir()), references[0]]),
    ):
        with astound.open(folder / name, model=tiny_model, device="cpu") as catalog:
            catalog.add(paths)
    return folder


@pytest.fixture
def stock(folder: Path) -> Iterator[Stock]:
    with Stock(folder / "references", folder / "others", 100, seed=1) as stock:
        yield stock


@pytest.fixture
def distractors(stock: Stock) -> Distractors:
    return Distractors.fit(stock.other_embeddings(), seed=1)


def made_up(stock: Stock, distractors: Distractors, n_segments: int) -> MadeUp:
    return MadeUp.filling(n_segments, distractors, stock.references.settings, seed=1)


@pytest.fixture
def grown(stock: Stock, distractors: Distractors, tmp_path: Path, tiny_model: Path) -> Catalog:
    padding = made_up(stock, distractors, 900)
    Growth(name="grown", sources=[stock.references, padding]).build(tmp_path / "grown")
    return astound.open(tmp_path / "grown", model=tiny_model, device="cpu")


def exact_index(catalog: Catalog) -> Exact:
    with Store.open(catalog.folder / DATABASE_FILE) as store:
        return Exact(catalog._shards, store.placements(), catalog.recipe_id)


# -- the music -----------------------------------------------------------------------------------


def test_references_fit_and_others_are_those_that_only_one_catalog_knows(stock: Stock) -> None:
    assert stock.n_references == 3 * REFERENCE_SEGMENTS
    assert len(stock.paths) == 3
    assert stock.n_others == N_OTHERS * OTHER_SEGMENTS
    assert [len(one) for one in stock.other_embeddings()] == [OTHER_SEGMENTS] * N_OTHERS


def test_references_that_are_too_long_are_refused(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match="n_segments=30: must be at least the length of one reference"
    ):
        Stock(folder / "references", folder / "others", 30, seed=1)


def test_larger_number_of_made_up_tracks_begins_with_the_smaller(
    stock: Stock, distractors: Distractors
) -> None:
    few, more = (made_up(stock, distractors, n * TRACK_SEGMENTS + 9) for n in (1, 3))
    assert (few.n_tracks, more.n_tracks) == (1, 3)
    (one,), (many,) = few.batches(), more.batches()
    assert [track.path for track in many.tracks][:1] == [track.path for track in one.tracks]
    np.testing.assert_array_equal(one.read(0).embeddings, many.read(0).embeddings)
    assert not np.array_equal(many.read(0).embeddings, many.read(1).embeddings)


def test_made_up_tracks_have_as_many_clips_as_real_ones(
    stock: Stock, distractors: Distractors, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.queries.synthetic.TRACK_SEGMENTS", OTHER_SEGMENTS)
    (batch,) = made_up(stock, distractors, OTHER_SEGMENTS).batches()
    clips = batch.read(0).clip_embeddings
    np.testing.assert_allclose(np.linalg.norm(clips, axis=1), 1, atol=1e-5)
    with Store.open(folder / "others" / DATABASE_FILE) as store:
        real = {one.n_clips for one in store.placements() if one.n_segments == OTHER_SEGMENTS}
    assert real == {batch.tracks[0].n_clips} == {len(clips)}


# -- growth --------------------------------------------------------------------------------------


def test_build_goes_on_where_it_stopped(
    stock: Stock, distractors: Distractors, tmp_path: Path, tiny_model: Path
) -> None:
    small, large = (
        Growth(name="a", sources=[stock.references, made_up(stock, distractors, n)])
        for n in (500, 900)
    )
    assert small.build(tmp_path)["n_segments"] == stock.n_references + TRACK_SEGMENTS
    assert large.build(tmp_path)["n_segments"] == TRACK_SEGMENTS
    assert large.build(tmp_path)["n_segments"] == 0
    counted = catalogs.sizes(tmp_path)
    on_disk = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    with astound.open(tmp_path, model=tiny_model, device="cpu") as catalog:
        assert catalog.verify() == []
    assert counted["n_segments"] == stock.n_references + 2 * TRACK_SEGMENTS
    assert counted["n_shards"] == {"flat": 3}
    assert sum(counted["n_bytes"].values()) == on_disk


def test_change_adds_music_and_deletes_what_is_made_up_only(
    grown: Catalog, stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogs, "MORE_S", 20.0)
    more = catalogs.write_more(tmp_path / "more", stock.paths)
    assert sum(soundfile.info(file).duration for file in more.iterdir()) == pytest.approx(20)
    changed = catalogs.change(grown, more)
    assert changed["audio_s"] == pytest.approx(20)
    assert changed["n_deleted"] == 2
    assert {Path(track.path).suffix for track in grown.tracks()} == {".wav"}
    assert len(grown.tracks()) == len(stock.paths) + 2


# -- what is asked -------------------------------------------------------------------------------


def test_exact_search_equals_brute_force(grown: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.metrics.exact._BLOCK", 300)
    grown.delete([max(track.id for track in grown.tracks())])
    exact = exact_index(grown)
    queries = exact.vectors(1, 3, 8) + np.float32(0.05)
    stored = np.concatenate(
        [exact.vectors(one, 0, exact.n_positions(one)) for one in exact.track_ids]
    )
    hits = exact.search(queries, 20)
    np.testing.assert_allclose(
        hits.cosines, -np.sort(-(queries @ stored.T), axis=1)[:, :20], rtol=1e-5
    )
    flat = grown.index.search(queries, 20)
    assert share_found(hits, flat) == 1.0
    assert (hits.addresses != NO_ADDRESS).all()


def test_share_found_counts_neighbours_that_are_missing(grown: Catalog) -> None:
    exact = exact_index(grown)
    queries = exact.vectors(1, 0, 4)
    hits = exact.search(queries, 10)
    half = replace(hits, addresses=np.where(np.arange(10) < 5, hits.addresses, NO_ADDRESS))
    assert share_found(hits, half) == 0.5
    more = exact.search(queries, exact.n_segments + 5)
    assert share_found(more, more) == 1.0


def test_flat_search_finds_what_an_exact_one_finds(
    grown: Catalog, stock: Stock, sounds: Path
) -> None:
    asked = Quiz(stock.paths, Recordings(sounds / "noise"), Rooms(sounds / "rooms"), 2, seed=1)
    found = recall.efforts(asked, grown, exact_index(grown), library.track_ids(grown), 2, [None])
    assert [(row.cell, row.n) for row in found] == [
        ("noise0 5 s", 2),
        ("noise-5 5 s", 2),
        ("room5 5 s", 2),
    ]
    for row in found:
        assert row.neighbours_found > 0.95
        assert row.n_right == row.n_right_exact


def test_memory_of_this_process_is_told() -> None:
    memory = cold_start.memory_bytes()
    assert 0 < memory["anonymous"] < memory["rss"] <= memory["peak_rss"]


# -- the whole -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_catalogs_of_all_sizes_are_measured(
    folder: Path, sounds: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, fewer in (("LABELS", ("noise0",)), ("DURATIONS_S", (3.0, 5.0)), ("N_PROBES", (4,))):
        monkeypatch.setattr(recall, name, fewer)
    settings = ScaleConfig(
        references=[sounds / "music"], distractors_from=folder / "others", noise=sounds / "noise",
        rooms=sounds / "rooms", out=folder / "scale.json", n_segments=(1300,), n_queries=1,
        storage="compact", model=tiny_model, device="cpu", jobs=1, docs=folder / "docs",
    )  # fmt: skip
    results = scale.run(settings)
    assert json.loads(settings.out.read_text()) == json.loads(json.dumps(results))
    n_references = 5 * REFERENCE_SEGMENTS
    n_real = n_references + N_OTHERS * OTHER_SEGMENTS
    names = [one["name"] for one in results["sizes"]]
    assert names == ["references", "real", "made-up-1300"]  # less than a made-up track between
    real, largest = results["sizes"][1], results["sizes"][-1]
    assert real["n_segments"] == n_real
    assert largest["n_segments"] == n_references + 2 * TRACK_SEGMENTS
    assert largest["n_shards"] == {"compact": 1}
    assert [row["n_probe"] for row in largest["efforts"]] == [None, 4]
    assert [cell["present"]["hit_rate"]["n"] for cell in largest["cells"]] == [1, 1]
    assert largest["change"]["n_deleted"] == 2
    assert (folder / "docs" / "scale.md").exists()
    assert not (settings.work_folder / "real-catalog").exists()

    before = {file: file.stat().st_mtime_ns for file in settings.work_folder.glob("*.json")}
    again = scale.run(settings)["sizes"]
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(results["sizes"]))
    assert {file: file.stat().st_mtime_ns for file in before} == before
    with pytest.raises(ConfigError, match="begun with another seed"):
        scale.run(replace(settings, seed=2))


@pytest.mark.parametrize(
    "changes",
    [
        {"n_queries": 0},
        {"n_exact": 0},
        {"n_segments": ()},
        {"n_segments": (0, 5)},
        {"storage": "x"},
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any]) -> None:
    nowhere = Path("nowhere")
    with pytest.raises(ConfigError, match=next(iter(changes))):
        ScaleConfig(
            references=[nowhere], distractors_from=nowhere, noise=nowhere, rooms=nowhere,
            out=nowhere, **changes,
        )  # fmt: skip


# -- the page ------------------------------------------------------------------------------------


def measured(name: str, n_segments: int) -> dict[str, Any]:
    """What is measured of one catalog."""
    latency = {"median_ms": 60.0, "p95_ms": 80.0, "median_step_ms": {"encode": 50.0, "search": 9.0}}
    memory = {"rss": 2**29, "anonymous": 2**28, "file": 2**27}
    share = {"value": 0.9, "low": 0.8, "high": 0.95}
    return {
        "name": name,
        "n_tracks": 9,
        "n_segments": n_segments,
        "duration_s": n_segments / 2,
        "n_shards": {"full": 2},
        "n_bytes": {"segments.faiss": 16 * n_segments, "catalog.db": n_segments},
        "build": {"n_segments": n_segments, "write_s": 1.0},
        "compact": {"compact_s": 2.0, "train_s": 1.0, "peak_rss_bytes": 2**30},
        "open_s": 0.5,
        "memory_bytes": {"before": memory, "asked": memory},
        "latency": {"clean": latency, "noise0": latency},
        "cells": [
            {"label": label, "duration_s": 5.0, "cell": f"{label} 5 s",
             "present": {"hit_rate": share}}
            for label in ("noise0", "room5")
        ],
        "efforts": [
            {"cell": cell, "n_probe": n_probe, "n": 5, "neighbours_found": 0.5 + 0.2 * i,
             "n_right": 4, "n_right_exact": 5, "search_ms": 3.0}
            for i, cell in enumerate(("noise0 5 s", "room5 5 s"))
            for n_probe in (None, 4)
        ],
        "change": {"audio_s": 60.0, "add_s": 3.0, "n_deleted": 9, "delete_s": 0.1},
    }  # fmt: skip


@pytest.fixture
def results() -> dict[str, Any]:
    row = {
        "query": "clean", "n_segments": 100, "rank": 1, "real": (0.7, 0.8, 0.9),
        "made_up": (0.6, 0.7, 0.8), "difference": -0.1,
    }  # fmt: skip
    return {
        "command": "python -m benchmarks scale",
        "machine": {"cpu": "a CPU", "n_cpus": 2, "load_average": [0.5, 0.4, 0.3]},
        "storage": "full",
        "n_queries": 10,
        "n_exact": 5,
        "references": {"n_tracks": 3, "n_segments": 90},
        "others": {"n_tracks": 8, "n_segments": 400},
        "likeness": {"all": [row], "few": [row]},
        "empty": {"audio_s": 60.0, "add_s": 2.0},
        "sizes": [
            measured(name, n) for name, n in (("references", 90), ("real", 490), ("made-up", 5000))
        ],
    }  # fmt: skip


def test_page_shows_all_tables_and_marks_what_is_extrapolated(results: dict[str, Any]) -> None:
    shown = page(results)
    for table in (
        scale_tables.cost_table(results),
        scale_tables.found_table(results),
        scale_tables.effort_table(results),
        scale_tables.likeness_table(results["likeness"]["all"]),
    ):
        assert table in shown
    assert "| 90 references | 490 real | 5,000 made up * |" in shown
    assert "| 16 + 0 + 0 + 1 |" in shown
    assert "| 5,000 made up * | 4 | 60.0% | 8 | 10 | 10 | 3.0 ms |" in shown
    assert "{" not in shown


def test_same_results_give_the_same_small_plots(results: dict[str, Any], tmp_path: Path) -> None:
    for name in ("a", "b"):
        publish(copy.deepcopy(results), tmp_path / name)
    for file in (tmp_path / "a").glob("*.svg"):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
        assert file.stat().st_size < 60_000
    assert len(list((tmp_path / "a").glob("*.svg"))) == 2


def test_page_says_what_was_noted_and_what_more_would_take(results: dict[str, Any]) -> None:
    assert "On paper" in page(results)
    assert "\n\nThe machine was busy.\n\n## What is real" in page(
        results | {"note": "The machine was busy."}
    )
    flat = [one | {"n_shards": {"flat": 1}} for one in results["sizes"]]
    assert "On paper" not in page(results | {"sizes": flat})
