from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient

from astound.catalog import Catalog
from astound.service.app import create_app
from astound.service.limits import RateLimit
from astound.service.schemas import RefusedError
from engine.config import ServiceConfig
from engine.errors import ConfigError
from tests.astound.commands.conftest import RATE
from tests.astound.service.conftest import problem, serving, start
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


def test_full_queue_refuses_before_a_key_is_read(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(catalog, ServiceConfig(n_jobs=1, max_waiting=0)) as client:
        service = client.app.state.service  # type: ignore[attr-defined]
        monkeypatch.setattr(service.gate, "require", None)
        with service.queue.place("another"):
            for path in ("/v1/query", "/v1/explain"):
                assert problem(client.post(path, content=b"x")) == (503, "overloaded")


def test_full_queue_refuses_before_routes_and_below_a_prefix(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(catalog, ServiceConfig(n_jobs=1, max_waiting=0)) as client:
        app: Any = client.app
        monkeypatch.setattr(app.router, "middleware_stack", None)  # which a refusal does not reach
        with app.state.service.queue.place("another"):
            for prefix in ("", "/music"):
                below = TestClient(app, "http://localhost", root_path=prefix)
                answer = below.post(f"{prefix}/v1/query", content=b"x")
                assert problem(answer) == (503, "overloaded")


def test_query_whose_client_has_gone_is_not_answered(
    catalog: Catalog, held: threading.Event, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    query = catalog.query

    def noted(source: object, *arguments: object, **options: Any) -> object:
        asked.append(options.get("name", "noise"))
        return query(source, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(catalog, "query", noted)
    clip = (home / "known.wav").read_bytes()
    app = create_app(catalog, ServiceConfig(n_jobs=1))
    with serving(app) as address:
        queue = app.state.service.queue
        first = post(address, "first", clip)
        while "first" not in asked:
            time.sleep(0.01)
        second, third = post(address, "second", clip), post(address, "third", clip)
        while queue.n_requests < 3:
            time.sleep(0.01)
        second.close()
        while queue.n_requests > 2:
            time.sleep(0.01)
        held.set()
        assert [json.load(one.getresponse())["status"] for one in (first, third)] == ["match"] * 2
        first.close()
        third.close()
    assert [name for name in asked if name != "noise"] == ["first", "third"]


def post(address: str, name: str, content: bytes) -> HTTPConnection:
    """Send a query; its answer is still to be read."""
    connection = HTTPConnection(urlsplit(address).netloc)
    connection.request("POST", f"/v1/query?name={name}", content)
    return connection


def test_requests_of_a_minute_are_bounded_for_each_client() -> None:
    now_s = 1000.0
    rate = RateLimit(30, lambda: now_s)
    for client in ("a", "b"):
        for _ in range(30):
            rate.count(client)
        with pytest.raises(RefusedError) as caught:
            rate.count(client)
        assert (caught.value.status, caught.value.retry_after_s) == (429, 2)
    now_s += 2.0
    rate.count("a")
    with pytest.raises(RefusedError):
        rate.count("a")
    now_s += 600.0
    for _ in range(30):
        rate.count("a")
    RateLimit(None).count("a")
    slow = RateLimit(0.5, lambda: now_s)
    slow.count("a")
    with pytest.raises(RefusedError) as caught:
        slow.count("a")
    assert caught.value.retry_after_s == 120


def test_clients_whose_minute_is_over_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astound.service.limits._MAX_CLIENTS", 3)
    now_s = 0.0
    rate = RateLimit(60, lambda: now_s)
    for number in range(9):
        now_s = 2.0 * number
        rate.count(str(number))
    assert len(rate._free_s) <= 3


def test_too_many_requests_in_a_minute_are_refused(catalog: Catalog) -> None:
    with start(catalog, ServiceConfig(max_rate=2)) as client:
        statuses = [client.get("/v1/stats").status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        refused = client.post("/v1/query", content=b"x")
        assert problem(refused) == (429, "rate_exceeded")
        assert int(refused.headers["retry-after"]) > 0
        assert client.get("/healthz").status_code == 200


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
    [
        {"n_jobs": 0},
        {"max_waiting": -1},
        {"max_upload_bytes": 0},
        {"max_clip_s": 0.0},
        {"max_rate": 0.0},
    ],
)
def test_wrong_settings_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"invalid {next(iter(values))}"):
        ServiceConfig(**values)  # type: ignore[arg-type]
