from __future__ import annotations

import re
from contextlib import AbstractContextManager

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from astound.catalog import Catalog
from astound.service.access import is_loopback, served_hosts
from astound.service.app import create_app
from engine.records import SCOPES
from tests.astound.service.conftest import BASE_URL, problem

NEEDED = {
    ("POST", "/v1/query"): "query",
    ("POST", "/v1/explain"): "query",
    ("GET", "/v1/tracks"): "read",
    ("GET", "/v1/tracks/1"): "read",
    ("GET", "/v1/tracks/1/peaks"): "read",
    ("GET", "/v1/tracks/1/audio"): "read",
    ("GET", "/v1/stats"): "read",
    ("GET", "/v1/queries"): "read",
    ("GET", "/v1/media"): "write",
    ("GET", "/metrics"): "read",
    ("PATCH", "/v1/tracks/1"): "write",
    ("DELETE", "/v1/tracks/1"): "write",
    ("POST", "/v1/scan"): "query",
    ("POST", "/v1/ingest"): "write",
    ("POST", "/v1/dedup"): "read",
    ("POST", "/v1/compact"): "admin",
    ("POST", "/v1/verify"): "admin",
    ("GET", "/v1/jobs"): "query",
    ("GET", "/v1/jobs/1"): "query",
    ("GET", "/v1/jobs/1/events"): "query",
    ("GET", "/v1/jobs/1/timeline"): "query",
    ("DELETE", "/v1/jobs/1"): "query",
    ("POST", "/v1/tracks/delete"): "write",
}
OPEN = {"/healthz", "/readyz", "/openapi.json"}


def header(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def request(client: TestClient, method: str, path: str, headers: dict[str, str]) -> Response:
    body: object = {} if method == "PATCH" or "delete" in path else None
    return client.request(method, path, headers=headers, json=body)


def test_every_path_has_a_scope(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    described = {
        (method.upper(), re.sub(r"{\w+_id}", "1", path)): about
        for path, methods in paths.items()
        for method, about in methods.items()
        if path not in OPEN
    }
    assert set(described) == set(NEEDED)
    assert all(about["security"] == [{"HTTPBearer": []}] for about in described.values())


def test_scope_includes_those_before_it(client: TestClient, catalog: Catalog) -> None:
    secrets = {scope: catalog.keys.create(scope)[1] for scope in SCOPES}
    for (method, path), needed in sorted(NEEDED.items(), reverse=True):
        for scope in SCOPES:
            response = request(client, method, path, header(secrets[scope]))
            is_allowed = SCOPES.index(scope) >= SCOPES.index(needed)
            is_refused = "scope_needed" in response.text
            assert is_refused is not is_allowed, (method, path, scope)
            assert is_refused <= (response.status_code == 403)
            assert response.status_code not in (401, 500)


def test_without_keys_this_machine_needs_none(client: TestClient, catalog: Catalog) -> None:
    assert client.get("/v1/stats").status_code == 200
    key, secret = catalog.keys.create("read")
    assert problem(client.get("/v1/stats")) == (401, "key_needed")
    assert client.get("/v1/stats", headers=header(secret)).status_code == 200
    catalog.keys.revoke([key.id])
    assert problem(client.get("/v1/stats", headers=header(secret))) == (401, "unknown_key")
    assert client.get("/v1/stats").status_code == 200


def test_other_addresses_need_a_key_even_if_the_last_was_revoked(catalog: Catalog) -> None:
    with TestClient(create_app(catalog, hosts=["*"], is_local=False), BASE_URL) as client:
        response = client.get("/v1/stats")
    assert problem(response) == (401, "key_needed")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic x"}, header("x"), header("é")])
def test_wrong_key_stops_a_query_before_its_body(
    client: TestClient, catalog: Catalog, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.keys.create("query")
    monkeypatch.setattr("astound.service.app.received", None)
    encoded = {key: value.encode() for key, value in headers.items()}
    response = client.post("/v1/query", content=b"x", headers=encoded)  # type: ignore[arg-type]
    assert problem(response)[0] == 401


def test_state_needs_no_key(client: TestClient, catalog: Catalog) -> None:
    catalog.keys.create("query")
    assert [client.get(path).status_code for path in sorted(OPEN)] == [200] * 3


def test_each_key_is_a_client_of_its_own(
    client: TestClient, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = catalog.keys.create("query")
    queue = client.app.state.service.queue  # type: ignore[attr-defined]
    place, clients = queue.place, []

    def noted(client: str) -> AbstractContextManager[None]:
        clients.append(client)
        return place(client)

    monkeypatch.setattr(queue, "place", noted)
    client.post("/v1/query", content=b"x", headers=header(secret))
    assert clients == ["key 1"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("example.org", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_loopback_is_this_machine_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_only_hosts_that_need_a_key_may_have_any_name() -> None:
    assert "*" not in served_hosts("127.0.0.1", [])
    assert "proxy.example" in served_hosts("127.0.0.1", ["proxy.example"])
    assert served_hosts("0.0.0.0", []) == ["*"]
    assert served_hosts("0.0.0.0", ["a.example"]) == ["a.example"]
