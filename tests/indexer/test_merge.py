from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from astound.catalog import Catalog
from engine.config import IngestConfig
from engine.errors import ConfigError, RecipeMismatchError, ShardError, StoreError
from engine.records import Placement, StoredVectors
from engine.store.store import Store
from indexer import sources
from indexer.merge import Renamed
from indexer.sources import CatalogSource, _IndexBatch
from tests.audio_files import cached_tune, write_wav
from tests.catalogs import (
    ONE_A_SHARD,
    RATE,
    TUNE_S,
    OtherSpectra,
    add,
    compact,
    contents,
    flip_a_byte,
    found,
    open_catalog,
    shard_of,
    shards_on_disk,
)


@pytest.fixture(scope="module")
def two_catalogs(tmp_path_factory: pytest.TempPathFactory, tunes: Path) -> Path:
    """Folder with two catalogs, "own" and "other"; not to be changed."""
    folder = tmp_path_factory.mktemp("two_catalogs")
    with open_catalog(folder / "own") as catalog:
        add(catalog, tunes, [0, 1])
    with open_catalog(folder / "other") as catalog:
        add(catalog, tunes, [1, 2, 3, 4])
        catalog.delete([str(tunes / "3.wav")])
    return folder


@pytest.fixture
def own(tmp_path: Path, two_catalogs: Path) -> Iterator[Catalog]:
    """A catalog of tunes 0 and 1."""
    shutil.copytree(two_catalogs / "own", tmp_path / "own")
    with open_catalog(tmp_path / "own") as catalog:
        yield catalog


@pytest.fixture
def other(tmp_path: Path, two_catalogs: Path) -> Iterator[Catalog]:
    """A catalog of tunes 1 to 4, of which 3 is deleted."""
    shutil.copytree(two_catalogs / "other", tmp_path / "other")
    with open_catalog(tmp_path / "other") as catalog:
        yield catalog


def test_catalog_in_postgres_is_merged_and_merged_into(
    tmp_path: Path, tunes: Path, postgres: str, own: Catalog, other: Catalog
) -> None:
    with open_catalog(tmp_path / "served", postgres) as served:
        add(served, tunes, [0, 5])
        expected = contents(other) | contents(served)
        assert served.merge(other.folder).n_merged == 3
        assert served.merge(own.folder).n_skipped == 2
        assert contents(served) == expected
        assert own.merge(served.folder).n_merged == 3
        assert contents(own) == expected


def test_merged_catalog_holds_both_and_finds_them(own: Catalog, other: Catalog) -> None:
    expected = contents(other) | contents(own)
    report = own.merge(other.folder)
    assert (report.n_merged, report.n_skipped, report.renamed) == (2, 1, [])
    assert contents(own) == expected
    assert own.verify() == []
    assert [found(own, n) for n in range(5)] == ["0.wav", "1.wav", "2.wav", None, "4.wav"]


def test_merging_twice_changes_nothing(own: Catalog, other: Catalog) -> None:
    own.merge(other.folder)
    before = contents(own), shards_on_disk(own)
    report = own.merge(other.folder)
    assert (report.n_merged, report.n_skipped) == (0, 3)
    assert (contents(own), shards_on_disk(own)) == before


def test_source_is_left_as_it_is(own: Catalog, other: Catalog) -> None:
    before = other._store.version(), shards_on_disk(other)
    own.merge(other.folder)
    assert (other._store.version(), shards_on_disk(other)) == before


def test_tags_and_metadata_of_the_catalog_are_kept(
    own: Catalog, other: Catalog, tunes: Path
) -> None:
    other.update(str(tunes / "1.wav"), title="Theirs")
    other.update(str(tunes / "2.wav"), title="Renamed", metadata={"mood": "", "key": "D"})
    own.merge(other.folder)
    assert own.track(str(tunes / "1.wav")).title == "Tune 1"
    track = own.track(str(tunes / "2.wav"))
    assert (track.title, track.metadata) == ("Renamed", {"key": "D"})


