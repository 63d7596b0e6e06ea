"""SQLite and PostgreSQL made alike: how to connect, what the schema is, what errors mean."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from engine.errors import CatalogBusyError, StoreError, printable

__all__ = ["Connection", "Engine", "connect", "name", "schema", "translated"]

_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
# How long to wait for another writer and for a server that does not answer; the URL may say else.
_PATIENCE = {
    "sqlite": {"timeout": "30"},
    "postgresql": {"connect_timeout": "10", "options": "-c lock_timeout=30s"},
}
_SQLITE_BUSY, _POSTGRES_LOCK_TIMEOUT = 5, "55P03"
_N_ATTEMPTS = 100


def connect(database: str | Path, *, migrating: bool = False) -> Engine:
    """Make the connection pool of a database; nothing is opened yet.

    Parameters
    ----------
    database : str or Path
        An SQLAlchemy URL (SQLite file or PostgreSQL), or the path of an SQLite file.
    migrating : bool
        Leave SQLite's foreign keys unchecked, because changing a table there means dropping it.

    Raises
    ------
    StoreError
        The URL cannot be understood or names another kind of database.
    """
    url = _parsed(database)
    kind = url.get_backend_name()
    url = url.set(query={**_PATIENCE[kind], **url.query})
    engine = sa.create_engine(url, pool_pre_ping=kind == "postgresql")
    if kind == "sqlite":
        _prepare_sqlite(engine, foreign_keys=not migrating)
    return engine


def schema(connection: Connection) -> str | None:
    """Read which revision of the schema a database has; None when it has none."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalars(
        sa.text("SELECT version_num FROM alembic_version ORDER BY version_num")
    )
    return ", ".join(found) or None


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn what a database raises into StoreError, one sentence without secrets."""
    try:
        yield
    except DBAPIError as error:
        kind = CatalogBusyError if _is_busy(error.orig) else StoreError
        reason = str(error.orig).strip().partition("\n")[0]
        raise kind(
            _without_secrets(f"database {name(engine.url)}: {reason}", engine.url)
        ) from error
    except SQLAlchemyError as error:
        raise StoreError(f"database {name(engine.url)}: {type(error).__name__}") from error


def _parsed(database: str | Path) -> sa.URL:
    if isinstance(database, Path):
        return sa.URL.create("sqlite", database=str(database))
    wanted = "use sqlite:////path/of/catalog.db or postgresql://user:password@host/name"
    try:
        url = sa.make_url(database)
    except (ArgumentError, ValueError):
        # Not "from error": the text may hold a password.
        raise StoreError(f"the database's URL cannot be understood; {wanted}") from None
    if url.drivername not in _DRIVERS:
        raise StoreError(f"{url.drivername} is not a database astound works with; {wanted}")
    return url.set(drivername=_DRIVERS[url.drivername])


def _prepare_sqlite(engine: Engine, *, foreign_keys: bool) -> None:
    """Let readers and one writer work side by side, and a commit survive a loss of power.

    synchronous=NORMAL would survive kill -9, but after a loss of power it may forget the last
    commits; when one of them was a compaction, the old shards' files are gone already.
    """

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # BEGIN is ours: sqlite3 never says IMMEDIATE
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA foreign_keys = {int(foreign_keys)}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A reader that starts to write fails at once if another wrote meanwhile; writers queue.
        writing = connection.get_execution_options().get("writing", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _write_ahead(connection: sqlite3.Connection) -> None:
    # Of several processes that do this first at once, SQLite refuses some without waiting.
    for n_left in reversed(range(_N_ATTEMPTS)):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not n_left or not _is_busy(error):
                raise
        time.sleep(0.02)


def _is_busy(error: BaseException | None) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == _SQLITE_BUSY or getattr(error, "sqlstate", None) == _POSTGRES_LOCK_TIMEOUT


def name(url: sa.URL) -> str:
    """Name a database in a message, without secrets."""
    if url.get_backend_name() == "sqlite":
        return printable(url.database)
    host = url.host or url.query.get("host") or "this machine"
    return _without_secrets(f"{url.database} on {host}", url)


def _without_secrets(message: str, url: sa.URL) -> str:
    # An unescaped "@" in a password makes its tail the beginning of the host.
    strayed = (url.host or "").rpartition("@")[0]
    for secret in (url.password, url.query.get("password"), strayed):
        if secret:
            message = message.replace(str(secret), "***")
    return message
