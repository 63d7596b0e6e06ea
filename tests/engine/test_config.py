from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from engine.config import AlignConfig, IndexConfig, IngestConfig, SearchConfig, n_threads
from engine.errors import ConfigError

BAD = [
    (IndexConfig, {"segment_hop_s": 0.0}),
    (SearchConfig, {"k": 0}),
    (SearchConfig, {"query_hop_s": -0.1}),
    (AlignConfig, {"max_candidates": 0}),
    (IngestConfig, {"n_jobs": 0}),
    (IngestConfig, {"commit_every_s": 0.0}),
]


@pytest.mark.parametrize(("config", "values"), BAD)
def test_config_bad_value_is_refused(config: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        config(**values)


def test_config_error_names_setting_value_and_fix() -> None:
    with pytest.raises(ConfigError, match=r"^invalid k=0: must be positive$") as caught:
        SearchConfig(k=0)
    assert caught.value.key == "k"


@pytest.mark.parametrize(("given", "expected"), [("3", 3), ("", None), ("many", None), ("0", None)])
def test_threads_are_those_of_the_cpus_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: str, expected: int | None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    n_cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    assert n_threads() == (expected or n_cpus)
