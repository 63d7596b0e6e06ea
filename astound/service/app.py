"""The HTTP interface of a catalog.

Handlers call the catalog as the command line does, and return its JSON objects. Errors are
problems as RFC 9457 describes them, with the stable code of the error.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial, wraps
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

import astound
from astound.batch import identify, to_failure
from astound.catalog import Catalog
from astound.results import (
    JsonObject,
    explanation_object,
    result_object,
    track_object,
    track_version,
)
from astound.service.access import (
    LOOPBACK_HOSTS,
    BrowserGuard,
    Gate,
    require_own_page,
)
from astound.service.access import needs as _needs
from astound.service.jobs import JobService, job_routes
from astound.service.limits import JsonRoute, QueryAdmission, QueryQueue, RateLimit, route_path
from astound.service.metrics import CONTENT_TYPE, Metrics
from astound.service.recent import RecentQueries
from astound.service.recordings import audio_response
from astound.service.repeats import FirstAnswers
from astound.service.schemas import (
    FINGERPRINT_SCHEMA,
    PROBLEM_TYPE,
    QUERY_EXAMPLE,
    REPEATABLE,
    TRACK_EXAMPLE,
    ClipOptions,
    ExplainOptions,
    PageOptions,
    PeakOptions,
    QueryOptions,
    RecentOptions,
    RecentPage,
    RecipeDescription,
    RefusedError,
    TrackChanges,
    TrackIds,
    TrackList,
    TrackPage,
    TrackPeaks,
    example,
)
from astound.service.schemas import problems as _problems
from astound.service.uploads import (
    UNNAMED,
    Upload,
    is_json,
    make_upload_folder,
    read_body,
    received,
)
from astound.service.validation import describe
from astound.service.waveforms import Waveforms
from engine.audio import child
from engine.config import ServiceConfig
from engine.errors import (
    AstoundError,
    AudioError,
    AudioTooLongError,
    CatalogBusyError,
    ConfigError,
    JobNotFoundError,
    RecipeMismatchError,
    TrackChangedError,
    TrackFileError,
    TrackNotFoundError,
    printable,
)
from engine.records import QueryResult, Stats, Track
from engine.search.query_fingerprint import QueryFingerprint
from engine.validation import parse_json, to_record, to_values

log = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page")
"""Folder of the page, all of it as it is served."""

# The first class that fits; every other AstoundError is a fault of the catalog.
_STATUS: tuple[tuple[type[AstoundError], int], ...] = (
    (AudioTooLongError, 413),
    (AudioError, 422),
    (ConfigError, 422),
    (TrackNotFoundError, 404),
    (JobNotFoundError, 404),
    (TrackFileError, 404),
    (RecipeMismatchError, 409),
    (TrackChangedError, 412),
    (CatalogBusyError, 503),
)
# Of errors that FastAPI raises; the code of others is the name of the status.
_HTTP_CODES = {400: "invalid_request", 413: "body_too_large"}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_BUSY_S = 2  # until a request is repeated that another writer delays
_CLIP_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The clip: the file `file` of a form, or the body itself.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_QUERY_BODY = deepcopy(_CLIP_BODY)
_QUERY_BODY["requestBody"]["description"] += " Or its fingerprint, as `astound.connect` makes it."
_QUERY_BODY["requestBody"]["content"]["application/json"] = {"schema": FINGERPRINT_SCHEMA}
_FINGERPRINT_BYTES_PER_S = 30_000  # several times what the shipped encoder makes
_NOISE_HZ = 8000


class Service:
    """A catalog that is served.

    Parameters
    ----------
    catalog : Catalog
    config : ServiceConfig
    is_local : bool
        Only this machine is served.
    """

    def __init__(self, catalog: Catalog, config: ServiceConfig, *, is_local: bool) -> None:
        self.catalog, self.config = catalog, config
        self.gate = Gate(catalog.keys, is_local=is_local)
        self.queue = QueryQueue(config)
        self.waveforms, self.drawing = Waveforms(catalog), QueryQueue(replace(config, n_jobs=1))
        self.rate, self.first_answers = RateLimit(config.max_rate), FirstAnswers()
        self.metrics, self.recent = Metrics(lambda: self.queue.n_requests), RecentQueries()
        self.uploads = make_upload_folder(catalog.folder)
        self.jobs = JobService(catalog, config, _problem_object)
        self.unready: str | None = "loading the model and the index"

    def load(self) -> None:
        """Load what the first query would wait for; keep the reason if that fails."""
        try:
            child.prepare()
            self.catalog.query(_some_noise(), _NOISE_HZ)
            self.unready = None
        except AstoundError as error:
            self.unready = str(error)
            log.error("cannot answer queries: %s", error)

    def require_ready(self) -> None:
        """Refuse a query as long as it cannot be answered."""
        if self.unready is not None:
            raise RefusedError(503, "not_ready", self.unready, _BUSY_S)

    @contextmanager
    def place(self, request: Request) -> Iterator[None]:
        """Take a place in the queue for a request, before anything of its body is read."""
        self.require_ready()
        with self.queue.place(request.state.client):
            yield

    @asynccontextmanager
    async def clip(self, request: Request) -> AsyncIterator[Upload]:
        """Take a place in the queue for a request, then receive its clip."""
        with self.place(request):
            async with received(request, self.uploads, self.config) as upload:
                yield upload

    async def query(self, request: Request, options: QueryOptions) -> QueryResult:
        """Answer a query; the result of a clip that is not usable audio has an error."""
        started_s = time.monotonic()
        if is_json(request):
            with self.place(request):
                n_most = round(self.config.max_clip_s * _FINGERPRINT_BYTES_PER_S)
                body = await read_body(request, n_most, self.config)
                work = partial(self._query_fingerprint, body, options)
                result = await self.queue.run(work, request)
        else:
            async with self.clip(request) as upload:
                keywords = options.keywords() | self._clip_keywords(upload, options.name)
                work = partial(identify, self.catalog, upload.path, **keywords)
                result = await self.queue.run(work, request)
        elapsed_s = time.monotonic() - started_s
        self.metrics.count_query(result, elapsed_s)
        self.recent.add(result, elapsed_s)
        return result

    def _query_fingerprint(self, body: bytes, options: QueryOptions) -> QueryResult:
        """Answer a query whose body is a fingerprint as JSON."""
        given = options.keywords()
        if of_audio := given.keys() & ClipOptions.keywords(options).keys():
            reason = f"invalid {min(of_audio).removesuffix('_s')}: must not be set for fingerprints"
            raise RefusedError(422, "invalid_request", reason)
        try:
            fingerprint = to_record(QueryFingerprint, parse_json(body))
        except ConfigError:
            raise
        except ValueError as error:
            raise RefusedError(422, "invalid_request", f"invalid body: {error}") from error
        name = options.name or UNNAMED
        if fingerprint.duration_s > self.config.max_clip_s:
            raise AudioTooLongError(name, self.config.max_clip_s)
        return self.catalog.query_fingerprint(fingerprint, name=name, **given)

    async def explain(self, request: Request, options: ExplainOptions) -> JsonObject:
        """Explain a query."""
        async with self.clip(request) as upload:
            keywords = options.keywords() | self._clip_keywords(upload, options.name)
            work = partial(self._explain, upload.path, options.record, keywords)
            return await self.queue.run(work, request)

    def _explain(self, path: str, with_record: bool, keywords: JsonObject) -> JsonObject:
        explanation = self.catalog.explain(path, **keywords)
        record = {"record": to_values(explanation)} if with_record else {}
        return explanation_object(explanation) | record

    def recipe(self) -> JsonObject:
        """Return the JSON object that says what fingerprints of queries must be."""
        hop_s = self.catalog.searcher().query_hop_s
        return {"recipe_id": self.catalog.recipe_id, "segment_hop_s": hop_s}

    def _clip_keywords(self, upload: Upload, name: str | None) -> JsonObject:
        return {"name": name or upload.name, "max_s": self.config.max_clip_s}

    async def peaks(self, request: Request, track_id: int, n_bins: int) -> JsonObject:
        """Return the JSON object of a track's waveform."""
        with self.drawing.place(request.state.client):
            work = partial(self.waveforms.peaks, track_id, n_bins)
            peaks, duration_s = await self.drawing.run(work, request)
        return {
            "track_id": track_id,
            "duration_s": duration_s,
            "peaks": peaks,
            "shares_audio": self.config.share_audio,
        }

    def give_up(self) -> None:
        """Refuse the queries and waveforms that have not been answered."""
        self.queue.give_up()
        self.drawing.give_up()

    @property
    def is_running(self) -> bool:
        """Whether a job, a query or a waveform is being worked on."""
        return self.jobs.worker.is_alive or self.queue.is_running or self.drawing.is_running

    def close(self) -> None:
        """Wait for the requests that run."""
        self.jobs.close()
        self.waveforms.close()
        self.drawing.close()
        self.queue.close()

    def track_page(self, options: PageOptions) -> JsonObject:
        """Return the JSON object of some tracks."""
        tracks = self.catalog.tracks(
            options.search, after_id=options.cursor, max_tracks=options.limit + 1
        )
        shown = tracks[: options.limit]
        is_last = len(tracks) == len(shown)
        return {
            "tracks": [track_object(track) for track in shown],
            "next": None if is_last else shown[-1].id,
        }


