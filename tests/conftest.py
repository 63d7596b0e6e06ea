from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings

# The same examples in every run: a new counterexample is for a developer to look for. None has a
# time limit, as other processes may take the processor.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

pytest_plugins = ["tests.audio_files", "tests.databases", "tests.encoders", "tests.catalogs"]


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that draws the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session", autouse=True)
def _any_terminal() -> Iterator[None]:
    """Let it not matter which terminal runs the tests: a dumb one gets no bars, some no colours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm-256color")
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
            patch.delenv(name, raising=False)
        yield
