from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import mutagen
import pytest

import astound
from astound.catalog import Catalog
from engine.config import IngestConfig
from engine.store import queries
from indexer.report import Added, IngestReport, Skipped
from tests.audio_files import (
    BROKEN_FILES,
    ODD_FILES,
    cached_tune,
    remux,
    write_audio,
    write_tags,
    write_wav,
)

RATE = 8000
TUNE_S = 6.0
SEEDS = (0, 4, 6, 3)  # tunes that the tiny encoder tells apart
ONE_JOB = IngestConfig(n_jobs=1)


def write_tune(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_wav(path, cached_tune(SEEDS[number], TUNE_S), RATE)


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Folder of 0.wav, 1.wav and 2.wav."""
    for number in range(3):
        write_tune(tmp_path / "music" / f"{number}.wav", number)
    return tmp_path / "music"


@pytest.fixture(scope="module")
def filled_catalog(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Folder with a catalog of the three tunes, whose files are gone; not to be changed."""
    folder = tmp_path_factory.mktemp("filled")
    for number in range(3):
        write_tune(folder / "music" / f"{number}.wav", number)
    with astound.open(folder / "catalog", model=tiny_model, device="cpu") as catalog:
        catalog.add(folder / "music", config=ONE_JOB)
    return folder


@pytest.fixture
def catalog(tmp_path: Path, tiny_model: Path) -> Iterator[Catalog]:
    """An empty one."""
    with astound.open(tmp_path / "catalog", model=tiny_model, device="cpu") as catalog:
        yield catalog


@pytest.fixture
def full(filled_catalog: Path, music: Path, catalog: Catalog) -> Catalog:
    """A catalog that knows the three files of `music` as they are."""
    shutil.copytree(filled_catalog / "catalog", catalog.folder, dirs_exist_ok=True)
    for path in music.iterdir():
        status = path.stat()
        catalog._store.update_file(
            catalog.track(str(filled_catalog / "music" / path.name)).id,
            path=str(path),
            n_bytes=status.st_size,
            modified_ns=status.st_mtime_ns,
        )
    return catalog


def names(report: IngestReport) -> tuple[list[str], list[str], list[str]]:
    """File names of what was added, skipped and failed."""
    groups = (report.added, report.skipped, report.failed)
    added, skipped, failed = ([Path(one.path).name for one in group] for group in groups)
    return added, skipped, failed


def found(catalog: Catalog, number: int) -> str | None:
    """Name of the file that a part of a tune is a copy of."""
    clip = cached_tune(SEEDS[number], TUNE_S)[2 * RATE : 5 * RATE]
    best = catalog.query(clip, RATE, min_confidence=0.0).best
    return Path(best.path).name if best and best.confidence > 0.999 else None


def set_modified(path: Path, modified_ns: int) -> None:
    os.utime(path, ns=(modified_ns, modified_ns))


# -- what a run says -------------------------------------------------------------------------


def test_report_counts_everything(catalog: Catalog, music: Path) -> None:
    (music / "1.5.wav").write_bytes(b"not audio")
    shutil.copy(music / "0.wav", music / "3.wav")
    told: list[IngestReport] = []
    report = catalog.add(music, config=ONE_JOB, on_progress=lambda one: told.append(replace(one)))
    assert report.added == [Added(str(music / f"{i}.wav"), i + 1) for i in range(3)]
    assert report.skipped == [Skipped(str(music / "3.wav"), None)]
    assert [(Path(f.path).name, f.reason) for f in report.failed] == [
        ("1.5.wav", "not audio, damaged, or in a format that cannot be read")
    ]
    assert report.n_files == 5
    assert report.n_bytes == sum(path.stat().st_size for path in music.iterdir())
    assert report.audio_s == pytest.approx(3 * TUNE_S)
    assert report.realtime_factor == pytest.approx(report.audio_s / report.elapsed_s)
    done = [one.n_bytes_done for one in told]
    assert len(done) == 6
    assert done == sorted(done)
    assert done[-1] == report.n_bytes
    assert told[-1] == report


def test_tracks_are_what_the_files_are(catalog: Catalog, music: Path) -> None:
    catalog.add(music / "1.wav", config=ONE_JOB)
    (track,) = catalog.tracks()
    assert track.path == str(music / "1.wav")
    assert track.duration_s == pytest.approx(TUNE_S)
    assert track.n_segments == 1 + int((TUNE_S - catalog.fingerprinter.segment_s) / 0.5)
    assert (track.title, track.artist, track.metadata) == (None, None, {})
    assert [found(catalog, number) for number in (0, 1, 2)] == [None, "1.wav", None]


def test_nothing_to_add_is_an_empty_report(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    report = catalog.add(tmp_path / "empty")
    assert names(report) == ([], [], [])
    assert report.n_files == report.n_bytes == 0


# -- what is known ---------------------------------------------------------------------------


def test_second_run_skips_all_without_reading(full: Catalog, music: Path) -> None:
    for path in music.iterdir():  # a run that read them would notice
        status = path.stat()
        path.write_bytes(b"\0" * status.st_size)
        set_modified(path, status.st_mtime_ns)
    report = full.add(music, config=ONE_JOB)
    assert names(report) == ([], ["0.wav", "1.wav", "2.wav"], [])
    assert report.n_bytes_done == report.n_bytes
    assert full.stats().n_shards == 1


def test_touched_file_is_skipped_by_content_and_then_by_time(full: Catalog, music: Path) -> None:
    path = music / "1.wav"
    set_modified(path, 1_000_000_000)
    assert full.add(path, config=ONE_JOB).skipped == [Skipped(str(path), 2)]
    path.write_bytes(b"\0" * path.stat().st_size)
    set_modified(path, 1_000_000_000)
    assert names(full.add(path, config=ONE_JOB)) == ([], ["1.wav"], [])
    assert len(full.tracks()) == 3


def test_changed_file_replaces_its_track(full: Catalog, music: Path) -> None:
    write_tune(music / "1.wav", 3)
    set_modified(music / "1.wav", 1_000_000_000)
    report = full.add(music, config=ONE_JOB)
    assert names(report) == (["1.wav"], ["0.wav", "2.wav"], [])
    assert [(t.id, Path(t.path).name) for t in full.tracks()] == [
        (1, "0.wav"),
        (3, "2.wav"),
        (4, "1.wav"),
    ]
    assert [found(full, number) for number in (0, 1, 2, 3)] == ["0.wav", None, "2.wav", "1.wav"]


def test_file_that_breaks_keeps_its_track(full: Catalog, music: Path) -> None:
    (music / "1.wav").write_bytes(b"not audio")
    assert names(full.add(music, config=ONE_JOB)) == ([], ["0.wav", "2.wav"], ["1.wav"])
    assert found(full, 1) == "1.wav"


def test_copy_is_skipped_with_the_id_of_its_track(
    full: Catalog, music: Path, tmp_path: Path
) -> None:
    copy = shutil.copy(music / "1.wav", tmp_path / "copy.wav")
    assert full.add(copy, config=ONE_JOB).skipped == [Skipped(str(copy), 2)]
    assert full.track(2).path == str(music / "1.wav")


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_copies_in_one_run_become_one_track(catalog: Catalog, music: Path, n_jobs: int) -> None:
    shutil.copy(music / "0.wav", music / "0 copy.wav")
    report = catalog.add(music, config=IngestConfig(n_jobs=n_jobs))
    assert names(report) == (["0 copy.wav", "1.wav", "2.wav"], ["0.wav"], [])


def test_moved_file_keeps_its_track(full: Catalog, music: Path, tmp_path: Path) -> None:
    moved = (music / "1.wav").rename(tmp_path / "moved.wav")
    assert full.add(moved, config=ONE_JOB).skipped == [Skipped(str(moved), 2)]
    assert full.track(str(moved)).id == 2
    assert found(full, 1) == "moved.wav"
    assert full.add(moved, config=ONE_JOB).skipped == [Skipped(str(moved), 2)]  # at sight


def rename(folder: Path, names: dict[str, str]) -> None:
    """Rename files at once, so that they may be swapped."""
    for name in names:
        (folder / name).rename(folder / f"{name}.tmp")
    for name, new_name in names.items():
        (folder / f"{name}.tmp").rename(folder / new_name)


UP = {"0.wav": "1.wav", "1.wav": "2.wav", "2.wav": "3.wav"}
DOWN = {"1.wav": "0.wav", "2.wav": "1.wav"}


@pytest.mark.parametrize(
    ("renamed", "new", "expected"),
    [
        (UP, "0.wav", {1: "1.wav", 2: "2.wav", 3: "3.wav", 4: "0.wav"}),
        (UP, None, {1: "1.wav", 2: "2.wav", 3: "3.wav"}),
        (DOWN, None, {2: "0.wav", 3: "1.wav"}),
        ({"0.wav": "1.wav", "1.wav": "0.wav"}, None, {1: "1.wav", 2: "0.wav", 3: "2.wav"}),
        ({"0.wav": "9.wav"}, "0.wav", {1: "9.wav", 2: "1.wav", 3: "2.wav", 4: "0.wav"}),
    ],
    ids=["inserted", "up", "down", "swapped", "moved and replaced"],
)
def test_renamed_files_keep_their_tracks(
    full: Catalog, music: Path, renamed: dict[str, str], new: str | None, expected: dict[int, str]
) -> None:
    for track_id in (1, 2, 3):
        full.update(track_id, title=f"Title {track_id}")
    rename(music, renamed)
    if new:
        write_tune(music / new, 3)
    write_tags(music / "1.wav", title="By the file")
    assert full.add(music, config=ONE_JOB).failed == []
    for _ in range(2):
        tracks = full.tracks()
        assert {track.id: Path(track.path).name for track in tracks} == expected
        assert [t.title for t in tracks] == [
            f"Title {i}" if i in (1, 2, 3) else None for i in expected
        ]
        names_found = {found(full, number) for number in range(4)} - {None}
        assert names_found == set(expected.values())
        report = full.add(music, config=ONE_JOB)
        assert (report.added, report.failed) == ([], [])


def test_renamed_files_keep_their_tracks_when_they_are_added_one_by_one(
    full: Catalog, music: Path
) -> None:
    rename(music, UP)
    write_tune(music / "0.wav", 3)
    for number in (3, 2, 1, 0):
        full.add(music / f"{number}.wav", config=ONE_JOB)
    tracks = {track.id: Path(track.path).name for track in full.tracks()}
    assert tracks == {1: "1.wav", 2: "2.wav", 3: "3.wav", 4: "0.wav"}


def test_tagged_and_moved_file_keeps_its_track_and_what_the_user_noted(
    full: Catalog, music: Path, tmp_path: Path
) -> None:
    full.update(2, artist="By hand", metadata={"mood": "calm"})
    write_tags(music / "1.wav", title="First", artist="By the file")
    assert names(full.add(music, config=ONE_JOB)) == ([], ["0.wav", "2.wav", "1.wav"], [])
    moved = (music / "1.wav").rename(tmp_path / "moved.wav")
    write_tags(moved, title="Second")
    assert full.add(moved, config=ONE_JOB).skipped == [Skipped(str(moved), 2)]
    track = full.track(str(moved))
    assert (track.id, track.title, track.artist) == (2, "Second", "By hand")
    assert track.metadata == {"mood": "calm"}
    assert found(full, 1) == "moved.wav"
    assert full.stats().n_shards == 1


def test_tagged_copy_does_not_change_the_track(full: Catalog, music: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(music / "1.wav", tmp_path / "copy.wav"))
    write_tags(copy, title="Copy")
    assert full.add(copy, config=ONE_JOB).skipped == [Skipped(str(copy), 2)]
    assert full.track(2).title is None
    assert full.track(2).path == str(music / "1.wav")


def test_tags_of_the_metadata_are_the_users(catalog: Catalog, music: Path) -> None:
    path = music / "0.wav"
    write_tags(path, title="By the file", artist="By the file")
    catalog.add(path, metadata={str(path): {"title": "By hand"}}, config=ONE_JOB)
    write_tags(path, title="Later", artist="Later")
    catalog.add(path, config=ONE_JOB)
    (track,) = catalog.tracks()
    assert (track.title, track.artist, track.metadata) == ("By hand", "Later", {})


def test_same_sound_in_two_containers_is_one_track(catalog: Catalog, tmp_path: Path) -> None:
    music = write_audio(tmp_path / "a.flac", cached_tune(0, TUNE_S, 22050), 22050)
    copy = remux(music, tmp_path / "b.mka")
    report = catalog.add([music, copy], config=ONE_JOB)
    assert names(report) == (["a.flac"], ["b.mka"], [])


def older(catalog: Catalog) -> None:
    """Give all tracks the hashes that older catalogs have: those of the files."""
    with catalog._store._writing() as connection:
        for track in catalog.tracks():
            file_hash = hashlib.sha256(Path(track.path).read_bytes()).hexdigest()
            queries.update_track(connection, track.id, {"content_hash": file_hash})


def test_file_of_an_older_catalog_is_found_by_its_bytes_and_then_by_its_sound(
    full: Catalog, music: Path
) -> None:
    path = music / "1.wav"
    by_sound = full.track(2).content_hash
    older(full)
    assert full.track(2).content_hash != by_sound
    full.update(2, title="By hand")
    set_modified(path, 1_000_000_000)
    assert full.add(path, config=ONE_JOB).skipped == [Skipped(str(path), 2)]
    assert full.track(2).content_hash == by_sound
    write_tags(path, title="By the file", artist="By the file")
    assert full.add(path, config=ONE_JOB).skipped == [Skipped(str(path), 2)]
    assert (full.track(2).title, full.track(2).artist) == ("By hand", "By the file")


def test_copies_in_an_older_catalog_stay_two_tracks(
    full: Catalog, music: Path, tmp_path: Path
) -> None:
    tagged = Path(shutil.copy(music / "1.wav", tmp_path / "tagged.wav"))
    older(full)
    write_tags(tagged, title="Tagged")
    assert names(full.add(tagged, config=ONE_JOB)) == (["tagged.wav"], [], [])
    for path in (music / "1.wav", tagged):
        set_modified(path, 1_000_000_000)
        track_id = full.track(str(path)).id
        for _ in range(2):
            assert full.add(path, config=ONE_JOB).skipped == [Skipped(str(path), track_id)]
    assert len(full.tracks()) == 4


def test_deleted_track_can_be_added_again(full: Catalog, music: Path) -> None:
    full.delete([2])
    report = full.add(music, config=ONE_JOB)
    assert report.added == [Added(str(music / "1.wav"), 4)]
    assert found(full, 1) == "1.wav"


# -- what is broken --------------------------------------------------------------------------


def test_every_broken_file_fails_alone_and_in_one_line(
    catalog: Catalog, music: Path, tmp_path: Path
) -> None:
    kinds = {**BROKEN_FILES, **ODD_FILES}
    del kinds["folder"]  # one without any audio in it is no failure
    del kinds["undecodable name"]
    if os.access(music, os.R_OK) and os.geteuid() == 0:
        del kinds["unreadable"]  # permissions do not bind the superuser
    broken = []
    for name, write in kinds.items():
        (tmp_path / name).mkdir()
        broken.append(write(tmp_path / name))
    report = catalog.add([music / "0.wav", *broken, music / "1.wav"], config=IngestConfig(n_jobs=2))
    assert names(report)[:2] == (["0.wav", "1.wav"], [])
    assert sorted(Path(f.path).parent.name for f in report.failed) == sorted(kinds)
    assert [f for f in report.failed if not f.reason or "\n" in f.reason + f.path] == []
    assert [f for f in report.failed if "crashed" in f.reason or "Error: " in f.reason] == []
    assert [found(catalog, number) for number in (0, 1, 2)] == ["0.wav", "1.wav", None]


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("name", ["truncated m4a", "silent"])
def test_copies_of_a_broken_file_all_fail(
    catalog: Catalog, music: Path, broken_file: Callable[[str], Path], name: str, n_jobs: int
) -> None:
    broken = broken_file(name)
    copy = broken.with_name(f"copy{broken.suffix}")
    shutil.copy(broken, copy)
    report = catalog.add([broken, copy, music / "0.wav"], config=IngestConfig(n_jobs=n_jobs))
    assert names(report) == (["0.wav"], [], [broken.name, copy.name])


# -- what is noted ---------------------------------------------------------------------------


def test_metadata_becomes_tags_and_the_rest_is_free(
    catalog: Catalog, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(music)
    noted = {"title": "T", "artist": "Ä", "album": "", "isrc": "GBAYE0601498", "mood": "blue"}
    catalog.add("0.wav", metadata={"0.wav": noted, "1.wav": {"title": "other"}}, config=ONE_JOB)
    (track,) = catalog.tracks()
    assert (track.title, track.artist, track.album) == ("T", "Ä", None)
    assert (track.isrc, track.metadata) == ("GBAYE0601498", {"mood": "blue"})


@pytest.mark.parametrize("suffix", [".mp3", ".flac"])
def test_tags_come_from_the_file_unless_metadata_has_them(
    catalog: Catalog, tmp_path: Path, suffix: str
) -> None:
    path = write_audio(tmp_path / f"tagged{suffix}", cached_tune(0, TUNE_S, 22050), 22050)
    file = mutagen.File(path, easy=True)
    file.update({"title": "Tïtle", "artist": "Artist", "album": "Album", "isrc": "GBAYE0601498"})
    file.save()
    catalog.add(path, metadata={str(path): {"artist": "Somebody else"}}, config=ONE_JOB)
    (track,) = catalog.tracks()
    assert (track.title, track.artist, track.album) == ("Tïtle", "Somebody else", "Album")
    assert (track.isrc, track.metadata) == ("GBAYE0601498", {})


# -- shards ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "n_shards"),
    [
        (IngestConfig(n_jobs=1), 1),
        (IngestConfig(n_jobs=1, max_segments=1), 3),
        (IngestConfig(n_jobs=1, commit_every_s=1e-9), 3),
    ],
)
def test_commits_make_shards_and_queries_find_in_all(
    catalog: Catalog, music: Path, config: IngestConfig, n_shards: int
) -> None:
    n_added: list[int] = []
    catalog.add(music, config=config, on_progress=lambda one: n_added.append(len(one.added)))
    assert n_added == ([0, 0, 0, 3] if n_shards == 1 else [1, 2, 3, 3])
    assert catalog.stats().n_shards == n_shards == len(list(catalog.folder.glob("shards/*")))
    assert [found(catalog, number) for number in (0, 1, 2, 3)] == ["0.wav", "1.wav", "2.wav", None]
    assert catalog.verify() == []


def test_orphans_are_swept_by_the_next_run(full: Catalog, music: Path) -> None:
    shards = full.folder / "shards"
    (shards / ".partial-0").mkdir()
    (shards / ".partial-0" / "clips.i8").write_bytes(b"half")
    (shards / "unknown").mkdir()
    full.add(music, config=ONE_JOB)
    assert [entry.name for entry in shards.iterdir()] == full._store.shard_names()
    assert found(full, 0) == "0.wav"
