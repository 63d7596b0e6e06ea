from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from fastapi.testclient import TestClient

from astound.catalog import Catalog
from astound.service import tasks, worker
from astound.service.app import create_app
from astound.service.files import JobFiles
from engine.config import ServiceConfig
from engine.records import JobKind
from engine.scan import preview
from tests.astound.commands.conftest import RATE, TUNE_S, Run
from tests.astound.service.conftest import problem, serving, start
from tests.astound.service.test_access import header
from tests.astound.service.test_server import Serve, serve, wait_until_ready
from tests.audio_files import cached_tune, write_wav

__all__ = ["serve"]

JSON = {"content-type": "application/json"}


@pytest.fixture
def media(home: Path) -> Path:
    """A folder with the new tunes 10 and 11, a broken file, and links out of it."""
    folder = home / "media"
    (folder / "new").mkdir(parents=True)
    for seed in (10, 11):
        write_wav(folder / "new" / f"{seed}.wav", cached_tune(seed, TUNE_S), RATE)
    shutil.copy(home / "broken.wav", folder / "new")
    (folder / "new" / "link.wav").symlink_to(home / "known.wav")
    (folder / "out").symlink_to(home)
    write_wav(home / "mix.wav", np.concatenate([cached_tune(n, TUNE_S) for n in (2, 50, 3)]), RATE)
    shutil.copy(home / "mix.wav", folder)
    return folder


@pytest.fixture
def client(catalog: Catalog, media: Path) -> Iterator[TestClient]:
    with start(catalog, ServiceConfig(media=media)) as ready:
        yield ready


def created(response: Any) -> int:
    """Id of the job that a response is about."""
    assert response.status_code == 202, response.text
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["status"] == "queued"
    return int(job["id"])


def wait_for(client: TestClient, job_id: int, *statuses: str) -> dict[str, Any]:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
        if job["status"] in (statuses or ("done", "failed", "cancelled")):
            return job
        time.sleep(0.1)
    raise AssertionError(job)


def finished(client: TestClient, response: Any) -> dict[str, Any]:
    return wait_for(client, created(response))


def names(records: list[dict[str, Any]]) -> list[str]:
    return sorted(Path(record["path"]).name for record in records)


def post_paths(client: TestClient, *paths: str) -> Any:
    return client.post("/v1/ingest", json={"paths": list(paths)})


# -- what jobs do --------------------------------------------------------------------------------


def test_uploads_become_tracks_whose_files_are_kept(
    client: TestClient, catalog: Catalog, media: Path
) -> None:
    clip = (media / "new" / "10.wav").read_bytes()
    write_wav(media / "known.wav", cached_tune(0, TUNE_S), RATE)
    files = [
        ("file", ("album/ten.wav", clip)),
        ("file", ("known.wav", (media / "known.wav").read_bytes())),
        ("file", ("broken.wav", b"not audio")),
    ]
    job = finished(client, client.post("/v1/ingest", files=files))
    assert (job["status"], job["error"]) == ("done", None)
    assert job["options"] == {"files": ["ten.wav", "known.wav", "broken.wav"]}
    assert job["progress"] == {"done": 3, "total": 3, "unit": "files", "message": ""}
    result = job["result"]
    assert [names(result[key]) for key in ("added", "skipped", "failed")] == [
        ["ten.wav"],
        ["known.wav"],
        ["broken.wav"],
    ]
    path = Path(catalog.track(result["added"][0]["track_id"]).path)
    assert path.read_bytes() == clip
    assert path.is_relative_to((catalog.folder / "recordings").absolute())
    # What became no track is deleted after the job is done.
    wait_until(lambda: [one.name for one in path.parent.iterdir()] == ["ten.wav"])
    wait_until(lambda: not list((catalog.folder / "uploads").iterdir()))
    answer = client.post("/v1/query", content=clip).json()
    assert answer["matches"][0]["path"] == str(path)
    again = finished(client, client.post("/v1/ingest", content=clip, params={"name": "x.wav"}))
    assert names(again["result"]["skipped"]) == ["x.wav"]
    wait_until(lambda: len(list((catalog.folder / "recordings").iterdir())) == 1)


