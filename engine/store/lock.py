"""The write lock of a catalog, beside its SQLite file or in its PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import filelock
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from engine.errors import CatalogBusyError, StoreError, printable
from engine.store.connection import Engine, name, translated

LOCK_SUFFIX = ".lock"
"""Last characters of the name of the file that is locked beside an SQLite file."""

_POSTGRES_KEY = 0x617374  # any number, but the same in every version
# One database may hold several catalogs, each in a schema of its own.
_POSTGRES_KEYS = f"{_POSTGRES_KEY}, hashtext(current_schema())"


@contextmanager
def write_lock(engine: Engine) -> Iterator[None]:
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
    hold = _file_lock if engine.dialect.name == "sqlite" else _advisory_lock
    with hold(engine):
        yield


@contextmanager
def _file_lock(engine: Engine) -> Iterator[None]:
    lock = filelock.FileLock(f"{engine.url.database}{LOCK_SUFFIX}")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise _busy(engine) from error
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error})"
        raise StoreError(f"{printable(lock.lock_file)}: {reason}") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _advisory_lock(engine: Engine) -> Iterator[None]:
    # The lock belongs to the session, so the connection is never given back to the pool.
    with translated(engine):
        connection = engine.execution_options(isolation_level="AUTOCOMMIT").connect()
        connection.detach()
    with connection:
        with translated(engine):
            query = sa.text(f"SELECT pg_try_advisory_lock({_POSTGRES_KEYS})")
            if not connection.scalar(query):
                raise _busy(engine)
        try:
            yield
        finally:
            with suppress(SQLAlchemyError):  # a lost session has lost its locks
                connection.execute(sa.text(f"SELECT pg_advisory_unlock({_POSTGRES_KEYS})"))


def _busy(engine: Engine) -> CatalogBusyError:
    return CatalogBusyError(
        f"database {name(engine.url)}: another process is writing to the catalog; "
        "try again when it has finished"
    )
