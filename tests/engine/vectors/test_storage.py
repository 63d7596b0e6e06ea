from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ShardError
from engine.vectors.storage import LOST_FOLDER, PARTIAL_PREFIX, LocalStorage


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


def test_error_while_writing_leaves_nothing(shards: LocalStorage) -> None:
    with pytest.raises(OSError, match="disk"), shards.create():
        raise OSError("disk full")
    assert list(shards.folder.iterdir()) == []


def test_sweep_deletes_only_what_is_incomplete_superseded_or_empty(shards: LocalStorage) -> None:
    known, superseded = create(shards, "known"), create(shards, "superseded")
    (shards.folder / "empty").mkdir()
    partial = shards.folder / f"{PARTIAL_PREFIX}left"
    partial.mkdir()
    (partial / "file").write_text("half")
    swept = shards.sweep([known, "elsewhere"], [superseded])
    assert sorted(swept) == sorted([superseded, "empty", partial.name])
    assert [entry.name for entry in shards.folder.iterdir()] == [known]


def test_sweep_moves_unknown_shards_aside_and_never_over_another(shards: LocalStorage) -> None:
    known, orphan = create(shards, "known"), create(shards, "orphan")
    assert shards.sweep([known]) == [orphan]
    shards.path(orphan).mkdir()
    (shards.path(orphan) / "file").write_text("put back")
    assert shards.sweep([known]) == [orphan]
    contents = sorted((path / "file").read_text() for path in shards.lost())
    assert contents == ["orphan", "put back"]
    for path in shards.lost():
        shards.delete_lost(path)
    assert shards.lost() == []


@pytest.mark.parametrize("name", ["../../x", "x", "A" * 32, "", ".", "0" * 32 + "/.."])
def test_names_that_are_no_shard_names_are_refused(shards: LocalStorage, name: str) -> None:
    for refused in (shards.path, shards.delete):
        with pytest.raises(ShardError, match="32 hexadecimal digits"):
            refused(name)


def test_symbolic_links_are_refused_and_left_alone(shards: LocalStorage, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    create(shards, "a")
    link = shards.folder / ("0" * 32)
    link.symlink_to(target)
    assert link.name not in shards.names()
    shards.sweep([])
    assert (link.is_symlink(), target.is_dir()) == (True, True)
    with pytest.raises(ShardError, match="symbolic link"):
        shards.path(link.name)


def test_files_beside_the_shards_are_none(shards: LocalStorage) -> None:
    create(shards, "a")
    (shards.folder / "note.txt").write_text("of a person")
    shards.sweep([])
    entries = sorted(entry.name for entry in shards.folder.iterdir())
    assert entries == [LOST_FOLDER, "note.txt"]


def test_deleted_shard_is_gone(shards: LocalStorage) -> None:
    first, second = create(shards, "a"), create(shards, "b")
    shards.delete(first)
    assert shards.names() == [second]
    assert not shards.path(first).exists()