async def _own_page(request: Request) -> None:  # without a thread, as it waits for nothing
    require_own_page(request.method, request.headers)


async def _no_repetition(request: Request) -> None:
    """Refuse a parameter that is given twice, of which FastAPI would read the last one."""
    counts = Counter(name for name, _ in request.query_params.multi_items())
    for name, n in counts.items():
        if n > 1 and name not in REPEATABLE:
            reason = printable(f"invalid {name}: must be given once, not {n} times")
            raise RefusedError(422, "invalid_request", reason)


def _some_noise() -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(-0.5, 0.5, 3 * _NOISE_HZ).astype(np.float32)


# -- routes --------------------------------------------------------------------------------------


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _repeatable(
    idempotency_key: Annotated[
        str | None,
        Header(max_length=200, description="A repetition with the same key is not done again."),
    ] = None,
) -> None:
    """Describe the header; :func:`_once` reads it."""


def _once(endpoint: Callable[..., Response]) -> Callable[..., Response]:
    """Give a request that is repeated with the same Idempotency-Key its first answer."""

    @wraps(endpoint)
    def answer(request: Request, **given: Any) -> Response:
        key = request.headers.get("idempotency-key")
        work = partial(endpoint, request, **given)
        if key is None:
            return work()
        body = [getattr(value, "model_fields_set", None) for value in given.values()]
        content = f"{request.method} {request.url.path} {given} {body}"
        return _service(request).first_answers.once((request.state.client, key), content, work)

    return answer


