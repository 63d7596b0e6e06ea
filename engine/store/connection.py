"""Connections to SQLite and PostgreSQL, with the same behaviour and errors."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, SQLAlchemyError

from engine.errors import CatalogBusyError, StoreError, printable
from engine.store.tables import InvalidRowError

__all__ = ["Connection", "Engine", "connect", "copy_file", "name", "schema", "translated"]

_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
# Waiting times for another writer and for a server; parameters of the URL take precedence.
_TIMEOUTS = {
    "sqlite": {"timeout": "30"},
    "postgresql": {"connect_timeout": "10", "options": "-c lock_timeout=30s"},
}
_SQLITE_BUSY, _POSTGRES_LOCK_TIMEOUT = 5, "55P03"
_SQLITE_READONLY = 8
# With SQLITE_IOERR, SQLITE_FULL and SQLITE_CANTOPEN.
_SQLITE_NOT_WRITABLE = (_SQLITE_READONLY, 10, 13, 14)
_N_ATTEMPTS = 100


def connect(database: str | Path, *, migrating: bool = False) -> Engine:
    """Create the connection pool of a database; nothing is opened yet.

    Parameters
    ----------
    database : str or Path
        An SQLAlchemy URL (SQLite file or PostgreSQL), or the path of an SQLite file.
    migrating : bool
        Do not enforce SQLite's foreign keys: to change a table there, it is dropped.

    Raises
    ------
    StoreError
        The URL is invalid or names another kind of database.
    """
    url = _parsed(database)
    kind = url.get_backend_name()
    url = url.set(query={**_TIMEOUTS[kind], **url.query})
    engine = sa.create_engine(url, pool_pre_ping=kind == "postgresql")
    if kind == "sqlite":
        _prepare_sqlite(engine, foreign_keys=not migrating)
    return engine


def schema(connection: Connection) -> str | None:
    """Read the schema revision of a database; None if it has none."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalars(
        sa.text("SELECT version_num FROM alembic_version ORDER BY version_num")
    )
    return ", ".join(map(str, found)) or None  # a damaged one may contain NULL


def copy_file(engine: Engine, target: Path) -> None:
    """Copy an SQLite database as it is at one moment, whoever writes to it.

    Parameters
    ----------
    engine : Engine
    target : Path
        Replaced in one transaction if it is a database.

    Raises
    ------
    StoreError
        The database is not an SQLite file, or one of the two cannot be used.
    """
    if engine.dialect.name != "sqlite":
        raise StoreError(f"database {name(engine.url)}: on a server; copy it with `pg_dump`")
    try:
        with (
            translated(engine),
            closing(sqlite3.connect(target)) as copy,
            closing(engine.raw_connection()) as connection,
        ):
            cast(sqlite3.Connection, connection.driver_connection).backup(copy)
    except sqlite3.Error as error:
        raise StoreError(f"{printable(target)}: cannot copy the database ({error})") from error


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Convert database errors to StoreError, whose message has no secrets."""
    try:
        yield
    except DBAPIError as error:
        kind = CatalogBusyError if _is_busy(error.orig) else StoreError
        reason = str(error.orig).strip().partition("\n")[0]
        if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == _SQLITE_READONLY:
            reason = "cannot be written: it is read-only, or its disk is full"
        raise kind(
            _without_secrets(f"database {name(engine.url)}: {reason}", engine.url)
        ) from error
    except UnicodeDecodeError as error:  # SQLite's message contains bytes of its schema
        reason = "a name in its schema is not UTF-8; restore the database from a backup"
        raise StoreError(f"database {name(engine.url)}: {reason}") from error
    except InvalidRowError as error:
        reason = f"{error}; restore the database from a backup"
        raise StoreError(f"database {name(engine.url)}: {reason}") from error
    except SQLAlchemyError as error:
        raise StoreError(f"database {name(engine.url)}: {type(error).__name__}") from error


def _parsed(database: str | Path) -> sa.URL:
    if isinstance(database, Path):
        return sa.URL.create("sqlite", database=str(database))
    usage = "use sqlite:////path/of/catalog.db or postgresql://user:password@host/name"
    try:
        url = sa.make_url(database)
    except (ArgumentError, ValueError):
        # Not "from error": its text may contain a password.
        raise StoreError(f"invalid database URL; {usage}") from None
    if url.drivername not in _DRIVERS:
        raise StoreError(f"unsupported database {url.drivername}; {usage}")
    return url.set(drivername=_DRIVERS[url.drivername])


def _prepare_sqlite(engine: Engine, *, foreign_keys: bool) -> None:
    """Let readers and one writer work concurrently, and commits survive a loss of power.

    synchronous=NORMAL may lose the last commits with the power. If one of them was a compaction,
    the files of the old shards are already deleted.
    """

    @sa.event.listens_for(engine, "do_connect")
    def connect(_: object, __: object, arguments: Any, options: Any) -> sqlite3.Connection:
        try:
            return _opened(*arguments, **options)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _SQLITE_NOT_WRITABLE:
                raise
            return _opened_read_only(*arguments, **options, refusal=error)

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # sqlite3 never issues BEGIN IMMEDIATE
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA foreign_keys = {int(foreign_keys)}")
        connection.create_function("lower", 1, _lower, deterministic=True)

    @sa.event.listens_for(engine, "checkout")
    def check(connection: sqlite3.Connection, *_: object) -> None:
        if isinstance(connection, _ImmutableConnection) and connection.is_outdated():
            raise DisconnectionError  # the pool opens another one

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE waits for other writers; a deferred transaction would fail after a write of one.
        writing = connection.get_execution_options().get("writing", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _lower(value: Any) -> Any:
    """Return text in lower case, as SQLite does for ASCII letters only."""
    return value.lower() if isinstance(value, str) else value


class _ImmutableConnection(sqlite3.Connection):
    """A connection that locks nothing, so that it is of use only until a writer comes."""

    path: Path
    state: tuple[int, ...]

    def is_outdated(self) -> bool:
        return self.state != _state(self.path)


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, _has_log(path)


def _has_log(path: Path) -> bool:
    log = path.with_name(f"{path.name}-wal")
    return log.is_file() and log.stat().st_size > 0


def _opened(*arguments: Any, **options: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = sqlite3.connect(*arguments, **options)
    try:
        _write_ahead(connection)
        connection.execute("SELECT count(*) FROM sqlite_master")  # creates the files beside it
    except (sqlite3.Error, UnicodeDecodeError):
        connection.close()
        raise
    return connection


def _opened_read_only(
    file: str, *arguments: Any, refusal: sqlite3.OperationalError, **options: Any
) -> sqlite3.Connection:
    """Open a database without write rights, or on a full disk.

    Its log can be read only with the index of the log, which a writer creates. A database without
    a log has no writer, and needs neither; its connection is replaced once there is one.
    """
    path = Path(file).absolute()
    if not path.is_file():
        raise refusal
    state = _state(path)
    uri, kind = f"{path.as_uri()}?mode=ro", sqlite3.Connection
    if not _has_log(path):
        uri, kind = f"{uri}&immutable=1", _ImmutableConnection
    connection: sqlite3.Connection = sqlite3.connect(
        uri, *arguments, **{**options, "uri": True, "factory": kind}
    )
    if isinstance(connection, _ImmutableConnection):
        connection.path, connection.state = path, state
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
    except (sqlite3.Error, UnicodeDecodeError):
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    # SQLite does not wait if several processes do this at once for the first time.
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
