from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from astound.catalog import Catalog
from engine.config import IngestConfig
from engine.errors import RecipeMismatchError, StoreError
from engine.store import queries
from tests.audio_files import cached_tune, write_tags, write_wav
from tests.catalogs import (
    N_TUNES,
    ONE_A_SHARD,
    RATE,
    TUNE_S,
    OtherSpectra,
    contents,
    flip_a_byte,
    found,
    open_catalog,
    shard_of,
    shards_on_disk,
)

NUMBERS = range(4)


@pytest.fixture
def music(tmp_path: Path, tunes: Path) -> Path:
    """A copy of the tunes that may be changed."""
    shutil.copytree(tunes, tmp_path / "music")
    return tmp_path / "music"


def fill(catalog: Catalog, music: Path) -> None:
    """Add tunes 0 to 3: two in one shard, and two with one each."""
    noted = {str(music / f"{number}.wav"): {"title": f"Tune {number}"} for number in NUMBERS}
    catalog.add([music / "0.wav", music / "1.wav"], metadata=noted)
    catalog.add([music / "2.wav", music / "3.wav"], metadata=noted, config=ONE_A_SHARD)


@pytest.fixture(scope="module")
def filled_catalog(tmp_path_factory: pytest.TempPathFactory, tunes: Path) -> Path:
    """A filled catalog; not to be changed."""
    folder = tmp_path_factory.mktemp("filled_catalog") / "catalog"
    with open_catalog(folder) as catalog:
        fill(catalog, tunes)
    return folder


@pytest.fixture
def catalog(tmp_path: Path, filled_catalog: Path, music: Path) -> Iterator[Catalog]:
    """A filled catalog, with ids 1 to 4, whose files are those of `music`."""
    shutil.copytree(filled_catalog, tmp_path / "catalog")
    with open_catalog(tmp_path / "catalog") as catalog:
        for track in catalog.tracks():
            catalog.update(track.id, path=str(music / Path(track.path).name))
        yield catalog


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _other_recipe(shard: Path) -> None:
    header = json.loads((shard / "header.json").read_text())
    (shard / "header.json").write_text(json.dumps(header | {"recipe_id": "fedcba9876543210"}))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": shutil.rmtree,
    "flipped": lambda shard: flip_a_byte(shard / "segments.faiss"),
    "other recipe": _other_recipe,
    "no header": lambda shard: (shard / "header.json").write_text("{"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_tracks_of_a_damaged_shard_are_fingerprinted_again(catalog: Catalog, name: str) -> None:
    before, tracks, healthy = contents(catalog), catalog.tracks(), shard_of(catalog, 3)
    bytes_before = {path: path.read_bytes() for path in healthy.iterdir()}
    DAMAGES[name](shard_of(catalog, 1))
    (problem,) = catalog.verify()
    report = catalog.repair()
    assert (report.problems, report.removed, report.swept) == ([problem], [], [])
    assert report.repaired == tracks[:2]
    assert catalog.verify() == []
    assert (contents(catalog), catalog.tracks()) == (before, tracks)
    assert {path: path.read_bytes() for path in healthy.iterdir()} == bytes_before
    assert shards_on_disk(catalog) == set(catalog._store.shard_names())
    assert [found(catalog, number) for number in NUMBERS] == [f"{n}.wav" for n in NUMBERS]


def _by_bytes(catalog: Catalog, path: Path) -> None:
    """Give the track of a file the hash that an older catalog has."""
    file_hash = hashlib.sha256(path.read_bytes()).hexdigest()
    with catalog._store._writing() as connection:
        queries.update_track(connection, 1, {"content_hash": file_hash})


@pytest.mark.parametrize(
    "change",
    [lambda catalog, path: write_tags(path, title="Tagged"), _by_bytes],
    ids=["tagged", "of an older catalog"],
)
def test_track_is_repaired_from_its_file_by_sound_or_by_bytes(
    catalog: Catalog, music: Path, change: Callable[[Catalog, Path], None]
) -> None:
    change(catalog, music / "0.wav")
    shutil.rmtree(shard_of(catalog, 1))
    report = catalog.repair()
    assert ([track.id for track in report.repaired], report.removed) == ([1, 2], [])
    assert found(catalog, 0) == "0.wav"


def test_catalog_in_postgres_is_repaired(tmp_path: Path, tunes: Path, postgres: str) -> None:
    with open_catalog(tmp_path / "catalog", postgres) as catalog:
        fill(catalog, tunes)
        before = contents(catalog)
        shutil.rmtree(shard_of(catalog, 1))
        catalog.update(2, path="/gone.wav")
        report = catalog.repair()
        assert [track.id for track in report.repaired] == [1]
        assert [one.track.id for one in report.removed] == [2]
        assert catalog.verify() == []
        del before[str(tunes / "1.wav")]
        assert contents(catalog) == before


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda path: path.unlink(), "No such file or directory"),
        (_make_folder, "not a regular file"),
        (_make_pipe, "not a regular file"),
        (lambda path: path.write_bytes(b"not music"), "content of the file has changed"),
        (
            lambda path: write_wav(path, cached_tune(N_TUNES, TUNE_S), RATE),
            "content of the file has changed",
        ),
        (  # of a track that is repaired as well, so that it is decoded
            lambda path: shutil.copy(path.with_name("1.wav"), path),
            "content of the file has changed",
        ),
    ],
    ids=["gone", "folder", "pipe", "no music", "other music", "swapped"],
)
def test_track_that_cannot_be_fingerprinted_again_is_removed(
    catalog: Catalog, music: Path, fault: Callable[[Path], object], reason: str
) -> None:
    first = catalog.track(1)
    fault(music / "0.wav")
    shutil.rmtree(shard_of(catalog, 1))
    report = catalog.repair()
    assert [track.id for track in report.repaired] == [2]
    assert [(one.track, one.reason) for one in report.removed] == [(first, reason)]
    assert [track.id for track in catalog.tracks()] == [2, 3, 4]
    assert catalog.verify() == []
    assert [found(catalog, number) for number in (1, 2, 3)] == ["1.wav", "2.wav", "3.wav"]