_writes = [_needs("write"), Depends(_repeatable)]
_IfMatch = Annotated[
    str | None,
    Header(description="The `ETag` of the track; 412 if it has been changed since it was read."),
]


def _with_version(track: Track) -> Response:
    return JSONResponse(track_object(track), headers={"etag": f'"{track_version(track)}"'})


def _expected(catalog: Catalog, track_id: int, if_match: str | None) -> Track | None:
    """Return a track if it is one that the header If-Match names; None without the header."""
    if if_match is None:
        return None
    track = catalog.track(track_id)
    tags = [tag.strip() for tag in if_match.split(",")]
    if "*" not in tags and f'"{track_version(track)}"' not in tags:
        raise TrackChangedError(track_id)
    return track


_clips = APIRouter(
    tags=["clips"],
    dependencies=[_needs("query")],
    responses=_problems(400, 401, 403, 408, 413, 422, 429, 503),
)
_library = APIRouter(
    route_class=JsonRoute, tags=["library"], responses=_problems(401, 403, 404, 422, 503)
)
_state = APIRouter(tags=["state"])


@_clips.post(
    "/v1/query",
    response_model=QueryResult,
    responses=example(QUERY_EXAMPLE) | _problems(409),
    openapi_extra=_QUERY_BODY,
)
async def query(request: Request, options: Annotated[QueryOptions, Query()]) -> Response:
    """Find which tracks a clip comes from, and where in them.

    A clip that is in no track has the status `no_match`, which is an answer. The fields are those
    of `astound query --format jsonl`.
    """
    result = await _service(request).query(request, options)
    if result.error is None:
        return JSONResponse(result_object(result))
    status = 413 if result.error["code"] == AudioTooLongError.code else 422
    return _problem(request, status, result.error["code"], result.error["message"], result=result)


@_clips.post("/v1/explain", response_model=dict[str, Any], openapi_extra=_CLIP_BODY)
async def explain(request: Request, options: Annotated[ExplainOptions, Query()]) -> Response:
    """Explain why a clip did or did not match: the object of `astound explain --format json`."""
    return JSONResponse(await _service(request).explain(request, options))


@_library.get(
    "/v1/tracks",
    response_model=TrackPage,
    responses=example({"tracks": [TRACK_EXAMPLE], "next": 12}),
    dependencies=[_needs("read")],
)
def tracks(request: Request, options: Annotated[PageOptions, Query()]) -> Response:
    """List tracks in the order of their ids, or those that contain some words."""
    return JSONResponse(_service(request).track_page(options))


@_library.get(
    "/v1/tracks/{track_id}",
    response_model=Track,
    responses=example(TRACK_EXAMPLE),
    dependencies=[_needs("read")],
)
def track(request: Request, track_id: int) -> Response:
    """Return a track."""
    return _with_version(_service(request).catalog.track(track_id))


