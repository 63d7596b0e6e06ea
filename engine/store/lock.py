"""The locks of a catalog, beside its SQLite file or in its PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import NamedTuple

import filelock
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from engine.errors import CatalogBusyError, StoreError, printable
from engine.store.connection import Engine, name, translated

LOCK_SUFFIX = ".lock"
"""Last characters of the name of a file that is locked beside an SQLite file."""


class _Lock(NamedTuple):
    """One of the locks.

    `postgres_key` may be any number, but the same in every version.
    """

    file_suffix: str
    postgres_key: int
    refusal: str


_WRITING = _Lock(
    LOCK_SUFFIX,
    0x617374,
    "another process is writing to the catalog; try again when it has finished",
)
_JOBS = _Lock(f".jobs{LOCK_SUFFIX}", 0x617375, "another service executes the jobs of the catalog")


def write_lock(engine: Engine) -> AbstractContextManager[None]:
    """Hold the write lock, which only one process or thread can hold.

    It is released when the process ends, however it ends.

    Parameters
    ----------
    engine : Engine

    Raises
    ------
    CatalogBusyError
        Another process or thread holds it; raised at once.
    StoreError
        The lock file cannot be written, or the server cannot be reached.
    """
    return _held(engine, _WRITING)


def jobs_lock(engine: Engine) -> AbstractContextManager[None]:
    """Hold the right to execute jobs, as :func:`write_lock` does that to write."""
    return _held(engine, _JOBS)


def _held(engine: Engine, lock: _Lock) -> AbstractContextManager[None]:
    hold = _file_lock if engine.dialect.name == "sqlite" else _advisory_lock
    return hold(engine, lock)


@contextmanager
def _file_lock(engine: Engine, lock: _Lock) -> Iterator[None]:
    file = filelock.FileLock(f"{engine.url.database}{lock.file_suffix}")
    try:
        file.acquire(timeout=0)
    except filelock.Timeout as error:
        raise _busy(engine, lock) from error
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error})"
        raise StoreError(f"{printable(file.lock_file)}: {reason}") from error
    try:
        yield
    finally:
        file.release()


@contextmanager
def _advisory_lock(engine: Engine, lock: _Lock) -> Iterator[None]:
    # One database may hold several catalogs, each in a schema of its own.
    keys = f"{lock.postgres_key}, hashtext(current_schema())"
    # The lock belongs to the session, so the connection is never given back to the pool.
    with translated(engine):
        connection = engine.execution_options(isolation_level="AUTOCOMMIT").connect()
        connection.detach()
    with connection:
        with translated(engine):
            if not connection.scalar(sa.text(f"SELECT pg_try_advisory_lock({keys})")):
                raise _busy(engine, lock)
        try:
            yield
        finally:
            with suppress(SQLAlchemyError):  # a lost session has lost its locks
                connection.execute(sa.text(f"SELECT pg_advisory_unlock({keys})"))


def _busy(engine: Engine, lock: _Lock) -> CatalogBusyError:
    return CatalogBusyError(f"database {name(engine.url)}: {lock.refusal}")