def test_files_of_the_machine_are_added_where_they_are(
    client: TestClient, catalog: Catalog, media: Path
) -> None:
    job = finished(client, post_paths(client, "new", str(media / "new" / "10.wav")))
    result = job["result"]
    assert names(result["added"]) == ["10.wav", "11.wav"]
    assert names(result["failed"]) == ["broken.wav", "link.wav"]
    assert (result["n_files"], result["n_failed"]) == (4, 2)
    assert {"reason": "a link leads out of the media folder"}.items() <= result["failed"][
        -1
    ].items()
    assert len(catalog.tracks(str(media / "new" / "10.wav"))) == 1


def test_path_that_leads_out_of_the_media_folder_is_refused(client: TestClient) -> None:
    outside = ["../known.wav", "..", "new/../../known.wav", "/etc/passwd", "../nothing"]
    linked = ["out/known.wav", "out", "new/link.wav"]
    refused = dict.fromkeys([*outside, *linked], (403, "outside_media"))
    refused |= {"nothing": (422, "no_such_file"), "a\0b": (422, "invalid_request")}
    for path, expected in refused.items():
        assert problem(post_paths(client, "new", path)) == expected, path
        assert problem(client.post("/v1/scan", json={"path": path})) == expected, path
    assert client.get("/v1/jobs").json() == {"jobs": [], "next": None}


def test_media_folder_is_listed_page_by_page(client: TestClient, media: Path) -> None:
    (media / ".hidden").mkdir()
    (media / "@eaDir").mkdir()
    (media / "circle").symlink_to("circle")
    (media / "notes.txt").write_text("no audio")
    (media / "._mix.mp3").write_text("no audio")
    (media / "Again.wav").symlink_to(media / "mix.wav")
    (media / os.fsdecode(b"\xff.wav")).write_text("no name for JSON")
    whole = client.get("/v1/media").json()
    n_bytes = (media / "mix.wav").stat().st_size
    assert whole == {
        "path": "",
        "entries": [
            {"name": ".hidden", "path": ".hidden", "is_folder": True, "size_bytes": None},
            {"name": "new", "path": "new", "is_folder": True, "size_bytes": None},
            {"name": "Again.wav", "path": "Again.wav", "is_folder": False, "size_bytes": n_bytes},
            {"name": "mix.wav", "path": "mix.wav", "is_folder": False, "size_bytes": n_bytes},
        ],
        "next": None,
    }
    found: list[Any] = []
    cursor: int | None = 0
    while cursor is not None:
        page = client.get("/v1/media", params={"limit": 3, "cursor": cursor}).json()
        found += page["entries"]
        cursor = page["next"]
    assert found == whole["entries"]
    inner = client.get("/v1/media", params={"path": "new"}).json()
    assert inner["path"] == "new"
    assert [one["path"] for one in inner["entries"]] == [
        f"new/{name}.wav" for name in ("10", "11", "broken")
    ]


def test_what_is_not_in_the_media_folder_is_not_listed(
    client: TestClient, catalog: Catalog
) -> None:
    refused = {
        "..": (403, "outside_media"),
        "out": (403, "outside_media"),
        "/etc": (403, "outside_media"),
        "none": (422, "no_such_file"),
        "mix.wav": (422, "no_such_file"),
        "a\0b": (422, "invalid_request"),
    }
    for path, expected in refused.items():
        assert problem(client.get("/v1/media", params={"path": path})) == expected, path
    with start(catalog) as other:
        assert problem(other.get("/v1/media")) == (403, "no_media")


