"""The jobs of a catalog's service: a queue in its database, which outlives the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from engine.errors import JobNotFoundError
from engine.records import ENDED, Job, JobKind, JobStatus
from engine.store.connection import Connection, Engine, translated
from engine.store.lock import jobs_lock
from engine.store.tables import LARGEST_ID, JobRow

N_KEPT = 1000
"""Jobs that are kept; of older ones those are deleted that have ended."""

MAX_STARTS = 5
"""A job is not started again that was running as often when the service was killed."""

_STATE = [getattr(JobRow, f.name) for f in fields(Job) if f.name != "result"]
_IS_OPEN = JobRow.status.not_in(ENDED)


class Jobs:
    """The jobs in a database; any number of threads may use them.

    No change counts as one of the catalog, which readers would open again.

    Parameters
    ----------
    engine : Engine
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writing=True)

    def create(
        self,
        kind: JobKind,
        options: Mapping[str, Any],
        *,
        key_id: int | None = None,
        upload: str | None = None,
    ) -> Job:
        """Put a job at the end of the queue, and delete old ones that have ended.

        Parameters
        ----------
        kind : JobKind
        options : mapping
            Anything that JSON can represent.
        key_id : int, optional
            Id of the key that was used.
        upload : str, optional
            Name of the folder of its uploads.
        """
        values = {
            "kind": kind,
            "status": "queued",
            "key_id": key_id,
            "options": dict(options),
            "upload": upload,
            "n_starts": 0,
            "created_at": _now(),
        }
        insertion = sa.insert(JobRow).values(values).returning(*_STATE)
        with translated(self._engine), self._writer.begin() as connection:
            created = Job(**connection.execute(insertion).mappings().one())
            is_old = JobRow.id.in_(sa.select(JobRow.id).order_by(JobRow.id.desc()).offset(N_KEPT))
            connection.execute(sa.delete(JobRow).where(is_old, sa.not_(_IS_OPEN)))
        return created

    def get(self, job_id: int, *, with_result: bool = True) -> Job:
        """Return a job; JobNotFoundError if there is none."""
        with translated(self._engine), self._engine.begin() as connection:
            return _read(connection, job_id, with_result=with_result)

    def page(
        self,
        *,
        before_id: int | None = None,
        max_jobs: int = N_KEPT,
        statuses: Sequence[JobStatus] = (),
        key_id: int | None = None,
    ) -> list[Job]:
        """Read jobs without their results, the newest first.

        Parameters
        ----------
        before_id : int, optional
            Leave out the jobs from this id on: that of the last one returned before.
        max_jobs : int
        statuses : sequence of JobStatus
            All if empty.
        key_id : int, optional
            Only those made with this key.
        """
        query = sa.select(*_STATE).order_by(JobRow.id.desc()).limit(max_jobs)
        if before_id is not None:
            query = query.where(JobRow.id < min(before_id, LARGEST_ID))
        if statuses:
            query = query.where(JobRow.status.in_(statuses))
        if key_id is not None:
            query = query.where(JobRow.key_id == key_id)
        with translated(self._engine), self._engine.begin() as connection:
            return [Job(**row) for row in connection.execute(query).mappings()]

    def open_jobs(self) -> list[Job]:
        """Read the jobs that have not ended, in the order in which they are executed."""
        query = sa.select(*_STATE).where(_IS_OPEN).order_by(JobRow.id)
        with translated(self._engine), self._engine.begin() as connection:
            return [Job(**row) for row in connection.execute(query).mappings()]

    def cancel(self, job_id: int) -> Job:
        """Cancel a job that is queued; mark one that runs, so that it stops soon.

        Returns
        -------
        Job
            As it is now; one that had ended is unchanged.

        Raises
        ------
        JobNotFoundError
        """
        now = _now()
        queued, running = _where(job_id, "queued"), _where(job_id, "running")
        with translated(self._engine), self._writer.begin() as connection:
            _read(connection, job_id, with_result=False)
            connection.execute(queued.values(status="cancelled", cancelled_at=now, finished_at=now))
            connection.execute(
                running.where(JobRow.cancelled_at.is_(None)).values(cancelled_at=now)
            )
            return _read(connection, job_id)

    # -- for the one that executes them --------------------------------------------------------

    def lock(self) -> AbstractContextManager[None]:
        """Hold the right to execute jobs, which one process at a time has.

        Raises
        ------
        CatalogBusyError
            Another service executes them; raised at once.
        StoreError
            The lock file cannot be written, or the server cannot be reached.
        """
        return jobs_lock(self._engine)

    def recover(self, error: Mapping[str, Any]) -> None:
        """Put the jobs back into the queue that ran when a service was killed.

        Parameters
        ----------
        error : mapping
            That of a job which is given up because it ran in too many services that were killed.
        """
        now, running = _now(), sa.update(JobRow).where(JobRow.status == "running")
        with translated(self._engine), self._writer.begin() as connection:
            connection.execute(
                running.where(JobRow.cancelled_at.is_not(None)).values(
                    status="cancelled", finished_at=now
                )
            )
            connection.execute(
                running.where(JobRow.n_starts >= MAX_STARTS).values(
                    status="failed", finished_at=now, error=dict(error)
                )
            )
            connection.execute(running.values(status="queued", started_at=None))

    def start_next(self) -> Job | None:
        """Start the oldest job of the queue, and return it; None if the queue is empty."""
        oldest = sa.select(sa.func.min(JobRow.id)).where(JobRow.status == "queued")
        values: dict[str, Any] = {
            "status": "running",
            "started_at": _now(),
            "progress": None,
            "result": None,
        }
        values["n_starts"] = JobRow.n_starts + 1
        start = (
            sa.update(JobRow)
            .where(JobRow.id == oldest.scalar_subquery(), JobRow.status == "queued")
            .values(values)
            .returning(*_STATE)
        )
        with translated(self._engine), self._writer.begin() as connection:
            row = connection.execute(start).mappings().first()
            return None if row is None else Job(**row)

    def put_back(self, job_id: int) -> None:
        """Put a job that runs back into the queue, because the service ends."""
        values = {"status": "queued", "started_at": None, "n_starts": JobRow.n_starts - 1}
        with translated(self._engine), self._writer.begin() as connection:
            connection.execute(_where(job_id, "running").values(values))

    def report(
        self, job_id: int, progress: Mapping[str, Any], result: Mapping[str, Any] | None = None
    ) -> bool:
        """Store the progress of a job that runs, and what it has found so far.

        Returns
        -------
        bool
            Whether to go on: it was not cancelled.
        """
        values: dict[str, Any] = {"progress": dict(progress)}
        if result is not None:
            values["result"] = dict(result)
        query = _where(job_id, "running").values(values).returning(JobRow.cancelled_at)
        with translated(self._engine), self._writer.begin() as connection:
            row = connection.execute(query).first()
            return row is not None and row.cancelled_at is None

    def finish(
        self,
        job_id: int,
        status: JobStatus,
        *,
        progress: Mapping[str, Any] | None = None,
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> None:
        """End a job that runs."""
        values = {
            "status": status,
            "finished_at": _now(),
            "result": None if result is None else dict(result),
            "error": None if error is None else dict(error),
        }
        if progress is not None:
            values["progress"] = dict(progress)
        with translated(self._engine), self._writer.begin() as connection:
            connection.execute(_where(job_id, "running").values(values))

    def cancel_all(self) -> None:
        """Cancel all jobs that have not ended, at once: those of a copy of a catalog."""
        ends = sa.update(JobRow).where(JobRow.status.in_(("queued", "running")))
        with translated(self._engine), self._writer.begin() as connection:
            connection.execute(ends.values(status="cancelled", finished_at=_now()))


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _where(job_id: int, status: JobStatus) -> sa.Update:
    return sa.update(JobRow).where(JobRow.id == job_id, JobRow.status == status)


def _read(connection: Connection, job_id: int, *, with_result: bool = True) -> Job:
    columns = [*_STATE, JobRow.result] if with_result else _STATE
    if 0 < job_id <= LARGEST_ID:
        row = connection.execute(sa.select(*columns).where(JobRow.id == job_id)).mappings().first()
        if row is not None:
            return Job(**row)
    raise JobNotFoundError(job_id)