def test_merged_files_are_skipped_without_reading(
    own: Catalog, other: Catalog, tunes: Path
) -> None:
    own.merge(other.folder)
    path = tunes / "2.wav"
    status = path.stat()
    assert own._store.known_files()[str(path)] == (3, status.st_size, status.st_mtime_ns)
    assert [one.track_id for one in own.add(path).skipped] == [3]


def test_new_catalog_adopts_recipe_and_hop(tmp_path: Path, other: Catalog) -> None:
    with open_catalog(tmp_path / "new") as new:
        assert new.merge(other.folder).n_merged == 3
        assert contents(new) == contents(other)
        assert new._store.settings() == other._store.settings()


def test_merging_an_empty_catalog_changes_nothing(tmp_path: Path, own: Catalog) -> None:
    open_catalog(tmp_path / "empty").close()
    assert own.merge(tmp_path / "empty").n_merged == 0


@pytest.mark.parametrize(("max_segments", "n_shards"), [(1, 2), (7, 2), (8, 1), (1000, 1)])
def test_shards_are_of_bounded_size(
    own: Catalog, other: Catalog, max_segments: int, n_shards: int
) -> None:
    assert {one.n_segments for one in other._store.placements()} == {7}
    own.merge(other.folder, config=IngestConfig(max_segments=max_segments))
    assert len(own._store.shards()) == 2 + n_shards


def test_batches_are_bounded(other: Catalog, monkeypatch: pytest.MonkeyPatch, own: Catalog) -> None:
    own.merge(other.folder)  # both new tracks in one shard
    monkeypatch.setattr(sources, "MAX_SEGMENTS", 10)
    batches = list(CatalogSource("own", own._store, own._shards).batches())
    assert [len(batch.tracks) for batch in batches] == [1, 1, 1, 1]
    assert {track.path for batch in batches for track in batch.tracks} == contents(own).keys()


# -- paths that are taken ------------------------------------------------------------------------


@pytest.mark.parametrize("config", [IngestConfig(), ONE_A_SHARD], ids=["one shard", "each"])
def test_path_of_another_recording_is_renamed(
    tmp_path: Path, tunes: Path, config: IngestConfig
) -> None:
    path = tmp_path / "music" / "a.wav"
    path.parent.mkdir()
    for number in range(3):
        write_wav(path, cached_tune(number, TUNE_S), RATE)
        with open_catalog(tmp_path / f"{number}") as catalog:
            catalog.add(path, config=ONE_A_SHARD)
    with open_catalog(tmp_path / "0") as own:
        for number in (1, 2):
            with open_catalog(tmp_path / f"{number}") as other:
                content_hash = other.track(1).content_hash
            new_path = str(path.with_name(f"a ({content_hash[:8]}).wav"))
            report = own.merge(tmp_path / f"{number}", config=config)
            assert report.renamed == [Renamed(str(path), new_path)]
            assert found(own, number) == Path(new_path).name
            assert own.merge(tmp_path / f"{number}").renamed == []
        assert found(own, 0) == "a.wav"


def test_new_path_is_free_too(tmp_path: Path, tunes: Path) -> None:
    with open_catalog(tmp_path / "own") as own, open_catalog(tmp_path / "other") as other:
        add(own, tunes, [0, 1])
        add(other, tunes, [2])
        content_hash = other.track(1).content_hash
        own.update(1, path="/a.wav")
        own.update(2, path=f"/a ({content_hash[:8]}).wav")
        other.update(1, path="/a.wav")
        (renamed,) = own.merge(other.folder).renamed
        assert renamed.new_path == f"/a ({content_hash[:9]}).wav"


# -- what is refused -----------------------------------------------------------------------------