def test_scan_is_that_of_the_command_line(client: TestClient, media: Path, run: Run) -> None:
    flags = ["--start", "1", "--min-confidence", "0.5"]
    (expected,) = json.loads(run("scan", media / "mix.wav", "--format", "json", *flags).stdout)
    assert expected["n_entries"] == 2
    params = {"start": "1", "min-confidence": "0.5"}
    named = client.post("/v1/scan", params=params, json={"path": "mix.wav"})
    job = finished(client, named)
    assert job["options"]["paths"] == ["mix.wav"]
    assert job["result"] == expected | {"recording": "mix.wav"}
    assert job["progress"]["total"] == pytest.approx(3 * TUNE_S - 1, abs=0.01)
    for form in ("csv", "cue", "audacity"):
        written = run("scan", media / "mix.wav", "--format", form, *flags).stdout
        text = client.get(f"/v1/jobs/{job['id']}/timeline", params={"format": form}).text
        written = written.replace(str(media / "mix.wav"), "mix.wav")
        assert text.splitlines() == written.splitlines()
    expected["recording"] = "mix.wav"
    content = (media / "mix.wav").read_bytes()
    sent = client.post("/v1/scan", params=params, files={"file": ("a/mix.wav", content)})
    assert finished(client, sent)["result"] == expected
    wait_until(lambda: not list((media.parent / "catalog" / "uploads").iterdir()))


def test_job_that_fails_has_a_problem(client: TestClient, tmp_path: Path) -> None:
    content = write_wav(tmp_path / "short.wav", cached_tune(1, 0.2), 8000).read_bytes()
    job = finished(client, client.post("/v1/scan", content=content))
    assert job["status"] == "failed"
    assert (job["error"]["code"], job["error"]["status"]) == ("audio_too_short", 422)
    assert "uploads" not in json.dumps(job)
    assert job["result"]["entries"] == []


def test_upload_without_sound_makes_no_scan(client: TestClient, media: Path) -> None:
    sent = client.post("/v1/scan", files={"file": ("broken.wav", b"not audio")})
    assert (sent.status_code, sent.json()["code"]) == (422, "unreadable_audio")
    assert sent.json()["detail"].startswith("broken.wav: not audio")
    assert client.get("/v1/jobs").json()["jobs"] == []
    assert not list((media.parent / "catalog" / "uploads").iterdir())


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("new", "invalid_request", "invalid path='new': must be a file, not a folder"),
        ("new/notes.txt", "unreadable_audio", "new/notes.txt: "),
        ("new/broken.wav", "unreadable_audio", "new/broken.wav: "),
        ("gone.wav", "no_such_file", "'gone.wav' is not in the media folder"),
    ],
)
def test_path_that_is_no_recording_makes_no_scan(
    client: TestClient, media: Path, path: str, code: str, reason: str
) -> None:
    (media / "new" / "notes.txt").write_text("Track 1 is the best one.")
    answer = client.post("/v1/scan", json={"path": path})
    assert problem(answer) == (422, code)
    assert answer.json()["detail"].startswith(reason)
    assert client.get("/v1/jobs").json()["jobs"] == []


@pytest.mark.parametrize("path", ["/v1/ingest", "/v1/scan", "/v1/query", "/v1/explain"])
def test_json_without_its_header_is_not_taken_for_a_recording(
    client: TestClient, path: str
) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = client.post(path, content=b' {"paths": ["new"]}', headers=headers)
    assert problem(answer) == (422, "invalid_request")
    assert "content-type: application/json" in answer.json()["detail"]
    assert client.get("/v1/jobs").json()["jobs"] == []


