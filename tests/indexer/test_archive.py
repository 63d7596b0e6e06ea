from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astound.catalog import Catalog
from engine.errors import (
    AstoundError,
    ConfigError,
    RecipeMismatchError,
    StoreError,
    TrackNotFoundError,
)
from engine.files import PARTIAL_SUFFIX
from indexer import sources
from indexer.archive import ArchiveSource
from tests.catalogs import add, contents, flip_a_byte, found, open_catalog, shard_of


@pytest.fixture(scope="module")
def filled_catalog(tmp_path_factory: pytest.TempPathFactory, tunes: Path) -> Path:
    """Folder of a catalog of tunes 0 to 3, of which 2 is deleted; not to be changed."""
    folder = tmp_path_factory.mktemp("filled_catalog") / "catalog"
    with open_catalog(folder) as catalog:
        add(catalog, tunes, [0, 1, 2, 3])
        catalog.update(4, artist="Ä\n“O”", metadata={"söng": "☂"})
        catalog.delete([3])
    return folder


@pytest.fixture
def catalog(filled_catalog: Path, tmp_path: Path) -> Iterator[Catalog]:
    shutil.copytree(filled_catalog, tmp_path / "catalog")
    with open_catalog(tmp_path / "catalog") as catalog:
        yield catalog


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(tmp_path / "new") as catalog:
        yield catalog


@pytest.fixture
def exported(catalog: Catalog, tmp_path: Path) -> Path:
    catalog.export(tmp_path / "music.astound")
    return tmp_path / "music.astound"


def test_imported_catalog_is_the_exported_one(
    catalog: Catalog, exported: Path, new: Catalog
) -> None:
    assert new.import_(exported).n_merged == 3
    assert contents(new) == contents(catalog)
    assert new._store.settings() == catalog._store.settings()
    assert new.verify() == []
    assert [found(new, n) for n in range(4)] == ["0.wav", "1.wav", None, "3.wav"]
    assert new.import_(exported).n_skipped == 3


def test_export_is_imported_into_postgres(
    catalog: Catalog, exported: Path, postgres: str, tmp_path: Path
) -> None:
    with open_catalog(tmp_path / "served", postgres) as served:
        assert served.import_(exported).n_merged == 3
        assert contents(served) == contents(catalog)
        assert served.export(tmp_path / "again.astound") == 3


