from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.astound.service.conftest import problem


@pytest.mark.parametrize(
    ("method", "path", "body", "sentence"),
    [
        ("GET", "/v1/tracks?limit=0", None, "invalid limit=0: must be 1 or more"),
        ("GET", "/v1/tracks?limit=501", None, "invalid limit=501: must be 500 or less"),
        ("GET", "/v1/tracks?limit=x", None, "invalid limit=x: must be an integer"),
        ("GET", "/v1/tracks?other=1", None, "invalid other=1: there is no such option"),
        ("GET", "/v1/tracks/x", None, "invalid track_id=x: must be an integer"),
        ("GET", f"/v1/tracks?search={201 * 'a'}", None, "must have 200 characters at most"),
        ("POST", "/v1/query?start=1m", None, "invalid start=1m: must be seconds, m:ss or h:mm:ss"),
        ("POST", "/v1/query?min-confidence=2", None, "invalid min-confidence=2: must be 1 or less"),
        ("POST", "/v1/dedup?full-only=maybe", None, "invalid full-only=maybe: must be true or"),
        ("POST", "/v1/dedup?min-length=nan", None, "invalid min-length=nan: must be a finite"),
        ("GET", "/v1/jobs/1/timeline?format=x", None, "format=x: must be 'csv', 'cue' or 'audac"),
        ("PATCH", "/v1/tracks/1", "{", "invalid body: must be JSON"),
        ("PATCH", "/v1/tracks/1", "[]", "invalid body: must be an object"),
        ("PATCH", "/v1/tracks/1", '{"title": 1}', "invalid title=1: must be text"),
        ("POST", "/v1/tracks/delete", "{}", "invalid ids: must be given"),
        ("POST", "/v1/tracks/delete", '{"ids": []}', "invalid ids: must not be empty"),
        ("POST", "/v1/tracks/delete", '{"ids": ["1"]}', "invalid ids=1: must be an integer"),
        ("POST", "/v1/ingest", '{"paths": 1}', "invalid paths=1: must be a list"),
        ("POST", "/v1/scan", "{", "invalid body: must be JSON"),
    ],
)
def test_wrong_value_is_one_sentence_of_astound(
    client: TestClient, method: str, path: str, body: Any, sentence: str
) -> None:
    headers = {"content-type": "application/json"} if body else {}
    response = client.request(method, path, content=body or b"", headers=headers)
    assert problem(response) == (422, "invalid_request")
    assert sentence in response.json()["detail"]


def test_json_without_its_header_is_explained(client: TestClient) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}  # that of `curl -d`
    response = client.patch("/v1/tracks/1", content=b'{"title": "Rain"}', headers=headers)
    assert problem(response) == (422, "invalid_request")
    assert "with the header `content-type: application/json`" in response.json()["detail"]
