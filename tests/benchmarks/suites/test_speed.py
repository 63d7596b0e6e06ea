from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import astound
from astound.catalog import Catalog
from benchmarks.reports import speed_tables
from benchmarks.runs import concurrency, ingest_profile
from benchmarks.runs.ingest_profile import Intake
from benchmarks.suites import speed
from benchmarks.suites.speed import SpeedConfig

PARTS = {
    "decode", "resample", "pipe", "features", "network", "clip head", "index write", "database",
    "start, hash, tags",
}  # fmt: skip


@pytest.fixture
def catalog(tmp_path: Path, sounds: Path, tiny_model: Path) -> Iterator[Catalog]:
    with astound.open(tmp_path / "catalog", model=tiny_model, device="cpu") as catalog:
        catalog.add(sounds / "music")
        yield catalog


# -- ingest ----------------------------------------------------------------------------------


def test_adding_tells_its_processor_seconds_and_those_of_its_decoders(
    tmp_path: Path, sounds: Path, tiny_model: Path
) -> None:
    paths = sorted((sounds / "music").iterdir())
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no audio")
    adding = Intake(
        folder=tmp_path / "catalog", paths=[*paths, broken], model=tiny_model, device="cpu", jobs=1
    )
    done = ingest_profile.add(adding)
    assert (done["n_added"], done["n_failed"]) == (len(paths), 1)
    assert done["audio_s"] == pytest.approx(16.0 * len(paths))
    assert done["cpu_s"]["own"] > 0
    assert done["cpu_s"]["decoders"] > 0  # a Python process takes longer to start than a tick


def test_each_part_of_adding_is_timed_alone(catalog: Catalog, tmp_path: Path) -> None:
    found = ingest_profile.parts(catalog, tmp_path / "parts", jobs=1)
    assert found["audio_s"] == pytest.approx(catalog.stats().duration_s)
    assert set(found["parts"]) == PARTS
    timed = {name: one for name, one in found["parts"].items() if name != "start, hash, tags"}
    assert all(one["wall_s"] > 0 for one in timed.values())
    with astound.open(tmp_path / "parts", create=False) as written:
        assert written.stats().n_segments == catalog.stats().n_segments


def test_a_part_inside_another_is_counted_once() -> None:
    meter = ingest_profile._Meter()
    with meter.part("outer", "inner"), meter.part("inner"):
        sum(range(300_000))
    outer, inner = meter.spent["outer"], meter.spent["inner"]
    assert inner.min() > 0
    assert outer[1] < inner[1]


# -- askers ----------------------------------------------------------------------------------


def test_askers_at_once_are_answered_as_alone(catalog: Catalog, sounds: Path) -> None:
    clips = [*sorted((sounds / "music").iterdir()), sounds / "absent" / "30.wav"]
    alone = [concurrency.answer(catalog.query(clip)) for clip in clips]
    assert {status for status, _ in alone} == {"match", "no_match"}
    done = concurrency.crowd(catalog, clips, alone, n_askers=8, n_queries=10)
    assert (done["n"], done["n_different"]) == (8 * concurrency.N_EACH, 0)
    assert 0 < done["p50_ms"] <= done["p95_ms"] <= done["p99_ms"]


def test_answers_that_differ_are_counted(catalog: Catalog, sounds: Path) -> None:
    clips = sorted((sounds / "music").iterdir())[:2]
    alone = [concurrency.answer(catalog.query(clip)) for clip in reversed(clips)]
    assert concurrency.crowd(catalog, clips, alone, n_askers=1, n_queries=6)["n_different"] == 6


def test_first_askers_of_a_catalog_may_come_together(
    catalog: Catalog, sounds: Path, tiny_model: Path
) -> None:
    clips = sorted((sounds / "music").iterdir())
    alone = [concurrency.answer(catalog.query(clip)) for clip in clips]
    with astound.open(catalog.folder, model=tiny_model, device="cpu") as cold:
        done = concurrency.crowd(cold, clips, alone, n_askers=len(clips), n_queries=1)
    assert done["n_different"] == 0


