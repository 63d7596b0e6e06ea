from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from engine.errors import ConfigError, KeyNotFoundError
from engine.records import SCOPES
from engine.store.store import Store
from engine.store.tables import KeyRow


def test_key_is_found_by_its_secret_until_it_is_revoked(store: Store) -> None:
    assert not store.keys.exist()
    key, secret = store.keys.create("query", "kitchen")
    other, other_secret = store.keys.create("admin")
    assert (key.scope, key.note, other.note) == ("query", "kitchen", None)
    assert abs(datetime.now(UTC) - key.created_at) < timedelta(minutes=1)
    assert store.keys.find(secret) == key
    assert store.keys.find(other_secret) == other
    assert store.keys.all() == [key, other]
    for wrong in ("", secret[:-1], secret.upper(), "\0", "\udcff"):
        assert store.keys.find(wrong) is None
    store.keys.revoke([key.id])
    assert store.keys.find(secret) is None
    assert store.keys.all() == [other]
    assert store.keys.exist()


def test_secrets_are_long_different_and_not_stored(store: Store) -> None:
    found = {store.keys.create("query")[1] for _ in range(20)}
    assert len(found) == 20
    assert all(secret.startswith("astound_") and len(secret) > 50 for secret in found)
    with store._reading() as connection:
        stored = connection.execute(sa.select(KeyRow.__table__)).all()
    assert not any(secret in str(stored) or secret[8:] in str(stored) for secret in found)


def test_unknown_key_revokes_none(store: Store) -> None:
    key, _ = store.keys.create("read")
    for unknown in (key.id + 1, 0, -1, 2**40):
        with pytest.raises(KeyNotFoundError, match=f"no key {unknown};"):
            store.keys.revoke([key.id, unknown])
    assert store.keys.all() == [key]


def test_id_of_a_revoked_key_is_never_used_again(store: Store) -> None:
    key, _ = store.keys.create("read")
    store.keys.revoke([key.id])
    assert store.keys.create("read")[0].id > key.id


@pytest.mark.parametrize("scope", ["", "root", "QUERY"])
def test_unknown_scope_is_refused(store: Store, scope: str) -> None:
    with pytest.raises(ConfigError, match="must be one of query, read, write, admin"):
        store.keys.create(scope)
    assert SCOPES[0] == "query"


def test_keys_are_no_change_of_the_catalog(store: Store) -> None:
    before = store.version()
    store.keys.revoke([store.keys.create("write")[0].id])
    assert store.version() == before
