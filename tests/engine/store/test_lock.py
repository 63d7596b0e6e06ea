from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from astound.migrate import ensure_schema
from engine.errors import CatalogBusyError, StoreError
from engine.store.store import Store

HOLDS = """
import sys
from engine.store.store import Store

with Store.open(sys.argv[1]) as store, store.write_lock():
    print("locked", flush=True)
    sys.stdin.readline()
"""

Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def opened(database: str) -> str:
    ensure_schema(database)
    return database


@pytest.fixture
def start(opened: str) -> Iterator[Start]:
    """Give start(): another process that holds the lock until it reads a line."""
    processes = []

    def run() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDS, opened],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def test_lock_of_one_process_refuses_others_until_it_is_released(opened: str, start: Start) -> None:
    other = start()
    with Store.open(opened) as store:
        for _ in range(2):
            with pytest.raises(CatalogBusyError, match="another process"), store.write_lock():
                pass
        other.communicate("go on\n")
        with store.write_lock():
            pass


def test_lock_of_a_killed_process_is_free_again(opened: str, start: Start) -> None:
    other = start()
    other.kill()
    other.communicate()
    with Store.open(opened) as store:
        for n_left in reversed(range(100)):  # a server may need a moment to notice
            try:
                with store.write_lock():
                    break
            except CatalogBusyError:
                assert n_left


def test_lock_is_free_after_an_error(opened: str) -> None:
    with Store.open(opened) as store:
        for _ in range(3):
            with pytest.raises(KeyError), store.write_lock():
                raise KeyError
        with store.write_lock():
            pass


def test_lock_refuses_another_store_and_itself(opened: str) -> None:
    with Store.open(opened) as store, Store.open(opened) as other, store.write_lock():
        for one in (store, other):
            with pytest.raises(CatalogBusyError), one.write_lock():
                pass


def test_transactions_need_no_lock(opened: str) -> None:
    with Store.open(opened) as store, Store.open(opened) as other, store.write_lock():
        other.put_settings({"a": "b"})
        store.put_settings({"c": "d"})
        assert store.settings() == {"a": "b", "c": "d"}


def test_lock_file_lies_beside_the_database(tmp_path: Path) -> None:
    ensure_schema(tmp_path / "music.db")
    with Store.open(tmp_path / "music.db") as store, store.write_lock():
        assert (tmp_path / "music.db.lock").exists()


def test_lock_file_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    ensure_schema(tmp_path / "music.db")
    (tmp_path / "music.db.lock").mkdir()
    refused = pytest.raises(StoreError, match=r"music\.db\.lock: cannot be written")
    with Store.open(tmp_path / "music.db") as store, refused, store.write_lock():
        pass


def _connection(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def test_lost_session_is_not_an_error_of_the_writer(postgres: str) -> None:
    ensure_schema(postgres)
    ends = (
        "SELECT pg_terminate_backend(pid) FROM pg_locks"
        " WHERE locktype = 'advisory' AND pid != pg_backend_pid()"
    )
    with Store.open(postgres) as store:
        with store.write_lock(), _connection(postgres) as connection:
            assert connection.execute(ends).fetchall() == [(True,)]
        with store.write_lock():
            pass


def test_catalogs_in_schemas_of_one_database_have_locks_of_their_own(postgres: str) -> None:
    with _connection(postgres) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS other")
    urls = [f"{postgres}&options=-c search_path={name}" for name in ("public", "other")]
    for url in urls:
        ensure_schema(url)
    first, second = map(Store.open, urls)
    with first, second, first.write_lock(), second.write_lock():
        pass
