"""The Catalog: everything astound does with a music library, behind one object."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import filelock

from astound.migrate import ensure_schema
from astound.settings import (
    DATABASE_FILE,
    SETTINGS_FILE,
    make_folder,
    read_settings,
    write_settings,
)
from engine.config import AlignConfig, IndexConfig, IngestConfig, SearchConfig
from engine.errors import (
    AudioError,
    CatalogBusyError,
    ConfigError,
    RecipeMismatchError,
    ShardError,
    StoreError,
)
from engine.records import Candidate, Match, QueryResult, Track
from engine.store import Stats, Store
from indexer.report import IngestReport

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.calibration import Calibration
    from engine.index import Index
    from engine.protocol import AudioFingerprinter
    from engine.searcher import Searcher

Device = Literal["auto", "cpu", "cuda"]
Source: TypeAlias = "str | os.PathLike[str] | NDArray[Any]"

SHARDS_FOLDER = "shards"
LOCK_FILE = ".lock"


class Catalog:
    """A music library that astound remembers.

    Parameters
    ----------
    folder : path-like
        Where it lies, or shall lie.
    device : {"auto", "cpu", "cuda"}
        What encodes.
    create : bool
        Make it if there is none.
    database : str, optional
        SQLAlchemy URL of a Postgres database, for a new catalog; a SQLite file in the folder by
        default.
    model : path-like or AudioFingerprinter, optional
        Weights to encode with, `calibration.json` beside them, or any object that fingerprints;
        the encoder astound ships by default.
    calibration : Calibration, optional
        What turns scores into confidences; needed for queries if `model` is an object.

    Raises
    ------
    StoreError
        There is no catalog and none was to be made, or its database cannot be reached.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        device: Device = "auto",
        create: bool = True,
        database: str | None = None,
        model: str | os.PathLike[str] | AudioFingerprinter | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.device = device
        self.model = Path(model) if isinstance(model, (str, os.PathLike)) else model
        self._calibration = calibration
        settings = self.folder / SETTINGS_FILE
        is_new = not settings.is_file()
        if is_new and not create:
            raise StoreError(f"{self.folder}: no catalog there; `astound add` makes one")
        found = database or self.folder / DATABASE_FILE if is_new else read_settings(settings)
        if database is not None and found != database:
            raise ConfigError("database", f"{self.folder} already keeps its metadata elsewhere")
        if not is_new and isinstance(found, Path) and not found.is_file():
            raise StoreError(f"{found}: the catalog's database is gone; restore it from a backup")
        make_folder(self.folder)
        ensure_schema(found)
        self._store = Store.open(found)
        if is_new:  # only now: a database that cannot be reached must not be remembered
            write_settings(settings, database)
        self._index: tuple[int, Index] | None = None

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._store.close()

    # -- what it is made with -------------------------------------------------------------------

    @cached_property
    def fingerprinter(self) -> AudioFingerprinter:
        """What makes its fingerprints; RecipeMismatchError when the catalog had another."""
        from engine.encoder import SHIPPED_WEIGHTS, load_encoder
        from engine.fingerprint import Fingerprinter

        if self.model is None or isinstance(self.model, Path):
            weights = self.model or SHIPPED_WEIGHTS
            fingerprinter: AudioFingerprinter = Fingerprinter(load_encoder(weights, self.device))
        else:
            fingerprinter = self.model
        expected = self._store.settings().get("recipe_id")
        found = fingerprinter.recipe_id
        if expected is not None and expected != found:
            raise RecipeMismatchError(found, expected, f"catalog {self.folder}")
        return fingerprinter

    @property
    def recipe_id(self) -> str:
        """Id of the recipe of its fingerprints."""
        return self._store.settings().get("recipe_id") or self.fingerprinter.recipe_id

    @property
    def segment_hop_s(self) -> float:
        """Distance of its segments in seconds."""
        stored = self._store.settings().get("segment_hop_s")
        return float(stored) if stored else IndexConfig().segment_hop_s

    @cached_property
    def calibration(self) -> Calibration:
        """What turns scores into confidences."""
        from engine.calibration import SHIPPED_CALIBRATION, Calibration

        if self._calibration is not None:
            calibration = self._calibration
        elif self.model is None:
            calibration = Calibration.load(SHIPPED_CALIBRATION)
        elif isinstance(self.model, Path):
            calibration = Calibration.load(self.model.with_name(SHIPPED_CALIBRATION.name))
        else:
            calibration = Calibration.load(SHIPPED_CALIBRATION)
            if calibration.recipe_id != self.recipe_id:
                reason = "is needed by a model of one's own; `astound train` writes one"
                raise ConfigError("calibration", reason)
        if calibration.recipe_id != self.recipe_id:
            raise RecipeMismatchError(self.recipe_id, calibration.recipe_id, "the calibration")
        return calibration

    @property
    def min_confidence(self) -> float:
        """Confidence from which a candidate is a match, unless a query asks otherwise."""
        return self.calibration.min_confidence

    # -- ingest ---------------------------------------------------------------------------------

    def add(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        metadata: Mapping[str, Mapping[str, str]] | None = None,
        config: IngestConfig | None = None,
        on_progress: Callable[[IngestReport], None] = lambda report: None,
    ) -> IngestReport:
        """Remember recordings.

        What the catalog knows already is skipped, so a run that was interrupted is resumed by
        repeating it.

        Parameters
        ----------
        paths : path-like, or several
            Files, and folders with all that is in them.
        metadata : mapping, optional
            For each path, what to note: title, artist, album, isrc, or any other key.
        config : IngestConfig, optional
        on_progress : callable, optional
            Told the report so far after every file.

        Returns
        -------
        IngestReport
            What was added, skipped and failed.

        Raises
        ------
        CatalogBusyError
            Another process is writing.
        """
        from indexer.pipeline import Ingest

        given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        noted = {os.path.abspath(path): values for path, values in (metadata or {}).items()}
        with self._writing():
            self._note_recipe()
            shards = self._shards_folder
            shards.mkdir(exist_ok=True)
            ingest = Ingest(
                self._store,
                shards,
                self.fingerprinter,
                self.segment_hop_s,
                config or IngestConfig(),
                on_progress,
            )
            return ingest.run(given, noted)

    # -- query ----------------------------------------------------------------------------------

    def query(  # noqa: PLR0913 - each is a question people ask, by name
        self,
        source: Source,
        sample_rate: int | None = None,
        *,
        start_s: float = 0.0,
        end_s: float | None = None,
        max_matches: int = 5,
        min_confidence: float | None = None,
        search: SearchConfig | None = None,
        alignment: AlignConfig | None = None,
    ) -> QueryResult:
        """Say which recording a clip comes from, and where in it, or that none is known.

        Parameters
        ----------
        source : path-like, or array of shape (n_samples,) or (n_samples, n_channels)
        sample_rate : int, optional
            Hz of an array.
        start_s, end_s : float, optional
            The part of the clip to look at, in seconds.
        max_matches : int
            Matches to give at most.
        min_confidence : float, optional
            In [0, 1]; the catalog's own threshold by default.
        search, alignment : SearchConfig, AlignConfig, optional

        Returns
        -------
        QueryResult
            Its status is "match" or "no_match"; times are those of the clip as a whole.

        Raises
        ------
        AudioError
            The clip cannot be read, is silent or too short.
        """
        from engine.query import Stopwatch

        if start_s < 0 or (end_s is not None and end_s <= start_s):
            raise ConfigError("start_s", f"0 <= {start_s} < {end_s} is needed")
        stopwatch = Stopwatch()
        searcher = self.searcher(search, alignment)
        name, blocks = self._blocks(source, sample_rate, start_s, end_s)
        fingerprint, beginning = searcher.listen(blocks, name, stopwatch)
        candidates = searcher.candidates(fingerprint, beginning, stopwatch)
        threshold = self.min_confidence if min_confidence is None else min_confidence
        sure = searcher.sure(candidates[:max_matches], fingerprint.heard_s, threshold)
        matches = self._matches(sure, start_s)
        return QueryResult(
            query=name,
            status="match" if matches else "no_match",
            duration_s=round(fingerprint.duration_s, 3),
            matches=matches,
            timings_ms=stopwatch.timings_ms,
        )

    def searcher(
        self, search: SearchConfig | None = None, alignment: AlignConfig | None = None
    ) -> Searcher:
        """Join what answers queries, as the catalog is now."""
        from engine.searcher import Searcher

        return Searcher(
            fingerprinter=self.fingerprinter,
            index=self._current_index(),
            reference_hop_s=self.segment_hop_s,
            calibration=self.calibration,
            search=search or SearchConfig(),
            alignment=alignment or AlignConfig(),
        )

    def _blocks(
        self, source: Any, sample_rate: int | None, start_s: float, end_s: float | None
    ) -> tuple[str, Iterable[NDArray[np.float32]]]:
        from engine import audio

        rate = self.fingerprinter.sample_rate
        if isinstance(source, (str, os.PathLike)):
            path = os.fspath(source)
            return path, audio.blocks(path, rate, start_s=start_s, end_s=end_s)
        if sample_rate is None:
            raise ConfigError("sample_rate", "an array needs it, in Hz")
        last = None if end_s is None else round(end_s * sample_rate)
        part = audio.mono(source)[round(start_s * sample_rate) : last]
        return "array", [audio.resample(part, sample_rate, rate)]

    def _matches(self, sure: list[tuple[Candidate, float]], start_s: float) -> tuple[Match, ...]:
        tracks = {t.id: t for t in self._store.tracks([one.track_id for one, _ in sure])}
        return tuple(
            _match(rank, candidate, confidence, tracks[candidate.track_id], start_s)
            for rank, (candidate, confidence) in enumerate(sure, 1)
            if candidate.track_id in tracks
        )

    # -- life cycle -----------------------------------------------------------------------------

    def tracks(self) -> list[Track]:
        """All tracks, in the order of their ids."""
        return self._store.tracks()

    def track(self, key: int | str) -> Track:
        """One track by its id or path; TrackNotFoundError when there is none."""
        return self._store.track(_key(key))

    def delete(self, keys: Iterable[int | str]) -> list[Track]:
        """Forget tracks, given by id or path; nothing is deleted unless all are known.

        Returns
        -------
        list of Track
            The forgotten ones.
        """
        with self._writing():
            tracks = [self._store.track(_key(key)) for key in keys]
            self._store.delete(sorted({track.id for track in tracks}))
        return tracks

    def update(self, key: int | str, **changes: Any) -> Track:
        """Change what is noted about a track.

        Parameters
        ----------
        key : int or str
            Its id or path.
        changes
            title, artist, album, isrc, path, or metadata (a mapping; an empty value removes a key).
        """
        with self._writing():
            track_id = self._store.track(_key(key)).id
            if changes.get("path"):
                changes["path"] = os.path.abspath(changes["path"])
            self._store.update(track_id, **changes)
        return self._store.track(track_id)

    def stats(self) -> Stats:
        """Count tracks, seconds, segments and bytes."""
        return self._store.stats()

    def verify(self) -> list[str]:
        """Check every shard against the database and its own hashes.

        Returns
        -------
        list of str
            One line for each thing that is wrong; empty when all is well.
        """
        from engine.index import Index
        from engine.shard import Shard

        problems = []
        for name in self._store.shard_names():
            placements = [one for one in self._store.placements() if one.shard == name]
            try:
                Index(self._shards_folder, placements, self.recipe_id)
                problems += Shard(self._shards_folder / name).damage()
            except (ShardError, RecipeMismatchError) as error:
                problems.append(str(error))
        return problems

    # -- inside ---------------------------------------------------------------------------------

    @property
    def _shards_folder(self) -> Path:
        return self.folder / SHARDS_FOLDER

    def _current_index(self) -> Index:
        """Open the index, again if some process has changed the catalog since."""
        from engine.index import Index

        version = self._store.version()
        if self._index is None or self._index[0] != version:
            placements = self._store.placements()
            self._index = version, Index(self._shards_folder, placements, self.recipe_id)
        return self._index[1]

    def _note_recipe(self) -> None:
        if "recipe_id" not in self._store.settings():
            import json

            if self._shards_folder.is_dir() and any(self._shards_folder.iterdir()):
                # Going on would sweep them away.
                raise StoreError(
                    f"{self.folder}: its database is empty, but there are shards; "
                    "restore the database from a backup, or start in another folder"
                )

            self._store.put_settings(
                {
                    "recipe_id": self.fingerprinter.recipe_id,
                    "recipe": json.dumps(self.fingerprinter.metadata()),
                    "segment_hop_s": str(IndexConfig().segment_hop_s),
                }
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        lock = filelock.FileLock(self.folder / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise CatalogBusyError(
                f"{self.folder}: another process is writing to it; try again when it is done"
            ) from error
        try:
            yield
        finally:
            lock.release()


def identify(catalog: Catalog, source: str, **options: Any) -> QueryResult:
    """Query a file; what is wrong with it becomes a result of status "error"."""
    try:
        return catalog.query(source, **options)
    except AudioError as error:
        message = {"code": type(error).__name__, "message": str(error)}
        return QueryResult(query=source, status="error", error=message)


def _match(
    rank: int, candidate: Candidate, confidence: float, track: Track, start_s: float
) -> Match:
    query_start_s = candidate.query_start_s + start_s
    query_end_s = candidate.query_end_s + start_s
    offset_s = candidate.offset_s - candidate.speed * start_s
    return Match(
        rank=rank,
        track_id=track.id,
        path=track.path,
        title=track.title,
        artist=track.artist,
        query_start_s=round(query_start_s, 3),
        query_end_s=round(query_end_s, 3),
        reference_start_s=round(max(candidate.speed * query_start_s + offset_s, 0.0), 3),
        reference_end_s=round(min(candidate.speed * query_end_s + offset_s, track.duration_s), 3),
        offset_s=round(offset_s, 3) + 0.0,  # never -0.0
        score=round(candidate.score, 4),
        confidence=round(confidence, 4),
        votes=candidate.votes,
        coverage=round(candidate.coverage, 3),
        speed=round(candidate.speed, 4),
        margin=round(candidate.margin, 4),
    )


def _key(key: int | str) -> int | str:
    """Tracks are known by absolute paths."""
    return key if isinstance(key, int) else os.path.abspath(key)
