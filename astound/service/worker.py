"""The thread that executes jobs, one at a time, beside the queries."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from astound.catalog import Catalog
from astound.results import JsonObject
from astound.service.files import JobFiles
from astound.service.tasks import TASKS
from engine.errors import AstoundError, CatalogBusyError, StoreError
from engine.records import Job, JobStatus
from engine.store.jobs import MAX_STARTS

log = logging.getLogger(__name__)

T = TypeVar("T")

_POLL_S = 2.0  # of a queue in which other processes put jobs, and of locks that others hold
_REPORT_EVERY_S = 0.5
_RETRY_S = 1.0


class _ServiceEndsError(Exception):
    """The service ends; the job goes on at the next start."""


class _CancelledError(Exception):
    """The job was cancelled."""


class Worker:
    """Executes the jobs of a catalog.

    Of several services of one catalog, one executes the jobs of all.

    Parameters
    ----------
    catalog : Catalog
    files : JobFiles
    to_problem : callable
        Returns the object of a problem from an error.
    """

    def __init__(
        self, catalog: Catalog, files: JobFiles, to_problem: Callable[[AstoundError], JsonObject]
    ) -> None:
        self._catalog, self._files, self._to_problem = catalog, files, to_problem
        self._jobs = catalog.jobs
        self._stopping, self._wake = threading.Event(), threading.Event()
        self._run_now: _Run | None = None
        # Not a daemon: the interpreter must not end while native code of the model runs.
        self._thread = threading.Thread(target=self._run, name="jobs")

    @property
    def is_stopping(self) -> bool:
        """Whether the service ends."""
        return self._stopping.is_set()

    @property
    def writing(self) -> Job | None:
        """The job that writes to the catalog, if there is one."""
        run = self._run_now
        return run.job if run is not None and run.is_writing else None

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; first it goes on with what an earlier service left."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end soon; a job that runs goes on at the next start."""
        self._stopping.set()
        self._wake.set()

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended."""
        self._thread.join(timeout_s)

    def wake(self) -> None:
        """Say that there is a new job."""
        self._wake.set()

    def cancel(self, job_id: int) -> Job:
        """Cancel a job as :meth:`engine.store.jobs.Jobs.cancel`."""
        job = self._jobs.cancel(job_id)
        if job.has_ended and job.started_at is None:
            self._clean_up(job)
        return job

    def _clean_up(self, job: Job) -> None:
        """Delete the uploads of a job that has ended, except for those that are tracks now."""
        if job.upload is not None:
            self._files.discard(job.upload, self._catalog.taken_paths)

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        before = ""
        while not self.is_stopping:
            try:
                with self._jobs.lock():
                    self._work()
            except CatalogBusyError:
                pass
            except (StoreError, OSError) as error:
                if str(error) != before:
                    log.error("cannot execute jobs: %s", error)
                before = str(error)
            self._stopping.wait(_POLL_S)

    def _work(self) -> None:
        reason = f"the service ended {MAX_STARTS} times while the job ran"
        left = self._jobs.open_jobs()
        self._jobs.recover(self._to_problem(AstoundError(reason)))
        for one in left:
            if self._jobs.get(one.id).has_ended:
                self._clean_up(one)
        self._files.sweep(one.upload for one in left if one.upload)
        while True:
            self._wake.clear()
            if self.is_stopping:
                return
            job = self._jobs.start_next()
            if job is None:
                self._wake.wait(_POLL_S)
            else:
                self._run_now = _Run(job, self._catalog, self._files, self._stopping)
                if self._run_now.execute(self._to_problem):
                    self._clean_up(job)


class _Run:
    """One job, while it runs; see :class:`astound.service.tasks.Run`."""

    def __init__(
        self, job: Job, catalog: Catalog, files: JobFiles, stopping: threading.Event
    ) -> None:
        self.job, self.catalog, self.files = job, catalog, files
        self.found: Callable[[], JsonObject | None] = lambda: None
        self._stopping, self._jobs = stopping, catalog.jobs
        self._progress: JsonObject | None = None
        self._has_found = False
        self._reported_s = 0.0
        self.is_writing = False

    def execute(self, to_problem: Callable[[AstoundError], JsonObject]) -> bool:
        """Do what the job says, store what became of it, and return whether it has ended."""
        status: JobStatus = "done"
        result: JsonObject | None = None
        error: JsonObject | None = None
        try:
            result = TASKS[self.job.kind](self)
        except _ServiceEndsError:
            self._jobs.put_back(self.job.id)
            return False
        except _CancelledError:
            status, result = "cancelled", self.found()
        except AstoundError as raised:
            status, result, error = "failed", self.found(), to_problem(raised)
            error["detail"] = self.files.shown(error["detail"])
        except Exception as raised:
            number = uuid.uuid4().hex[:12]
            log.exception("error %s in job %s", number, self.job.id, exc_info=raised)
            bug = AstoundError(f"a bug in astound; its log has error {number}")
            status, result, error = "failed", self.found(), to_problem(bug)
        self._jobs.finish(self.job.id, status, progress=self._progress, result=result, error=error)
        return True

    def report(
        self, done: float, total: float | None, unit: str, *, has_found: bool = False
    ) -> None:
        """Store the progress at times, and stop if the job was cancelled or the service ends."""
        self._progress = {"done": done, "total": total, "unit": unit, "message": ""}
        self._has_found |= has_found
        if self._stopping.is_set():
            raise _ServiceEndsError
        if time.monotonic() - self._reported_s >= _REPORT_EVERY_S:
            self._store_progress()

    def when_free(self, write: Callable[[], T]) -> T:
        """Call a function that writes to the catalog, again as long as others write to it."""
        while True:
            try:
                self.is_writing = True
                return write()
            except CatalogBusyError:
                message = "waits until another process has finished writing to the catalog"
                self._progress = (self._progress or _NO_PROGRESS) | {"message": message}
                self._store_progress()
            finally:
                self.is_writing = False
            if self._stopping.wait(_RETRY_S):
                raise _ServiceEndsError

    def _store_progress(self) -> None:
        assert self._progress is not None
        result = self.found() if self._has_found else None
        self._has_found = False
        go_on = True
        with suppress(CatalogBusyError):
            go_on = self._jobs.report(self.job.id, self._progress, result)
        self._reported_s = time.monotonic()
        if not go_on:
            raise _CancelledError


_NO_PROGRESS: JsonObject = {"done": 0, "total": None, "unit": "", "message": ""}
