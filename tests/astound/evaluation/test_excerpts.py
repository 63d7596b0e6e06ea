from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import astound
from astound.catalog import Catalog
from astound.evaluation import excerpts
from astound.evaluation.excerpts import Source
from engine.config import IngestConfig
from engine.errors import StoreError
from tests.audio_files import cached_tune, write_audio

RATE = 8000
N_TUNES = 4


@pytest.fixture(scope="module")
def filled_catalog(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Catalog]:
    """Tunes 0.wav ... and 1.flac, which is 1.wav 0.7 s later; not to be changed."""
    folder = tmp_path_factory.mktemp("filled_catalog")
    for seed in range(N_TUNES):
        write_audio(folder / f"{seed}.wav", cached_tune(seed, 10.0), RATE)
    late = np.concatenate([cached_tune(9, 0.7), cached_tune(1, 10.0)])
    write_audio(folder / "1.flac", late, RATE)
    with astound.open(folder / "catalog", model=tiny_model, device="cpu") as catalog:
        catalog.add(folder, config=IngestConfig(n_jobs=1))
        yield catalog


def held(catalog: Catalog, seed: int, start_s: float = 2.3) -> dict[str, float]:
    """Names of the tracks that hold a part of a tune, and where."""
    first = round(start_s * RATE)
    clean = cached_tune(seed, 10.0)[first : first + round(excerpts.MIN_EXCERPT_S * RATE)]
    found = excerpts.tracks_containing(clean, catalog.fingerprinter, catalog.search_context())
    return {Path(catalog.track(one).path).name: offset_s for one, offset_s in found.items()}


def test_every_track_with_the_same_audio_holds_an_excerpt_and_no_other(
    filled_catalog: Catalog,
) -> None:
    assert held(filled_catalog, 0) == {"0.wav": pytest.approx(2.3, abs=0.1)}
    assert held(filled_catalog, 1) == {
        "1.wav": pytest.approx(2.3, abs=0.1),
        "1.flac": pytest.approx(3.0, abs=0.1),
    }
    assert held(filled_catalog, 20) == {}


def test_tracks_left_out_are_never_found(filled_catalog: Catalog) -> None:
    every = filled_catalog.index.track_ids
    narrowed = excerpts.without_tracks(filled_catalog.index, every[1:3])
    assert narrowed.track_ids == [every[0], *every[3:]]
    stored = filled_catalog.index.vectors(every[1], 0, 5)
    addresses = narrowed.search(stored, 1000).addresses
    assert not {every[1], every[2]} & set((addresses[addresses >= 0] >> 24).tolist())
    assert excerpts.without_tracks(filled_catalog.index, every).track_ids == []


def test_choice_repeats_with_its_seed_and_leaves_out_files_that_are_gone(tmp_path: Path) -> None:
    sources = [Source(str(tmp_path / f"{k}.wav"), k) for k in range(20)]
    for one in sources[::2]:
        Path(one.path).touch()
    chosen = excerpts.select(sources, 6, 3)
    assert len(chosen) == len(set(chosen)) == 6
    assert all(one in sources[::2] for one in chosen)
    assert chosen == excerpts.select(sources, 6, 3)
    assert chosen != excerpts.select(sources, 6, 4)
    assert len(excerpts.select(sources, 100, 3)) == 10


def test_tracks_without_their_files_are_refused_clearly(filled_catalog: Catalog) -> None:
    gone = [replace(track, path="/gone.wav") for track in filled_catalog.tracks()]
    with pytest.raises(StoreError, match=r"files of all 5 tracks are missing.*update"):
        excerpts.select_tracks(gone, 3, 0)
    with pytest.raises(StoreError, match=r"no tracks.*astound add"):
        excerpts.select_tracks([], 3, 0)


def test_tasks_give_every_clip_to_one_source_and_all_nearly_as_many() -> None:
    tasks = excerpts.split_clips([Source(str(k), k) for k in range(4)], 10)
    assert sorted(number for task in tasks for number in task.numbers) == list(range(10))
    assert Counter(len(task.numbers) for task in tasks) == {3: 2, 2: 2}
    assert excerpts.split_clips([], 10) == []


def test_answers_come_in_the_order_of_the_tasks_with_progress() -> None:
    told: list[tuple[int, int]] = []
    tasks = excerpts.split_clips([Source(str(k), k) for k in range(5)], 10)
    answers = list(
        excerpts.run_tasks(
            lambda task: list(task.numbers), tasks, lambda n_done, n: told.append((n_done, n))
        )
    )
    assert answers == [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]
    assert told == [(k, 5) for k in range(6)]
