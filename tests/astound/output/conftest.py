from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import astound
from astound.catalog import Catalog
from engine.config import IngestConfig
from engine.search.explanation import Explanation
from tests.audio_files import cached_tune, write_wav

RATE = 8000
SEEDS = (0, 4, 6, 3)  # tunes that the tiny encoder tells apart


@pytest.fixture(scope="session")
def tunes(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """A catalog of four tunes; not to be changed."""
    folder = tmp_path_factory.mktemp("tunes")
    for number, seed in enumerate(SEEDS):
        write_wav(folder / f"{number}.wav", cached_tune(seed, 8.0), RATE)
    with astound.open(folder / "catalog", model=tiny_model, device="cpu") as catalog:
        catalog.add(folder, config=IngestConfig(n_jobs=1))
        yield catalog


@pytest.fixture(scope="session")
def explanation(tunes: Catalog) -> Explanation:
    """The explanation of a part of the second of four tunes; not to be changed."""
    return tunes.explain(cached_tune(SEEDS[1], 8.0)[2 * RATE : round(7.5 * RATE)], RATE)


@pytest.fixture(scope="session")
def explained_pieces(tunes: Catalog) -> Explanation:
    """The explanation of two pieces of the second tune and one of the third."""
    second, third = cached_tune(SEEDS[1], 8.0), cached_tune(SEEDS[2], 8.0)
    starts = (second, 4.0, 2.8), (second, 1.3, 3.2), (third, 2.0, 4.0)
    pieces = [tune[round(s * RATE) : round((s + n) * RATE)] for tune, s, n in starts]
    return tunes.explain(np.concatenate(pieces), RATE, track=2)
