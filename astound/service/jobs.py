"""Jobs: what is too long for a request, such as an ingest. The routes, and who may use them."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel, ValidationError

from astound.catalog import Catalog
from astound.output.timelines import write_timelines
from astound.results import JsonObject, job_object, to_timeline
from astound.service.access import needs
from astound.service.files import JobFiles
from astound.service.schemas import (
    JOB_EXAMPLE,
    CompactOptions,
    DedupOptions,
    IngestOptions,
    IngestPaths,
    JobDescription,
    JobPage,
    JobPageOptions,
    MediaOptions,
    MediaPage,
    RefusedError,
    ScanOptions,
    ScanPath,
    TimelineOptions,
    example,
    problems,
)
from astound.service.uploads import is_json, read_body, receive_files
from astound.service.worker import Worker
from engine.config import ServiceConfig
from engine.errors import AstoundError, CatalogBusyError, JobNotFoundError
from engine.records import Job, JobKind

Model = TypeVar("Model", bound=BaseModel)

_MAX_JSON_BYTES = 1_000_000
_RETRY_AFTER_S = 30
_POLL_S = 0.25
_KEEPALIVE_S = 15.0
_JOIN_S = 1.0


class JobService:
    """The jobs of a service.

    Parameters
    ----------
    catalog : Catalog
    config : ServiceConfig
    to_problem : callable
        Returns the object of a problem from an error.
    """

    def __init__(
        self,
        catalog: Catalog,
        config: ServiceConfig,
        to_problem: Callable[[AstoundError], JsonObject],
    ) -> None:
        self.config, self.table = config, catalog.jobs
        self.files = JobFiles(catalog.folder, config.media)
        self.worker = Worker(catalog, self.files, to_problem)
        self._n_arriving: Counter[int | None] = Counter()

    def close(self) -> None:
        """Let the job that runs go on at the next start; wait a while until it has stopped."""
        self.worker.stop()
        self.worker.join(_JOIN_S)

    @asynccontextmanager
    async def _place(self, request: Request) -> AsyncIterator[None]:
        """Take a place among the jobs, before anything of the request's body is read.

        Raises
        ------
        RefusedError
            There are too many jobs, or too many of this key.
        """
        key_id = _key_id(request)
        self._n_arriving[key_id] += 1
        try:
            jobs = await asyncio.to_thread(self.table.open_jobs)
            if len(jobs) + self._n_arriving.total() > self.config.max_waiting_jobs:
                raise RefusedError(503, "overloaded", "too many jobs wait", _RETRY_AFTER_S)
            n_own = sum(job.key_id == key_id for job in jobs) + self._n_arriving[key_id]
            if key_id is not None and n_own > self.config.max_per_client:
                reason = f"more than {self.config.max_per_client} jobs of one key at once"
                raise RefusedError(429, "too_many_requests", reason, _RETRY_AFTER_S)
            yield
        finally:
            self._n_arriving[key_id] -= 1

    async def submit(self, request: Request, kind: JobKind, options: JsonObject) -> Response:
        """Create a job that needs no file."""
        async with self._place(request):
            return await self._create(request, kind, options)

    async def submit_files(
        self,
        request: Request,
        kind: JobKind,
        model: type[Model],
        to_paths: Callable[[Model], list[str]],
        *,
        name: str | None,
        options: JsonObject | None = None,
    ) -> Response:
        """Create a job from a request whose body is a form with files, a file, or JSON.

        Parameters
        ----------
        request : Request
        kind : JobKind
        model : type
            Of a JSON body.
        to_paths : callable
            Returns the paths in a JSON body.
        name : str, optional
            Of a file that is the whole body.
        options : JsonObject, optional
            Further options of the job.
        """
        options = options or {}
        async with self._place(request):
            if is_json(request):
                body = await read_body(request, _MAX_JSON_BYTES, self.config)
                named = to_paths(_parsed(body, model))
                paths = await asyncio.to_thread(self._media_paths, kind, named)
                return await self._create(request, kind, {"paths": paths} | options)
            folder = await asyncio.to_thread(self.files.new_upload)
            try:
                names = await receive_files(request, folder, self.config, name)
                if kind == "scan":
                    await self._require_one_recording(folder.name, names)
                made = {"files": names} | options
                return await self._create(request, kind, made, upload=folder.name)
            except BaseException:  # also if the client leaves: no job will discard them
                discard = partial(self.files.discard, folder.name, lambda paths: ())
                await asyncio.shield(asyncio.to_thread(discard))
                raise

    async def _require_one_recording(self, upload: str, names: list[str]) -> None:
        if len(names) != 1:
            reason = f"{len(names)} files in the form; send one recording"
            raise RefusedError(400, "invalid_request", reason)
        await asyncio.to_thread(self.files.require_uploaded_recording, upload, names[0])

    def _media_paths(self, kind: JobKind, named: list[str]) -> list[str]:
        """Check the paths that a client names; return them relative to the media folder."""
        if kind == "scan":
            for path in named:
                self.files.require_recording(path)
        return [self.files.relative(self.files.media_path(path)) or "." for path in named]

    async def _create(
        self, request: Request, kind: JobKind, options: JsonObject, upload: str | None = None
    ) -> Response:
        key_id = _key_id(request)
        job = await asyncio.to_thread(
            self.table.create, kind, options, key_id=key_id, upload=upload
        )
        self.worker.wake()
        location = f"{request.scope.get('root_path', '')}/v1/jobs/{job.id}"
        return JSONResponse(job_object(job), 202, {"location": location})

    def page(self, request: Request, options: JobPageOptions) -> JsonObject:
        """Return the JSON object of some jobs, those that the request's key may read."""
        key = request.state.key
        jobs = self.table.page(
            before_id=options.cursor,
            max_jobs=options.limit + 1,
            statuses=options.status,
            key_id=None if key is None or key.allows("read") else key.id,
        )
        shown = jobs[: options.limit]
        return {
            "jobs": [job_object(job, with_result=False) for job in shown],
            "next": None if len(jobs) == len(shown) else shown[-1].id,
        }

    def find(self, request: Request, job_id: int, scope: str, *, with_result: bool) -> Job:
        """Return a job made with the request's key, or any other if the key has a scope.

        Raises
        ------
        JobNotFoundError
            Also for a job that the key may not read, so that it does not show that there is one.
        """
        job = self.table.get(job_id, with_result=with_result)
        key = request.state.key
        if key is None or key.allows(scope) or job.key_id == key.id:
            return job
        raise JobNotFoundError(job_id)

    async def events(self, job: Job, last_id: str | None) -> AsyncIterator[bytes]:
        """Yield the states of a job as they change, until it has ended or the service ends."""
        sent_s = time.monotonic()
        while True:
            content = job_object(job, with_result=False)
            if (event_id := _event_id(content)) != last_id:
                last_id, sent_s = event_id, time.monotonic()
                kind = "end" if job.has_ended else "progress"
                yield format_sse_event(data_str=json.dumps(content), event=kind, id=event_id)
            if job.has_ended:
                return
            if time.monotonic() - sent_s > _KEEPALIVE_S:
                sent_s = time.monotonic()
                yield KEEPALIVE_COMMENT
            await asyncio.sleep(_POLL_S)
            if self.worker.is_stopping:
                return
            try:
                job = await asyncio.to_thread(self.table.get, job.id, with_result=False)
            except CatalogBusyError:
                continue
            except JobNotFoundError:  # deleted because many newer ones have been made
                return


