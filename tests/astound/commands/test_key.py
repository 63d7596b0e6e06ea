from __future__ import annotations

import json
from pathlib import Path

import astound
from tests.astound.commands.conftest import Run


def test_key_is_created_listed_and_revoked(home: Path, run: Run) -> None:
    created = run("key", "create", "--scope", "query", "--note", "kitchen")
    secret = created.stdout.strip()
    assert created.stderr == "astound: key 1 created; it is not shown again\n"
    with astound.open("catalog") as catalog:
        assert catalog.keys.find(secret) == catalog.keys.all()[0]
    (listed,) = json.loads(run("key", "list", "--format", "json").stdout)
    assert (listed["id"], listed["scope"], listed["note"]) == (1, "query", "kitchen")
    table, csv = run("key", "list").stdout, run("key", "list", "--format", "csv").stdout
    assert "kitchen" in table
    assert csv.splitlines()[0] == "id,scope,note,created_at"
    assert secret not in table + csv
    assert run("key", "revoke", 1, 2).exit_code == 1
    run("key", "create", "--scope", "read")
    assert run("key", "revoke", 1).stderr == ""
    assert "no key is left" in run("key", "revoke", 2).stderr
    assert json.loads(run("key", "list", "--format", "json").stdout) == []


def test_key_needs_a_scope_and_a_catalog(home: Path, run: Run, tmp_path: Path) -> None:
    assert run("key", "create").exit_code == 2
    assert run("key", "create", "--scope", "root").exit_code == 2
    missing = run("--catalog", tmp_path / "none", "key", "create", "--scope", "query")
    assert "no catalog here" in missing.stderr
