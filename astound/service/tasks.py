"""What a job of each kind does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Protocol, TypeVar

from astound.catalog import Catalog
from astound.results import JsonObject, duplicates_object, report_object, timeline_object
from astound.service.files import JobFiles
from astound.service.schemas import RefusedError
from engine.audio import child
from engine.config import DedupConfig
from engine.errors import ConfigError, printable
from engine.records import Entry, Job, JobKind, Timeline
from indexer.discover import FoundFile, discover
from indexer.report import Failure, IngestReport

T = TypeVar("T")


class Run(Protocol):
    """A job that runs.

    Attributes
    ----------
    job : Job
    catalog : Catalog
    files : JobFiles
    found : callable
        Returns the result as far as it is; that of a job which is cancelled or fails.
    """

    job: Job
    catalog: Catalog
    files: JobFiles
    found: Callable[[], JsonObject | None]

    def report(
        self, done: float, total: float | None, unit: str, *, has_found: bool = False
    ) -> None:
        """Report progress; raises an exception if the job is to stop.

        Parameters
        ----------
        done, total : float
            The total is None if it is unknown.
        unit : str
        has_found : bool
            Store what was found so far.
        """

    def when_free(self, write: Callable[[], T]) -> T:
        """Call a function that writes to the catalog, again as long as others write to it."""


def ingest(run: Run) -> JsonObject:
    """Add recordings; uploaded ones that became tracks are kept."""
    paths, outside = _to_ingest(run)

    def show(report: IngestReport) -> None:
        run.found = partial(_ingest_object, run, report, outside)
        run.report(report.n_files_done, report.n_files, "files")

    report = run.when_free(partial(run.catalog.add, paths, on_progress=show))
    return _ingest_object(run, report, outside)


def _to_ingest(run: Run) -> tuple[list[str], list[Failure]]:
    """Return the files to ingest, and failures for those that links hide."""
    if run.job.upload is not None:
        return run.files.keep(run.job.upload), []
    paths, outside = [], []
    for found in discover([_in_media(run, path) for path in run.job.options["paths"]]):
        if isinstance(found, FoundFile) and not run.files.is_media(found.path):
            outside.append(Failure(found.path, "a link leads out of the media folder"))
        else:
            paths.append(found.path)
    return paths, outside


def _in_media(run: Run, path: str) -> str:
    """Check a path again: the service may have been started with another media folder."""
    try:
        return run.files.media_path(path)
    except RefusedError as error:
        raise ConfigError("media", error.reason) from error


def _ingest_object(run: Run, report: IngestReport, outside: list[Failure]) -> JsonObject:
    made = report_object(report)
    made["n_files"] += len(outside)
    made["n_failed"] += len(outside)
    made["failed"] += [
        {"path": printable(failure.path), "reason": failure.reason} for failure in outside
    ]
    for failure in made["failed"] + made["warned"]:
        failure |= {key: run.files.shown(failure[key]) for key in ("path", "reason")}
    return made


def scan(run: Run) -> JsonObject:
    """Write the timeline of a long recording."""
    options = dict(run.job.options)
    names = options.pop("files", None) or options["paths"]
    paths = [_in_media(run, path) for path in options.pop("paths", ())]
    (path,) = paths or run.files.uploaded(run.job.upload or "")
    name = options.pop("name", names[0])
    start_s = options.get("start_s", 0.0)
    entries: list[Entry] = []
    following: list[Entry] = []  # those that seem to come next
    scanned_s = 0.0
    reported: tuple[list[Entry], list[Entry]] = [], []

    def found() -> JsonObject:
        ordered = tuple(sorted(entries + following, key=lambda entry: entry.query_start_s))
        part = Timeline(
            recording=name, start_s=start_s, duration_s=round(scanned_s, 3), entries=ordered
        )
        return timeline_object(part) | {"status": "partial"}

    def show(now_s: float) -> None:
        nonlocal scanned_s, reported
        scanned_s = now_s
        before, reported = reported, (entries.copy(), following.copy())
        has_found = reported != before
        run.report(round(scanned_s, 1), total_s, "seconds", has_found=has_found)

    run.found = found
    total_s = _part_s(child.measure(path), start_s, options.get("end_s"))

    def preview(found: list[Entry]) -> None:
        following[:] = found

    timeline = run.catalog.scan(
        path, name=name, on_entry=entries.append, on_preview=preview, on_progress=show, **options
    )
    return timeline_object(timeline)


def _part_s(duration_s: float | None, start_s: float, end_s: float | None) -> float | None:
    """Return the length of a part of a recording; None if it is unknown, or there is none."""
    ends_s = [one for one in (duration_s, end_s) if one is not None]
    part_s = min(ends_s, default=0.0) - start_s
    return round(part_s, 3) if part_s > 0 else None


def dedup(run: Run) -> JsonObject:
    """Find the tracks that contain the same recording."""
    config = DedupConfig(**run.job.options)
    duplicates, clusters = run.catalog.dedup(config, on_progress=_counted(run, "tracks"))
    tracks = {track.id: track for track in run.catalog.tracks()}
    duplicates = [one for one in duplicates if {one.first_id, one.second_id} <= tracks.keys()]
    return duplicates_object(duplicates, clusters, tracks)


def compact(run: Run) -> JsonObject:
    """Merge small shards, and drop the vectors of deleted tracks."""
    on_progress = _counted(run, "segments")
    compact = partial(run.catalog.compact, run.job.options.get("storage"), on_progress=on_progress)
    return asdict(run.when_free(compact))


def verify(run: Run) -> JsonObject:
    """Check every shard against the database and its own hashes."""
    problems = run.catalog.verify(on_progress=_counted(run, "shards"))
    return {"problems": problems, "notices": run.catalog.notices()}


def _counted(run: Run, unit: str) -> Callable[[int, int], None]:
    return lambda n_done, n_all: run.report(n_done, n_all, unit)


TASKS: Mapping[JobKind, Callable[[Run], JsonObject]] = {
    "ingest": ingest,
    "scan": scan,
    "dedup": dedup,
    "compact": compact,
    "verify": verify,
}
