from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

import astound
from astound.catalog import Catalog
from benchmarks.queries.datasets import RATE
from benchmarks.queries.distractors import Distractors
from benchmarks.queries.synthetic import SyntheticTracks
from benchmarks.runs.catalogs import CatalogBuilder
from benchmarks.runs.corpus import Corpus
from tests.audio_files import cached_tune

N_TUNES = 5
TUNE_S = 16.0
N_LONG_TUNES = 4
LONG_TUNE_S = 62.0
N_REFERENCES = 4
N_OTHERS = 8
OTHER_S = 24.0
REFERENCE_SEGMENTS = 31
OTHER_SEGMENTS = 47


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the folders music, absent, noise and rooms."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for kind, first_seed, n_tunes in (("music", 0, N_TUNES), ("absent", 30, 2)):
        (folder / kind).mkdir()
        for seed in range(first_seed, first_seed + n_tunes):
            tune = cached_tune(seed, TUNE_S, RATE)
            soundfile.write(folder / kind / f"{seed:02}.wav", tune, RATE)
    t = np.arange(RATE) / RATE
    for kind, waveform in (
        ("noise", rng.normal(0, 0.1, 3 * RATE)),
        ("rooms", rng.normal(0, 0.1, RATE) * np.exp(-20 * t)),
    ):
        (folder / kind).mkdir()
        soundfile.write(folder / kind / "a.wav", waveform.astype(np.float32), RATE)
    return folder


@pytest.fixture(scope="module")
def long_sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the folders music, of tunes for a mix, and speech."""
    folder = tmp_path_factory.mktemp("mix")
    (folder / "music").mkdir()
    (folder / "speech").mkdir()
    for seed in range(N_LONG_TUNES):
        tune = cached_tune(seed, LONG_TUNE_S, RATE)
        soundfile.write(folder / "music" / f"{seed}.wav", tune, RATE)
    babble = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)
    soundfile.write(folder / "speech" / "a.wav", babble, RATE)
    return folder


# -- a corpus ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_catalogs(tmp_path_factory: pytest.TempPathFactory, sounds: Path, tiny_model: Path) -> Path:
    """A folder with two catalogs, references and others."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "music").mkdir()
    for seed in range(N_OTHERS):
        waveform = cached_tune(60 + seed, OTHER_S, RATE)
        soundfile.write(folder / "music" / f"{seed}.wav", waveform, RATE)
    references = sorted((sounds / "music").iterdir())[:N_REFERENCES]
    for name, paths in (
        ("references", references),
        # A track in both catalogs is a reference.
        ("others", [*sorted((folder / "music").iterdir()), references[0]]),
    ):
        with astound.open(folder / name, model=tiny_model, device="cpu") as catalog:
            catalog.add(paths)
    return folder


@pytest.fixture
def corpus(two_catalogs: Path) -> Iterator[Corpus]:
    with Corpus(two_catalogs / "references", two_catalogs / "others", 100, seed=1) as corpus:
        yield corpus


@pytest.fixture
def distractors(corpus: Corpus) -> Distractors:
    return Distractors.fit(corpus.other_embeddings(), seed=1)


def synthetic_tracks(corpus: Corpus, distractors: Distractors, n_segments: int) -> SyntheticTracks:
    return SyntheticTracks.filling(n_segments, distractors, corpus.references.settings, seed=1)


@pytest.fixture
def padded(corpus: Corpus, distractors: Distractors, tmp_path: Path, tiny_model: Path) -> Catalog:
    """A catalog of references and two synthetic tracks."""
    padding = synthetic_tracks(corpus, distractors, 900)
    builder = CatalogBuilder(name="padded", sources=[corpus.references, padding])
    builder.build(tmp_path / "padded")
    return astound.open(tmp_path / "padded", model=tiny_model, device="cpu")


@pytest.fixture
def small_catalog(tmp_path: Path, sounds: Path, tiny_model: Path) -> Iterator[Catalog]:
    """A catalog of the folder music."""
    with astound.open(tmp_path / "catalog", model=tiny_model, device="cpu") as catalog:
        catalog.add(sounds / "music")
        yield catalog