def test_problems_of_jobs_do_not_name_folders_of_the_machine(
    client: TestClient, catalog: Catalog, media: Path
) -> None:
    job = catalog.jobs.create("scan", {"paths": [str(media / "new" / "broken.wav")]}, key_id=None)
    assert wait_for(client, job.id)["error"]["detail"].startswith("new/broken.wav: ")
    named = finished(client, post_paths(client, "new"))["result"]["failed"]
    assert [one["path"] for one in named] == ["new/broken.wav", "new/link.wav"]
    sent = client.post("/v1/ingest", files={"file": ("broken.wav", b"not audio")})
    assert [one["path"] for one in finished(client, sent)["result"]["failed"]] == ["broken.wav"]


@pytest.mark.parametrize(
    ("kind", "options", "upload", "reason"),
    [
        ("scan", {"paths": ["/etc/passwd"]}, None, "leads out of the media folder"),
        ("ingest", {"paths": ["/etc"]}, None, "leads out of the media folder"),
        ("scan", {"files": ["a.wav"]}, "20260101-gone", "upload them again"),
        ("ingest", {"files": ["a.wav"]}, "20260101-gone", "upload them again"),
    ],
)
def test_job_of_another_service_reads_only_what_this_one_may(
    client: TestClient,
    catalog: Catalog,
    kind: JobKind,
    options: dict[str, Any],
    upload: str | None,
    reason: str,
) -> None:
    job = catalog.jobs.create(kind, options, key_id=None, upload=upload)
    failed = wait_for(client, job.id)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "invalid_config")
    assert reason in failed["error"]["detail"]


def test_media_folder_may_be_named_by_way_of_its_parent(tmp_path: Path, media: Path) -> None:
    files = JobFiles(tmp_path, media / "new" / "..")
    assert files.media_path("new") == str(media / "new")


def test_dedup_is_that_of_the_command_line(client: TestClient, media: Path, run: Run) -> None:
    write_wav(media / "copy.wav", cached_tune(0, TUNE_S) * np.float32(0.7), RATE)
    finished(client, post_paths(client, "copy.wav"))
    expected = json.loads(run("dedup", "--min-length", "5", "--format", "json").stdout)
    assert len(expected["duplicates"]) == len(expected["clusters"]) == 1
    job = finished(client, client.post("/v1/dedup", params={"min-length": "5"}))
    assert job["result"] == expected | {"clusters": json.loads(json.dumps(expected["clusters"]))}
    full = finished(client, client.post("/v1/dedup?full-only=true"))
    assert full["status"] == "done"
    assert problem(client.get(f"/v1/jobs/{full['id']}/timeline")) == (404, "no_timeline")


def test_compact_and_verify(client: TestClient, catalog: Catalog) -> None:
    finished(client, post_paths(client, "new"))
    assert catalog.stats().n_shards == 2
    result = finished(client, client.post("/v1/compact"))["result"]
    assert (result["n_shards_before"], result["n_shards"], catalog.stats().n_shards) == (2, 1, 1)
    found = finished(client, client.post("/v1/verify"))["result"]
    assert (found["problems"], len(found["notices"])) == ([], 0)
    (shard,) = (catalog.folder / "shards").iterdir()
    (shard / "header.json").unlink()
    assert len(finished(client, client.post("/v1/verify"))["result"]["problems"]) == 1
    too_late = finished(client, client.post("/v1/compact?storage=compact"))
    assert (too_late["status"], too_late["error"]["code"]) == ("failed", "damaged_shard")


def test_wrong_request_makes_no_job(client: TestClient) -> None:
    for path, body in (
        ("/v1/scan?start=1m", b"x"),
        ("/v1/scan?format=cue", b"x"),
        ("/v1/dedup?min-length=1", b""),
        ("/v1/dedup?min-length=nan", b""),
        ("/v1/compact?storage=tape", b""),
        ("/v1/ingest", b'{"paths": []}'),
        ("/v1/ingest", b'{"paths": ["x"], "url": "y"}'),
        ("/v1/ingest", b'{"paths": ["\\udcff"]}'),
        ("/v1/ingest", b"{"),
        ("/v1/scan", b'{"path": 1}'),
    ):
        response = client.post(path, content=body, headers=JSON)
        assert problem(response) == (422, "invalid_request"), path
    assert client.get("/v1/jobs").json()["jobs"] == []