@_library.get(
    "/v1/tracks/{track_id}/peaks",
    response_model=TrackPeaks,
    dependencies=[_needs("read")],
    responses=_problems(429),
)
async def peaks(
    request: Request, track_id: int, options: Annotated[PeakOptions, Query()]
) -> Response:
    """Return the waveform of a track for drawing it, decoded from its file."""
    return JSONResponse(await _service(request).peaks(request, track_id, options.n_bins))


@_library.get(
    "/v1/tracks/{track_id}/audio",
    response_class=Response,
    dependencies=[_needs("read")],
    responses=_problems(416),
)
def audio(request: Request, track_id: int) -> Response:
    """Return the file of a track, or ranges of it, if the service shares audio."""
    service = _service(request)
    if not service.config.share_audio:
        reason = "the service does not send audio; start it with --share-audio"
        raise RefusedError(404, "audio_not_shared", reason)
    return audio_response(service.catalog.audio_file(track_id), request.headers.get("range"))


@_library.patch(
    "/v1/tracks/{track_id}",
    response_model=Track,
    dependencies=_writes,
    responses=_problems(400, 412, 413),
)
@_once
def update(
    request: Request, track_id: int, changes: TrackChanges, if_match: _IfMatch = None
) -> Response:
    """Change the tags and metadata of a track; what is not named stays."""
    catalog = _service(request).catalog
    expected = _expected(catalog, track_id, if_match)
    return _with_version(catalog.update(track_id, expected=expected, **changes.keywords()))


@_library.delete(
    "/v1/tracks/{track_id}",
    response_model=Track,
    dependencies=_writes,
    responses=_problems(412),
)
@_once
def delete(request: Request, track_id: int, if_match: _IfMatch = None) -> Response:
    """Remove a track from the catalog, and return it; its file is not touched."""
    catalog = _service(request).catalog
    expected = _expected(catalog, track_id, if_match)
    (deleted,) = catalog.delete([track_id], expected=[expected] if expected else [])
    return JSONResponse(track_object(deleted))


@_library.post(
    "/v1/tracks/delete",
    response_model=TrackList,
    dependencies=_writes,
    responses=_problems(400, 413),
)
@_once
def delete_some(request: Request, chosen: TrackIds) -> Response:
    """Remove tracks from the catalog, and return them; none if one of them does not exist."""
    deleted = _service(request).catalog.delete(chosen.ids)
    return JSONResponse({"tracks": [track_object(track) for track in deleted]})


@_library.get("/v1/queries", response_model=RecentPage, dependencies=[_needs("read")])
async def queries(request: Request, options: Annotated[RecentOptions, Query()]) -> Response:
    """List the latest queries since the service was started, the last one first."""
    return JSONResponse({"queries": _service(request).recent.latest(options.limit)})


@_library.get("/v1/recipe", response_model=RecipeDescription, dependencies=[_needs("query")])
def recipe(request: Request) -> Response:
    """Return what the fingerprint of a query must be to be compared with those of the catalog."""
    service = _service(request)
    service.require_ready()
    return JSONResponse(service.recipe())


@_library.get("/v1/stats", response_model=Stats, dependencies=[_needs("read")])
def stats(request: Request) -> Response:
    """Count tracks, seconds, segments and bytes."""
    return JSONResponse(asdict(_service(request).catalog.stats()))


