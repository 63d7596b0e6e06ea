from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import filelock
import pytest

import astound
from astound.backup import MARKER_FILE
from astound.catalog import Catalog
from engine.errors import CatalogBusyError, ConfigError, StoreError
from engine.vectors.storage import LocalStorage
from tests.astound.commands.conftest import Run, home, library, run
from tests.astound.service.conftest import catalog
from tests.audio_files import cached_tune, write_wav
from tests.catalogs import compact, database_rows

__all__ = ["catalog", "home", "library", "run"]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "far" / "backup"


def opened(folder: Path, tiny_weights: Path) -> Catalog:
    return astound.open(folder, model=tiny_weights, create=False)


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "shards").iterdir()}


def test_backup_is_a_catalog(
    catalog: Catalog, target: Path, tiny_weights: Path, home: Path
) -> None:
    catalog.delete([2])
    catalog.save_calibration(catalog.calibration)
    _, secret = catalog.keys.create("query")
    report = catalog.backup(target)
    assert (report.n_tracks, report.n_copied) == (3, report.n_shards)
    assert report.n_bytes == catalog.stats().n_bytes > 0
    with opened(target, tiny_weights) as copy:
        assert database_rows(copy) == database_rows(catalog)
        assert copy.verify() == []
        assert copy.query("known.wav").matches == catalog.query("known.wav").matches
        assert copy.calibration == catalog.calibration
        assert copy.keys.find(secret)
        copy.delete([1])
    assert len(catalog.tracks()) == 3


def test_uploaded_recordings_are_copied_once(
    catalog: Catalog, target: Path, tiny_weights: Path, home: Path
) -> None:
    uploads = catalog.folder / "recordings"
    for name, seed in (("20260101-a/ten.wav", 10), ("20260101-a/eleven.wav", 11)):
        (uploads / name).parent.mkdir(parents=True, exist_ok=True)
        write_wav(uploads / name, cached_tune(seed, 12.0), 8000)
    catalog.add(uploads)
    assert catalog.backup(target).n_recordings == 2
    assert catalog.backup(target).n_recordings == 0
    (uploads / "20260101-a" / "eleven.wav").unlink()
    write_wav(uploads / "20260101-a" / "ten.wav", cached_tune(12, 12.0), 8000)
    assert catalog.backup(target).n_recordings == 1
    (copied,) = target.glob("recordings/*/*")
    assert copied.read_bytes() == (uploads / "20260101-a" / "ten.wav").read_bytes()
    shutil.rmtree(uploads)
    catalog.backup(target)
    assert list(target.glob("recordings/*")) == []


def test_restored_upload_is_played(catalog: Catalog, target: Path, tiny_weights: Path) -> None:
    file = (catalog.folder / "recordings" / "20260101-a" / "ten.wav").absolute()
    file.parent.mkdir(parents=True)
    write_wav(file, cached_tune(10, 12.0), 8000)
    track = catalog.add(file).added[0].track_id
    catalog.backup(target)
    folder = catalog.folder
    catalog.close()
    shutil.rmtree(folder)
    shutil.copytree(target, folder)
    with opened(folder, tiny_weights) as restored:
        assert restored.audio_file(track) == file


def test_restored_catalog_does_not_execute_the_jobs_again(
    catalog: Catalog, target: Path, tiny_weights: Path
) -> None:
    jobs = [catalog.jobs.create("verify", {}, key_id=None, upload=None) for _ in range(2)]
    started = catalog.jobs.start_next()
    assert started
    assert started.id == jobs[0].id
    catalog.backup(target)
    with opened(target, tiny_weights) as copy:
        assert [copy.jobs.get(one.id).status for one in jobs] == ["cancelled"] * 2
    assert [catalog.jobs.get(one.id).status for one in jobs] == ["running", "queued"]


def test_later_backup_copies_what_is_new(
    catalog: Catalog, target: Path, tiny_weights: Path, home: Path
) -> None:
    catalog.backup(target)
    assert catalog.backup(target).n_copied == 0
    write_wav(home / "new.wav", cached_tune(9, 12.0), 8000)
    catalog.add("new.wav")
    report = catalog.backup(target)
    assert (report.n_tracks, report.n_copied) == (5, 1)
    compact(catalog)
    calls: list[tuple[int, int]] = []
    assert catalog.backup(target, on_progress=lambda *call: calls.append(call)).n_copied == 1
    assert calls == [(1, 1)]
    assert names(target) == set(catalog._store.shard_names())
    with opened(target, tiny_weights) as copy:
        assert database_rows(copy) == database_rows(catalog)
        assert copy.verify() == []


