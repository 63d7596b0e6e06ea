from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.reports import documents
from engine.errors import ConfigError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with a page that has the marks of one table."""
    (tmp_path / "docs").mkdir()
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    machine = {"n_cpus": 2, "cpu": "one"}
    found = {"command": "measure it", "commit": None, "machine": machine, "table": "| new |"}
    (results / "speed.json").write_text(json.dumps(found))
    page = "before\n<!-- begin: speed -->\n| old |\n<!-- end: speed -->\nafter\n"
    for one in documents.PAGES:
        (tmp_path / one).write_text("nothing\n")
    (tmp_path / "docs" / "benchmarks.md").write_text(page)
    return tmp_path


def test_documents_say_what_the_results_say() -> None:
    assert list(documents.differing()) == [], "astound bench tables"


def test_every_mark_is_paired_and_every_table_is_shown_once() -> None:
    text = "".join((documents.ROOT / page).read_text() for page in documents.PAGES)
    begun = [line for line in text.splitlines() if line.startswith("<!-- begin: ")]
    ended = [line for line in text.splitlines() if line.startswith("<!-- end: ")]
    assert len(begun) == len(set(begun)) == len(ended)


def test_what_stands_between_marks_is_replaced(root: Path) -> None:
    assert documents.write(root) == ["docs/benchmarks.md"]
    page = (root / "docs" / "benchmarks.md").read_text()
    assert page.startswith("before\n<!-- begin: speed -->\n")
    assert page.endswith("\n<!-- end: speed -->\nafter\n")
    assert "    measure it\n" in page
    assert "| new |" in page
    assert "| old |" not in page
    assert documents.write(root) == []


def test_unknown_mark_and_missing_results_are_told(root: Path) -> None:
    (root / "README.md").write_text("<!-- begin: x -->\n<!-- end: x -->\n")
    with pytest.raises(ConfigError, match="tables='x': must be one of accuracy"):
        documents.differing(root)
    (root / "README.md").write_text("<!-- begin: clips -->\n<!-- end: clips -->\n")
    with pytest.raises(ConfigError, match=r"clips\.json"):
        documents.differing(root)
