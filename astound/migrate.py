"""Migrate a catalog's database to the schema of this version.

Every command does this, so a current database costs one query and no import of Alembic.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import migrations
from engine.errors import SchemaError, StoreError
from engine.files import atomic_write
from engine.store.connection import Connection, Engine, connect, copy_file, schema, translated
from engine.store.tables import SCHEMA_HEAD

if TYPE_CHECKING:
    from alembic.config import Config

SCRIPTS = Path(migrations.__file__).parent
_POSTGRES_LOCK = 0x617374  # any number, the same in every astound


def ensure_schema(database: str | Path) -> None:
    """Create the schema in an empty database, or migrate an older one.

    Of several processes one migrates and the others wait. All of it is one transaction: a failure
    leaves the database unchanged. An older SQLite file is first copied to
    ``<file>.before-<new revision>`` beside it.

    Parameters
    ----------
    database : str or Path
        An SQLAlchemy URL (SQLite file or PostgreSQL), or the path of an SQLite file.

    Raises
    ------
    SchemaError
        The schema is unknown, such as one of a newer version.
    StoreError
        The database cannot be reached or changed.
    """
    engine = connect(database, migrating=True)
    try:
        with translated(engine):
            if not _is_current(engine):
                _migrate(engine)
    finally:
        engine.dispose()


def alembic_config(connection: Connection) -> Config:
    """Return the configuration with which Alembic's commands run on a connection."""
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    return config


def _is_current(engine: Engine) -> bool:
    with engine.connect() as connection:
        return schema(connection) == SCHEMA_HEAD


def _migrate(engine: Engine) -> None:
    from alembic import command

    with engine.execution_options(writing=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_POSTGRES_LOCK})")
        found = schema(connection)
        if found == SCHEMA_HEAD:
            return  # another process migrated it meanwhile
        config = alembic_config(connection)
        if found is not None:
            _require_known(found, config)
            _back_up(engine)
        command.upgrade(config, "head")
        _check_references(connection)


def _require_known(found: str, config: Config) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found not in known:
        raise SchemaError(found, SCHEMA_HEAD)


def _back_up(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        return
    with atomic_write(Path(f"{engine.url.database}.before-{SCHEMA_HEAD}")) as partial:
        copy_file(engine, partial)


def _check_references(connection: Connection) -> None:
    """Check the foreign keys, which are not enforced during a migration."""
    if connection.dialect.name != "sqlite":
        return
    if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all():
        raise StoreError(f"the migration would break {len(broken)} references between tables")
