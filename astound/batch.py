"""Queries and scans of many files, in which a bad file is a result with an error."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from engine.errors import AudioError, AudioTooShortError
from engine.records import Entry, QueryResult, Timeline

if TYPE_CHECKING:
    from astound.catalog import Catalog
    from astound.remote import RemoteCatalog


def identify(catalog: Catalog | RemoteCatalog, path: str, **options: Any) -> QueryResult:
    """Query a file; a result of status "error" if it is not usable audio.

    Parameters
    ----------
    catalog : Catalog or RemoteCatalog
    path : str
    options
        Those of :meth:`Catalog.query`.
    """
    try:
        return catalog.query(path, **options)
    except AudioError as error:
        return to_failure(error)


def identify_all(
    catalog: Catalog | RemoteCatalog, paths: Iterable[str], n_jobs: int, **options: Any
) -> Iterator[QueryResult]:
    """Query files as :func:`identify` does, several at a time.

    Parameters
    ----------
    catalog : Catalog or RemoteCatalog
    paths : iterable of str
    n_jobs : int
        Files that are queried at a time.
    options
        Those of :meth:`Catalog.query`.

    Yields
    ------
    QueryResult
        In the order of the paths, as soon as it and those before it are there.
    """
    executor, pending = ThreadPoolExecutor(n_jobs), deque[Future[QueryResult]]()
    try:
        for path in paths:
            pending.append(executor.submit(identify, catalog, path, **options))
            if len(pending) > n_jobs:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def to_failure(error: AudioError) -> QueryResult:
    """Return the result of a query whose clip is not usable audio."""
    return QueryResult(
        query=os.fspath(error.source),
        status="error",
        duration_s=_known_duration_s(error),
        error=_error_object(error),
    )


def timeline(
    catalog: Catalog,
    path: str,
    *,
    on_entry: Callable[[Entry], None] = lambda entry: None,
    **options: Any,
) -> Timeline:
    """Scan a file; a timeline with an error and the entries before it if it is not usable audio.

    Parameters
    ----------
    catalog : Catalog
    path : str
    on_entry : callable, optional
        Called with each entry some time after it has ended.
    options
        Those of :meth:`Catalog.scan`.
    """
    entries: list[Entry] = []

    def collect(entry: Entry) -> None:
        entries.append(entry)
        on_entry(entry)

    try:
        return catalog.scan(path, on_entry=collect, **options)
    except AudioError as error:
        duration_s, made = _known_duration_s(error), _error_object(error)
        return Timeline(recording=path, duration_s=duration_s, entries=tuple(entries), error=made)


def _known_duration_s(error: AudioError) -> float | None:
    return round(error.duration_s, 3) if isinstance(error, AudioTooShortError) else None


def _error_object(error: AudioError) -> dict[str, str]:
    return {"code": error.code, "message": str(error)}
