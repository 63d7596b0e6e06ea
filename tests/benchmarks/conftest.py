from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.queries.datasets import RATE
from tests.audio_files import cached_tune

N_TUNES = 5
TUNE_S = 16.0


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
