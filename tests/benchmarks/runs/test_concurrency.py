from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import astound
from astound.catalog import Catalog
from benchmarks.runs import concurrency


def test_concurrent_queries_get_the_expected_answers(small_catalog: Catalog, sounds: Path) -> None:
    clips = [*sorted((sounds / "music").iterdir()), next((sounds / "noise").iterdir())]
    expected = [concurrency.answer(small_catalog.query(clip)) for clip in clips]
    assert {status for status, _ in expected} == {"match", "no_match"}
    done = concurrency.run(small_catalog, clips, expected, n_threads=8, n_queries=10)
    assert (done["n"], done["n_different"]) == (8 * concurrency.MIN_QUERIES, 0)
    assert 0 < done["p50_ms"] <= done["p95_ms"] <= done["p99_ms"]


def test_different_answers_are_counted(small_catalog: Catalog, sounds: Path) -> None:
    clips = sorted((sounds / "music").iterdir())[:2]
    expected = [concurrency.answer(small_catalog.query(clip)) for clip in reversed(clips)]
    done = concurrency.run(small_catalog, clips, expected, n_threads=1, n_queries=6)
    assert done["n_different"] == 6


def test_first_queries_of_a_catalog_may_be_concurrent(
    small_catalog: Catalog, sounds: Path, tiny_model: Path
) -> None:
    clips = sorted((sounds / "music").iterdir())
    expected = [concurrency.answer(small_catalog.query(clip)) for clip in clips]
    with astound.open(small_catalog.folder, model=tiny_model, device="cpu") as cold:
        done = concurrency.run(cold, clips, expected, n_threads=len(clips), n_queries=1)
    assert done["n_different"] == 0


def test_queries_during_changes_get_the_old_or_the_new_answer(
    small_catalog: Catalog, sounds: Path, tiny_model: Path
) -> None:
    clips = sorted((sounds / "music").iterdir())
    without = [concurrency.answer(small_catalog.query(clip)) for clip in clips]
    added = small_catalog.add(sounds / "absent").added
    with_more = [concurrency.answer(small_catalog.query(clip)) for clip in clips]
    assert with_more != without  # other music changes votes and margins a little
    small_catalog.delete([one.track_id for one in added])
    stopped = threading.Event()

    def change() -> None:
        with astound.open(small_catalog.folder, model=tiny_model, device="cpu") as writer:
            while not stopped.is_set():
                added = writer.add(sounds / "absent").added
                writer.delete([one.track_id for one in added])

    changing = threading.Thread(target=change)
    changing.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(lambda i: concurrency.answer(small_catalog.query(clips[i % 5])), range(40))
            )
    finally:
        stopped.set()
        changing.join()
    for i, answer in enumerate(answers):
        assert answer in (without[i % 5], with_more[i % 5])
