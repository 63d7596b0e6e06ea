from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from engine.store.connection import connect
from tests.disks import mounted


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """The folder tmp_path / "w", mounted once more and read-only."""
    (tmp_path / "w").mkdir()
    with mounted(tmp_path / "r", "--bind", str(tmp_path / "w")) as folder:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield folder


def test_reader_without_write_rights_sees_what_others_commit(
    tmp_path: Path, read_only: Path
) -> None:
    def count() -> int:
        with engine.connect() as connection:
            return int(connection.scalar(sa.text("SELECT count(*) FROM t")) or 0)

    with closing(sqlite3.connect(tmp_path / "w" / "a.db")) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE t (x)")
    engine = connect(read_only / "a.db")
    counts = [count()]
    with closing(sqlite3.connect(tmp_path / "w" / "a.db")) as writer:
        for _ in range(2):
            with writer:
                writer.execute("INSERT INTO t VALUES (1)")
            counts.append(count())
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            counts.append(count())
    counts.append(count())
    engine.dispose()
    assert counts == [0, 1, 1, 2, 2, 2]
