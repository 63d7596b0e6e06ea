"""The Catalog: everything astound does with a music library, behind one object."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from astound.migrate import ensure_schema
from astound.results import to_entry, to_match, to_similar_track
from astound.storage import (
    DATABASE_FILE,
    SETTINGS_FILE,
    local_shards,
    make_folder,
    read_settings,
    write_settings,
)
from engine.config import (
    AlignConfig,
    DedupConfig,
    IndexConfig,
    IngestConfig,
    ScanConfig,
    SearchConfig,
)
from engine.errors import (
    AudioTooShortError,
    ConfigError,
    RecipeMismatchError,
    ShardError,
    SilentAudioError,
    StoreError,
    TrackNotFoundError,
)
from engine.records import (
    Candidate,
    Cluster,
    Duplicate,
    Entry,
    Match,
    QueryResult,
    SimilarTrack,
    Timeline,
    Track,
)
from engine.store.store import Stats, Store
from indexer.report import IngestReport

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.audio.source import AudioSource
    from engine.protocol import AudioFingerprinter
    from engine.search.calibration import Calibration
    from engine.search.context import SearchContext, Stopwatch
    from engine.search.explainer import Explainer
    from engine.search.explanation import Explanation, RankedCandidate
    from engine.search.searcher import Searcher
    from engine.vectors.gpu import Gpu
    from engine.vectors.index import Index
    from engine.vectors.quantizer import Storage
    from indexer.compact import CompactReport
    from indexer.merge import TakeoverReport
    from indexer.repair import RepairReport
    from indexer.sources import CatalogSource, TrackSource
    from indexer.verify import Findings

Device = Literal["auto", "cpu", "cuda"]
Source: TypeAlias = "str | os.PathLike[str] | NDArray[Any]"

N_NEAREST = 10

OnProgress: TypeAlias = Callable[[int, int], None]
"""Told how much is done, and how much there is."""

_N_ATTEMPTS = 3  # to open the index while other processes write


def _in_silence(n_done: int, n_all: int) -> None:
    """Show no progress."""


class Catalog:
    """A music library that astound remembers.

    Parameters
    ----------
    folder : path-like
        Where it lies, or shall lie.
    device : {"auto", "cpu", "cuda"}
        What encodes, and what FAISS trains, fills and searches large amounts of vectors on.
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
            place = self.folder.absolute()
            raise StoreError(
                f"{place}: no catalog there; `astound add` makes one, --catalog names another place"
            )
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
        self._shards = local_shards(self.folder)
        self._index: tuple[int, Index] | None = None
        self._opening = threading.RLock()

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
        from engine.model.fingerprinter import Fingerprinter

        if self.model is None or isinstance(self.model, Path):
            fingerprinter: AudioFingerprinter = Fingerprinter.load(self.model, self.device)
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
        """What turns scores into confidences; the catalog's own where it has been calibrated."""
        from engine.search.calibration import SHIPPED_CALIBRATION, Calibration

        own = self.folder / SHIPPED_CALIBRATION.name
        if self._calibration is not None:
            calibration = self._calibration
        elif own.is_file():
            calibration = Calibration.load(own)
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

    def save_calibration(self, calibration: Calibration) -> None:
        """Answer with a calibration from now on, here and wherever the catalog is opened.

        Parameters
        ----------
        calibration : Calibration
            As :func:`astound.evaluation.calibrate.calibrate` fits it.

        Raises
        ------
        RecipeMismatchError
            It was fitted to other fingerprints.
        """
        from engine.search.calibration import SHIPPED_CALIBRATION

        if calibration.recipe_id != self.recipe_id:
            raise RecipeMismatchError(self.recipe_id, calibration.recipe_id, "the calibration")
        calibration.save(self.folder / SHIPPED_CALIBRATION.name)
        self.calibration = calibration

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
        from indexer.ingest import Ingest

        given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        noted = {os.path.abspath(path): values for path, values in (metadata or {}).items()}
        with self._store.write_lock():
            self._note_recipe()
            ingest = Ingest(
                self._store,
                self._shards,
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
            With other settings than the calibration was fitted for, the result has a warning.

        Returns
        -------
        QueryResult
            Its status is "match" or "no_match"; times are those of the clip as a whole.

        Raises
        ------
        AudioError
            The clip cannot be read, is silent or too short.
        """
        from engine.search.context import Stopwatch

        recording = self._open(source, sample_rate, start_s, end_s)
        stopwatch = Stopwatch()
        searcher = self.searcher(search, alignment, stopwatch)
        fingerprint, beginning = searcher.fingerprint_query(recording, recording.name)
        threshold = self.min_confidence if min_confidence is None else min_confidence
        while True:
            candidates = searcher.candidates(fingerprint, beginning)[:max_matches]
            accepted = searcher.above_threshold(candidates, fingerprint.audible_s, threshold)
            matches = self._matches(accepted, start_s)
            if len(matches) == len(accepted):
                break
            # A track was replaced or deleted meanwhile: query the catalog as it is now.
            searcher = self.searcher(search, alignment, stopwatch)
        return QueryResult(
            query=recording.name,
            status="match" if matches else "no_match",
            duration_s=round(fingerprint.duration_s, 3),
            matches=matches,
            warnings=searcher.warnings,
            timings_ms=stopwatch.timings_ms,
        )

    def explain(  # noqa: PLR0913 - as many as a query takes
        self,
        source: Source,
        sample_rate: int | None = None,
        *,
        track: int | str | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        search: SearchConfig | None = None,
        alignment: AlignConfig | None = None,
    ) -> Explanation:
        """Say why a clip did or did not match.

        Parameters
        ----------
        source : path-like, or array of shape (n_samples,) or (n_samples, n_channels)
        sample_rate : int, optional
            Hz of an array.
        track : int or str, optional
            Id or path of the track to look into, found or not; the best one by default.
        start_s, end_s : float, optional
            The part of the clip to look at, in seconds.
        search, alignment : SearchConfig, AlignConfig, optional

        Returns
        -------
        Explanation
            Also of a clip that is silent or too short. Its times are those of the clip as a whole.

        Raises
        ------
        AudioError
            The clip cannot be read.
        TrackNotFoundError
            There is no such track.
        """
        from engine.search.explainer import Explainer
        from engine.search.explanation import unsearchable

        recording = self._open(source, sample_rate, start_s, end_s)
        name = recording.name
        asked = None if track is None else self.track(track).id
        searcher = self.searcher(search, alignment)
        try:
            fingerprinted = searcher.fingerprint_query(recording, name)
        except (AudioTooShortError, SilentAudioError) as error:
            return unsearchable(name, round(recording.duration_s, 3), error, self.min_confidence)
        return self._explained(Explainer(searcher, *fingerprinted), asked, name, start_s)

    def _explained(
        self, explainer: Explainer, asked: int | None, name: str, start_s: float
    ) -> Explanation:
        from engine.search.explanation import ExaminedTrack, Explanation

        best, fingerprint = explainer.best, explainer.fingerprint
        decision = explainer.decision(best)
        ranked = partial(self._ranked, explainer=explainer, start_s=start_s)
        candidate = best if asked is None else explainer.in_track(asked)
        ranked_candidate, ranked_best, examined = ranked(candidate), ranked(best), None
        if candidate and ranked_candidate:
            examined = ExaminedTrack(
                candidate=ranked_candidate,
                decision=explainer.decision(candidate),
                detail=explainer.alignment_detail(candidate, start_s),
            )
        return Explanation(
            query=name,
            duration_s=round(fingerprint.duration_s, 3),
            audible_s=round(fingerprint.audible_s, 3),
            decision=decision,
            match=ranked_best.match if ranked_best and decision.accepted else None,
            nearest=tuple(filter(None, map(ranked, explainer.candidates[:N_NEAREST]))),
            examined=examined,
            timings_ms=explainer.searcher.context.stopwatch.timings_ms,
        )

    def _ranked(
        self, candidate: Candidate | None, explainer: Explainer, start_s: float
    ) -> RankedCandidate | None:
        """Join a candidate with its track; None if that has just been deleted."""
        from engine.search.explanation import RankedCandidate

        tracks = [] if candidate is None else self._store.tracks([candidate.track_id])
        if candidate is None or not tracks:
            return None
        confidence = explainer.decision(candidate).confidence
        return RankedCandidate(
            match=to_match(explainer.rank(candidate), candidate, confidence, tracks[0], start_s),
            evidence=round(candidate.evidence, 4),
            others=round(candidate.others, 4),
        )

    def searcher(
        self,
        search: SearchConfig | None = None,
        alignment: AlignConfig | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> Searcher:
        """Join all that answers queries, with the tracks the catalog contains now."""
        from engine.search.searcher import Searcher

        return Searcher(
            fingerprinter=self.fingerprinter,
            calibration=self.calibration,
            context=self.search_context(search, alignment, stopwatch),
        )

    def search_context(
        self,
        search: SearchConfig | None = None,
        alignment: AlignConfig | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> SearchContext:
        """Join the index, with the tracks the catalog contains now, and settings."""
        from engine.search.context import SearchContext, Stopwatch

        return SearchContext(
            index=self._current_index(),
            reference_hop_s=self.segment_hop_s,
            search=search or SearchConfig(),
            alignment=alignment or AlignConfig(),
            stopwatch=stopwatch or Stopwatch(),
        )

    def _open(
        self, source: Any, sample_rate: int | None, start_s: float = 0.0, end_s: float | None = None
    ) -> AudioSource:
        from engine.audio.source import open_source

        rate = self.fingerprinter.sample_rate
        return open_source(source, rate, array_rate=sample_rate, start_s=start_s, end_s=end_s)

    def _matches(self, sure: list[tuple[Candidate, float]], start_s: float) -> tuple[Match, ...]:
        tracks = {t.id: t for t in self._store.tracks([one.track_id for one, _ in sure])}
        return tuple(
            to_match(rank, candidate, confidence, tracks[candidate.track_id], start_s)
            for rank, (candidate, confidence) in enumerate(sure, 1)
            if candidate.track_id in tracks
        )

    # -- long recordings ------------------------------------------------------------------------

    def scan(  # noqa: PLR0913 - each is a question people ask, by name
        self,
        source: Source,
        sample_rate: int | None = None,
        *,
        start_s: float = 0.0,
        end_s: float | None = None,
        min_confidence: float | None = None,
        config: ScanConfig | None = None,
        on_entry: Callable[[Entry], None] = lambda entry: None,
        on_progress: Callable[[float], None] = lambda heard_s: None,
    ) -> Timeline:
        """Say what sounds when in a long recording: a mix, a radio hour, a film.

        Parameters
        ----------
        source : path-like, or array of shape (n_samples,) or (n_samples, n_channels)
        sample_rate : int, optional
            Hz of an array.
        start_s, end_s : float, optional
            The part of the recording to look at, in seconds.
        min_confidence : float, optional
            In [0, 1]; `config.min_confidence` by default.
        config : ScanConfig, optional
        on_entry : callable, optional
            Told every entry some time after it has ended.
        on_progress : callable, optional
            Told every few seconds how many have been heard.

        Returns
        -------
        Timeline
            Nothing known is an answer; times are those of the recording as a whole.

        Raises
        ------
        AudioError
            The recording cannot be read, or the part is shorter than a segment.
        """
        recording = self._open(source, sample_rate, start_s, end_s)
        entries = []
        for entry in self.follow(
            recording,
            start_s=start_s,
            min_confidence=min_confidence,
            config=config,
            on_progress=on_progress,
        ):
            on_entry(entry)
            entries.append(entry)
        if recording.duration_s < self.fingerprinter.segment_s:
            raise AudioTooShortError(
                recording.name, recording.duration_s, self.fingerprinter.segment_s
            )
        return Timeline(
            recording=recording.name,
            start_s=start_s,
            duration_s=round(recording.duration_s, 3),
            entries=tuple(sorted(entries, key=lambda one: one.query_start_s)),
        )

    def follow(
        self,
        blocks: Iterable[NDArray[np.float32]],
        *,
        start_s: float = 0.0,
        min_confidence: float | None = None,
        config: ScanConfig | None = None,
        on_progress: Callable[[float], None] = lambda heard_s: None,
    ) -> Iterator[Entry]:
        """Hear a recording that may have no end, and tell each entry some time after it has ended.

        Memory does not grow with the recording. Tracks are those the catalog has when it begins.

        Parameters
        ----------
        blocks : iterable of float32 arrays of shape (n_samples,)
            At the fingerprinter's sample rate, of any size; they may come as they are recorded.
        start_s : float
            When the first of them begins.
        min_confidence, config, on_progress
            As in :meth:`scan`.

        Yields
        ------
        Entry
            By when they have ended, more or less.
        """
        from engine.scan.scanner import Scanner

        config = config or ScanConfig()
        if min_confidence is not None:
            config = replace(config, min_confidence=min_confidence)
        scanner = Scanner(self.searcher(), config)
        for found in scanner.scan(blocks, on_progress):
            for track in self._store.tracks([found.track_id]):  # unless it was just deleted
                yield to_entry(found, track, start_s, scanner.position_s)

    # -- relations ------------------------------------------------------------------------------

    def similar(
        self, source: int | Source, sample_rate: int | None = None, *, max_tracks: int = 10
    ) -> list[SimilarTrack]:
        """Find the tracks that sound most like a recording, by their clip-level embeddings.

        There always are some. Unrelated music has a clip score of up to 0.56, and in a catalog of
        hundreds of tracks the best of it up to 0.74; see :class:`engine.compare.similar.ClipIndex`.

        Parameters
        ----------
        source : int, path-like, or array of shape (n_samples,) or (n_samples, n_channels)
            Id or path of a track, which is left out; or any other file.
        sample_rate : int, optional
            Hz of an array.
        max_tracks : int
            Tracks to give at most.

        Returns
        -------
        list of SimilarTrack
            Most similar first.

        Raises
        ------
        TrackNotFoundError
            There is no track with this id.
        AudioError
            The file cannot be read, is silent or too short.
        """
        from engine.compare.similar import ClipIndex

        own_id = self._own_id(source)
        index = self._current_index()
        if own_id is not None:
            name, clips = f"track {own_id}", index.clips(own_id)
        else:
            recording = self._open(source, sample_rate)
            name = recording.name
            fingerprint = self.fingerprinter.fingerprint(recording, self.segment_hop_s, name)
            clips = fingerprint.clip_embeddings
        others = [track_id for track_id in index.track_ids if track_id != own_id]
        scores = ClipIndex(others, index.clips).scores(clips, name)
        ranked = sorted(zip(scores.tolist(), others, strict=True), key=lambda one: -one[0])
        best = {track_id: score for score, track_id in ranked[:max_tracks]}
        tracks = {track.id: track for track in self._store.tracks(list(best))}
        return [
            to_similar_track(rank, tracks[track_id], best[track_id])
            for rank, track_id in enumerate((one for one in best if one in tracks), 1)
        ]

    def dedup(
        self, config: DedupConfig | None = None, *, on_progress: OnProgress = _in_silence
    ) -> tuple[list[Duplicate], list[Cluster]]:
        """Find the tracks that hold the same recording, without any audio.

        Parameters
        ----------
        config : DedupConfig, optional
        on_progress : callable, optional
            Told the number of tracks done and of all tracks, after each.

        Returns
        -------
        duplicates : list of Duplicate
            In full or in part, by the ids of their tracks.
        clusters : list of Cluster
            Of full duplicates, with the one to keep.
        """
        from engine.compare.duplicates import Duplicates, clusters

        index = self._current_index()
        durations_s = {track.id: track.duration_s for track in self._store.tracks(index.track_ids)}
        search = Duplicates(
            index=index.among(durations_s),
            segment_hop_s=self.segment_hop_s,
            segment_s=self.fingerprinter.segment_s,
            durations_s=durations_s,
            config=config or DedupConfig(),
        )
        found = sorted(search.find(on_progress), key=lambda one: (one.first_id, one.second_id))
        return found, clusters(found, durations_s)

    def _own_id(self, source: int | Source) -> int | None:
        """Id of the track that a source is; None if it is another recording."""
        if not isinstance(source, (int, str, os.PathLike)):
            return None
        try:
            key = source if isinstance(source, int) else os.fspath(source)
            return self._store.track(_key(key)).id
        except TrackNotFoundError:
            if isinstance(source, int):
                raise
            return None

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

        Raises
        ------
        TrackNotFoundError
            Names all that are not known.
        """
        with self._store.write_lock():
            tracks = self._store.find(_key(key) for key in keys)
            self._store.delete(track.id for track in tracks)
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
        with self._store.write_lock():
            track_id = self._store.track(_key(key)).id
            if changes.get("path"):
                changes["path"] = os.path.abspath(changes["path"])
            self._store.update(track_id, **changes)
        return self._store.track(track_id)

    def stats(self) -> Stats:
        """Count tracks, seconds, segments and bytes."""
        return self._store.stats()

    def verify(self, *, on_progress: OnProgress = _in_silence) -> list[str]:
        """Check every shard against the database and its own hashes.

        Parameters
        ----------
        on_progress : callable, optional
            Told after every shard how many are done, and how many there are.

        Returns
        -------
        list of str
            One line for each thing that is wrong; empty when all is well.
        """
        return self._findings(on_progress).problems

    def repair(
        self, *, config: IngestConfig | None = None, on_progress: OnProgress = _in_silence
    ) -> RepairReport:
        """Mend what :meth:`verify` finds wrong.

        Tracks in a damaged shard are fingerprinted again from their files and keep their ids. Where
        a file is gone or has changed, its track is forgotten. All other tracks stay as they are.

        Parameters
        ----------
        config : IngestConfig, optional
        on_progress : callable, optional
            Told after every shard that is checked, and after every track that is fingerprinted,
            how many are done, and how many there are.

        Returns
        -------
        RepairReport
            What was wrong, repaired and forgotten.

        Raises
        ------
        StoreError
            The whole folder of shards is gone.
        """
        from indexer.repair import Repair

        with self._store.write_lock():
            if self._store.shards() and not self._shards.exists():
                raise StoreError(
                    f"{self._shards.folder}: folder of shards is missing; restore it from a "
                    "backup, or create an empty folder to fingerprint all files again"
                )
            findings = self._findings(on_progress)
            repair = Repair(
                self._store, self._shards, self.segment_hop_s, config or IngestConfig(), on_progress
            )
            return repair.run(findings, lambda: self.fingerprinter)

    def _findings(self, on_progress: OnProgress) -> Findings:
        from indexer.verify import examine

        return examine(self._store, self._shards, self.recipe_id, on_progress)

    def compact(
        self,
        storage: Storage | None = None,
        *,
        config: IndexConfig | None = None,
        on_progress: OnProgress = _in_silence,
    ) -> CompactReport:
        """Join small shards to large ones, and drop the vectors of deleted tracks.

        Beyond `config.max_flat_segments` queries then look at short codes of the likeliest
        segments instead of at all, and compare exactly what they find.

        Parameters
        ----------
        storage : {"full", "codes"}, optional
            Store exact vectors, or codes only: a third of the bytes, and slightly less accurate.
            Unchanged by default, which is "full" at first.
        config : IndexConfig, optional
        on_progress : callable, optional
            Told now and then how many segments are written, and how many there are.

        Returns
        -------
        CompactReport

        Raises
        ------
        StoreError
            `storage` is "full", but the catalog stores codes only.
        ShardError
            A shard is damaged; see :meth:`verify`.
        CatalogBusyError
            Another process is writing.
        """
        from indexer.compact import Compaction

        with self._store.write_lock():
            compaction = Compaction(
                self._store, self._shards, config or IndexConfig(), storage, self._gpu
            )
            return compaction.run(on_progress)

    # -- tracks without their audio -------------------------------------------------------------

    def merge(
        self,
        folder: str | os.PathLike[str],
        *,
        config: IngestConfig | None = None,
        on_progress: OnProgress = _in_silence,
    ) -> TakeoverReport:
        """Take over the tracks of another catalog; its files are not needed.

        Content that is known is skipped, so a run that was interrupted is resumed by repeating it.
        A track whose path another recording has here gets a path of its own. The other catalog is
        only read.

        Parameters
        ----------
        folder : path-like
        config : IngestConfig, optional
            How much waits at most to be committed.
        on_progress : callable, optional
            Told after every track how many are done, and how many there are.

        Returns
        -------
        TakeoverReport
            What was merged, skipped and renamed.

        Raises
        ------
        StoreError
            There is no catalog, or it is this one.
        RecipeMismatchError, ConfigError
            Its fingerprints were made by another encoder, or with another hop.
        CatalogBusyError
            Another process is writing to this catalog.
        """
        with Catalog(folder, create=False) as other:
            if other.folder.samefile(self.folder):
                raise StoreError(f"{other.folder}: a catalog cannot be merged into itself")
            return self._take_over(other._source(), config, on_progress)

    def import_(
        self,
        path: str | os.PathLike[str],
        *,
        config: IngestConfig | None = None,
        on_progress: OnProgress = _in_silence,
    ) -> TakeoverReport:
        """Take over the tracks of a file that :meth:`export` wrote, as :meth:`merge` does.

        Parameters
        ----------
        path : path-like
        config, on_progress
            As in :meth:`merge`.

        Returns
        -------
        TakeoverReport

        Raises
        ------
        ConfigError
            It is no such file, is damaged, of a newer version, or has another hop.
        RecipeMismatchError, CatalogBusyError
        """
        from indexer.archive import ArchiveSource

        with ArchiveSource(Path(path)) as archive:
            return self._take_over(archive, config, on_progress)

    def export(
        self,
        path: str | os.PathLike[str],
        keys: Iterable[int | str] | None = None,
        *,
        on_progress: OnProgress = _in_silence,
    ) -> int:
        """Write fingerprints, tags and metadata to one file, without the audio.

        Parameters
        ----------
        path : path-like
            An earlier export there is replaced, any other file is not.
        keys : iterable of int or str, optional
            Ids or paths of the tracks; all by default.
        on_progress : callable, optional
            Told now and then how many tracks are written, and how many there are.

        Returns
        -------
        int
            How many tracks were written.

        Raises
        ------
        ConfigError
            The file cannot be written, or something else is there.
        TrackNotFoundError
            Names all keys that are not known.
        StoreError
            There is nothing to write.
        """
        from indexer.archive import write_archive

        ids = None if keys is None else [one.id for one in self._store.find(map(_key, keys))]
        source = self._source(ids)
        if not source.n_tracks:
            raise StoreError(f"{self.folder}: there is no track to export")
        return write_archive(Path(path), source, on_progress)

    def _source(self, ids: Collection[int] | None = None) -> CatalogSource:
        from indexer.sources import CatalogSource

        return CatalogSource(f"catalog {self.folder}", self._store, self._shards, ids)

    def _take_over(
        self, source: TrackSource, config: IngestConfig | None, on_progress: OnProgress
    ) -> TakeoverReport:
        from indexer.merge import Takeover

        with self._store.write_lock():
            self._refuse_lost_database()
            takeover = Takeover(self._store, self._shards, config or IngestConfig(), on_progress)
            return takeover.run(source)

    # -- inside ---------------------------------------------------------------------------------

    @cached_property
    def _gpu(self) -> Gpu | None:
        from engine.vectors.gpu import find_gpu

        return find_gpu(self.device)

    @property
    def index(self) -> Index:
        """Where its fingerprints are searched, as the catalog is now."""
        return self._current_index()

    def _current_index(self) -> Index:
        """Open the index, again if some process has changed the catalog since."""
        from engine.vectors.index import Index

        with self._opening:  # of many threads that ask at once one opens, and the others wait
            for n_left in reversed(range(_N_ATTEMPTS)):
                version = self._store.version()
                if self._index is not None and self._index[0] == version:
                    break
                placements = self._store.placements()
                try:
                    index = Index(self._shards, placements, self.recipe_id, self._gpu)
                    self._index = version, index
                    break
                except ShardError:  # a compaction may have moved its tracks to another
                    if not n_left or self._store.version() == version:
                        raise
            assert self._index is not None
            return self._index[1]

    def _note_recipe(self) -> None:
        if "recipe_id" not in self._store.settings():
            import json

            self._refuse_lost_database()
            self._store.put_settings(
                {
                    "recipe_id": self.fingerprinter.recipe_id,
                    "recipe": json.dumps(self.fingerprinter.metadata()),
                    "segment_hop_s": str(IndexConfig().segment_hop_s),
                }
            )

    def _refuse_lost_database(self) -> None:
        """Refuse to begin where there are shards, which would be swept away."""
        is_new = "recipe_id" not in self._store.settings()
        if is_new and self._shards.names():
            raise StoreError(
                f"{self.folder}: its database is empty, but there are shards; "
                "restore the database from a backup, or start in another folder"
            )


def _key(key: int | str) -> int | str:
    """Tracks are known by absolute paths."""
    return key if isinstance(key, int) else os.path.abspath(key)
