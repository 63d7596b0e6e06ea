from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from fastapi.testclient import TestClient

from astound.service.recent import RecentQueries
from astound.service.schemas import MAX_QUERIES
from engine.records import QueryResult


def test_latest_queries_are_listed_without_their_audio(client: TestClient, home: Path) -> None:
    assert client.get("/v1/queries").json() == {"queries": []}
    contents = [(home / f"{name}.wav").read_bytes() for name in ("known", "unknown", "broken")]
    for content, name in zip(contents, ("a.wav", None, "c.wav"), strict=True):
        answer = client.post("/v1/query", params={"name": name} if name else {}, content=content)
    answer = client.post("/v1/query", files={"file": ("d.wav", contents[0])}).json()
    listed = client.get("/v1/queries").json()["queries"]
    assert [one["name"] for one in listed] == ["d.wav", "c.wav", None, "a.wav"]
    assert [one["status"] for one in listed] == ["match", "error", "no_match", "match"]
    match = answer["matches"][0]
    keys = ("track_id", "title", "artist", "path", "confidence")
    assert listed[0]["best"] == {key: match[key] for key in keys}
    assert [one["best"] for one in listed[1:3]] == [None, None]
    assert listed[0]["duration_s"] == answer["duration_s"]
    assert 0 < listed[0]["elapsed_s"] < 60
    answered_at = datetime.fromisoformat(listed[0]["answered_at"])
    assert timedelta(seconds=-2) < datetime.now(UTC) - answered_at < timedelta(minutes=1)
    assert len(client.get("/v1/queries", params={"limit": 3}).json()["queries"]) == 3


def test_only_the_latest_queries_are_kept() -> None:
    recent = RecentQueries()
    for number in range(MAX_QUERIES + 3):
        recent.add(QueryResult(query=str(number), status="no_match"), 0.1)
    names = [one["name"] for one in recent.latest(MAX_QUERIES + 9)]
    assert names == [str(number) for number in range(MAX_QUERIES + 2, 2, -1)]
