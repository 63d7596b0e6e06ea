from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from astound.catalog import Catalog
from engine.store.tables import TrackRow
from tests.catalogs import RATE, add, clip, found, open_catalog, shard_of


@pytest.fixture(scope="module")
def filled_catalog(tmp_path_factory: pytest.TempPathFactory, tunes: Path) -> Path:
    """Folder of a catalog of tunes 0 to 2 in one shard and 3 in another; not to be changed."""
    folder = tmp_path_factory.mktemp("filled_catalog") / "catalog"
    with open_catalog(folder) as catalog:
        catalog.add([tunes / f"{number}.wav" for number in range(3)])
        add(catalog, tunes, [3])
    return folder


@pytest.fixture
def catalog(filled_catalog: Path, tmp_path: Path) -> Iterator[Catalog]:
    shutil.copytree(filled_catalog, tmp_path / "catalog")
    with open_catalog(tmp_path / "catalog") as catalog:
        yield catalog


def put(catalog: Catalog, track_id: int, **columns: int) -> None:
    """Spoil a track's row."""
    with catalog._store._writing() as connection:
        change = sa.update(TrackRow).where(TrackRow.id == track_id)
        connection.execute(change.values(**columns))


MISPLACED: dict[str, tuple[dict[str, int], str, set[int]]] = {
    "behind the end": ({"first_row": 15}, "track 3 has segments 15 to 22 of 21", {3}),
    "before the beginning": ({"first_row": -1}, "track 3 has segments -1 to 6 of 21", {3}),
    "too long": ({"n_segments": 100}, "track 3 has segments 14 to 114 of 21", {3}),
    "negative": ({"n_segments": -1}, "track 3 has segments 14 to 13 of 21", {3}),
    "on another": ({"first_row": 13}, "tracks 2 and 3 have the same segments", {2, 3}),
    "clips behind the end": ({"first_clip": 5}, "track 3 has clips 5 to 7 of 6", {3}),
    "more clips": ({"n_clips": 3}, "track 3 has clips 4 to 7 of 6", {3}),
    "clips on another": ({"first_clip": 3}, "tracks 2 and 3 have the same clips", {2, 3}),
}


@pytest.mark.parametrize("name", MISPLACED)
def test_misplaced_tracks_are_problems(catalog: Catalog, name: str) -> None:
    columns, reason, track_ids = MISPLACED[name]
    put(catalog, 3, **columns)
    problems = catalog._check_shards(lambda n_done, n_all: None)
    assert problems.messages == [f"{shard_of(catalog, 3)}: {reason}"]
    assert (problems.bad_tracks, problems.bad_shards) == (track_ids, [])


@pytest.mark.parametrize("name", MISPLACED)
def test_misplaced_tracks_are_repaired(catalog: Catalog, name: str) -> None:
    columns, _, track_ids = MISPLACED[name]
    put(catalog, 3, **columns)
    report = catalog.repair()
    assert {track.id for track in report.repaired} == track_ids
    assert catalog.verify() == []
    assert [found(catalog, number) for number in range(4)] == [f"{n}.wav" for n in range(4)]
    assert {shard_of(catalog, i).name for i in (1, 2, 3)} > {shard_of(catalog, 1).name}


def test_track_on_two_others_names_all(catalog: Catalog) -> None:
    put(catalog, 1, n_segments=21)
    problems = catalog._check_shards(lambda n_done, n_all: None)
    assert len(problems.messages) == 2
    assert problems.bad_tracks == {1, 2, 3}


@pytest.mark.parametrize("column", ["n_segments", "n_clips"])
def test_wrong_counts_are_problems_and_are_corrected(catalog: Catalog, column: str) -> None:
    before = catalog._store.shards()
    with catalog._store._writing() as connection:
        connection.execute(sa.text(f"UPDATE shards SET {column} = 7 WHERE id = 1"))
    (problem,) = catalog.verify()
    assert "has 21 segments and 6 clips, but the database states" in problem
    report = catalog.repair()
    assert (report.problems, report.repaired, report.removed) == ([problem], [], [])
    assert (catalog._store.shards(), catalog.verify()) == (before, [])


def test_shard_left_from_a_crash_is_no_problem(catalog: Catalog) -> None:
    (catalog.folder / "shards" / ".partial-0").mkdir()
    assert catalog.verify() == []


def test_unreadable_file_is_a_problem(catalog: Catalog) -> None:
    shard = shard_of(catalog, 4)
    header = json.loads((shard / "header.json").read_text())
    header["sha256"]["gone.npy"] = "0"
    (shard / "header.json").write_text(json.dumps(header))
    (problem,) = catalog.verify()
    assert "invalid sha256: must name clips.i8, segments.faiss, tracks.jsonl" in problem


def test_shard_of_a_newer_version_is_a_problem_that_repair_leaves_alone(catalog: Catalog) -> None:
    shard = shard_of(catalog, 4)
    header = json.loads((shard / "header.json").read_text())
    (shard / "header.json").write_text(json.dumps(header | {"version": 99}))
    before = catalog.tracks()
    (problem,) = catalog.verify()
    assert "update astound" in problem
    report = catalog.repair()
    assert (report.problems, report.repaired, report.removed) == ([problem], [], [])
    assert (catalog.tracks(), shard.is_dir()) == (before, True)


def test_changed_hop_is_a_problem(catalog: Catalog) -> None:
    catalog._store.put_settings({"segment_hop_s": "7.5"})
    assert all("but the database states 7.5" in problem for problem in catalog.verify())
    assert len(catalog.verify()) == len(catalog._store.shards())


def test_row_whose_shard_leads_nowhere_is_repaired(catalog: Catalog) -> None:
    database = sqlite3.connect(catalog.folder / "catalog.db")
    with closing(database), database:
        database.execute("UPDATE tracks SET shard_id = 999 WHERE id = 1")
    assert catalog.verify() == ["track 1: the shard of its row is not in the database"]
    assert [track.id for track in catalog.repair().repaired] == [1]
    assert catalog.verify() == []


def test_progress_counts_shards(catalog: Catalog) -> None:
    shown: list[tuple[int, int]] = []
    catalog.verify(on_progress=lambda *counts: shown.append(counts))
    assert shown == [(1, 2), (2, 2)]


@pytest.mark.parametrize("remove", [shutil.rmtree], ids=["removed"])
def test_shard_compacted_during_the_check_is_no_problem(
    catalog: Catalog, remove: Callable[[Path], None]
) -> None:
    def vanish(n_done: int, n_all: int) -> None:
        if n_done == 1:
            remove(last)
            catalog._store.delete([4])
            catalog._store.delete_shards([last.name])

    last = shard_of(catalog, 4)
    assert catalog.verify(on_progress=vanish) == []
    assert catalog.query(clip(0), RATE, min_confidence=0.0).best
