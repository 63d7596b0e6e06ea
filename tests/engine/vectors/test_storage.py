from __future__ import annotations

from pathlib import Path

import pytest

from engine.vectors.storage import PARTIAL_PREFIX, LocalStorage


@pytest.fixture
def shards(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "catalog" / "shards")


def create(shards: LocalStorage, content: str) -> str:
    with shards.create() as (name, folder):
        (folder / "file").write_text(content)
    return name


def test_storage_before_its_first_shard_is_empty(shards: LocalStorage) -> None:
    assert not shards.exists()
    assert shards.names() == []
    assert shards.sweep([]) == []
    assert not shards.exists()


def test_created_shards_keep_their_files_under_their_names(shards: LocalStorage) -> None:
    names = [create(shards, content) for content in ("a", "b")]
    assert shards.exists()
    assert shards.names() == sorted(names)
    assert [(shards.path(name) / "file").read_text() for name in names] == ["a", "b"]


def test_shard_is_under_another_name_until_it_is_complete(shards: LocalStorage) -> None:
    with shards.create() as (name, folder):
        assert list(folder.iterdir()) == []
        assert folder != shards.path(name)
        assert not shards.path(name).exists()
    assert not folder.exists()


def test_error_while_writing_leaves_an_incomplete_shard_to_be_swept(shards: LocalStorage) -> None:
    with pytest.raises(OSError, match="disk"), shards.create() as (_, folder):
        raise OSError("disk full")
    assert shards.names() == [folder.name]
    assert folder.name.startswith(PARTIAL_PREFIX)
    assert shards.sweep([]) == [folder.name]
    assert shards.names() == []


def test_sweep_deletes_all_shards_but_the_known(shards: LocalStorage) -> None:
    known, orphan = create(shards, "known"), create(shards, "orphan")
    partial = shards.path(f"{PARTIAL_PREFIX}left")
    partial.mkdir()
    (partial / "file").write_text("half")
    assert sorted(shards.sweep([known, "elsewhere"])) == sorted([orphan, partial.name])
    assert shards.names() == [known]
    assert (shards.path(known) / "file").read_text() == "known"
    assert shards.sweep([known]) == []


def test_files_beside_the_shards_are_none(shards: LocalStorage) -> None:
    create(shards, "a")
    (shards.folder / "note.txt").write_text("of a person")
    shards.sweep([])
    assert [entry.name for entry in shards.folder.iterdir()] == ["note.txt"]


def test_deleted_shard_is_gone(shards: LocalStorage) -> None:
    first, second = create(shards, "a"), create(shards, "b")
    shards.delete(first)
    assert shards.names() == [second]
    assert not shards.path(first).exists()
