from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.responses import Response

from astound.catalog import Catalog
from astound.service.repeats import FirstAnswers
from tests.astound.service.conftest import problem


def test_repeated_writes_are_done_once(client: TestClient, catalog: Catalog) -> None:
    def send(method: str, path: str, key: str, **content: Any) -> Any:
        return client.request(method, path, headers={"idempotency-key": key}, **content)

    changed = send("PATCH", "/v1/tracks/1", "a", json={"title": "New"})
    assert (changed.status_code, changed.json()["title"]) == (200, "New")
    client.patch("/v1/tracks/1", json={"title": "Newer"})
    repeated = send("PATCH", "/v1/tracks/1", "a", json={"title": "New"})
    assert (repeated.content, repeated.headers) == (changed.content, changed.headers)
    assert catalog.track(1).title == "Newer"
    for key in ("b", "b"):
        assert send("DELETE", "/v1/tracks/1", key).json()["id"] == 1
        several = send("POST", "/v1/tracks/delete", f"{key}2", json={"ids": [2, 3]}).json()
        assert [track["id"] for track in several["tracks"]] == [2, 3]
    assert problem(send("DELETE", "/v1/tracks/1", "c")) == (404, "track_not_found")
    assert [track.id for track in catalog.tracks()] == [4]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/v1/tracks/2", {"title": "New"}),
        ("PATCH", "/v1/tracks/1", {"title": "New", "artist": None}),
        ("DELETE", "/v1/tracks/1", None),
    ],
)
def test_key_of_another_request_is_refused(
    client: TestClient, catalog: Catalog, method: str, path: str, body: object
) -> None:
    headers = {"idempotency-key": "a"}
    client.patch("/v1/tracks/1", json={"title": "New"}, headers=headers)
    refused = client.request(method, path, json=body, headers=headers)
    assert problem(refused) == (422, "idempotency_key_reused")
    assert len(catalog.tracks()) == 4


def test_keys_of_two_clients_are_two(client: TestClient, catalog: Catalog) -> None:
    for title in ("One", "Two"):
        _, secret = catalog.keys.create("write")
        headers = {"idempotency-key": "a", "authorization": f"Bearer {secret}"}
        changed = client.patch("/v1/tracks/1", json={"title": title}, headers=headers)
        assert changed.json()["title"] == title


def test_repetition_waits_for_the_first_answer() -> None:
    answers, go_on, n_done = FirstAnswers(), threading.Event(), []

    def answer() -> Response:
        assert go_on.wait(10)
        n_done.append(1)
        return Response("x")

    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(answers.once, "key", "content", answer) for _ in range(2)]
        go_on.set()
        assert both[0].result() is both[1].result()
    assert n_done == [1]


def test_request_that_fails_can_be_sent_again() -> None:
    answers = FirstAnswers()
    with pytest.raises(ZeroDivisionError):
        answers.once("key", "content", lambda: Response(str(1 / 0)))
    assert answers.once("key", "content", lambda: Response("x")).body == b"x"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astound.service.repeats._N_KEPT", 3)
    monkeypatch.setattr("astound.service.repeats._N_BYTES_KEPT", 250)
    answers = FirstAnswers()
    for key in range(9):
        answers.once(key, "content", lambda: Response("x"))
    assert list(answers._entries) == [6, 7, 8]
    for key in range(9, 13):
        answers.once(key, "content", lambda: Response("x" * 100))
    assert list(answers._entries) == [10, 11, 12]
