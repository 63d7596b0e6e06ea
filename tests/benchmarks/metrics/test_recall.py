from __future__ import annotations

from pathlib import Path

from astound.catalog import Catalog
from benchmarks.metrics import recall
from benchmarks.metrics.recall import QuerySet
from benchmarks.queries.datasets import Sounds
from benchmarks.runs import catalogs
from benchmarks.runs.corpus import Corpus
from tests.benchmarks.metrics.test_exact import exact_index


def test_flat_search_finds_what_an_exact_one_finds(
    padded: Catalog, corpus: Corpus, sounds: Path
) -> None:
    queries = QuerySet(corpus.paths, Sounds(sounds / "noise", sounds / "rooms"), 2, seed=1)
    rows = recall.compare_with_exact(
        queries, padded, exact_index(padded), catalogs.track_ids(padded), 2, [None]
    )
    assert [(row.cell, row.n) for row in rows] == [
        ("noise0 5 s", 2),
        ("noise-5 5 s", 2),
        ("room5 5 s", 2),
    ]
    for row in rows:
        assert row.neighbours_found > 0.95
        assert row.n_right == row.n_right_exact
