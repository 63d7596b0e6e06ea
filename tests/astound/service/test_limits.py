from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.requests import Request

from astound.catalog import Catalog
from astound.service.app import create_app
from astound.service.limits import RateLimit, make_upload_folder, received
from astound.service.schemas import RefusedError
from engine.config import ServiceConfig
from engine.errors import ConfigError
from tests.astound.commands.conftest import RATE
from tests.astound.service.conftest import problem, serving, start
from tests.audio_files import cached_tune, write_wav


def request(chunks: list[bytes], headers: dict[str, str] | None = None, pause_s: float = 0.0):
    """A request whose body comes in chunks; counts how many were taken."""
    left = list(chunks)

    async def receive() -> dict[str, object]:
        await asyncio.sleep(pause_s)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    lines = [(key.encode(), value.encode()) for key, value in (headers or {}).items()]
    made = Request({"type": "http", "method": "POST", "headers": lines}, receive)
    made.state.left = left
    return made


def receive(made: Request, folder: Path | None, **config: Any) -> bytes:
    """Receive a body and return the file that was made of it."""

    async def read() -> bytes:
        async with received(made, folder, ServiceConfig(**config)) as upload:
            if folder:
                assert Path(upload.path).parent == folder
            return Path(upload.path).read_bytes()

    return asyncio.run(read())


def form(*parts: tuple[str, str, bytes]) -> bytes:
    """The body of a form with the boundary `b`."""
    made = b""
    for name, file, content in parts:
        line = f'content-disposition: form-data; name="{name}"; filename="{file}"'
        made += b"--b\r\n" + line.encode() + b"\r\n\r\n" + content + b"\r\n"
    return made + b"--b--\r\n"


FORM = {"content-type": "multipart/form-data; boundary=b"}


def test_body_arrives_as_a_file_that_is_removed_afterwards(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    pieces = [content[i : i + 70_000] for i in range(0, len(content), 70_000)]
    assert receive(request(pieces), tmp_path) == content
    body = form(("file", "a.wav", content), ("other", "b.wav", b"x"))
    pieces = [body[i : i + 70_000] for i in range(0, len(body), 70_000)]
    assert receive(request(pieces, FORM), tmp_path) == content
    assert receive(request([content]), None) == content
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("parts", "n_files"),
    [([], 0), ([("x", "a", b"1")], 0), ([("file", "a", b"1"), ("file", "b", b"2")], 2)],
)
def test_form_needs_exactly_one_file(
    tmp_path: Path, parts: list[tuple[str, str, bytes]], n_files: int
) -> None:
    with pytest.raises(RefusedError, match=f"{n_files} files in the form") as caught:
        receive(request([form(*parts)], FORM), tmp_path)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "multipart/form-data"}, b"x"),
        (FORM, b"no form"),
        (FORM, b"--b\r\nno header\r\n\r\n"),
        (FORM, form(("file", "a.wav", b"x"))[:60]),
    ],
)
def test_damaged_form_is_refused(tmp_path: Path, headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        receive(request([body], headers), tmp_path)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("headers", [{}, FORM])
def test_too_large_a_body_is_neither_read_nor_written_to_its_end(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    start = form(("file", "a.wav", b""))[: -len(b"\r\n--b--\r\n")] if headers else b""
    made = request([start, *[b"x" * 100] * 50], headers)
    with pytest.raises(RefusedError, match=r"larger than 0\.001 MB") as caught:
        receive(made, tmp_path, max_upload_bytes=1000)
    assert caught.value.status == 413
    assert len(made.state.left) > 35
    assert list(tmp_path.iterdir()) == []


def test_too_large_a_body_is_refused_before_it_is_read(tmp_path: Path) -> None:
    made = request([b"x"], {"content-length": "1001"})
    with pytest.raises(RefusedError) as caught:
        receive(made, tmp_path, max_upload_bytes=1000)
    assert caught.value.status == 413
    assert made.state.left == [b"x"]


def test_body_that_stops_coming_is_given_up(tmp_path: Path) -> None:
    made = request([b"x", b"x"], pause_s=60.0)
    with pytest.raises(RefusedError) as caught:
        receive(made, tmp_path, max_pause_s=0.05)
    assert caught.value.status == 408


def test_full_disk_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        receive(request([b"x"]), tmp_path / "gone")
    assert caught.value.status == 507


def test_old_uploads_are_removed_and_new_ones_kept(tmp_path: Path) -> None:
    folder = make_upload_folder(tmp_path)
    assert folder
    for name, age_s in (("old", 25 * 3600), ("new", 3600)):
        (folder / name).touch()
        os.utime(folder / name, times=(time.time() - age_s,) * 2)
    assert make_upload_folder(tmp_path) == folder
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_catalog_that_cannot_be_written_has_no_folder_of_uploads(tmp_path: Path) -> None:
    (tmp_path / "uploads").touch()
    assert make_upload_folder(tmp_path) is None


# -- the queue -----------------------------------------------------------------------------------


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