# -- the queue -----------------------------------------------------------------------------------


def test_jobs_are_listed_in_pages(client: TestClient, catalog: Catalog) -> None:
    with catalog._store.write_lock():  # the first one waits
        made = [created(client.post(f"/v1/{kind}")) for kind in ("compact", "verify", "dedup")]
        waiting = wait_for(client, made[0], "running")
        while "another process" not in str(waiting["progress"]):
            waiting = client.get(f"/v1/jobs/{made[0]}").json()
        assert 'astound_jobs{status="queued"} 2.0' in client.get("/metrics").text
        first = client.get("/v1/jobs", params={"limit": 2}).json()
        second = client.get("/v1/jobs", params={"limit": 2, "cursor": first["next"]}).json()
        assert [job["id"] for job in first["jobs"] + second["jobs"]] == made[::-1]
        assert second["next"] is None
        queued = client.get("/v1/jobs", params={"status": "queued"}).json()["jobs"]
        assert [job["kind"] for job in queued] == ["dedup", "verify"]
        assert "result" not in queued[0]
        assert client.delete(f"/v1/jobs/{made[1]}").json()["status"] == "cancelled"
    assert [wait_for(client, one)["status"] for one in made] == ["done", "cancelled", "done"]
    for wrong in ({"limit": 0}, {"cursor": 0}, {"status": "lost"}, {"x": 1}):
        assert client.get("/v1/jobs", params=wrong).status_code == 422
    for method in ("get", "delete"):
        assert problem(getattr(client, method)("/v1/jobs/99")) == (404, "job_not_found")
    assert problem(client.get("/v1/jobs/99/events")) == (404, "job_not_found")


