from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from astound.service.app import PAGE

FILES = [path for path in PAGE.rglob("*") if path.is_file()]
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg"}
FIRST_LOAD_BYTES = 120_000


def test_page_and_its_files_are_served(client: TestClient) -> None:
    assert client.get("/").text == (PAGE / "index.html").read_text()
    for path in FILES:
        response = client.get(f"/{path.relative_to(PAGE)}")
        assert response.content == path.read_bytes()
        assert response.headers["content-type"].startswith(TYPES.get(path.suffix, ""))
        assert response.headers["content-security-policy"]
    assert client.get("/../app.py").status_code == 404
    assert client.get("/vendor/").status_code == 404


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_page_loads_nothing_from_elsewhere(path: Path) -> None:
    text = path.read_text()
    if path.name == "LICENCES.md":
        return
    found = set(re.findall(r"https?://[\w.$-]+", text))
    assert found <= {"http://www.w3.org", "http://localhost"}
    if path.suffix == ".html":  # the policy refuses what stands in the page itself
        assert not re.search(r"<script(?! type=\"module\" src=)|<style| style=| on\w+=", text)


def test_vendored_files_are_those_that_are_listed() -> None:
    listed = json.loads((PAGE / "vendor" / "versions.json").read_text())
    names = {path.name for path in (PAGE / "vendor").glob("*.js")}
    assert names == {one["file"] for one in listed}
    licences = (PAGE / "vendor" / "LICENCES.md").read_text()
    for one in listed:
        content = (PAGE / "vendor" / one["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == one["sha256"]
        assert one["file"] in licences
        assert f"{one['package']} {one['version']}" in licences


def test_first_load_is_small() -> None:
    assert sum(len(gzip.compress(path.read_bytes())) for path in FILES) < FIRST_LOAD_BYTES
