"""The keys of a catalog's service: who may do what."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime

import sqlalchemy as sa

from engine.config import require
from engine.errors import KeyNotFoundError
from engine.records import SCOPES, ServiceKey
from engine.store import queries
from engine.store.connection import Engine, translated
from engine.store.tables import LARGEST_ID, KeyRow

_PREFIX = "astound_"  # so that scanners of leaked secrets can find one
_N_BYTES = 32
_COLUMNS = (KeyRow.id, KeyRow.scope, KeyRow.note, KeyRow.created_at)


class Keys:
    """The keys in a database; any number of threads may use them.

    A key is random, so that a plain hash of it can be stored and looked up. No change counts as one
    of the catalog, which readers would open again.

    Parameters
    ----------
    engine : Engine
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writing=True)

    def create(self, scope: str, note: str | None = None) -> tuple[ServiceKey, str]:
        """Create a key.

        Parameters
        ----------
        scope : str
            One of SCOPES.
        note : str, optional
            Who has it.

        Returns
        -------
        key : ServiceKey
        secret : str
            What a client sends. It is not stored, and cannot be read again.

        Raises
        ------
        ConfigError
            There is no such scope.
        """
        require(scope in SCOPES, "scope", scope, f"must be one of {', '.join(SCOPES)}")
        secret = _PREFIX + secrets.token_urlsafe(_N_BYTES)
        note, now = queries.clean(note or ""), datetime.now(UTC).replace(microsecond=0)
        values = {
            "scope": scope,
            "note": note,
            "secret_hash": _hash(secret),
            "created_at": now,
        }
        insertion = sa.insert(KeyRow).values(values).returning(KeyRow.id)
        with translated(self._engine), self._writer.begin() as connection:
            key_id = connection.execute(insertion).scalar_one()
        return ServiceKey(id=key_id, scope=scope, note=note, created_at=now), secret

    def all(self) -> list[ServiceKey]:
        """Read all keys, ordered by id."""
        return self._where(sa.true())

    def exist(self) -> bool:
        """Return whether there is any key."""
        with translated(self._engine), self._engine.begin() as connection:
            return connection.scalar(sa.select(KeyRow.id).limit(1)) is not None

    def find(self, secret: str) -> ServiceKey | None:
        """Return the key with a secret; None if it is unknown or was revoked."""
        return next(iter(self._where(KeyRow.secret_hash == _hash(secret))), None)

    def revoke(self, ids: Iterable[int]) -> None:
        """Delete keys, all or none; they are refused from now on.

        Raises
        ------
        KeyNotFoundError
            One of the ids does not exist.
        """
        unique = queries.ordered(ids)
        possible = [key_id for key_id in unique if 0 < key_id <= LARGEST_ID]
        with translated(self._engine), self._writer.begin() as connection:
            known = queries.among(connection, KeyRow.id, possible)
            if missing := [key_id for key_id in unique if key_id not in known]:
                raise KeyNotFoundError(missing[0])
            connection.execute(sa.delete(KeyRow).where(KeyRow.id.in_(unique)))

    def _where(self, condition: sa.ColumnElement[bool]) -> list[ServiceKey]:
        query = sa.select(*_COLUMNS).where(condition).order_by(KeyRow.id)
        with translated(self._engine), self._engine.begin() as connection:
            return [ServiceKey(**row) for row in connection.execute(query).mappings()]


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