def test_askers_are_answered_by_the_catalog_as_it_is_or_was(
    catalog: Catalog, sounds: Path, tiny_model: Path
) -> None:
    clips = sorted((sounds / "music").iterdir())
    without = [concurrency.answer(catalog.query(clip)) for clip in clips]
    added = catalog.add(sounds / "absent").added
    with_more = [concurrency.answer(catalog.query(clip)) for clip in clips]
    assert with_more != without  # other music changes votes and margins a little
    catalog.delete([one.track_id for one in added])
    stopped = threading.Event()

    def change() -> None:
        with astound.open(catalog.folder, model=tiny_model, device="cpu") as writer:
            while not stopped.is_set():
                added = writer.add(sounds / "absent").added
                writer.delete([one.track_id for one in added])

    changing = threading.Thread(target=change)
    changing.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(
                pool.map(lambda i: concurrency.answer(catalog.query(clips[i % 5])), range(40))
            )
    finally:
        stopped.set()
        changing.join()
    for i, one in enumerate(found):
        assert one in (without[i % 5], with_more[i % 5])


# -- the whole -------------------------------------------------------------------------------


@pytest.mark.slow
def test_everything_is_measured_and_shown(tmp_path: Path, sounds: Path, tiny_model: Path) -> None:
    config = SpeedConfig(
        references=[sounds / "music"], out=tmp_path / "speed.json", n_queries=3, n_askers=(1, 3),
        model=tiny_model, device="cpu", jobs=1,
    )  # fmt: skip
    results = speed.run(config)
    assert json.loads(config.out.read_text()) == json.loads(json.dumps(results))
    assert results["ingest"]["n_added"] == 5
    assert results["query_file"]["n"] == 3
    assert [(one["n_askers"], one["n"]) for one in results["askers"]] == [(1, 4), (3, 12)]
    assert all(one["n_different"] == 0 for one in results["askers"])
    assert all(one["peak_rss_bytes"] > 2**20 for one in results["askers"])
    assert set(results["tables"]) == {"ingest", "query", "askers"}


def test_share_of_each_part_is_of_what_adding_spends() -> None:
    results: dict[str, Any] = {
        "machine": {"n_cpus": 2},
        "ingest": {"audio_s": 7200.0, "add_s": 20.0, "cpu_s": {"own": 20.0, "decoders": 12.0}},
        "parts": {
            "audio_s": 3600.0,
            "parts": {
                "decode": {"wall_s": 4.0, "cpu_s": 4.0},
                "network": {"wall_s": 3.0, "cpu_s": 6.0},
                "start, hash, tags": {"wall_s": None, "cpu_s": 1.0},
            },
        },
    }
    assert speed_tables.ingest_table(results).splitlines()[2:] == [
        "| decode | decoders | 900 | 4.00 | 25.0 |",
        "| network | own | 1,200 | 6.00 | 37.5 |",
        "| start, hash, tags | decoders |  | 1.00 | 6.2 |",
        "| more than its parts alone | own |  | 4.00 | 25.0 |",
        "| more than its parts alone | decoders |  | 1.00 | 6.2 |",
        "| adding, in all |  | 360 | 16.00 | 100.0 |",
        "| not used of 2 processors, or by others |  |  | 4.00 | 25.0 |",
    ]


def test_steps_of_a_query_are_shown_with_their_share() -> None:
    latency = {"mean_ms": 50.0, "mean_step_ms": {"encode": 25.0, "search": 20.0, "rest": 5.0}}
    other = {"mean_ms": 40.0, "mean_step_ms": {"encode": 20.0, "rest": 20.0}}
    shown = speed_tables.query_table({"query_file": latency, "query_array": other})
    assert "| encode | 25.0 ms, 50 % | 20.0 ms, 50 % |" in shown
    assert "| search | 20.0 ms, 40 % | 0.0 ms, 0 % |" in shown
    assert "| all | 50.0 ms | 40.0 ms |" in shown