def test_archive_in_several_batches_is_imported_alike(
    catalog: Catalog, new: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_SEGMENTS", 1)
    shown: list[tuple[int, int]] = []
    catalog.export(tmp_path / "a", on_progress=lambda *counts: shown.append(counts))
    assert shown == [(1, 3), (2, 3), (3, 3)]
    new.import_(tmp_path / "a")
    assert contents(new) == contents(catalog)


def test_some_tracks_are_exported(
    catalog: Catalog, new: Catalog, tunes: Path, tmp_path: Path
) -> None:
    assert catalog.export(tmp_path / "a", [4, str(tunes / "0.wav"), 4]) == 2
    new.import_(tmp_path / "a")
    assert sorted(Path(one.path).name for one in new.tracks()) == ["0.wav", "3.wav"]


def test_unknown_tracks_are_all_named(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(TrackNotFoundError, match=r"3, 99, '/ghost\.wav'"):
        catalog.export(tmp_path / "a", [1, 3, 99, "/ghost.wav"])
    assert not (tmp_path / "a").exists()


def test_empty_catalog_is_not_exported(new: Catalog, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no track"):
        new.export(tmp_path / "a")


def test_file_is_a_zip_that_others_can_read(exported: Path, catalog: Catalog) -> None:
    with zipfile.ZipFile(exported) as file:
        assert file.testzip() is None
        assert {one.compress_type for one in file.infolist()} == {zipfile.ZIP_STORED}
        manifest = json.loads(file.read("astound.json"))
        lines = file.read("000000/tracks.jsonl").splitlines()
        segments = np.load(io.BytesIO(file.read("000000/segments.npy")), allow_pickle=False)
    assert (manifest["n_tracks"], manifest["recipe_id"]) == (3, catalog.recipe_id)
    assert (segments.dtype, json.loads(lines[0])["n_segments"]) == (np.int8, 7)


# -- where it is written -------------------------------------------------------------------------


def test_earlier_export_is_replaced(catalog: Catalog, exported: Path) -> None:
    catalog.delete([1])
    assert catalog.export(exported) == 2
    with ArchiveSource(exported) as again:
        assert again.n_tracks == 2


@pytest.mark.parametrize("content", [b"", b"RIFF and music", None], ids=["empty", "music", "zip"])
def test_other_files_are_never_replaced(
    catalog: Catalog, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "a.ogg"
    if content is None:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("holiday.txt", "sun")
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"a\.ogg: exists and is no intact export"):
        catalog.export(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_devices_are_neither_read_nor_replaced(catalog: Catalog, device: str) -> None:
    with pytest.raises(ConfigError, match=f"{device}: exists and is no intact export"):
        catalog.export(device)
    with pytest.raises(ConfigError, match=f"{device}: cannot be read .not a regular file"):
        ArchiveSource(Path(device))


def test_failed_export_leaves_the_earlier_one(catalog: Catalog, exported: Path) -> None:
    before = exported.read_bytes()
    flip_a_byte(shard_of(catalog, 4) / "header.json", 0)
    with pytest.raises(AstoundError, match="header"):
        catalog.export(exported)
    assert exported.read_bytes() == before
    assert sorted(path.name for path in exported.parent.iterdir()) == ["catalog", exported.name]


def test_missing_folder_is_named(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        catalog.export(tmp_path / "no" / "a")


# -- what is refused -----------------------------------------------------------------------------


def rewritten(path: Path, member: str, change: Callable[[bytes], bytes | None]) -> None:
    """Write an export again with one member changed, or left out."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members[member] = change(members[member])  # type: ignore[assignment]
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            if content is not None:
                file.writestr(name, content)


def manifest(**changes: Any) -> Callable[[Path], None]:
    return lambda path: rewritten(
        path, "astound.json", lambda old: json.dumps(json.loads(old) | changes).encode()
    )


def first_track(**changes: Any) -> Callable[[Path], None]:
    def change(old: bytes) -> bytes:
        first, *others = old.splitlines()
        return b"\n".join([json.dumps(json.loads(first) | changes).encode(), *others])

    return lambda path: rewritten(path, "000000/tracks.jsonl", change)


def array(
    make: Callable[[np.ndarray], np.ndarray], name: str = "segments"
) -> Callable[[Path], None]:
    def change(old: bytes) -> bytes:
        out = io.BytesIO()
        np.save(out, make(np.load(io.BytesIO(old))), allow_pickle=True)
        return out.getvalue()

    return lambda path: rewritten(path, f"000000/{name}.npy", change)


def gone(member: str) -> Callable[[Path], None]:
    return lambda path: rewritten(path, member, lambda _: None)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def compressed(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "not there": (lambda path: path.unlink(), "cannot be read .No such file"),
    "folder": (make_folder, "cannot be read .Is a directory"),
    "empty": (lambda path: path.write_bytes(b""), "is not an export of astound"),
    "music": (lambda path: path.write_bytes(b"OggS" * 999), "is not an export of astound"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "its end is missing"),
    "half": (lambda path: path.write_bytes(path.read_bytes()[:2000]), "its end is missing"),
    "other zip": (gone("astound.json"), "is not an export of astound"),
    "other format": (manifest(format="x"), "is not an export of astound"),
    "newer": (manifest(version=3), "has format version 3, this astound reads 2; update"),
    "flipped byte": (flip_a_byte, r"is damaged: 00000\d/\w+.\w+ is not valid"),
    "compressed": (compressed, "is damaged: astound.json"),
    "no hop": (manifest(segment_hop_s="zero"), "is damaged: astound.json"),
    "no counts": (manifest(n_batches=None), "is damaged: astound.json"),
    "too few batches": (manifest(n_batches=9), "is damaged: 000003/tracks.jsonl"),
    "no vectors": (gone("000000/segments.npy"), "is damaged: 000000/segments.npy"),
    "no clips": (gone("000000/clips.npy"), "is damaged: 000000/clips.npy"),
    "fewer vectors": (array(lambda a: a[1:]), "is damaged: 000000/segments.npy"),
    "fewer clips": (array(lambda a: a[1:], "clips"), "is damaged: 000000/clips.npy"),
    "narrow": (array(lambda a: a[:, 1:]), "is damaged: 000000/segments.npy"),
    "other numbers": (array(lambda a: a.astype("f8")), "is damaged: 000000/segments.npy"),
    "pickle": (array(lambda a: a.astype(object)), "is damaged: 000000/segments.npy"),
    "no path": (first_track(path=""), "is damaged: 000000/tracks.jsonl"),
    "no number": (first_track(n_segments="7"), "is damaged: 000000/tracks.jsonl"),
    "negative": (first_track(n_segments=-7), "is damaged: 000000/tracks.jsonl"),
    "odd tags": (first_track(tags={"x": "y"}), "is damaged: 000000/tracks.jsonl"),
    "tags of numbers": (first_track(tags={"title": 7}), "is damaged: 000000/tracks.jsonl"),
    "odd metadata": (first_track(metadata={"x": 7}), "is damaged: 000000/tracks.jsonl"),
    "more": (first_track(surprise=1), "tracks.jsonl is not valid .unknown field surprise"),
    "hop of no end": (manifest(segment_hop_s="inf"), "invalid segment_hop_s='inf'"),
    "minus one track": (manifest(n_tracks=-1), "invalid n_tracks=-1"),
    "many batches": (manifest(n_batches=2**63), "invalid n_batches="),
    "true dim": (manifest(dim=True), "invalid dim=True"),
    "endless": (first_track(duration_s=float("inf")), "invalid duration_s=inf"),
    "many bytes": (first_track(n_bytes=2**63), "invalid n_bytes="),
    "surrogate": (first_track(path="\ud800"), "invalid path="),
    "zero byte": (first_track(tags={"title": "a\0"}), "invalid tags.title="),
    "recursion": (
        lambda path: rewritten(path, "000000/tracks.jsonl", lambda _: b"[" * 100_000),
        "is damaged: 000000/tracks.jsonl",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_bad_file_is_one_sentence(exported: Path, new: Catalog, name: str) -> None:
    fault, reason = FAULTS[name]
    fault(exported)
    with pytest.raises(ConfigError, match=reason) as caught:
        new.import_(exported)
    assert str(caught.value).startswith(f"{exported}: ")
    assert "\n" not in str(caught.value)
    assert new.verify() == []


def test_tracks_before_the_damage_are_imported(exported: Path, new: Catalog) -> None:
    manifest(n_batches=9)(exported)
    with pytest.raises(ConfigError):
        new.import_(exported)
    assert [found(new, n) for n in range(4)] == ["0.wav", "1.wav", None, "3.wav"]


def test_other_recipe_is_refused_with_both_ids(catalog: Catalog, exported: Path) -> None:
    manifest(recipe_id="fedcba9876543210")(exported)
    with pytest.raises(RecipeMismatchError, match=r"fedcba9876543210.*0123456789abcdef"):
        catalog.import_(exported)


def test_every_flipped_byte_is_detected_or_harmless(catalog: Catalog, tmp_path: Path) -> None:
    catalog.export(tmp_path / "whole", [1])
    whole = (tmp_path / "whole").read_bytes()
    rng = np.random.default_rng(0)
    with ArchiveSource(tmp_path / "whole") as undisturbed:
        (expected,) = _read(undisturbed)
    for at in rng.choice(len(whole), 300, replace=False):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            with ArchiveSource(tmp_path / "damaged") as disturbed:
                read = _read(disturbed)
        except ConfigError:
            continue
        assert read == [expected]  # a byte that says nothing, such as a date


def _read(opened: ArchiveSource) -> list[tuple[object, bytes, bytes]]:
    return [
        (track, one.embeddings.tobytes(), one.clip_embeddings.tobytes())
        for batch in opened.batches()
        for number, track in enumerate(batch.tracks)
        for one in [batch.read(number)]
    ]


def test_member_names_cannot_write_outside(exported: Path, new: Catalog, tmp_path: Path) -> None:
    with zipfile.ZipFile(exported, "a") as file:
        file.writestr("../../escaped", "x")
        file.writestr("/tmp/escaped", "x")
    first_track(path="../../../etc/passwd")(exported)
    new.import_(exported)
    assert {entry.name for entry in tmp_path.iterdir()} == {"catalog", "new", exported.name}
    assert not list(tmp_path.parent.rglob("escaped"))


def test_partial_file_of_a_crash_is_replaced(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / f"a{PARTIAL_SUFFIX}").write_bytes(b"left by a crash")
    assert catalog.export(tmp_path / "a") == 3
    assert not (tmp_path / f"a{PARTIAL_SUFFIX}").exists()
