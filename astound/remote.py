"""A catalog behind a service: the same methods and results as those of a local one."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from astound.results import track_version
from engine.audio.opening import as_path, name_of, named
from engine.config import MAX_MATCHES, require
from engine.errors import (
    AstoundError,
    AudioError,
    ConfigError,
    RecipeMismatchError,
    ServiceError,
    SilentAudioError,
    TrackNotFoundError,
    rebuild,
)
from engine.records import Match, QueryResult, Stats, Track
from engine.validation import to_record, to_values

if TYPE_CHECKING:
    from astound.catalog import Device, Source
    from engine.model.fingerprinter import Fingerprinter
    from engine.search.explanation import Explanation

T = TypeVar("T")

_TIMEOUT_S = 600.0
_MAX_KEPT = 64  # connections that stay open for the next requests
_MAX_WAIT_S = 120.0  # for a service that is loading or full
_MAY_PASS = (429, 503)
_PAGE = 500
_JSON = "application/json"


class RemoteCatalog:
    """The catalog of a service.

    Parameters
    ----------
    url : str
        Address of the service, such as ``http://127.0.0.1:8765``.
    key : str, optional
        One that ``astound key create`` made, if the service needs one.
    sends_audio : bool
        Send the audio of queries; their fingerprints, made here, if false.
    model : path-like, optional
        Weights of the fingerprints; the shipped encoder by default.
    device : {"auto", "cpu", "cuda"}
        Device for encoding them.

    Raises
    ------
    ConfigError
        The URL is none of HTTP or HTTPS.

    Notes
    -----
    All methods raise :class:`~engine.errors.ServiceError` if the service cannot be reached, or
    refuses a request for a reason that a local catalog does not have. They wait up to two minutes
    for a service that is loading or full. The environment may name a proxy: ``http_proxy``,
    ``https_proxy``, ``no_proxy``.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        sends_audio: bool = True,
        model: str | os.PathLike[str] | None = None,
        device: Device = "auto",
    ) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        is_valid = parts.scheme in ("http", "https") and bool(host)
        require(is_valid, "url", url, "must begin with http:// or https://")
        try:
            parts.port  # noqa: B018 - parses it
        except ValueError as error:
            raise ConfigError.invalid("url", url, "must have a port from 0 to 65535") from error
        self._http = _client(parts.scheme, host)
        self.url = url.rstrip("/")
        self._headers = {"connection": "close"}
        self._headers |= {"authorization": f"Bearer {key}"} if key else {}
        self._sends_audio, self._model, self._device = sends_audio, model, device

    def __enter__(self) -> RemoteCatalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: no connection stays open."""

    def query(  # noqa: PLR0913 - those of a local catalog
        self,
        source: Source,
        sample_rate: int | None = None,
        *,
        start_s: float = 0.0,
        end_s: float | None = None,
        stream: int | None = None,
        name: str | None = None,
        max_matches: int = MAX_MATCHES,
        min_confidence: float | None = None,
    ) -> QueryResult:
        """Find which recordings a clip comes from, and where in them.

        Parameters and errors are those of :meth:`astound.catalog.Catalog.query`; the clip, or its
        fingerprint, is sent.
        """
        part = {"start_s": start_s, "end_s": end_s, "stream": stream}
        options = {"max-matches": max_matches, "min-confidence": min_confidence}
        if not self._sends_audio:
            return self._query_fingerprint(source, sample_rate, name, part, options)
        answer, shown = self._send_clip("query", source, sample_rate, name, part, options)
        return replace(_to_result(answer), query=shown)

    def _query_fingerprint(
        self,
        source: Source,
        sample_rate: int | None,
        name: str | None,
        part: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> QueryResult:
        """Fingerprint a clip on this machine, and query its fingerprint."""
        from engine.audio.source import open_source
        from engine.search.clips import fingerprint_clips
        from engine.search.context import Stopwatch
        from engine.search.query_fingerprint import QueryFingerprint

        rate, stopwatch = self._fingerprinter.sample_rate, Stopwatch()
        recording = open_source(source, rate, array_rate=sample_rate, **part, name=name)
        blocks = stopwatch.watch("decode", recording)
        hop_s, shown = self._recipe["segment_hop_s"], recording.name
        with recording.explaining_silence():
            clips = list(fingerprint_clips(blocks, self._fingerprinter, hop_s, shown, stopwatch))
            if not clips:
                raise SilentAudioError(shown, "silent from beginning to end")
        made = QueryFingerprint.of(clips, part["start_s"], recording.duration_s)
        body, given = _as_json(to_values(made)), {**options, "name": shown}
        try:
            result = _to_result(self._call("POST", "query", given, body, _JSON))
        except AudioError as error:
            raise _renamed(error, shown) from error
        return replace(
            result,
            query=shown,
            warnings=recording.warnings + result.warnings,
            timings_ms=stopwatch.timings_ms | dict(result.timings_ms),
        )

    @cached_property
    def _recipe(self) -> dict[str, Any]:
        return self._call("GET", "recipe")

    @cached_property
    def _fingerprinter(self) -> Fingerprinter:
        """The fingerprinter; RecipeMismatchError if the catalog's fingerprints are others."""
        from engine.model.fingerprinter import Fingerprinter

        model = None if self._model is None else Path(self._model)
        loaded = Fingerprinter.load(model, self._device)
        if loaded.recipe_id != self._recipe["recipe_id"]:
            where = "the model of this machine"
            raise RecipeMismatchError(self._recipe["recipe_id"], loaded.recipe_id, where)
        return loaded

    def explain(  # noqa: PLR0913 - those of a local catalog
        self,
        source: Source,
        sample_rate: int | None = None,
        *,
        track: int | str | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        stream: int | None = None,
        name: str | None = None,
    ) -> Explanation:
        """Explain why a clip did or did not match.

        Parameters and errors are those of :meth:`astound.catalog.Catalog.explain`; the clip is
        sent.
        """
        from engine.search.explanation import Explanation

        if not self._sends_audio:
            raise ConfigError("sends_audio", "must be true: an explanation needs the audio")
        part = {"start_s": start_s, "end_s": end_s, "stream": stream}
        track_id = self.track(track).id if isinstance(track, str) else track
        options = {"track": track_id, "record": "true"}
        answer, shown = self._send_clip("explain", source, sample_rate, name, part, options)
        try:
            explanation = to_record(Explanation, answer.get("record"))
        except ValueError as error:  # of another version
            raise ServiceError(self.url, f"its answer cannot be read ({error})") from error
        return replace(explanation, query=shown)

    def _send_clip(
        self,
        path: str,
        source: Source,
        sample_rate: int | None,
        name: str | None,
        part: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> tuple[dict[str, Any], str]:
        """Send a clip; return the answer and the clip's name."""
        given = {"start": part["start_s"] or None, "end": part["end_s"], "stream": part["stream"]}
        with _sendable(source, sample_rate) as (file, own_name):
            shown = name or own_name
            try:
                return self._call("POST", path, {**given, **options, "name": shown}, file), shown
            except AudioError as error:
                raise _renamed(error, shown) from error

    def tracks(
        self, search: str = "", *, after_id: int = 0, max_tracks: int | None = None
    ) -> list[Track]:
        """Return all tracks, or some of them, as :meth:`astound.catalog.Catalog.tracks`.

        Their `added_at` is in whole seconds.
        """
        found: list[Track] = []
        cursor: int | None = after_id
        while cursor is not None and (max_tracks is None or len(found) < max_tracks):
            limit = _PAGE if max_tracks is None else min(max_tracks - len(found), _PAGE)
            options = {"search": search, "cursor": cursor, "limit": limit}
            page = self._call("GET", "tracks", options)
            found += map(_to_track, page["tracks"])
            cursor = page["next"]
        return found

    def track(self, key: int | str) -> Track:
        """Return a track by id or path; TrackNotFoundError if none.

        A path is one of the machine that serves the catalog.
        """
        if isinstance(key, int):
            return _to_track(self._of_track("GET", key))
        path = os.path.abspath(key)
        for track in self.tracks(path):
            if track.path == path:
                return track
        raise TrackNotFoundError(key)

    def delete(self, keys: Iterable[int | str]) -> list[Track]:
        """Remove tracks, by id or path; removes none if one of them does not exist.

        Returns
        -------
        list of Track
            The removed tracks.
        """
        ids = self._ids(keys)
        if not ids:
            return []
        answer = self._call("POST", "tracks/delete", body=_as_json({"ids": ids}), kind=_JSON)
        return [_to_track(values) for values in answer["tracks"]]

    def update(self, key: int | str, *, expected: Track | None = None, **changes: Any) -> Track:
        """Change the tags and metadata of a track: title, artist, album, isrc, metadata.

        Other parameters and errors are those of :meth:`astound.catalog.Catalog.update`.
        """
        track_id = key if isinstance(key, int) else self.track(key).id
        return _to_track(self._of_track("PATCH", track_id, changes, expected))

    def stats(self) -> Stats:
        """Count tracks, seconds, segments and bytes."""
        return to_record(Stats, _known(Stats, self._call("GET", "stats")))

    def _ids(self, keys: Iterable[int | str]) -> list[int]:
        """Return the ids of tracks; TrackNotFoundError names all paths without one."""
        found: dict[int, None] = {}
        missing: list[int | str] = []
        for key in keys:
            try:
                found[key if isinstance(key, int) else self.track(key).id] = None
            except TrackNotFoundError:
                missing.append(key)
        if missing:
            raise TrackNotFoundError(*missing)
        return list(found)

    # -- requests -----------------------------------------------------------------------------

    def _of_track(
        self, method: str, track_id: int, changes: object = None, expected: Track | None = None
    ) -> dict[str, Any]:
        content = None if changes is None else _as_json(changes)
        headers = {"if-match": f'"{track_version(expected)}"'} if expected else {}
        path = f"tracks/{track_id}"
        return self._call(method, path, body=content, kind=_JSON, headers=headers)

    def _call(
        self,
        method: str,
        path: str,
        options: Mapping[str, Any] | None = None,
        body: IO[bytes] | None = None,
        kind: str = "application/octet-stream",
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send a request, again as long as the service is loading or full; return its answer."""
        given = {key: value for key, value in (options or {}).items() if value is not None}
        target = f"{self.url}/v1/{path}?{urlencode(given, errors='backslashreplace')}"
        sent = {**self._headers, **(headers or {})} | ({"content-type": kind} if body else {})
        deadline_s = time.monotonic() + _MAX_WAIT_S
        while True:
            if body is not None:
                sent["content-length"] = str(body.seek(0, io.SEEK_END))
                body.seek(0)
            status, answer, about = self._send(method, target, body, sent)
            if status < 300:
                return answer
            pause_s = float(about.get("retry-after", 1))
            if status not in _MAY_PASS or time.monotonic() + pause_s > deadline_s:
                raise self._to_error(status, answer)
            time.sleep(pause_s)

    def _send(
        self, method: str, target: str, body: IO[bytes] | None, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        try:  # a refusal may come before all of the body is sent, which urllib3 takes into account
            response = self._http.request(method, target, body=body, headers=headers)
            answer = _parsed(response.data)
            if response.status < 300 and not answer:
                raise ValueError("its answer is no JSON object")
            return response.status, answer, response.headers
        except (OSError, urllib3.exceptions.HTTPError, ValueError) as error:
            raise ServiceError(self.url, f"cannot be reached ({_reason(error)})") from error

    def _to_error(self, status: int, answer: dict[str, Any]) -> AstoundError:
        code, reason = str(answer.get("code", "")), str(answer.get("detail", ""))
        if code == TrackNotFoundError.code and (tracks := answer.get("tracks")):
            return TrackNotFoundError(*tracks)
        if code == "key_needed":  # the service's sentence is about the header
            reason = "a key is needed: give it as `key`, or as --key or $ASTOUND_KEY in the shell"
        result = answer.get("result") or {}
        error = rebuild(code, reason, duration_s=result.get("duration_s"))
        return error or ServiceError(self.url, reason or f"answered {status}", code or None)


def _client(scheme: str, host: str) -> urllib3.PoolManager:
    """Return a client that takes the proxy which the environment names for a host, if any."""
    options: dict[str, Any] = {"timeout": _TIMEOUT_S, "retries": False, "maxsize": _MAX_KEPT}
    proxy = None if proxy_bypass(host) else getproxies().get(scheme)
    if not proxy:
        return urllib3.PoolManager(**options)
    address = urllib3.util.parse_url(proxy if "://" in proxy else f"http://{proxy}")
    headers = urllib3.make_headers(proxy_basic_auth=address.auth) if address.auth else None
    return urllib3.ProxyManager(address.url, proxy_headers=headers, **options)


def _reason(error: BaseException) -> str:
    """Return the reason that the system gives for an error, or the error's own words."""
    one: BaseException | None = error
    while one is not None:
        if reason := getattr(one, "strerror", None):
            return str(reason)
        one = one.__cause__ or one.__context__
    return " ".join(str(error).split()) or type(error).__name__


def _to_result(answer: Mapping[str, Any]) -> QueryResult:
    values = _known(QueryResult, answer)
    values["matches"] = tuple(to_record(Match, _known(Match, one)) for one in values["matches"])
    return QueryResult(**values | {"warnings": tuple(values["warnings"])})


def _renamed(error: AudioError, name: str) -> AudioError:
    """Give an error of the service the attributes of a local one."""
    message = str(error)
    error.source = name
    error.reason = message.partition(": ")[2] or message
    return error


def _as_json(content: object) -> IO[bytes]:
    return io.BytesIO(json.dumps(content).encode())


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _known(kind: type[T], values: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the fields that this version does not know."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return {key: value for key, value in values.items() if key in names}


def _to_track(values: Mapping[str, Any]) -> Track:
    added_at = datetime.fromisoformat(values["added_at"])
    return Track(**_known(Track, values) | {"added_at": added_at})


# -- clips ---------------------------------------------------------------------------------------


@contextmanager
def _sendable(source: Any, sample_rate: int | None) -> Iterator[tuple[IO[bytes], str]]:
    """Open a clip; yield the file to send, and its name."""
    if isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
        is_path = isinstance(source, (str, os.PathLike))
        name = os.fsdecode(source) if is_path else name_of(source)
        with named(name), as_path(source) as path:
            file = open(path, "rb")  # noqa: SIM115 - closed below
        with file:
            yield file, name
    else:
        from engine.audio.arrays import mono
        from engine.audio.wav import to_wav

        if sample_rate is None:
            raise ConfigError.invalid("sample_rate", None, "must be given for an array, in Hz")
        yield to_wav(mono(source, sample_rate), sample_rate), "array"
