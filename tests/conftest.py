from __future__ import annotations

import numpy as np
import pytest

pytest_plugins = ["tests.audio_files", "tests.databases", "tests.encoders", "tests.shelves"]


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that draws the same in every run."""
    return np.random.default_rng(0)