def test_refusal_names_the_job_that_writes(
    client: TestClient, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    add = catalog.add

    def add_slowly(*arguments: Any, **options: Any) -> Any:
        assert go_on.wait(60)
        return add(*arguments, **options)

    monkeypatch.setattr(catalog, "add", add_slowly)
    job_id = created(post_paths(client, "new"))
    wait_until(lambda: client.app.state.service.jobs.worker.writing)  # type: ignore[attr-defined]
    with catalog._store.write_lock():
        refused = client.delete("/v1/tracks/1")
    go_on.set()
    assert problem(refused) == (503, "catalog_busy")
    assert f"job {job_id} (ingest) is writing to the catalog" in refused.json()["detail"]
    assert wait_for(client, job_id)["status"] == "done"
    assert client.app.state.service.jobs.worker.writing is None  # type: ignore[attr-defined]


def test_timeline_appears_before_a_clip_of_it_is_complete(
    client: TestClient, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_REPORT_EVERY_S", 0.0)
    monkeypatch.setattr(preview, "PREVIEW_S", TUNE_S)  # random weights find whole tunes only
    stored: list[dict[str, Any]] = []
    jobs = client.app.state.service.jobs.table  # type: ignore[attr-defined]
    report = jobs.report

    def noted(job_id: int, progress: Any, result: Any = None) -> bool:
        stored.append({"progress": progress, "result": result})
        return bool(report(job_id, progress, result))

    monkeypatch.setattr(type(jobs), "report", lambda _, *given: noted(*given))
    pause = np.zeros(60 * RATE, np.float32)
    mix = np.concatenate([cached_tune(2, TUNE_S), pause, cached_tune(3, TUNE_S)])
    write_wav(media / "long.wav", mix, RATE)
    job = finished(client, client.post("/v1/scan", json={"path": "long.wav"}))
    found = [one for one in stored if one["result"] and one["result"]["entries"]]
    assert found[0]["progress"]["done"] <= 30
    assert found[0]["result"]["status"] == "partial"
    assert [one["track_id"] for one in found[0]["result"]["entries"]] == [
        job["result"]["entries"][0]["track_id"]
    ]
    assert job["result"]["n_entries"] == 2


def test_cancelled_ingest_keeps_what_is_complete(
    client: TestClient, catalog: Catalog, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_REPORT_EVERY_S", 0.0)
    for seed in range(20, 26):
        write_wav(media / "new" / f"{seed}.wav", cached_tune(seed, TUNE_S), RATE)
    n_done, at_third, go_on = 0, threading.Event(), threading.Event()
    fingerprint = catalog.fingerprinter.fingerprint

    def wait(*arguments: Any) -> Any:
        nonlocal n_done
        n_done += 1
        if n_done == 3:
            at_third.set()
            assert go_on.wait(60)
        return fingerprint(*arguments)

    monkeypatch.setattr(catalog.fingerprinter, "fingerprint", wait)
    contents = [(path.name, path.read_bytes()) for path in sorted(media.glob("new/2*.wav"))]
    job_id = created(client.post("/v1/ingest", files=[("file", one) for one in contents]))
    assert at_third.wait(60)
    marked = client.delete(f"/v1/jobs/{job_id}").json()
    assert (marked["status"], marked["cancelled_at"] is None) == ("running", False)
    go_on.set()
    job = wait_for(client, job_id)
    assert (job["status"], job["result"]["n_added"]) == ("cancelled", 3)
    assert [len(catalog.tracks(name)) for name, _ in contents] == [1, 1, 1, 0, 0, 0]
    wait_until(lambda: len(list((catalog.folder / "recordings").glob("*/*"))) == 3)
    assert client.delete(f"/v1/jobs/{job_id}").json() == job
    assert finished(client, post_paths(client, "new"))["status"] == "done"


@pytest.mark.parametrize("is_running", [False, True])
def test_job_that_is_cancelled_after_a_restart_keeps_the_files_of_its_tracks(
    catalog: Catalog, media: Path, is_running: bool
) -> None:
    folder = catalog.folder / "recordings" / "u"
    folder.mkdir(parents=True)
    for seed in (10, 11):
        shutil.copy(media / "new" / f"{seed}.wav", folder)
    catalog.add(folder / "10.wav")
    job = catalog.jobs.create("ingest", {"files": ["10.wav", "11.wav"]}, upload="u")
    if is_running:  # and the service was killed after that
        catalog.jobs.start_next()
        catalog.jobs.cancel(job.id)
        with start(catalog) as client:
            assert wait_for(client, job.id)["status"] == "cancelled"
    else:
        with catalog.jobs.lock(), start(catalog) as client:  # another service executes jobs
            assert client.delete(f"/v1/jobs/{job.id}").json()["status"] == "cancelled"
    assert [path.name for path in folder.iterdir()] == ["10.wav"]


def test_bug_in_a_job_does_not_stop_the_others(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(tasks.TASKS, "verify", lambda run: {"n": 1 / 0})
        job = finished(client, client.post("/v1/verify"))
    assert (job["status"], job["error"]["status"]) == ("failed", 500)
    assert job["error"]["detail"].split()[-1] in caplog.text
    assert finished(client, client.post("/v1/verify"))["status"] == "done"


def test_jobs_beyond_the_queue_are_refused_before_their_body(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("astound.service.jobs.receive_files", None)
    config = ServiceConfig(max_waiting_jobs=3, max_per_client=2)
    with start(catalog, config) as client, catalog._store.write_lock():
        keys = [header(catalog.keys.create("admin")[1]) for _ in range(2)]
        for _ in range(2):
            created(client.post("/v1/compact", headers=keys[0]))
        refused = client.post("/v1/scan", content=b"x", headers=keys[0])
        assert problem(refused) == (429, "too_many_requests")
        created(client.post("/v1/compact", headers=keys[1]))
        refused = client.post("/v1/scan", content=b"x", headers=keys[1])
        assert problem(refused) == (503, "overloaded")
        assert refused.headers["retry-after"] == "30"


def test_too_large_an_upload_leaves_nothing(catalog: Catalog) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    with start(catalog, ServiceConfig(max_job_upload_bytes=100_000)) as client:
        for path in ("/v1/ingest", "/v1/scan"):
            for content in (b"x" * 100_001, endless()):
                response = client.post(path, content=content)
                assert problem(response) == (413, "body_too_large")
        wide = [("file", ("a", b"x" * 60_000)), ("file", ("b", b"x" * 60_000))]
        assert problem(client.post("/v1/ingest", files=wide)) == (413, "body_too_large")
        two = [("file", ("a", b"x")), ("file", ("b", b"x"))]
        assert problem(client.post("/v1/scan", files=two)) == (400, "invalid_request")
        assert problem(client.post("/v1/ingest", json={"paths": ["x"]})) == (403, "no_media")
        wait_until(lambda: not list((catalog.folder / "uploads").iterdir()))
        assert client.get("/v1/jobs").json()["jobs"] == []


# -- who may see them ----------------------------------------------------------------------------


def test_key_sees_its_own_jobs_and_with_more_scope_those_of_others(
    client: TestClient, catalog: Catalog, tmp_path: Path
) -> None:
    recording = write_wav(tmp_path / "tune.wav", cached_tune(1, 2.0), 8000).read_bytes()
    keys = {
        name: header(catalog.keys.create(scope)[1])
        for name, scope in {
            "own": "query",
            "other": "query",
            "read": "read",
            "write": "write",
        }.items()
    }
    with catalog._store.write_lock():
        response = client.post("/v1/scan", content=recording, headers=keys["own"])
        path = response.headers["location"]
        for name, status in {"own": 200, "other": 404, "read": 200, "write": 200}.items():
            assert client.get(path, headers=keys[name]).status_code == status
            listed = client.get("/v1/jobs", headers=keys[name]).json()["jobs"]
            assert len(listed) == (status == 200)
        assert problem(client.get(f"{path}/events", headers=keys["other"]))[0] == 404
        for name, status in {"other": 404, "read": 404, "write": 200, "own": 200}.items():
            assert client.delete(path, headers=keys[name]).status_code == status


def test_wrong_key_stops_an_upload_before_its_body(
    client: TestClient, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("astound.service.jobs.receive_files", None)
    _, secret = catalog.keys.create("query")
    assert problem(client.post("/v1/scan", content=b"x", headers=header("x")))[0] == 401
    assert problem(client.post("/v1/ingest", content=b"x", headers=header(secret)))[0] == 403
    wait_until(lambda: not list((catalog.folder / "uploads").iterdir()))


# -- events --------------------------------------------------------------------------------------


@contextmanager
def streaming(url: str, last_id: str = "") -> Iterator[Iterator[dict[str, str]]]:
    """Give the events of a stream as they come."""
    with urlopen(Request(url, headers={"last-event-id": last_id}), timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")

        def read() -> Iterator[dict[str, str]]:
            event: dict[str, str] = {}
            for line in response:
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key:
                    event[key] = value
                elif event:
                    yield event
                    event = {}

        yield read()


def test_events_go_on_after_the_last_one_received(catalog: Catalog) -> None:
    with serving(create_app(catalog)) as address:
        with catalog._store.write_lock():
            with urlopen(Request(f"{address}v1/compact", method="POST")) as response:
                url = f"{address}v1/jobs/{json.load(response)['id']}/events"
            with streaming(url) as events:
                first = next(event for event in events if "another process" in event["data"])
            assert (first["event"], json.loads(first["data"])["status"]) == ("progress", "running")
        with streaming(url, first["id"]) as events:
            later = list(events)
        assert first["id"] not in [event["id"] for event in later]
        assert [event["event"] for event in later][-1] == "end"
        assert "end" not in [event["event"] for event in later[:-1]]
        last = json.loads(later[-1]["data"])
        assert last["status"] == "done"
        assert "result" not in last
        with urlopen(Request(url, headers={"last-event-id": later[-1]["id"]})) as response:
            assert response.status == 204
        with streaming(url, "unknown") as events:
            assert list(events) == later[-1:]


# -- the end of a service ------------------------------------------------------------------------


def posted(url: str, content: bytes = b"", **headers: str) -> dict[str, Any]:
    with urlopen(Request(url, content, headers, method="POST")) as response:
        made: dict[str, Any] = json.load(response)
        return made


def read(url: str) -> dict[str, Any]:
    with urlopen(url) as response:
        found: dict[str, Any] = json.load(response)
        return found


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def is_waiting(url: str, job_id: int) -> bool:
    return "another process" in str(read(f"{url}v1/jobs/{job_id}")["progress"])


def query_slowly(url: str, content: bytes, go_on: threading.Event) -> dict[str, Any]:
    """Query with a clip of which the end is sent later."""

    def body() -> Iterator[bytes]:
        yield content[:1000]
        assert go_on.wait(60)
        yield content[1000:]

    headers = {"content-length": str(len(content))}
    with urlopen(Request(f"{url}v1/query", body(), headers)) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def test_jobs_go_on_after_a_kill_and_after_sigterm(
    home: Path, media: Path, catalog: Catalog, serve: Serve
) -> None:
    new, clip = (media / "new" / "10.wav").read_bytes(), (home / "known.wav").read_bytes()
    with catalog._store.write_lock():
        process, url = serve()
        upload = posted(f"{url}v1/ingest?name=ten.wav", new)["id"]
        queued = posted(f"{url}v1/scan?name=clip.wav", clip)["id"]
        wait_until(lambda: is_waiting(url, upload))
        process.kill()
        process.wait()
        assert catalog.jobs.get(upload).status == "running"

        process, url = serve()
        wait_until_ready(url)
        wait_until(lambda: is_waiting(url, upload))
        followed: list[str] = []

        def follow() -> None:
            with streaming(f"{url}v1/jobs/{upload}/events") as events:
                followed.extend(event["event"] for event in events)

        go_on = threading.Event()
        with ThreadPoolExecutor(6) as threads:
            streams = [threads.submit(follow) for _ in range(5)]
            answer = threads.submit(query_slowly, url, clip, go_on)
            time.sleep(1.0)  # until the service has read what was sent
            process.send_signal(signal.SIGTERM)
            for stream in streams:
                stream.result(60)
            assert not answer.done()
            go_on.set()
            assert answer.result(60)["status"] == "match"
        assert process.wait(60) == 0
        assert process.stderr
        assert process.stderr.read() == ""
        assert followed == ["progress"] * 5
        assert not catalog.jobs.get(upload).has_ended

    _, url = serve()
    wait_until(lambda: catalog.jobs.get(queued).has_ended)
    assert catalog.jobs.get(queued).status == "done"
    result = read(f"{url}v1/jobs/{upload}")["result"]
    assert names(result["added"]) == ["ten.wav"]
    assert Path(catalog.track(result["added"][0]["track_id"]).path).read_bytes() == new
    wait_until(lambda: not list((home / "catalog" / "uploads").iterdir()))


def test_job_that_does_not_stop_does_not_hold_up_the_end(home: Path) -> None:
    code = (
        "import time; from astound.catalog import Catalog; from astound.service import jobs; "
        "jobs._JOIN_S = 0.1; Catalog.verify = lambda *_, **__: time.sleep(600); "
        "from astound.commands.main import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", "--port", "0"],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr
        url = process.stderr.readline().split()[-1]
        job_id = posted(f"{url}v1/verify")["id"]
        wait_until(lambda: read(f"{url}v1/jobs/{job_id}")["status"] == "running")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