def test_other_recipe_is_refused_with_both_ids(tmp_path: Path, tunes: Path, own: Catalog) -> None:
    before = contents(own)
    with open_catalog(tmp_path / "foreign", model=OtherSpectra()) as foreign:
        add(foreign, tunes, [5])
    with pytest.raises(RecipeMismatchError, match=r"foreign .*fedcba9876543210.*0123456789abcdef"):
        own.merge(tmp_path / "foreign")
    assert contents(own) == before


def test_other_hop_is_refused(own: Catalog, other: Catalog) -> None:
    other._store.put_settings({"segment_hop_s": "0.25"})
    with pytest.raises(ConfigError, match=r"=0\.25: must be 0\.5, as in this catalog"):
        own.merge(other.folder)


def test_catalog_is_not_merged_into_itself(own: Catalog) -> None:
    with pytest.raises(StoreError, match="into itself"):
        own.merge(own.folder)


def test_missing_catalog_is_not_created(own: Catalog, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no catalog here"):
        own.merge(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_damaged_shard_ends_the_merge_and_keeps_what_came_before(
    own: Catalog, other: Catalog, tunes: Path
) -> None:
    flip_a_byte(shard_of(other, 4) / "header.json", 0)
    with pytest.raises(ShardError, match="header"):
        own.merge(other.folder)
    assert str(tunes / "2.wav") in contents(own)
    assert own.verify() == []


def test_shards_without_their_database_are_not_swept_away(tmp_path: Path, other: Catalog) -> None:
    shards = tmp_path / "new" / "shards"
    (shards / "precious").mkdir(parents=True)
    with open_catalog(tmp_path / "new") as new, pytest.raises(StoreError, match="backup"):
        new.merge(other.folder)
    assert [entry.name for entry in shards.iterdir()] == ["precious"]


# -- while the source changes --------------------------------------------------------------------


def test_source_compacted_during_a_merge_is_read_to_the_end(
    own: Catalog, other: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = contents(other) | contents(own)
    _compact_after_reading_rows(other, monkeypatch)
    report = own.merge(other.folder)
    assert (report.n_merged, report.n_skipped) == (2, 1)
    assert contents(own) == expected


def _compact_after_reading_rows(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Move all tracks of a catalog to a new shard just after a reader has learned of the old."""
    read, todo = Store.placements, [True]

    def placements(store: Store) -> list[Placement]:
        rows = read(store)
        if todo and {one.shard for one in rows} == {one.name for one in catalog._store.shards()}:
            todo.clear()
            compact(catalog, rows)
        return rows

    catalog._store.delete_shards(_empty_shards(catalog))
    monkeypatch.setattr(Store, "placements", placements)


def _empty_shards(catalog: Catalog) -> list[str]:
    used = {one.shard for one in catalog._store.placements()}
    return [name for name in catalog._store.shard_names() if name not in used]


# -- vectors that cannot be right ----------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.5, float("nan"), float("inf")])
def test_vectors_beyond_unit_norm_are_refused(
    own: Catalog, other: Catalog, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    read = _IndexBatch.read

    def louder(batch: _IndexBatch, number: int) -> StoredVectors:
        vectors = read(batch, number)
        return replace(vectors, embeddings=vectors.embeddings * np.float32(factor))

    before = contents(own)
    monkeypatch.setattr(_IndexBatch, "read", louder)
    with np.errstate(all="ignore"), pytest.raises(ConfigError, match="norm of a vector of"):
        own.merge(other.folder)
    assert contents(own) == before


def test_vectors_of_another_dim_are_refused(
    own: Catalog, other: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = _IndexBatch.read

    def shorter(batch: _IndexBatch, number: int) -> StoredVectors:
        vectors = read(batch, number)
        return replace(vectors, embeddings=vectors.embeddings[:, :-1])

    before = contents(own)
    monkeypatch.setattr(_IndexBatch, "read", shorter)
    with pytest.raises(ConfigError, match="as in this catalog"):
        own.merge(other.folder)
    monkeypatch.undo()
    assert contents(own) == before
