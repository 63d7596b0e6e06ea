from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import migrations
from astound import migrate
from astound.migrate import alembic_config, ensure_schema
from engine.errors import SchemaError, StoreError
from engine.records import NewTrack
from engine.store.connection import Engine, connect, schema
from engine.store.store import Store
from engine.store.tables import SCHEMA_HEAD, Base
from tests.databases import written_shard

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"


def upgrade():
    recreate = "always" if op.get_context().dialect.name == "sqlite" else "never"
    with op.batch_alter_table(
        "tracks", recreate=recreate, table_kwargs={{"sqlite_autoincrement": True}}
    ) as batch:
        batch.add_column(sa.Column("mood", sa.Text()))
        batch.alter_column("duration_s", new_column_name="length_s")
    {then}
"""


@pytest.fixture
def next_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return write_next(tmp_path, monkeypatch, then="pass")


def write_next(folder: Path, monkeypatch: pytest.MonkeyPatch, then: str) -> str:
    """Make an astound of the future: one that knows one revision more."""
    scripts = folder / "migrations"
    shutil.copytree(Path(migrations.__file__).parent, scripts)
    text = NEXT.format(revision="9999", before=SCHEMA_HEAD, then=then)
    (scripts / "versions" / "9999_next.py").write_text(text)
    monkeypatch.setattr(migrate, "SCRIPTS", scripts)
    monkeypatch.setattr(migrate, "SCHEMA_HEAD", "9999")
    return "9999"


def add_track(database: str) -> int:
    track = NewTrack(
        path="/a.ogg",
        content_hash="a",
        n_bytes=1,
        modified_ns=1,
        duration_s=1.0,
        n_segments=1,
        n_clips=1,
        metadata={"genre": "g"},
    )
    with Store.open(database) as store:
        return store.add_shard(written_shard("one", [(1, 1)]), [track])[0]


def make_older(database: str) -> None:
    """Make a database as today's astound does."""
    with pytest.MonkeyPatch.context() as today:
        today.setattr(migrate, "SCRIPTS", Path(migrations.__file__).parent)
        today.setattr(migrate, "SCHEMA_HEAD", SCHEMA_HEAD)
        ensure_schema(database)
    add_track(database)


def found_schema(database: str) -> str | None:
    engine = connect(database)
    with engine.connect() as connection:
        found = schema(connection)
    engine.dispose()
    return found


def sqlite_schema(engine: Engine) -> set[str]:
    with engine.begin() as connection:
        rows = connection.exec_driver_sql(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'alembic_version'"
        )
        return {" ".join(str(sql).split()).replace(" ,", ",") for (sql,) in rows}


def test_schema_head_is_the_newest_revision(sqlite: str) -> None:
    engine = connect(sqlite)
    with engine.connect() as connection:
        scripts = ScriptDirectory.from_config(alembic_config(connection))
    engine.dispose()
    assert scripts.get_heads() == [SCHEMA_HEAD]


def test_migrations_create_the_tables_of_the_models(database: str) -> None:
    ensure_schema(database)
    engine = connect(database)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_migrations_create_the_same_sqlite_schema_as_the_models(
    sqlite: str, tmp_path: Path
) -> None:
    ensure_schema(sqlite)
    migrated, created = connect(sqlite), connect(tmp_path / "created.db")
    Base.metadata.create_all(created)
    assert sqlite_schema(migrated) == sqlite_schema(created)
    migrated.dispose()
    created.dispose()


def test_downgrade_to_nothing_and_up_again(database: str) -> None:
    ensure_schema(database)
    engine = connect(database)
    with engine.execution_options(writing=True).begin() as connection:
        command.downgrade(alembic_config(connection), "base")
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == ["alembic_version"]
    engine.dispose()
    ensure_schema(database)
    assert add_track(database) == 1


def test_current_schema_is_not_changed(database: str) -> None:
    ensure_schema(database)
    add_track(database)
    ensure_schema(database)
    with Store.open(database) as store:
        assert store.track(1).metadata == {"genre": "g"}


def test_current_schema_needs_no_alembic(sqlite: str) -> None:
    ensure_schema(sqlite)
    code = (
        "import sys; from astound.migrate import ensure_schema; "
        f"ensure_schema({sqlite!r}); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_newer_schema_is_refused_and_not_changed(database: str) -> None:
    ensure_schema(database)
    add_track(database)
    engine = connect(database)
    with engine.execution_options(writing=True).begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '8888'")
    engine.dispose()
    for open_it in (ensure_schema, Store.open):
        with pytest.raises(SchemaError) as caught:
            open_it(database)
        assert (caught.value.found, caught.value.head) == ("8888", SCHEMA_HEAD)
    assert found_schema(database) == "8888"


def test_older_schema_is_upgraded_with_all_rows(database: str, next_revision: str) -> None:
    make_older(database)
    ensure_schema(database)
    engine = connect(database)
    with engine.connect() as connection:
        assert schema(connection) == next_revision
        tracks = connection.exec_driver_sql("SELECT path, length_s, mood FROM tracks").all()
        metadata = connection.exec_driver_sql("SELECT value FROM track_metadata").all()
    engine.dispose()
    assert [tuple(row) for row in tracks] == [("/a.ogg", 1.0, None)]
    assert [tuple(row) for row in metadata] == [("g",)]


def test_older_sqlite_file_is_backed_up(sqlite: str, tmp_path: Path, next_revision: str) -> None:
    make_older(sqlite)
    ensure_schema(sqlite)
    backup = tmp_path / f"catalog.db.before-{next_revision}"
    with closing(sqlite3.connect(backup)) as copy:
        assert copy.execute("SELECT version_num FROM alembic_version").fetchall() == [
            (SCHEMA_HEAD,)
        ]
        assert copy.execute("SELECT path, duration_s FROM tracks").fetchall() == [("/a.ogg", 1.0)]
    with Store.open(backup) as store:
        assert store.track(1).metadata == {"genre": "g"}


def test_new_database_needs_no_backup(sqlite: str, tmp_path: Path) -> None:
    ensure_schema(sqlite)
    assert [path.name for path in tmp_path.iterdir()] == ["catalog.db"]


@pytest.mark.parametrize(
    "fault",
    [
        'op.execute("SELECT * FROM no_such_table")',
        "op.execute(\"INSERT INTO track_metadata VALUES (77, 'a', 'b')\")",
    ],
    ids=["broken statement", "broken reference"],
)
def test_failed_upgrade_changes_nothing(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    write_next(tmp_path, monkeypatch, then=fault)
    make_older(database)
    with pytest.raises(StoreError):
        ensure_schema(database)
    with Store.open(database) as store:
        assert store.track(1).metadata == {"genre": "g"}


def test_processes_creating_the_same_database_all_succeed(database: str, tmp_path: Path) -> None:
    code = (
        "import sys; import alembic.command; from astound.migrate import ensure_schema; "
        "print('ready', flush=True); input(); ensure_schema(sys.argv[1])"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, database],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    outcomes = [(*process.communicate(), process.returncode) for process in processes]
    assert outcomes == [("", "", 0)] * 2
    assert found_schema(database) == SCHEMA_HEAD
    assert not list(tmp_path.glob("*.before-*"))
