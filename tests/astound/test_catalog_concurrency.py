"""Several processes on one catalog: one writes, readers see it as before or as after."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import astound
from astound.catalog import Catalog
from engine.errors import CatalogBusyError, ShardError
from engine.records import Placement
from engine.store.store import Store
from tests.catalogs import (
    ONE_A_SHARD,
    RATE,
    add,
    clip,
    compact,
    contents,
    found,
    open_catalog,
    shard_of,
)

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(astound.__file__).parents[1])}

READS = """
import sys
from tests.catalogs import found, open_catalog
with open_catalog(sys.argv[1]) as catalog:
    print("reading", flush=True)
    for line in sys.stdin:
        print(*(found(catalog, n) for n in map(int, line.split())), flush=True)
"""

HOLDS = """
import sys
from tests.catalogs import open_catalog
def waiting():
    print("writing", flush=True)
    sys.stdin.readline()
    yield 1
with open_catalog(sys.argv[1]) as catalog:
    catalog.delete(waiting())
"""


@pytest.fixture(scope="module")
def filled_catalog(tmp_path_factory: pytest.TempPathFactory, tunes: Path) -> Path:
    """Folder with the catalogs "catalog" of tunes 0 to 3 and "other" of 4 to 7, and its export."""
    folder = tmp_path_factory.mktemp("filled_catalog")
    with open_catalog(folder / "catalog") as catalog:
        add(catalog, tunes, range(4))
    with open_catalog(folder / "other") as other:
        add(other, tunes, range(4, 8))
        other.export(folder / "exported")
    return folder


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def catalog(
    request: pytest.FixtureRequest, filled_catalog: Path, tmp_path: Path
) -> Iterator[Catalog]:
    """A catalog of tunes 0 to 3 with ids 1 to 4, in each kind of database."""
    if request.param == "sqlite":
        shutil.copytree(filled_catalog / "catalog", tmp_path / "catalog")
        made = open_catalog(tmp_path / "catalog")
    else:
        made = open_catalog(tmp_path / "catalog", request.getfixturevalue("postgres"))
        made.merge(filled_catalog / "catalog", config=ONE_A_SHARD)
    with made:
        yield made


@pytest.fixture
def start(catalog: Catalog) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Give start(code): another process at the catalog, which has said its first word."""
    processes = []

    def begin(code: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, catalog.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        processes.append(process)
        assert process.stdout
        assert process.stdout.readline().endswith("ing\n")
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def ask(reader: subprocess.Popen[str], *numbers: int) -> list[str]:
    """Which of some tunes another process finds."""
    assert reader.stdin
    assert reader.stdout
    reader.stdin.write(" ".join(map(str, numbers)) + "\n")
    reader.stdin.flush()
    return reader.stdout.readline().split()


# -- readers ---------------------------------------------------------------------------------


def test_reader_finds_before_or_after_while_another_process_writes(
    catalog: Catalog,
    start: Callable[[str], subprocess.Popen[str]],
    filled_catalog: Path,
    tunes: Path,
) -> None:
    def write() -> None:
        catalog.merge(filled_catalog / "other", config=ONE_A_SHARD)
        catalog.delete([2, 4])
        compact(catalog)
        add(catalog, tunes, [8])

    reader = start(READS)
    writer = threading.Thread(target=write)
    answers = [ask(reader, 0, 1, 3, 5, 8)]
    writer.start()
    while writer.is_alive():
        answers.append(ask(reader, 0, 1, 3, 5, 8))
    writer.join()
    answers.append(ask(reader, 0, 1, 3, 5, 8))
    assert answers[0] == ["0.wav", "1.wav", "3.wav", "None", "None"]
    assert answers[-1] == ["0.wav", "None", "None", "5.wav", "8.wav"]
    changes = [sorted(set(column), key=column.index) for column in zip(*answers, strict=True)]
    assert [len(change) for change in changes] == [1, 2, 2, 2, 2]
    for column, change in zip(zip(*answers, strict=True), changes, strict=True):
        assert list(column) == sorted(column, key=change.index)  # nothing comes and goes


@pytest.mark.slow
def test_reader_of_a_repair_finds_what_is_healthy(
    catalog: Catalog, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    reader = start(READS)
    assert ask(reader, 0, 1) == ["0.wav", "1.wav"]
    shutil.rmtree(shard_of(catalog, 2))
    catalog.repair()
    assert ask(reader, 0, 1) == ["0.wav", "1.wav"]


def test_shard_compacted_between_its_row_and_its_files_is_looked_up_again(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_reads = compact_after_reading_rows(catalog, monkeypatch, n_times=2)
    assert found(catalog, 1) == "1.wav"
    assert len(n_reads) == 3


def test_reader_gives_up_when_shards_never_stop_going(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    compact_after_reading_rows(catalog, monkeypatch, n_times=99)
    with pytest.raises(ShardError):
        found(catalog, 1)


def test_many_threads_open_the_index_once(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_reads = compact_after_reading_rows(catalog, monkeypatch, n_times=0)
    gate = threading.Barrier(8)

    def ask_at_once(_: int) -> str | None:
        gate.wait()
        return found(catalog, 1)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask_at_once, range(8))) == {"1.wav"}
    assert len(n_reads) == 1


def test_shard_that_is_really_gone_is_looked_up_once(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_reads = compact_after_reading_rows(catalog, monkeypatch, n_times=0)
    shutil.rmtree(shard_of(catalog, 2))
    n_reads.clear()
    with pytest.raises(ShardError):
        found(catalog, 1)
    assert len(n_reads) == 1


def test_track_replaced_during_a_query_is_found_as_it_is_now(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, tunes: Path
) -> None:
    read, todo = Store.tracks, [True]

    def tracks(store: Store, ids: Any = None) -> Any:
        if todo:
            todo.clear()
            catalog.delete([2])
            add(catalog, tunes, [1])
        return read(store, ids)

    monkeypatch.setattr(Store, "tracks", tracks)
    best = catalog.query(clip(1), RATE, min_confidence=0.0).best
    assert best
    assert (Path(best.path).name, best.track_id, best.rank) == ("1.wav", 5, 1)


def compact_after_reading_rows(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, n_times: int
) -> list[bool]:
    """Let a compaction happen just after a reader has learned where the shards are.

    Returns a list that grows with every time the rows are read.
    """
    read, n_reads = Store.placements, []

    def placements(store: Store) -> list[Placement]:
        rows = read(store)
        n_reads.append(True)
        if len(n_reads) <= n_times:
            compact(catalog, rows)
        return rows

    monkeypatch.setattr(Store, "placements", placements)
    return n_reads


# -- writers ---------------------------------------------------------------------------------


def test_one_process_writes_and_the_others_are_told(
    catalog: Catalog,
    start: Callable[[str], subprocess.Popen[str]],
    filled_catalog: Path,
    tunes: Path,
) -> None:
    writer = start(HOLDS)
    before = contents(catalog)
    for write in (
        lambda: catalog.merge(filled_catalog / "other"),
        lambda: catalog.import_(filled_catalog / "exported"),
        catalog.repair,
        lambda: catalog.delete([2]),
        lambda: catalog.update(2, title="T"),
        lambda: catalog.add(tunes / "9.wav"),
    ):
        with pytest.raises(CatalogBusyError, match="another process is writing"):
            write()
    assert contents(catalog) == before
    assert catalog.export(catalog.folder / "exported") == 4  # reads only
    assert catalog.verify() == []
    writer.communicate("go on\n")
    assert writer.returncode == 0
    assert catalog.merge(filled_catalog / "other").n_merged == 4
