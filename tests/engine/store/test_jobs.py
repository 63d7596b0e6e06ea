from __future__ import annotations

import pytest

from engine.errors import CatalogBusyError, JobNotFoundError
from engine.records import Job
from engine.store import jobs as store_jobs
from engine.store.jobs import MAX_STARTS
from engine.store.store import Store


def ids(found: list[Job]) -> list[int]:
    return [job.id for job in found]


def test_job_is_started_in_turn_and_stores_what_became_of_it(store: Store) -> None:
    jobs, before = store.jobs, store.version()
    odd = {"paths": ["a\0b", "\udcff", "ü'"], "start_s": 1.5}
    first = jobs.create("scan", odd, key_id=7, upload="x")
    second = jobs.create("verify", {})
    assert (first.status, first.options, first.key_id, first.upload) == ("queued", odd, 7, "x")
    assert first.started_at is None
    running = jobs.start_next()
    assert running
    assert (running.id, running.status, running.started_at is None) == (first.id, "running", False)
    progress = {"done": 1, "total": None, "unit": "files", "message": ""}
    assert jobs.report(first.id, progress)
    assert jobs.get(first.id).progress == progress
    assert jobs.report(first.id, progress, {"entries": [1]})
    assert jobs.get(first.id).result == {"entries": [1]}
    jobs.finish(first.id, "done", progress=progress, result=odd)
    done = jobs.get(first.id)
    assert (done.status, done.result, done.error, done.has_ended) == ("done", odd, None, True)
    assert done.finished_at
    assert jobs.get(first.id, with_result=False).result is None
    assert ids(jobs.open_jobs()) == [second.id]
    assert jobs.start_next() == jobs.get(second.id)
    assert jobs.start_next() is None
    assert store.version() == before


def test_pages_are_the_newest_first(store: Store) -> None:
    jobs = store.jobs
    made = [jobs.create("verify", {}, key_id=1 + n % 2).id for n in range(5)]
    jobs.start_next()
    assert ids(jobs.page()) == made[::-1]
    assert ids(jobs.page(max_jobs=2)) == made[:2:-1]
    assert ids(jobs.page(before_id=made[3], max_jobs=2)) == [made[2], made[1]]
    assert ids(jobs.page(statuses=["running", "done"])) == [made[0]]
    assert ids(jobs.page(key_id=2)) == [made[3], made[1]]


def test_cancelled_job_ends_at_once_or_is_told_with_its_next_report(store: Store) -> None:
    jobs = store.jobs
    running, queued = (jobs.create("verify", {}).id for _ in range(2))
    jobs.start_next()
    assert jobs.cancel(queued).status == "cancelled"
    marked = jobs.cancel(running)
    assert (marked.status, marked.cancelled_at is None) == ("running", False)
    assert not jobs.report(running, {})
    jobs.finish(running, "cancelled", result={"n": 1})
    ended = jobs.get(running)
    assert (ended.status, ended.result) == ("cancelled", {"n": 1})
    assert jobs.cancel(running) == ended
    assert jobs.start_next() is None


def test_job_of_a_killed_service_is_started_again_but_not_forever(store: Store) -> None:
    jobs, error = store.jobs, {"code": "x"}
    job_id = jobs.create("verify", {}).id
    for _ in range(MAX_STARTS - 1):
        assert jobs.start_next()
        jobs.recover(error)
        assert jobs.get(job_id).status == "queued"
    for _ in range(2):  # a service that ends in order does not count
        assert jobs.start_next()
        jobs.put_back(job_id)
    assert jobs.start_next()
    jobs.recover(error)
    assert (jobs.get(job_id).status, jobs.get(job_id).error) == ("failed", error)
    other = jobs.create("verify", {}).id
    jobs.start_next()
    jobs.cancel(other)
    jobs.recover(error)
    assert jobs.get(other).status == "cancelled"


def test_old_jobs_are_deleted_if_they_have_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_jobs, "N_KEPT", 2)
    jobs = store.jobs
    made = [jobs.create("verify", {}).id]
    jobs.start_next()
    for _ in range(4):
        made.append(jobs.create("verify", {}).id)
        jobs.cancel(made[-1])
    assert ids(jobs.page()) == [made[4], made[3], made[0]]
    made.append(jobs.create("verify", {}).id)
    assert ids(jobs.page(max_jobs=9)) == [made[5], made[4], made[0]]


def test_unknown_job_is_an_error(store: Store) -> None:
    for unknown in (0, -1, 1, 2**40):
        with pytest.raises(JobNotFoundError, match=f"no job {unknown};"):
            store.jobs.get(unknown)
        with pytest.raises(JobNotFoundError):
            store.jobs.cancel(unknown)


def test_one_process_executes_jobs_while_another_writes(store: Store) -> None:
    refused = pytest.raises(CatalogBusyError, match="another service")
    with store.jobs.lock(), store.write_lock(), refused, store.jobs.lock():
        pass
    with store.jobs.lock():
        pass