@_state.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answer as long as the service runs."""
    return {"status": "ok", "version": astound.__version__}


@_state.get("/readyz", responses=_problems(503))
async def readyz(request: Request) -> dict[str, str]:
    """Answer 200 if queries are answered, else 503 with the reason."""
    _service(request).require_ready()
    return {"status": "ready"}


@_state.get(
    "/metrics",
    response_class=Response,
    dependencies=[_needs("read")],
    responses=_problems(401, 403),
)
def metrics(request: Request) -> Response:
    """Return counts and times in the text format of Prometheus."""
    service = _service(request)
    text = service.metrics.text(service.catalog.stats(), service.jobs.table.open_jobs())
    return Response(text, media_type=CONTENT_TYPE)


# -- errors --------------------------------------------------------------------------------------


def _problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    result: QueryResult | None = None,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    _service(request).metrics.count_refusal(code)
    content = more | _problem_content(status, code, detail)
    if result is not None:
        content["result"] = result_object(result)
    return JSONResponse(content, status, headers, media_type=PROBLEM_TYPE)


def _problem_content(status: int, code: str, detail: str) -> JsonObject:
    title = HTTPStatus(status).phrase
    return {"title": title, "status": status, "detail": detail, "code": code}


def _status_of(error: AstoundError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def _problem_object(error: AstoundError) -> JsonObject:
    return _problem_content(_status_of(error), error.code, str(error))


def _on_refusal(request: Request, error: RefusedError) -> Response:
    headers = None if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    if error.status == 401:
        headers = {"www-authenticate": "Bearer"}
    return _problem(request, error.status, error.code, error.reason, headers=headers)


def _on_astound_error(request: Request, error: AstoundError) -> Response:
    status = _status_of(error)
    headers = {"retry-after": str(_BUSY_S)} if status == 503 else None
    if status == 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    result = to_failure(error) if isinstance(error, AudioError) else None
    more = {"tracks": list(error.tracks)} if isinstance(error, TrackNotFoundError) else {}
    detail = str(error)
    if isinstance(error, CatalogBusyError) and (job := _service(request).jobs.worker.writing):
        detail = f"job {job.id} ({job.kind}) is writing to the catalog; repeat the request later"
    return _problem(request, status, error.code, detail, result=result, headers=headers, **more)


def _on_invalid_request(request: Request, error: RequestValidationError) -> Response:
    return _problem(request, 422, "invalid_request", describe(error.errors()[0]))


def _on_http_error(request: Request, error: HTTPException) -> Response:
    phrase = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    code = _HTTP_CODES.get(error.status_code, phrase)
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    method, path, detail = request.method, route_path(request.scope), str(error.detail)
    if error.status_code == 405:  # a route names its own method only
        headers["allow"] = allowed = ", ".join(_allowed(request))
        detail = f"{method} is not allowed for {path}: use one of {allowed}"
    elif error.status_code == 404:
        detail = f"there is no {path}: /openapi.json lists the paths"
    return _problem(request, error.status_code, code, printable(detail), headers=headers)


def _allowed(request: Request) -> list[str]:
    def is_allowed(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in _METHODS if is_allowed(method)]


def _on_disconnect(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)  # nobody reads it


def _on_bug(request: Request, error: Exception) -> Response:
    number = uuid.uuid4().hex[:12]
    log.error("error %s in %s %s", number, request.method, request.url.path)  # the server has more
    return _problem(request, 500, "internal_error", f"a bug in astound; its log has error {number}")


_HANDLERS: dict[type[Exception], Callable[[Request, Any], Response]] = {
    RefusedError: _on_refusal,
    AstoundError: _on_astound_error,
    RequestValidationError: _on_invalid_request,
    HTTPException: _on_http_error,
    ClientDisconnect: _on_disconnect,
    Exception: _on_bug,
}


# -- the application -----------------------------------------------------------------------------


def create_app(
    catalog: Catalog,
    config: ServiceConfig | None = None,
    *,
    hosts: Sequence[str] = LOOPBACK_HOSTS,
    is_local: bool = True,
) -> FastAPI:
    """Create the ASGI application that serves a catalog.

    Parameters
    ----------
    catalog : Catalog
        Stays open when the application ends.
    config : ServiceConfig, optional
    hosts : sequence of str
        Values of the header Host that are answered, without ports; "*" is any.
    is_local : bool
        Only this machine is served, which needs no key as long as there is none.
    """
    service = Service(catalog, config or ServiceConfig(), is_local=is_local)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Not a daemon: the interpreter must not end while native code of the model runs.
        loading = threading.Thread(target=service.load, name="load")
        loading.start()
        service.jobs.worker.start()
        yield
        service.close()

    app = FastAPI(
        title="astound",
        version=astound.__version__,
        description="Finds which known recording a clip comes from, and where in it.",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        dependencies=[Depends(_own_page), Depends(_no_repetition)],
        exception_handlers=_HANDLERS,  # type: ignore[arg-type]
    )
    app.state.service = service
    queries = frozenset(route.path for route in _clips.routes if isinstance(route, APIRoute))
    app.add_middleware(QueryAdmission, queue=service.queue, paths=queries, on_refusal=_on_refusal)
    app.add_middleware(BrowserGuard, hosts=hosts, on_refusal=_on_refusal)
    for router in (_clips, _library, job_routes, _state):
        app.include_router(router)
    app.router.routes.append(_Page(list(app.routes)))
    return app


class _Page(Mount):
    """The files of the page, wherever there is no other route.

    Parameters
    ----------
    others : list of BaseRoute
    """

    def __init__(self, others: list[BaseRoute]) -> None:
        super().__init__("/", StaticFiles(directory=PAGE, html=True))
        self._others = others

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match what no other route does, with whatever method."""
        if any(route.matches(scope)[0] is not Match.NONE for route in self._others):
            return Match.NONE, {}
        match, child_scope = super().matches(scope)
        is_read = scope.get("method") in ("GET", "HEAD")
        return (match if is_read else Match.PARTIAL), child_scope
