from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from astound.catalog import Catalog
from engine.config import ServiceConfig
from engine.errors import ConfigError
from tests.astound.commands.conftest import RATE
from tests.astound.service.conftest import problem, start
from tests.audio_files import cached_tune, write_wav


@pytest.fixture
def held(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let queries of clips wait until the event is set."""
    go_on = threading.Event()
    query = catalog.query

    def wait(source: object, *arguments: object, **options: object) -> object:
        if isinstance(source, str):
            assert go_on.wait(10)
        return query(source, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(catalog, "query", wait)
    yield go_on
    go_on.set()


@pytest.mark.parametrize(
    ("config", "status", "code"),
    [
        (ServiceConfig(n_jobs=1, max_waiting=2, max_per_client=9), 503, "overloaded"),
        (ServiceConfig(n_jobs=1, max_waiting=9, max_per_client=3), 429, "too_many_requests"),
    ],
)
def test_queries_beyond_the_queue_are_refused_at_once(
    catalog: Catalog,
    held: threading.Event,
    home: Path,
    config: ServiceConfig,
    status: int,
    code: str,
) -> None:
    clip = (home / "known.wav").read_bytes()
    with start(catalog, config) as client, ThreadPoolExecutor(3) as threads:
        accepted = [threads.submit(client.post, "/v1/query", content=clip) for _ in range(3)]
        while "astound_queue 3.0" not in client.get("/metrics").text:
            time.sleep(0.01)
        refused = client.post("/v1/query", content=clip)
        assert problem(refused) == (status, code)
        assert refused.headers["retry-after"] == "1"
        assert client.get("/v1/stats").status_code == 200  # others are answered meanwhile
        held.set()
        assert [one.result().status_code for one in accepted] == [200] * 3
        assert "astound_queue 0.0" in client.get("/metrics").text
        assert client.post("/v1/query", content=clip).status_code == 200


def test_clip_beyond_the_longest_is_refused(catalog: Catalog, home: Path) -> None:
    write_wav(home / "long.wav", cached_tune(1, 12.0), RATE)
    clip = (home / "long.wav").read_bytes()
    with start(catalog, ServiceConfig(max_clip_s=5.0)) as client:
        for params in ({}, {"start": "5"}, {"start": "2"}):
            response = client.post("/v1/query", params=params, content=clip)
            assert problem(response) == (413, "audio_too_long")
            assert "longer than 5 s" in response.json()["detail"]
            assert problem(client.post("/v1/explain", params=params, content=clip))[0] == 413
        part = client.post("/v1/query", params={"end": "5"}, content=clip)
        assert part.json()["status"] == "match"


@pytest.mark.parametrize(
    "values",
    [{"n_jobs": 0}, {"max_waiting": -1}, {"max_upload_bytes": 0}, {"max_clip_s": 0.0}],
)
def test_wrong_settings_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"invalid {next(iter(values))}"):
        ServiceConfig(**values)  # type: ignore[arg-type]
