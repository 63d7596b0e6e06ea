from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

import astound
from astound.catalog import Catalog
from astound.service.app import create_app
from astound.service.server import Server
from engine.config import ServiceConfig
from tests.astound.commands.conftest import home, library, run

__all__ = ["home", "library", "run"]

BASE_URL = "http://localhost"


@pytest.fixture
def catalog(home: Path, tiny_weights: Path) -> Iterator[Catalog]:
    """A catalog of the tunes 0 to 3, with ids 1 to 4 in any order."""
    with astound.open("catalog", model=tiny_weights) as opened:
        yield opened


@pytest.fixture
def client(catalog: Catalog) -> Iterator[TestClient]:
    """A client of a service that is ready."""
    with start(catalog) as ready:
        yield ready


def start(catalog: Catalog, config: ServiceConfig | None = None) -> TestClient:
    """Make a client of a service; its `with` block waits until the service is ready."""
    return _ReadyClient(create_app(catalog, config), BASE_URL)


class _ReadyClient(TestClient):
    def __enter__(self) -> _ReadyClient:
        super().__enter__()
        while self.get("/readyz").status_code == 503:
            time.sleep(0.02)
        return self


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve an application on this machine until the block ends; yield its address when ready."""
    server = Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started or app.state.service.unready:
            time.sleep(0.02)
        yield f"http://localhost:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


def problem(response: object) -> tuple[int, str]:
    """Status and code of a response, which must be a problem."""
    assert response.headers["content-type"] == "application/problem+json"  # type: ignore[attr-defined]
    body = response.json()  # type: ignore[attr-defined]
    assert body["status"] == response.status_code  # type: ignore[attr-defined]
    assert body["detail"]
    return body["status"], body["code"]