def _key_id(request: Request) -> int | None:
    key = request.state.key
    return None if key is None else key.id


def _parsed(body: bytes, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found = [one | {"loc": ("body", *one["loc"])} for one in error.errors(include_url=False)]
        raise RequestValidationError(found) from error


def _event_id(content: JsonObject) -> str:
    """Return an id that a state of a job has, and no other: it is the same after a restart."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


# -- routes --------------------------------------------------------------------------------------


def _body(model: type[BaseModel], description: str) -> dict[str, Any]:
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    form = {"type": "object", "required": ["file"], "properties": {"file": files}}
    file = {"type": "string", "format": "binary"}
    return {
        "requestBody": {
            "required": True,
            "description": description,
            "content": {
                "multipart/form-data": {"schema": form},
                "application/octet-stream": {"schema": file},
                "application/json": {"schema": model.model_json_schema()},
            },
        }
    }


job_routes = APIRouter(prefix="/v1", tags=["jobs"], responses=problems(401, 403, 422, 503))

_CREATED: dict[str, Any] = {
    "status_code": 202,
    "response_model": JobDescription,
    "responses": example(JOB_EXAMPLE, 202) | problems(429),
}
_UPLOADED: dict[str, Any] = _CREATED | {
    "responses": _CREATED["responses"] | problems(400, 408, 413, 507)
}
_FOUND: dict[str, Any] = {
    "response_model": JobDescription,
    "responses": example(JOB_EXAMPLE) | problems(404),
    "dependencies": [needs("query")],
}


def _jobs(request: Request) -> JobService:
    jobs: JobService = request.app.state.service.jobs
    return jobs


@job_routes.post(
    "/ingest",
    dependencies=[needs("write")],
    openapi_extra=_body(IngestPaths, "Recordings: files `file` of a form, one file, or paths."),
    **_UPLOADED,
)
async def ingest(request: Request, options: Annotated[IngestOptions, Query()]) -> Response:
    """Add recordings to the catalog: uploaded ones, or files and folders below the media folder.

    The result lists the files that were added, skipped because they are known, and failed.
    """
    return await _jobs(request).submit_files(
        request, "ingest", IngestPaths, lambda given: given.paths, name=options.name
    )


@job_routes.post(
    "/scan",
    dependencies=[needs("query")],
    openapi_extra=_body(ScanPath, "A recording: the file `file` of a form, a file, or a path."),
    **_UPLOADED,
)
async def scan(request: Request, options: Annotated[ScanOptions, Query()]) -> Response:
    """Write the timeline of a long recording, an uploaded one or a file below the media folder.

    The result is an object of the list that `astound scan --format json` writes.
    """
    return await _jobs(request).submit_files(
        request,
        "scan",
        ScanPath,
        lambda given: [given.path],
        name=options.name,
        options=options.keywords(),
    )


@job_routes.post("/dedup", dependencies=[needs("read")], **_CREATED)
async def dedup(request: Request, options: Annotated[DedupOptions, Query()]) -> Response:
    """Find tracks that contain the same recording.

    The result is the object of `astound dedup --format json`.
    """
    return await _jobs(request).submit(request, "dedup", options.keywords())


@job_routes.post("/compact", dependencies=[needs("admin")], **_CREATED)
async def compact(request: Request, options: Annotated[CompactOptions, Query()]) -> Response:
    """Join small shards into large ones, and drop the vectors of deleted tracks.

    The result counts shards and bytes before and after.
    """
    return await _jobs(request).submit(request, "compact", options.keywords())


@job_routes.post("/verify", dependencies=[needs("admin")], **_CREATED)
async def verify(request: Request) -> Response:
    """Check every shard against the database and its own hashes.

    The result lists problems, and notices that are none.
    """
    return await _jobs(request).submit(request, "verify", {})


@job_routes.get("/media", response_model=MediaPage, dependencies=[needs("write")])
def media(request: Request, options: Annotated[MediaOptions, Query()]) -> Response:
    """List the folders and audio files in a folder below the media folder, to add or scan them."""
    files = _jobs(request).files
    return JSONResponse(files.media_page(options.path, options.cursor, options.limit))


@job_routes.get("/jobs", response_model=JobPage, dependencies=[needs("query")])
def jobs(request: Request, options: Annotated[JobPageOptions, Query()]) -> Response:
    """List jobs without their results, the newest first."""
    return JSONResponse(_jobs(request).page(request, options))


@job_routes.get("/jobs/{job_id}", **_FOUND)
def job(request: Request, job_id: int) -> Response:
    """Return a job."""
    found = _jobs(request).find(request, job_id, "read", with_result=True)
    return JSONResponse(job_object(found))


@job_routes.get(
    "/jobs/{job_id}/timeline",
    response_class=PlainTextResponse,
    responses=problems(404),
    dependencies=[needs("query")],
)
def timeline(
    request: Request, job_id: int, options: Annotated[TimelineOptions, Query()]
) -> Response:
    """Return what a scan has found as `astound scan --format` writes it."""
    found = _jobs(request).find(request, job_id, "read", with_result=True)
    if found.kind != "scan" or not found.result:
        raise RefusedError(404, "no_timeline", f"job {job_id} has no timeline: scan a recording")
    text = io.StringIO(newline="")
    write_timelines([to_timeline(dict(found.result))], options.format, text)
    return PlainTextResponse(text.getvalue())


@job_routes.delete("/jobs/{job_id}", **_FOUND)
def cancel(request: Request, job_id: int) -> Response:
    """Cancel a job; one that runs stops after the file it is at, and keeps what is complete."""
    service = _jobs(request)
    service.find(request, job_id, "write", with_result=False)
    return JSONResponse(job_object(service.worker.cancel(job_id)))


class _EventStream(StreamingResponse):
    media_type = "text/event-stream"


_EVENT = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": ["progress", "end"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/JobState"},
        },
    },
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {_EventStream.media_type: {"schema": _EVENT}}},
    204: {"description": "It has ended, and the client knows."},
}


def _observed(request: Request, job_id: int) -> Job:
    return _jobs(request).find(request, job_id, "read", with_result=False)


@job_routes.get(
    "/jobs/{job_id}/events",
    response_class=_EventStream,
    responses=problems(404) | _EVENTS,
    dependencies=[needs("query")],
)
async def events(
    request: Request,
    job: Annotated[Job, Depends(_observed)],
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Stream the states of a job as server-sent events: `progress`, and `end` as the last one.

    The data of an event is the job without its result. A stream that breaks off can be continued
    with the header Last-Event-ID.
    """
    if job.has_ended and _event_id(job_object(job, with_result=False)) == last_event_id:
        return Response(status_code=204)  # to which an EventSource does not connect again
    stream = _jobs(request).events(job, last_event_id)
    return _EventStream(stream, headers={"x-accel-buffering": "no"})
