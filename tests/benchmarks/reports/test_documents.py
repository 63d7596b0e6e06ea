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
    results_of_clips = {
        "command": "measure it",
        "commit": None,
        "machine": machine,
        "table": "| new |",
    }
    (results / "clips.json").write_text(json.dumps(results_of_clips))
    page = "before\n<!-- begin: clips -->\n| old |\n<!-- end: clips -->\nafter\n"
    for name in documents.PAGES:
        (tmp_path / name).write_text("nothing\n")
    (tmp_path / "docs" / "benchmarks.md").write_text(page)
    return tmp_path


def test_tables_equal_the_results() -> None:
    assert list(documents.differing()) == [], "astound bench tables"


def test_marks_are_paired_and_unique() -> None:
    text = "".join((documents.ROOT / page).read_text() for page in documents.PAGES)
    begun = [line for line in text.splitlines() if line.startswith("<!-- begin: ")]
    ended = [line for line in text.splitlines() if line.startswith("<!-- end: ")]
    assert len(begun) == len(set(begun)) == len(ended)


def test_write_replaces_the_text_between_marks(root: Path) -> None:
    assert documents.write(root) == ["docs/benchmarks.md"]
    page = (root / "docs" / "benchmarks.md").read_text()
    assert page.startswith("before\n<!-- begin: clips -->\n")
    assert page.endswith("\n<!-- end: clips -->\nafter\n")
    assert "    measure it\n" in page
    assert "| new |" in page
    assert "| old |" not in page
    assert documents.write(root) == []


def test_unknown_mark_and_missing_results_are_refused(root: Path) -> None:
    (root / "README.md").write_text("<!-- begin: x -->\n<!-- end: x -->\n")
    with pytest.raises(ConfigError, match="tables='x': must be one of accuracy"):
        documents.differing(root)
    (root / "README.md").write_text("<!-- begin: model -->\n<!-- end: model -->\n")
    with pytest.raises(ConfigError, match=r"model\.json"):
        documents.differing(root)