def test_file_that_can_no_longer_be_decoded_is_removed(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(shard_of(catalog, 1))
    monkeypatch.setattr("tests.catalogs.Spectra.segment_s", 99.0)
    monkeypatch.setattr("tests.catalogs.RATE", 99 * RATE)
    report = catalog.repair()
    assert [one.reason[:9] for one in report.removed] == ["too short", "too short"]


def test_healthy_files_of_healthy_shards_are_not_needed(catalog: Catalog, music: Path) -> None:
    before = contents(catalog)
    shutil.rmtree(shard_of(catalog, 1))
    (music / "2.wav").unlink()
    (music / "3.wav").unlink()
    assert catalog.repair().removed == []
    assert contents(catalog) == before


def test_repaired_shards_are_of_bounded_size(catalog: Catalog) -> None:
    shutil.rmtree(shard_of(catalog, 1))
    catalog.repair(config=IngestConfig(n_jobs=1, max_segments=1))
    assert len(catalog._store.shards()) == 4


def test_orphans_are_swept(catalog: Catalog) -> None:
    before = contents(catalog)
    shutil.copytree(shard_of(catalog, 1), catalog.folder / "shards" / "0rphan")
    (catalog.folder / "shards" / ".partial-1").mkdir()
    report = catalog.repair()
    assert sorted(report.swept) == [".partial-1", "0rphan"]
    assert (report.restored, report.lost) == ([], [])
    assert shards_on_disk(catalog) == set(catalog._store.shard_names())
    assert contents(catalog) == before


def test_repair_of_an_intact_catalog_changes_nothing(catalog: Catalog) -> None:
    version = catalog._store.version()
    report = catalog.repair()
    assert (report.problems, report.swept, report.repaired, report.removed) == ([], [], [], [])
    assert catalog._store.version() == version


def test_damaged_shard_without_tracks_is_dropped(catalog: Catalog) -> None:
    shard = shard_of(catalog, 4)
    catalog.delete([4])
    shutil.rmtree(shard)
    assert len(catalog.verify()) == 1
    catalog.repair()
    assert catalog.verify() == []


def test_repair_with_another_encoder_removes_nothing(catalog: Catalog) -> None:
    shutil.rmtree(shard_of(catalog, 1))
    with (
        open_catalog(catalog.folder, model=OtherSpectra()) as other,
        pytest.raises(RecipeMismatchError),
    ):
        other.repair()
    assert [track.id for track in catalog.tracks()] == [1, 2, 3, 4]


def test_missing_folder_of_shards_deletes_no_track(catalog: Catalog) -> None:
    (catalog.folder / "shards").rename(catalog.folder / "elsewhere")
    with pytest.raises(StoreError, match="folder of shards is missing"):
        catalog.repair()
    assert len(catalog.tracks()) == 4
    (catalog.folder / "shards").mkdir()
    assert len(catalog.repair().repaired) == 4
    assert catalog.verify() == []
