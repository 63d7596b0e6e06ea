from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import astound
from engine.config import IngestConfig
from engine.search.explanation import Explanation
from tests.audio_files import cached_tune, write_wav

RATE = 8000
SEEDS = (0, 4, 6, 3)  # tunes that the tiny encoder tells apart


@pytest.fixture(scope="session")
def explanation(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Explanation]:
    """The explanation of a part of the second of four tunes; not to be changed."""
    folder = tmp_path_factory.mktemp("tunes")
    for number, seed in enumerate(SEEDS):
        write_wav(folder / f"{number}.wav", cached_tune(seed, 8.0), RATE)
    with astound.open(folder / "catalog", model=tiny_model, device="cpu") as catalog:
        catalog.add(folder, config=IngestConfig(n_jobs=1))
        yield catalog.explain(cached_tune(SEEDS[1], 8.0)[2 * RATE : round(7.5 * RATE)], RATE)
