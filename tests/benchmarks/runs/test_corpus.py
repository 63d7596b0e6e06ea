from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.runs.corpus import Corpus
from engine.errors import ConfigError
from tests.benchmarks.conftest import N_OTHERS, OTHER_SEGMENTS, REFERENCE_SEGMENTS


def test_references_fit_and_others_exclude_them(corpus: Corpus) -> None:
    assert corpus.n_references == 3 * REFERENCE_SEGMENTS
    assert len(corpus.paths) == 3
    assert corpus.n_others == N_OTHERS * OTHER_SEGMENTS
    assert [len(one) for one in corpus.other_embeddings()] == [OTHER_SEGMENTS] * N_OTHERS


def test_size_below_every_reference_is_refused(two_catalogs: Path) -> None:
    with pytest.raises(
        ConfigError, match="n_segments=30: must be at least the length of one reference"
    ):
        Corpus(two_catalogs / "references", two_catalogs / "others", 30, seed=1)
