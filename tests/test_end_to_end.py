"""The whole way with the encoder astound ships: files in, clips found, unknown music refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import astound
from astound.catalog import Catalog
from engine.records import QueryResult
from tests.audio_files import Waveform, cached_tune, write_wav

RATE = 8000
N_TUNES = 24
TUNE_S = 25.0
SNR_DB = 10.0


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """A catalog whose track i + 1 is tune i."""
    folder = tmp_path_factory.mktemp("end_to_end")
    for seed in range(N_TUNES):
        write_wav(folder / f"{seed:02}.wav", cached_tune(seed, TUNE_S), RATE)
    with astound.open(folder / "catalog", device="cpu") as catalog:
        report = catalog.add(folder)
        assert [Path(one.path).stem for one in report.added] == [f"{i:02}" for i in range(N_TUNES)]
        yield catalog


def excerpt(tune: Waveform, rng: np.random.Generator) -> tuple[float, Waveform]:
    """Cut 3 to 5 seconds out of anywhere."""
    n_samples = int(rng.uniform(3.0, 5.0) * RATE)
    first = int(rng.integers(0, len(tune) - n_samples))
    return first / RATE, tune[first : first + n_samples]


def with_noise(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    noise = rng.normal(size=len(waveform)) * waveform.std() * 10 ** (-SNR_DB / 20)
    return (waveform + noise).astype(np.float32)


def is_right(result: QueryResult, track_id: int, offset_s: float) -> bool:
    best = result.best
    return best is not None and best.track_id == track_id and abs(best.offset_s - offset_s) <= 0.25


@pytest.mark.parametrize("noisy", [False, True], ids=["clean", "noisy"])
def test_excerpts_are_found_in_the_right_place(
    catalog: Catalog, rng: np.random.Generator, noisy: bool
) -> None:
    n_right = 0
    for seed in range(N_TUNES):
        offset_s, clip = excerpt(cached_tune(seed, TUNE_S), rng)
        result = catalog.query(with_noise(clip, rng) if noisy else clip, RATE)
        n_right += is_right(result, seed + 1, offset_s)
    assert n_right >= 0.95 * N_TUNES


def test_unknown_tunes_have_no_match(catalog: Catalog, rng: np.random.Generator) -> None:
    n_refused = 0
    for seed in range(100, 100 + N_TUNES):
        _, clip = excerpt(cached_tune(seed, 10.0), rng)
        n_refused += catalog.query(clip, RATE).status == "no_match"
    assert n_refused >= 0.9 * N_TUNES
