from __future__ import annotations

import pytest

from tests.training.sounds import be_brief, write_sources
from training.sources import Sources


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Give folders of synthetic audio to train on."""
    return write_sources(tmp_path_factory.mktemp("audio"))


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validate and calibrate with few and short queries."""
    be_brief(monkeypatch)
