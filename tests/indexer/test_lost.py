"""Shards that the database does not name are never lost: emptied and older databases, crashes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from astound.catalog import Catalog
from engine.errors import StoreError
from engine.vectors.shard import write_shard
from indexer.sources import CatalogSource
from tests.catalogs import (
    add,
    contents,
    database_rows,
    flip_a_byte,
    open_catalog,
    replace_rows,
    shards_on_disk,
)


@pytest.fixture
def folder(tmp_path: Path, tunes: Path) -> Path:
    """Folder of a catalog of two tunes with a note."""
    with open_catalog(tmp_path / "catalog") as catalog:
        add(catalog, tunes, range(2))
        catalog.update(1, title="Noted", metadata={"key": "value"})
    return tmp_path / "catalog"


def empty_database(folder: Path) -> None:
    with open_catalog(folder.parent / "empty"):
        pass
    for old in folder.glob("catalog.db*"):
        old.unlink()
    shutil.copy(folder.parent / "empty" / "catalog.db", folder / "catalog.db")


def lost(catalog: Catalog) -> int:
    return len(catalog._shards.lost())


def test_emptied_database_is_a_problem_and_repair_restores_all_tracks(folder: Path) -> None:
    with open_catalog(folder) as catalog:
        catalog.compact()
        before = contents(catalog)
    empty_database(folder)
    with open_catalog(folder) as catalog:
        (problem,) = catalog.verify()
        assert "database is empty" in problem
        assert "2 of its 2 tracks are not in the catalog" in problem
        assert len(catalog.repair().restored) == 2
        assert (contents(catalog), catalog.verify(), lost(catalog)) == (before, [], 0)
        noted = catalog.track(1)
        assert (noted.title, noted.metadata["key"]) == ("Noted", "value")


@pytest.mark.parametrize("is_emptied", [True, False])
def test_postgres_catalog_is_restored_from_its_shards(
    tmp_path: Path, tunes: Path, postgres: str, is_emptied: bool
) -> None:
    with open_catalog(tmp_path / "catalog", postgres) as catalog:
        add(catalog, tunes, range(2))
        catalog.update(1, title="Noted", metadata={"key": "value"})
        older = database_rows(catalog)
        add(catalog, tunes, [2])
        catalog.compact()
        before = contents(catalog)
        replace_rows(catalog, None if is_emptied else older)
    with open_catalog(tmp_path / "catalog") as catalog:
        assert catalog.verify() != []
        report = catalog.repair()
        assert (len(report.restored), report.removed) == (3 if is_emptied else 1, [])
        assert (contents(catalog), catalog.verify(), lost(catalog)) == (before, [], 0)
        add(catalog, tunes, [3])
        assert len(catalog.tracks()) == 4


def test_writers_on_an_emptied_database_delete_nothing(folder: Path, tunes: Path) -> None:
    before = {path.name for path in folder.glob("shards/*")}
    empty_database(folder)
    with open_catalog(folder) as catalog:
        catalog.compact()
        for change in (
            lambda: add(catalog, tunes, [3]),
            lambda: catalog.merge(folder.parent / "empty"),
        ):
            with pytest.raises(StoreError, match="there are shards"):
                change()
        assert {path.name for path in catalog._shards.lost()} == before
        assert len(catalog.repair().restored) == 2


def test_older_database_gets_the_tracks_of_the_compacted_shard_back(
    folder: Path, tunes: Path
) -> None:
    with open_catalog(folder) as catalog:
        shutil.copy(folder / "catalog.db", folder.parent / "backup.db")
        add(catalog, tunes, [2])
        catalog.compact()
        before = contents(catalog)
    for old in folder.glob("catalog.db*"):
        old.unlink()
    shutil.copy(folder.parent / "backup.db", folder / "catalog.db")
    with open_catalog(folder) as catalog:
        ids = [track.id for track in catalog.tracks()]
        assert catalog.verify() != []
        report = catalog.repair()
        assert report.removed == []
        assert len(report.restored) == len(before) - len(ids)
        assert [track.id for track in catalog.tracks()][: len(ids)] == ids
        assert (contents(catalog), catalog.verify(), lost(catalog)) == (before, [], 0)


def test_superseded_shards_are_deleted_and_not_restored(folder: Path) -> None:
    with open_catalog(folder) as catalog:
        kept = folder.parent / "kept"
        shutil.copytree(folder / "shards", kept)
        catalog.delete([1])
        store = catalog._store
        names = store.shard_names()
        store.delete([track.id for track in catalog.tracks()])
        store.delete_shards(names)
        assert catalog.verify() == []
        report = catalog.repair()
        assert (sorted(report.swept), report.restored) == (sorted(names), [])
        assert (shards_on_disk(catalog), lost(catalog)) == (set(), 0)
        assert store.superseded_shards() == []


def test_damaged_shard_set_aside_stays(folder: Path) -> None:
    empty_database(folder)
    with open_catalog(folder) as catalog:
        for path in folder.glob("shards/*/segments.faiss"):
            flip_a_byte(path)
        report = catalog.repair()
        assert (report.restored, lost(catalog)) == ([], len(report.lost))
        assert report.lost


def test_missing_folder_of_shards_is_refused_by_every_writer(folder: Path, tunes: Path) -> None:
    with open_catalog(folder) as catalog:
        shutil.rmtree(folder / "shards")
        for change in (catalog.compact, catalog.repair, lambda: add(catalog, tunes, [3])):
            with pytest.raises(StoreError, match="folder of shards is missing"):
                change()
            assert not (folder / "shards").exists()


def test_shard_of_version_3_is_read_but_cannot_be_restored(folder: Path) -> None:
    for header in folder.glob("shards/*/header.json"):
        content = json.loads(header.read_text()) | {"version": 3}
        del content["sha256"]["tracks.jsonl"]
        header.write_text(json.dumps(content))
        (header.parent / "tracks.jsonl").unlink()
    with open_catalog(folder) as catalog:
        assert catalog.verify() == []
    empty_database(folder)
    with open_catalog(folder) as catalog:
        assert all("cannot be restored" in line for line in catalog.verify())
        report = catalog.repair()
        assert (report.restored, lost(catalog)) == ([], len(report.lost))


# -- deleted tracks ------------------------------------------------------------------------------


def orphan_of_all_tracks(catalog: Catalog) -> None:
    """Leave what a compaction leaves that dies just before its transaction."""
    new = catalog._store.new_tracks([track.id for track in catalog.tracks()])
    source = CatalogSource("all", catalog._store, catalog._shards)
    vectors = [batch.read(i) for batch in source.batches() for i in range(len(batch.tracks))]
    write_shard(catalog._shards, vectors, tracks=list(new.values()))


def test_tracks_deleted_after_an_interrupted_compaction_stay_deleted(folder: Path) -> None:
    with open_catalog(folder) as catalog:
        orphan_of_all_tracks(catalog)
        catalog.delete([1])
        report = catalog.repair()
        assert (report.problems, report.restored, lost(catalog)) == ([], [], 1)
        (line,) = report.lost
        assert "1 of its 2 tracks are not in the catalog and were deleted" in line
        assert [track.id for track in catalog.tracks()] == [2]
        assert line in catalog.notices()


def test_shard_that_only_has_unknown_tracks_is_restored(folder: Path, tunes: Path) -> None:
    with open_catalog(folder) as catalog:
        shutil.copy(folder / "catalog.db", folder.parent / "backup.db")
        add(catalog, tunes, [2])
        before = contents(catalog)
    for old in folder.glob("catalog.db*"):
        old.unlink()
    shutil.copy(folder.parent / "backup.db", folder / "catalog.db")
    with open_catalog(folder) as catalog:
        report = catalog.repair()
        assert [track.title for track in report.restored] == ["Tune 2"]
        assert (contents(catalog), report.remaining, lost(catalog)) == (before, [], 0)
