from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from astound.catalog import Catalog
from astound.service.app import create_app
from astound.service.schemas import QUERY_EXAMPLE, TRACK_EXAMPLE
from engine.config import ServiceConfig
from engine.errors import CatalogBusyError, ShardError
from engine.records import Match, QueryResult, Track
from engine.search.query_fingerprint import QueryFingerprint
from engine.validation import to_values
from tests.astound.commands.conftest import CLIP_AT_S, N_TUNES, RATE, TUNE_S, Run
from tests.astound.service.conftest import BASE_URL, problem, start
from tests.audio_files import CODECS, cached_tune, stereo, write_audio, write_wav

OPENAPI = Path(__file__).parents[3] / "docs" / "openapi.json"


def write_clips(folder: Path) -> list[str]:
    """Clips of every kind, usable or not."""
    first = round(CLIP_AT_S * RATE)
    known = cached_tune(1, TUNE_S)[first : first + 4 * RATE]
    for ending in CODECS:
        write_audio(folder / f"known{ending}", known, RATE)
    write_wav(folder / "stereo.wav", stereo(known), RATE)
    write_wav(folder / "quiet.wav", (known / 500).astype(np.float32), RATE)
    write_wav(folder / "whole.wav", cached_tune(2, TUNE_S), RATE)
    write_wav(folder / "two.wav", np.concatenate([known, cached_tune(3, TUNE_S)]), RATE)
    write_wav(folder / "short.wav", known[: RATE // 2], RATE)
    write_wav(folder / "silent.wav", np.zeros(4 * RATE, np.float32), RATE)
    write_wav(folder / "nothing.wav", np.zeros(0, np.float32), RATE)
    content = (folder / "whole.wav").read_bytes()
    (folder / "cut.wav").write_bytes(content[: len(content) // 2])
    (folder / "head.wav").write_bytes(content[:30])
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("no sound")
    (folder / "Größe 1.wav").write_bytes(content)
    return sorted(path.name for path in folder.iterdir() if path.suffix)


def answer(response: Any) -> dict[str, Any]:
    """The object that the command line writes for the same clip, less the times."""
    body: dict[str, Any] = response.json()
    if response.status_code != 200:
        assert problem(response) == (422, body["result"]["error"]["code"])
        assert body["detail"] == body["result"]["error"]["message"]
        body = body["result"]
    return body | {"timings_ms": sorted(body["timings_ms"])}


def written(run: Run, *arguments: str) -> list[dict[str, Any]]:
    """Objects that the command line writes, less the times."""
    found = [json.loads(line) for line in run("query", *arguments).stdout.splitlines()]
    return [one | {"timings_ms": sorted(one["timings_ms"])} for one in found]


def test_answers_equal_those_of_the_command_line(client: TestClient, home: Path, run: Run) -> None:
    clips = write_clips(home)
    assert len(clips) > 25
    expected = written(run, *clips, "--format", "jsonl")
    assert {one["status"] for one in expected} == {"match", "no_match", "error"}
    for clip, one in zip(clips, expected, strict=True):
        content = (home / clip).read_bytes()
        form = client.post("/v1/query", files={"file": (clip, content)})
        raw = client.post("/v1/query", params={"name": clip}, content=content)
        assert answer(form) == answer(raw) == one


@pytest.mark.parametrize(
    "options",
    [
        {"start": "1"},
        {"start": "0:01", "end": "0:03.5"},
        {"max-matches": "1", "min-confidence": "0"},
        {"min-confidence": "1"},
        {"stream": "1"},
        {"stream": "2"},
        {"start": "100"},
    ],
    ids=str,
)
def test_options_are_those_of_the_command_line(
    client: TestClient, home: Path, run: Run, options: dict[str, str]
) -> None:
    flags = [word for key, value in options.items() for word in (f"--{key}", value)]
    (expected,) = written(run, "known.wav", *flags, "--format", "jsonl")
    files = {"file": ("known.wav", (home / "known.wav").read_bytes())}
    assert answer(client.post("/v1/query", params=options, files=files)) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"start": "1m"},
        {"start": "3", "end": "2"},
        {"stream": "0"},
        {"max-matches": "0"},
        {"max_matches": "1"},
        {"min-confidence": "2"},
        {"url": "http://localhost/clip.wav"},
    ],
    ids=str,
)
def test_wrong_options_are_refused(client: TestClient, options: dict[str, str]) -> None:
    response = client.post("/v1/query", params=options, content=b"x")
    assert response.status_code == 422
    assert problem(response)[1] in ("invalid_request", "invalid_config")


def test_explanation_is_that_of_the_command_line(client: TestClient, home: Path, run: Run) -> None:
    expected = json.loads(run("explain", "known.wav", "--format", "json").stdout)
    files = {"file": ("known.wav", (home / "known.wav").read_bytes())}
    found = client.post("/v1/explain", files=files).json()
    assert found | {"timings_ms": None} == expected | {"timings_ms": None}
    other = client.post("/v1/explain", params={"track": "99"}, files=files)
    assert problem(other) == (404, "track_not_found")
    broken = client.post("/v1/explain", content=b"not audio")
    assert problem(broken) == (422, "unreadable_audio")


# -- fingerprints --------------------------------------------------------------------------------


def fingerprint(catalog: Catalog, clip: str) -> dict[str, Any]:
    """The JSON object of the fingerprint of a clip."""
    searcher = catalog.searcher()
    waveform, _ = soundfile.read(clip, dtype="float32")
    made: dict[str, Any] = to_values(
        QueryFingerprint.of([searcher.clip([waveform], clip)], 0.0, len(waveform) / RATE)
    )
    return made


def test_fingerprint_is_answered_as_its_audio(
    client: TestClient, catalog: Catalog, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {"name": "a.wav", "max-matches": "1"}
    audio = client.post("/v1/query", params=params, content=(home / "known.wav").read_bytes())
    made = fingerprint(catalog, "known.wav")
    assert {key: made[key] for key in ("recipe_id", "segment_hop_s")} == client.get(
        "/v1/recipe"
    ).json()
    found = client.post("/v1/query", params=params, json=made).json()
    assert found["status"] == "match"
    assert found | {"timings_ms": 0} == audio.json() | {"timings_ms": 0}
    assert client.get("/v1/queries").json()["queries"][0]["name"] == "a.wav"
    unknown = fingerprint(catalog, "unknown.wav")
    monkeypatch.setattr(catalog.fingerprinter, "fingerprint", None)  # at no other speed
    assert client.post("/v1/query", json=unknown).json()["status"] == "no_match"


def test_what_is_no_fingerprint_of_the_catalog_is_refused(
    client: TestClient, catalog: Catalog, home: Path
) -> None:
    made = fingerprint(catalog, "known.wav")
    other = client.post("/v1/query", json=made | {"recipe_id": "another"})
    assert problem(other) == (409, "recipe_mismatch")
    assert "another" in other.json()["detail"]
    assert catalog.recipe_id in other.json()["detail"]
    refused = {
        "{": (422, "invalid_request"),
        "[]": (422, "invalid_request"),
        json.dumps(made | {"clips": []}): (422, "invalid_config"),
        json.dumps(made | {"segment_hop_s": 1.0}): (422, "invalid_config"),
        json.dumps(made | {"duration_s": "x"}): (422, "invalid_config"),
        json.dumps(made | {"duration_s": 1e6}): (413, "audio_too_long"),
    }
    headers = {"content-type": "application/json"}
    for body, expected in refused.items():
        answer = client.post("/v1/query", content=body, headers=headers)
        assert problem(answer) == expected, body[:40]
    part = client.post("/v1/query", params={"start": "1"}, json=made)
    assert problem(part) == (422, "invalid_request")
    assert "invalid start: must not be set" in part.json()["detail"]
    with start(catalog, ServiceConfig(max_clip_s=0.1)) as small:
        large = small.post("/v1/query", content=b" " * 10_000, headers=headers)
    assert problem(large) == (413, "body_too_large")


# -- tracks --------------------------------------------------------------------------------------


def test_pages_of_tracks_join_to_all_tracks(client: TestClient, catalog: Catalog) -> None:
    found: list[int] = []
    cursor: int | None = 0
    while cursor is not None:
        page = client.get("/v1/tracks", params={"limit": 3, "cursor": cursor}).json()
        found += [track["id"] for track in page["tracks"]]
        cursor = page["next"]
    assert found == [track.id for track in catalog.tracks()]
    assert len(found) == N_TUNES > 3


def test_tracks_are_searched_by_words_in_any_case(client: TestClient, catalog: Catalog) -> None:
    catalog.update(2, title="Ännchen 100%", artist="The_Band")
    for search, ids in {
        "änNCHEN": [2],
        "band ännchen": [2],
        "band nobody": [],
        "100%": [2],
        "0%0": [],
        "e_b": [2],
        "": [1, 2, 3, 4],
    }.items():
        page = client.get("/v1/tracks", params={"search": search}).json()
        assert [track["id"] for track in page["tracks"]] == ids, search


def test_track_is_changed_and_removed(client: TestClient, catalog: Catalog) -> None:
    changed = client.patch("/v1/tracks/2", json={"title": "New", "metadata": {"mood": "calm"}})
    assert (changed.json()["title"], changed.json()["metadata"]) == ("New", {"mood": "calm"})
    assert client.get("/v1/tracks/2").json() == changed.json()
    emptied = client.patch("/v1/tracks/2", json={"title": None, "metadata": {"mood": None}})
    assert (emptied.json()["title"], emptied.json()["metadata"]) == (None, {})
    assert client.delete("/v1/tracks/2").json() == emptied.json()
    for method in ("get", "delete"):
        assert problem(getattr(client, method)("/v1/tracks/2")) == (404, "track_not_found")
    assert [track.id for track in catalog.tracks()] == [1, 3, 4]


def test_track_that_was_changed_meanwhile_stays(client: TestClient, catalog: Catalog) -> None:
    read = client.get("/v1/tracks/1").headers["etag"]
    changed = client.patch("/v1/tracks/1", json={"title": "One"}, headers={"if-match": read})
    assert changed.status_code == 200
    for method, body in (("PATCH", {"title": "Two"}), ("DELETE", None)):
        refused = client.request(method, "/v1/tracks/1", json=body, headers={"if-match": read})
        assert problem(refused) == (412, "track_changed")
        assert catalog.track(1).title == "One"
    current = changed.headers["etag"]
    assert client.get("/v1/tracks/1").headers["etag"] == current != read
    either = client.patch(
        "/v1/tracks/1", json={"title": "Two"}, headers={"if-match": f"{read}, {current}"}
    )
    assert either.status_code == 200
    assert client.delete("/v1/tracks/1", headers={"if-match": "*"}).status_code == 200
    assert problem(client.delete("/v1/tracks/1", headers={"if-match": "*"}))[0] == 404


def test_several_tracks_are_removed_all_or_none(client: TestClient, catalog: Catalog) -> None:
    refused = client.post("/v1/tracks/delete", json={"ids": [1, 99, 2, 98]})
    assert problem(refused) == (404, "track_not_found")
    assert refused.json()["tracks"] == [99, 98]
    assert [track.id for track in catalog.tracks()] == [1, 2, 3, 4]
    removed = client.post("/v1/tracks/delete", json={"ids": [3, 1]}).json()["tracks"]
    assert [track["id"] for track in removed] == [3, 1]
    assert [track.id for track in catalog.tracks()] == [2, 4]


@pytest.mark.parametrize("ids", [[], ["1"], [True], [1.5], None, [1] * 5001])
def test_wrong_ids_are_refused(client: TestClient, ids: object) -> None:
    assert problem(client.post("/v1/tracks/delete", json={"ids": ids}))[0] == 422


@pytest.mark.parametrize("track_id", ["0", "-1", "99999999999", "x"])
def test_unknown_track_is_a_problem(client: TestClient, track_id: str) -> None:
    response = client.get(f"/v1/tracks/{track_id}")
    assert problem(response)[0] == (422 if track_id == "x" else 404)


@pytest.mark.parametrize(
    "changes", [{"path": "/etc/passwd"}, {"title": 1}, {"metadata": {"astound:sound": "x"}}, []]
)
def test_wrong_changes_are_refused(client: TestClient, changes: object) -> None:
    assert problem(client.patch("/v1/tracks/1", json=changes))[0] == 422


def test_stats_are_those_of_the_command_line(client: TestClient, run: Run) -> None:
    assert client.get("/v1/stats").json() == json.loads(run("stats", "--format", "json").stdout)


def test_body_that_is_no_json_or_too_large_is_refused(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    damaged = client.patch("/v1/tracks/1", content=b"\xff", headers=headers)
    assert problem(damaged) == (400, "invalid_request")
    for content in (b" " * 70_000, iter([b" " * 10_000] * 7)):  # its length is stated, or not
        large = client.patch("/v1/tracks/1", content=content, headers=headers)
        assert problem(large) == (413, "body_too_large")


# -- state ---------------------------------------------------------------------------------------


def test_not_ready_while_loading(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    loaded = catalog._load_fingerprinter
    monkeypatch.setattr(catalog, "_load_fingerprinter", lambda: go_on.wait(60) and loaded())
    app = create_app(catalog)
    with TestClient(app, BASE_URL) as client:
        try:
            assert client.get("/healthz").json()["status"] == "ok"
            for response in (client.get("/readyz"), client.post("/v1/query", content=b"x")):
                assert problem(response) == (503, "not_ready")
                assert "loading" in response.json()["detail"]
                assert response.headers["retry-after"] == "2"
            assert client.get("/v1/tracks").status_code == 200
        finally:
            go_on.set()


def test_reason_of_a_failed_start_is_told(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ShardError("shards/a", "missing")

    monkeypatch.setattr(catalog, "query", fail)
    app = create_app(catalog)
    with TestClient(app, BASE_URL) as client:
        while "loading" in client.get("/readyz").json()["detail"]:
            pass
        assert client.get("/readyz").json()["detail"] == "shards/a: missing"


def test_metrics_count_queries_and_refusals(client: TestClient, home: Path) -> None:
    client.post("/v1/query", content=(home / "known.wav").read_bytes())
    client.post("/v1/query", content=b"x")
    client.get("/v1/tracks/99")
    lines = client.get("/metrics").text.splitlines()
    for line in (
        'astound_queries_total{status="match"} 1.0',
        'astound_queries_total{status="error"} 1.0',
        'astound_refusals_total{code="track_not_found"} 1.0',
        'astound_query_seconds_count{step="align"} 1.0',
        'astound_query_seconds_count{step="whole"} 2.0',
        f"astound_tracks {N_TUNES}.0",
        "astound_queue 0.0",
    ):
        assert line in lines


# -- errors --------------------------------------------------------------------------------------


def test_unknown_paths_and_methods_are_problems(client: TestClient) -> None:
    missing = client.get("/v1/nothing")
    assert problem(missing) == (404, "not_found")
    assert missing.json()["detail"] == "there is no /v1/nothing: /openapi.json lists the paths"
    for method, path, allowed in (
        ("GET", "/v1/query", "POST"),
        ("PUT", "/v1/stats", "GET"),
        ("PUT", "/v1/tracks/1", "GET, PATCH, DELETE"),
        ("POST", "/healthz", "GET"),
        ("PUT", "/", "GET, HEAD"),
        ("POST", "/app.js", "GET, HEAD"),
    ):
        response = client.request(method, path)
        assert problem(response) == (405, "method_not_allowed")
        assert response.headers["allow"] == allowed
        assert response.json()["detail"].startswith(f"{method} is not allowed for {path}: ")


def test_parameter_given_twice_is_refused(client: TestClient) -> None:
    for url in ("/v1/tracks?limit=1&limit=2", "/v1/queries?limit=1&limit=1"):
        answer = client.get(url)
        assert problem(answer) == (422, "invalid_request")
        assert answer.json()["detail"] == "invalid limit: must be given once, not 2 times"
    answer = client.post("/v1/query?start=0&start=1", content=b"x")
    assert problem(answer) == (422, "invalid_request")
    assert client.get("/v1/jobs?status=done&status=failed").status_code == 200


def test_damaged_json_is_a_fault_of_the_body(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    answer = client.patch("/v1/tracks/1", content=b'{"title', headers=headers)
    assert problem(answer) == (422, "invalid_request")
    assert answer.json()["detail"].startswith("invalid body: ")


def test_busy_catalog_is_to_be_retried(
    client: TestClient, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise CatalogBusyError("another process is writing")

    monkeypatch.setattr(catalog, "delete", refuse)
    response = client.delete("/v1/tracks/1")
    assert problem(response) == (503, "catalog_busy")
    assert response.headers["retry-after"]


def test_bug_has_a_number_and_no_details(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(catalog, "stats", fail)
    with TestClient(create_app(catalog), BASE_URL, raise_server_exceptions=False) as client:
        response = client.get("/v1/stats")
    assert problem(response) == (500, "internal_error")
    assert "secret" not in response.text
    assert response.json()["detail"].split()[-1] in caplog.text


def test_no_answer_names_the_folder_of_uploads(
    client: TestClient, catalog: Catalog, home: Path
) -> None:
    for content in (b"", b"x", (home / "known.wav").read_bytes()):
        assert "uploads" not in client.post("/v1/query", content=content).text
    assert list((catalog.folder / "uploads").iterdir()) == []


# -- browsers ------------------------------------------------------------------------------------


def test_other_names_of_this_machine_are_refused(client: TestClient) -> None:
    for host in ("attacker.example", "localhost.attacker.example:80", "", "[::2]:1", "localhost]"):
        for path in ("/v1/stats", "/", "/openapi.json", "/nothing"):
            response = client.get(path, headers={"host": host})
            assert problem(response) == (400, "unknown_host")
            assert "content-security-policy" in response.headers
    for host in ("localhost", "127.0.0.1:8765", "[::1]:1"):
        assert client.get("/v1/stats", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://attacker.example"},
        {"origin": "null"},
        {"origin": BASE_URL, "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_pages_of_other_sites_cannot_send_clips(
    client: TestClient, headers: dict[str, str]
) -> None:
    response = client.post("/v1/query", content=b"x", headers=headers)
    assert problem(response) == (403, "other_site")
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    "headers", [{}, {"origin": BASE_URL}, {"origin": BASE_URL, "sec-fetch-site": "same-origin"}]
)
def test_own_page_can_send_clips(client: TestClient, headers: dict[str, str]) -> None:
    response = client.post("/v1/query", content=b"x", headers=headers)
    assert problem(response) == (422, "unreadable_audio")


def test_every_response_has_a_strict_policy(client: TestClient) -> None:
    for response in (client.get("/v1/stats"), client.get("/nothing"), client.put("/healthz")):
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"


# -- the description -----------------------------------------------------------------------------


def test_openapi_is_the_one_in_the_documents(client: TestClient) -> None:
    """Run `astound serve`, then `curl localhost:8765/openapi.json`, to write it anew."""
    assert client.get("/openapi.json").json() == json.loads(OPENAPI.read_text())


def test_openapi_describes_what_is_answered(client: TestClient, home: Path) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]

    def names(kind: type) -> set[str]:
        return set(schemas[kind.__name__]["properties"])

    result = client.post("/v1/query", content=(home / "known.wav").read_bytes()).json()
    assert names(QueryResult) == set(result) | {"error"}
    assert names(Match) == set(result["matches"][0])
    track = client.get("/v1/tracks/1").json()
    assert names(Track) == set(track)
    assert set(TRACK_EXAMPLE) == set(track)
    assert set(QUERY_EXAMPLE) == set(result)
    assert set(QUERY_EXAMPLE["matches"][0]) == set(result["matches"][0])


def test_paths_work_below_a_prefix(catalog: Catalog) -> None:
    with TestClient(create_app(catalog), BASE_URL, root_path="/music") as client:
        assert client.get("/music/healthz").status_code == 200
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/music"}]


def test_many_clients_get_their_own_answers(client: TestClient, home: Path) -> None:
    expected: dict[str, str | None] = {}
    expected["unknown.wav"] = None
    for seed in range(N_TUNES):
        write_wav(home / f"{seed}.wav", cached_tune(seed, TUNE_S)[: 4 * RATE], RATE)
        expected[f"{seed}.wav"] = f"music/{seed}.wav"
    found: dict[str, str | None] = {}

    def ask(name: str) -> None:
        response = client.post(
            "/v1/query", params={"name": name}, content=(home / name).read_bytes()
        )
        matches = response.json()["matches"]
        found[name] = "/".join(Path(matches[0]["path"]).parts[-2:]) if matches else None

    threads = [threading.Thread(target=ask, args=[name]) for name in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_start_waits_until_ready(catalog: Catalog) -> None:
    with start(catalog) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