def test_backup_of_a_catalog_that_is_written_is_sound(
    catalog: Catalog, target: Path, tiny_weights: Path, home: Path
) -> None:
    """Tracks are added and removed, and shards replaced, all the time."""
    is_done = threading.Event()
    n_rounds = 0

    def write() -> None:
        nonlocal n_rounds
        with opened(catalog.folder, tiny_weights) as writer:
            while not is_done.is_set():
                path = home / f"{n_rounds}.wav"
                write_wav(path, cached_tune(9, 12.0)[n_rounds * 80 :], 8000)
                added = writer.add(path).added[0]
                compact(writer)
                writer.delete([added.track_id])
                n_rounds += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while n_rounds < 3 and thread.is_alive():
            catalog.backup(target)
            with opened(target, tiny_weights) as copy:
                assert copy.verify() == []
                assert len(copy.tracks()) in (4, 5)
                assert names(target) == set(copy._store.shard_names())
    finally:
        is_done.set()
        thread.join()
    assert n_rounds >= 3


def test_shard_that_is_replaced_while_it_is_copied_is_not_taken(
    catalog: Catalog, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of its files may have been gone when their names were read."""
    copyfile, n_copied = shutil.copyfile, 0

    def copy(source: Path, destination: Path) -> object:
        nonlocal n_copied
        n_copied += 1
        done = copyfile(source, destination)
        if n_copied == 1:
            with monkeypatch.context() as kept:  # the deletion of its files has not begun
                kept.setattr(LocalStorage, "sweep", lambda *_: [])
                compact(catalog)
        return done

    monkeypatch.setattr(shutil, "copyfile", copy)
    catalog.backup(target)
    assert names(target) == set(catalog._store.shard_names())


def test_interrupted_backup_leaves_the_earlier_one(
    catalog: Catalog, target: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.backup(target)
    with opened(target, tiny_weights) as copy:
        before = database_rows(copy)
    compact(catalog)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(shutil, "copyfile", fail)
        with pytest.raises(OSError, match="No space"):
            catalog.backup(target)
    with opened(target, tiny_weights) as copy:
        assert database_rows(copy) == before
        assert copy.verify() == []
    assert catalog.backup(target).n_copied == 1


@pytest.mark.parametrize("content", ["something.txt", "astound.toml", MARKER_FILE])
def test_other_folders_are_not_overwritten(catalog: Catalog, target: Path, content: str) -> None:
    target.mkdir(parents=True)
    (target / content).write_text(json.dumps({"of": "/another/catalog"}))
    with pytest.raises(ConfigError, match="choose another folder"):
        catalog.backup(target)
    assert [path.name for path in target.iterdir()] == [content]
    with pytest.raises(ConfigError, match="choose another folder"):
        catalog.backup(catalog.folder)


def test_lost_shard_is_one_sentence(catalog: Catalog, target: Path) -> None:
    (name, *_) = catalog._store.shard_names()
    shutil.rmtree(catalog._shards.path(name))
    with pytest.raises(StoreError, match=rf"a shard is missing \(.*{name}\); see `astound verify`"):
        catalog.backup(target)


def test_two_backups_at_once_are_refused(catalog: Catalog, target: Path) -> None:
    target.mkdir(parents=True)
    with (
        filelock.FileLock(target / "backup.lock"),
        pytest.raises(CatalogBusyError, match="another backup"),
    ):
        catalog.backup(target)


def test_command_backs_up(home: Path, run: Run) -> None:
    first = run("backup", "far/backup")
    assert first.exit_code == 0
    assert first.stdout.startswith("4 tracks in ")
    recordings = home / "catalog" / "recordings" / "a"
    recordings.mkdir(parents=True)
    write_wav(recordings / "one.wav", cached_tune(10, 1.0), 8000)
    assert "and 1 recording;" in run("backup", "far/backup").stdout
    assert "shards copied: 0 (0.0 MB)" in run("backup", "far/backup").stdout
    assert run("--catalog", "far/backup", "verify").exit_code == 0
    assert run("backup", ".").exit_code == 1
