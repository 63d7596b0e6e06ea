"""The Catalog: everything astound does with a music library, behind one object."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias

from astound.results import (
    MAX_SIMILAR_TRACKS,
    to_entry,
    to_explanation,
    to_matches,
    to_similar_tracks,
    track_version,
)
from astound.storage import CatalogStorage
from engine.config import (
    MAX_MATCHES,
    QUERY_GAP_S,
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
    SilentAudioError,
    StoreError,
    TrackChangedError,
    TrackFileError,
    TrackNotFoundError,
    printable,
)
from engine.files import require_regular
from engine.records import (
    Candidate,
    Cluster,
    Duplicate,
    Entry,
    Match,
    QueryResult,
    SimilarTrack,
    Stats,
    Timeline,
    Track,
    require_free_keys,
)
from engine.store.jobs import Jobs
from engine.store.keys import Keys
from indexer.report import IngestReport

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from astound.backup import BackupReport
    from engine.audio.source import AudioSource
    from engine.protocol import AudioFingerprinter
    from engine.search.calibration import Calibration
    from engine.search.clips import Clip
    from engine.search.context import SearchContext, Stopwatch
    from engine.search.explainer import Explainer
    from engine.search.explanation import Explanation
    from engine.search.query_fingerprint import QueryFingerprint
    from engine.search.searcher import Searcher
    from engine.vectors.gpu import Gpu
    from engine.vectors.index import Index
    from engine.vectors.quantizer import Storage
    from indexer.compact import CompactReport
    from indexer.merge import MergeReport
    from indexer.repair import RepairReport
    from indexer.sources import TrackSource
    from indexer.verify import Problems

Device = Literal["auto", "cpu", "cuda"]
Source: TypeAlias = "str | os.PathLike[str] | BinaryIO | NDArray[Any]"

OnProgress: TypeAlias = Callable[[int, int], None]
"""Called with the number of items done and in total."""


def _ignore_progress(n_done: int, n_all: int) -> None:
    """Show no progress."""


class Catalog:
    """A searchable music library.

    Parameters
    ----------
    folder : path-like
        The catalog's folder.
    device : {"auto", "cpu", "cuda"}
        Device for encoding, and for training, filling and searching large shards.
    create : bool
        Create the catalog if it does not exist.
    database : str, optional
        SQLAlchemy URL of a Postgres database for a new catalog; a SQLite file in the folder by
        default.
    model : path-like or AudioFingerprinter, optional
        Weights with `calibration.json` beside them, or any object that fingerprints; the shipped
        encoder by default.
    calibration : Calibration, optional
        Converts scores to confidences; needed for queries if `model` is an object.

    Raises
    ------
    StoreError
        The catalog does not exist, cannot be created, or its database cannot be opened.
    ConfigError
        The settings are damaged, or name another database.
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
        self._storage = CatalogStorage.open(self.folder, create=create, database=database)
        self._store, self._shards = self._storage.store, self._storage.shards
        self._fingerprinter: AudioFingerprinter | None = None
        self._loading = threading.Lock()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._storage.close()

    # -- recipe and calibration -----------------------------------------------------------------

    @property
    def fingerprinter(self) -> AudioFingerprinter:
        """The fingerprinter, loaded on first use.

        Raises
        ------
        RecipeMismatchError
            The stored fingerprints were made by another one.
        """
        with self._loading:  # of several threads one loads it, and the others wait
            if self._fingerprinter is None:
                loaded = self._load_fingerprinter()
                self._storage.require_recipe(loaded.recipe_id)
                self._fingerprinter = loaded
            return self._fingerprinter

    def _load_fingerprinter(self) -> AudioFingerprinter:
        if self.model is None or isinstance(self.model, Path):
            from engine.model.fingerprinter import Fingerprinter

            return Fingerprinter.load(self.model, self.device)
        return self.model

    @property
    def recipe_id(self) -> str:
        """Id of the recipe of the fingerprints."""
        return self._storage.recipe_id or self.fingerprinter.recipe_id

    @property
    def segment_hop_s(self) -> float:
        """Distance between the starts of two stored segments, in seconds."""
        return self._storage.segment_hop_s

    @cached_property
    def calibration(self) -> Calibration:
        """The calibration given, else the catalog's own, else that of the model.

        Raises
        ------
        RecipeMismatchError
            It was fitted to fingerprints of another recipe.
        ConfigError
            The model is an object and has no calibration.
        """
        from engine.search.calibration import SHIPPED_CALIBRATION, Calibration

        own = self.folder / SHIPPED_CALIBRATION.name
        if self._calibration is not None:
            calibration = self._calibration
        elif own.is_file():
            calibration = Calibration.load(own)
        elif isinstance(self.model, Path):
            calibration = Calibration.load(self.model.with_name(SHIPPED_CALIBRATION.name))
        else:
            calibration = Calibration.load(SHIPPED_CALIBRATION)
            if self.model is not None and calibration.recipe_id != self.recipe_id:
                reason = "needed for a model that is an object; `astound train` writes one"
                raise ConfigError("calibration", reason)
        self._require_own_recipe(calibration)
        return calibration

    def save_calibration(self, calibration: Calibration) -> None:
        """Store a calibration in the catalog; all later queries use it.

        Parameters
        ----------
        calibration : Calibration
            As fitted by :func:`astound.evaluation.calibrate.calibrate`.

        Raises
        ------
        RecipeMismatchError
            It was fitted to fingerprints of another recipe.
        """
        from engine.search.calibration import SHIPPED_CALIBRATION

        self._require_own_recipe(calibration)
        calibration.save(self.folder / SHIPPED_CALIBRATION.name)
        self.calibration = calibration

    def _require_own_recipe(self, calibration: Calibration) -> None:
        if calibration.recipe_id != self.recipe_id:
            raise RecipeMismatchError(self.recipe_id, calibration.recipe_id, "the calibration")

    @property
    def min_confidence(self) -> float:
        """Calibrated threshold: the default minimum confidence of a match."""
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
        """Add recordings to the catalog.

        Content that is already in the catalog is skipped, so an interrupted run can be resumed by
        repeating it.

        Parameters
        ----------
        paths : path-like, or iterable of path-like
            Files, or folders searched recursively.
        metadata : mapping, optional
            For each path, its title, artist, album, isrc, or any other key that does not begin
            with ``astound:``.
        config : IngestConfig, optional
        on_progress : callable, optional
            Called with the report so far after every file.

        Returns
        -------
        IngestReport
            The files that were added, skipped and failed.

        Raises
        ------
        ConfigError
            A key of the metadata is reserved.
        CatalogBusyError
            Another process is writing.
        """
        from indexer.ingest import Ingest

        sources = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        given = metadata or {}
        require_free_keys(key for values in given.values() for key in values)
        tags = {os.path.realpath(path): values for path, values in given.items()}
        tags |= {os.path.abspath(path): values for path, values in given.items()}
        with self._store.write_lock():
            self._storage.store_recipe(self.fingerprinter)
            ingest = Ingest(
                self._store,
                self._shards,
                self.fingerprinter,
                self.segment_hop_s,
                config or IngestConfig(),
                on_progress,
            )
            return ingest.run(sources, tags)

    # -- query ----------------------------------------------------------------------------------

    def query(  # noqa: PLR0913 - keywords of the public API
        self,
        source: Source,
        sample_rate: int | None = None,
        *,
        start_s: float = 0.0,
        end_s: float | None = None,
        stream: int | None = None,
        name: str | None = None,
        max_s: float | None = None,
        max_matches: int = MAX_MATCHES,
        min_confidence: float | None = None,
        search: SearchConfig | None = None,
        alignment: AlignConfig | None = None,
    ) -> QueryResult:
        """Find which recordings a clip comes from, and where in them.

        Parameters
        ----------
        source : path-like, binary file, or array of shape (n_samples,) or (n_samples, n_channels)
        sample_rate : int, optional
            Hz of an array.
        start_s, end_s : float, optional
            The part of the clip to search for, in seconds.
        stream : int, optional
            Which of a file's sound streams, from 1; the default one by default.
        name : str, optional
            Name of a file in the result and in errors; its path by default.
        max_s : float, optional
            Refuse a clip that goes on behind this time, and decode nothing behind it.
        max_matches : int
            Maximum number of matches.
        min_confidence : float, optional
            In [0, 1]; the calibrated threshold by default.
        search, alignment : SearchConfig, AlignConfig, optional
            With other settings than the calibration was fitted for, the result has a warning.

        Returns
        -------
        QueryResult
            Its status is "match" or "no_match"; its times are those of the whole clip.

        Raises
        ------
        AudioError
            The clip cannot be read, is silent, or is shorter than a segment.
        """
        part = {"start_s": start_s, "end_s": end_s, "stream": stream}
        recording = self._open(source, sample_rate, **part, name=name, max_s=max_s)
        searcher = self.searcher(search, alignment)
        clips = searcher.clips(recording, recording.name)
        with recording.explaining_silence():
            first = list(islice(clips, 2))
            if not first:
                raise SilentAudioError(recording.name, "silent from beginning to end")
        matches = self._matches(searcher, first, clips, start_s, max_matches, min_confidence)
        return QueryResult(
            query=recording.name,
            status="match" if matches else "no_match",
            duration_s=round(recording.duration_s, 3),
            matches=matches,
            warnings=recording.warnings + searcher.warnings,
            timings_ms=searcher.context.stopwatch.timings_ms,
        )

    def query_fingerprint(
        self,
        fingerprint: QueryFingerprint,
        *,
        name: str = "fingerprint",
        max_matches: int = MAX_MATCHES,
        min_confidence: float | None = None,
    ) -> QueryResult:
        """Find which recordings a clip comes from by its fingerprint, without its audio.

        Music at another speed or pitch is not found, and a speed is less precise: that takes the
        audio.

        Parameters
        ----------
        fingerprint : QueryFingerprint
        name : str, optional
            Name of the clip in the result.
        max_matches, min_confidence
            As in :meth:`query`.

        Raises
        ------
        RecipeMismatchError, ConfigError
            The fingerprint cannot be compared with those of this catalog, or is damaged.
        """
        searcher = self.searcher()
        fingerprint.require(self.recipe_id, searcher.query_hop_s)
        clips = fingerprint.to_clips(self.fingerprinter.segment_s, self._fingerprint_dim)
        matches = self._matches(searcher, clips, (), 0.0, max_matches, min_confidence)
        return QueryResult(
            query=name,
            status="match" if matches else "no_match",
            duration_s=round(fingerprint.duration_s, 3),
            matches=matches,
            warnings=searcher.warnings,
            timings_ms=searcher.context.stopwatch.timings_ms,
        )

    def _matches(
        self,
        searcher: Searcher,
        first: list[Clip],
        others: Iterable[Clip],
        start_s: float,
        max_matches: int,
        min_confidence: float | None,
    ) -> tuple[Match, ...]:
        """Search the clips of a query: the first ones, and the others that are read only once."""
        from engine.scan.scanner import Scanner
        from engine.search.passages import ranked

        threshold = self.min_confidence if min_confidence is None else min_confidence
        while True:
            scanner = Scanner(searcher, QUERY_GAP_S, threshold, best_only=False)
            best = ranked(scanner.scan(chain(first, others)))[:max_matches]
            matches = to_matches(best, self._store, start_s)
            if len(matches) == len(best) or len(first) > 1:
                return matches
            # A track has been replaced or deleted meanwhile: query the current catalog.
            context = searcher.context
            searcher = self.searcher(context.search, context.alignment, context.stopwatch)

    @cached_property
    def _fingerprint_dim(self) -> int:
        """Length of an embedding, which no member of a fingerprinter states."""
        import numpy as np

        n_samples = round(2 * self.fingerprinter.segment_s * self.fingerprinter.sample_rate)
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, n_samples).astype(np.float32)
        made = self.fingerprinter.fingerprint([noise], self.segment_hop_s)
        return int(made.embeddings.shape[1])

    def explain(  # noqa: PLR0913 - keywords of the public API
        self,
        source: Source,
        sample_rate: int | None = None,
        *,
        track: int | str | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        stream: int | None = None,
        name: str | None = None,
        max_s: float | None = None,
        search: SearchConfig | None = None,
        alignment: AlignConfig | None = None,
    ) -> Explanation:
        """Explain why a clip did or did not match.

        Parameters
        ----------
        source : path-like, binary file, or array of shape (n_samples,) or (n_samples, n_channels)
        sample_rate : int, optional
            Hz of an array.
        track : int or str, optional
            Id or path of the track to examine, match or not; the best one by default.
        start_s, end_s : float, optional
            The part of the clip to search for, in seconds.
        stream : int, optional
            Which of a file's sound streams, from 1; the default one by default.
        name, max_s : str, float, optional
            As in :meth:`query`.
        search, alignment : SearchConfig, AlignConfig, optional

        Returns
        -------
        Explanation
            Also of a clip that is silent or too short. Its times are those of the whole clip.

        Raises
        ------
        AudioError
            The clip cannot be read.
        TrackNotFoundError
            No track has this id or path.
        """
        from engine.search.explanation import unsearchable

        part = {"start_s": start_s, "end_s": end_s, "stream": stream}
        recording = self._open(source, sample_rate, **part, name=name, max_s=max_s)
        name = recording.name
        track_id = None if track is None else self.track(track).id
        searcher = self.searcher(search, alignment)
        try:
            with recording.explaining_silence():
                clip = searcher.clip(recording, name)
        except (AudioTooShortError, SilentAudioError) as error:
            return unsearchable(name, round(recording.duration_s, 3), error, self.min_confidence)
        explainer = self._explainer(searcher, clip, name)
        return to_explanation(explainer, self._store, track_id, name, start_s)

    def _explainer(self, searcher: Searcher, clip: Clip, name: str) -> Explainer:
        """Answer a query as :meth:`query` does, and keep its other candidates."""
        from engine.scan.scanner import Scanner
        from engine.search.clips import CLIP_S
        from engine.search.explainer import Explainer
        from engine.search.passages import ranked

        found: list[Candidate] = []
        is_short = clip.fingerprint.duration_s <= CLIP_S
        clips = [clip] if is_short else searcher.clips([clip.waveform], name)
        scanner = Scanner(
            searcher, QUERY_GAP_S, self.min_confidence, best_only=False, on_found=found.extend
        )
        return Explainer(searcher, clip, ranked(scanner.scan(clips)), found)

    def searcher(
        self,
        search: SearchConfig | None = None,
        alignment: AlignConfig | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> Searcher:
        """Create a searcher of the current tracks."""
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
        """Join the index of the current tracks with settings."""
        from engine.search.context import SearchContext, Stopwatch

        return SearchContext(
            index=self.index,
            reference_hop_s=self.segment_hop_s,
            search=search or SearchConfig(),
            alignment=alignment or AlignConfig(),
            stopwatch=stopwatch or Stopwatch(),
        )

    def _open(self, source: Any, sample_rate: int | None, **options: Any) -> AudioSource:
        from engine.audio import child

        if isinstance(source, (str, os.PathLike)):
            child.prepare()  # it starts while the fingerprinter and the decoders are imported
        from engine.audio.source import open_source

        rate = self.fingerprinter.sample_rate
        return open_source(source, rate, array_rate=sample_rate, **options)

    # -- long recordings ------------------------------------------------------------------------

    def scan(  # noqa: PLR0913 - keywords of the public API
        self,
        source: Source,
        sample_rate: int | None = None,
        *,
        start_s: float = 0.0,
        end_s: float | None = None,
        stream: int | None = None,
        name: str | None = None,
        min_confidence: float | None = None,
        config: ScanConfig | None = None,
        on_entry: Callable[[Entry], None] = lambda entry: None,
        on_preview: Callable[[list[Entry]], None] | None = None,
        on_progress: Callable[[float], None] = lambda scanned_s: None,
    ) -> Timeline:
        """Write the timeline of a long recording: a mix, a radio hour, a film.

        Parameters
        ----------
        source : path-like, binary file, or array of shape (n_samples,) or (n_samples, n_channels)
        sample_rate : int, optional
            Hz of an array.
        start_s, end_s : float, optional
            The part of the recording to scan, in seconds.
        stream : int, optional
            Which of a file's sound streams, from 1; the default one by default.
        name : str, optional
            Name of a file in the timeline and in errors; its path by default.
        min_confidence : float, optional
            In [0, 1]; `config.min_confidence` by default.
        config : ScanConfig, optional
        on_entry : callable, optional
            Called with each entry some time after it has ended.
        on_preview : callable, optional
            Called every half a minute of audio with all entries that seem to follow those so far.
            This costs about a quarter more time, and changes no entry.
        on_progress : callable, optional
            Called every few seconds of audio with the number of seconds scanned.

        Returns
        -------
        Timeline
            Empty if no track was found; its times are those of the whole recording.

        Raises
        ------
        AudioError
            The recording cannot be read, or the part is shorter than a segment.
        """
        part = {"start_s": start_s, "end_s": end_s, "stream": stream}
        recording = self._open(source, sample_rate, **part, name=name)
        entries = []
        for entry in self.follow(
            recording,
            start_s=start_s,
            min_confidence=min_confidence,
            config=config,
            on_preview=on_preview,
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
            entries=tuple(sorted(entries, key=lambda entry: entry.query_start_s)),
            warnings=recording.warnings,
        )

    def follow(
        self,
        blocks: Iterable[NDArray[np.float32]],
        *,
        start_s: float = 0.0,
        min_confidence: float | None = None,
        config: ScanConfig | None = None,
        on_preview: Callable[[list[Entry]], None] | None = None,
        on_progress: Callable[[float], None] = lambda scanned_s: None,
    ) -> Iterator[Entry]:
        """Scan a stream of any length, and yield each entry some time after it has ended.

        Memory does not grow with the stream. Finds the tracks that are in the catalog at its start.

        Parameters
        ----------
        blocks : iterable of float32 arrays of shape (n_samples,)
            Blocks of any size at the fingerprinter's sample rate, such as a live recording yields.
        start_s : float
            Where in the recording the first block begins.
        min_confidence, config, on_preview, on_progress
            As in :meth:`scan`.

        Yields
        ------
        Entry
            Roughly in the order of their ends.
        """
        from engine.scan.preview import Preview
        from engine.scan.scanner import Scanner
        from engine.search.clips import OVERLAP_S

        config = config or ScanConfig()
        if min_confidence is not None:
            config = replace(config, min_confidence=min_confidence)
        searcher = self.searcher(config.search, config.alignment)
        scanner = Scanner(searcher, config.max_gap_s, config.min_confidence)

        def entries(passages: Iterable[Candidate]) -> list[Entry]:
            return [
                to_entry(passage, track, start_s)
                for passage in passages
                for track in self._store.tracks([passage.track_id])  # none if it was just deleted
            ]

        def show(passages: list[Candidate]) -> None:
            if on_preview is not None:
                is_settled_s = scanner.position_s - OVERLAP_S
                on_preview(entries(one for one in passages if one.query_end_s > is_settled_s))

        if on_preview is not None:
            own = self.searcher(config.search, config.alignment)  # with a stopwatch of its own
            preview = Preview(own, config.max_gap_s, config.min_confidence, show)
            blocks = preview.watch(blocks)
        clips = searcher.clips(self._counted(blocks, on_progress), "array")
        for passage in scanner.scan(clips):
            yield from entries([passage])

    def _counted(
        self, blocks: Iterable[NDArray[np.float32]], on_progress: Callable[[float], None]
    ) -> Iterator[NDArray[np.float32]]:
        """Yield blocks, and report the seconds received so far."""
        n_samples = 0
        for block in blocks:
            yield block
            n_samples += len(block)
            on_progress(n_samples / self.fingerprinter.sample_rate)

    # -- comparisons ----------------------------------------------------------------------------

    def similar(
        self,
        source: int | Source,
        sample_rate: int | None = None,
        *,
        max_tracks: int = MAX_SIMILAR_TRACKS,
    ) -> list[SimilarTrack]:
        """Find the tracks that sound most like a recording, by their clip-level embeddings.

        The list is never empty, so check the clip scores: pairs of unrelated tracks reach 0.56, and
        the best of hundreds of them 0.74; see docs/cli.md#similar.

        Parameters
        ----------
        source : int, path-like, or array of shape (n_samples,) or (n_samples, n_channels)
            Id or path of a track, which is left out of the list; or any other file.
        sample_rate : int, optional
            Hz of an array.
        max_tracks : int
            Maximum number of tracks.

        Returns
        -------
        list of SimilarTrack
            Most similar first.

        Raises
        ------
        TrackNotFoundError
            No track has this id.
        AudioError
            The file cannot be read, is silent, or is shorter than a segment.
        """
        from engine.compare.similar import ClipIndex

        own_id = self._own_id(source)
        index = self.index
        if own_id is not None:
            name, clips = f"track {own_id}", index.clips(own_id)
        else:
            recording = self._open(source, sample_rate)
            name = recording.name
            with recording.explaining_silence():
                fingerprint = self.fingerprinter.fingerprint(recording, self.segment_hop_s, name)
            clips = fingerprint.clip_embeddings
        others = [track_id for track_id in index.track_ids if track_id != own_id]
        scores = ClipIndex(others, index.clips).scores(clips, name)
        ranked = sorted(zip(others, scores.tolist(), strict=True), key=lambda pair: -pair[1])
        return to_similar_tracks(ranked[:max_tracks], self._store)

    def dedup(
        self, config: DedupConfig | None = None, *, on_progress: OnProgress = _ignore_progress
    ) -> tuple[list[Duplicate], list[Cluster]]:
        """Find the tracks that contain the same recording, without any audio.

        Parameters
        ----------
        config : DedupConfig, optional
        on_progress : callable, optional
            Called after each track with the number of tracks done and in total.

        Returns
        -------
        duplicates : list of Duplicate
            Pairs of tracks, in full or in part, in order of their ids.
        clusters : list of Cluster
            Groups of full duplicates, with the one to keep and why.
        """
        from engine.compare.clusters import Copy, clusters
        from engine.compare.duplicates import DuplicateFinder

        index = self.index
        durations_s = {track.id: track.duration_s for track in self._store.tracks(index.track_ids)}
        finder = DuplicateFinder(
            index=index.among(durations_s),
            segment_hop_s=self.segment_hop_s,
            segment_s=self.fingerprinter.segment_s,
            durations_s=durations_s,
            config=config or DedupConfig(),
        )
        found = finder.find(on_progress)
        duplicates = sorted(found, key=lambda pair: (pair.first_id, pair.second_id))
        audible_s = finder.audible_s(duplicates)
        tracks = self._store.new_tracks(list(audible_s))
        copies = {i: Copy.of(track, audible_s[i]) for i, track in tracks.items()}
        return duplicates, clusters(duplicates, copies)

    def _own_id(self, source: int | Source) -> int | None:
        """Return the id of the track that a source is; None if it is another recording."""
        if not isinstance(source, (int, str, os.PathLike)):
            return None
        try:
            key = source if isinstance(source, int) else os.fspath(source)
            return self._storage.find([key])[0].id
        except TrackNotFoundError:
            if isinstance(source, int):
                raise
            return None

    # -- tracks ---------------------------------------------------------------------------------

    def tracks(
        self, search: str = "", *, after_id: int = 0, max_tracks: int | None = None
    ) -> list[Track]:
        """Return all tracks, or some of them, in order of their ids.

        Parameters
        ----------
        search : str
            Words that all occur in the title, artist, album or path, in upper or lower case.
        after_id : int
            Leave out the tracks up to this id: that of the last one returned before.
        max_tracks : int, optional
            Maximum number of tracks.
        """
        if not search and not after_id and max_tracks is None:
            return self._store.tracks()
        return self._store.page(search.split(), after_id, max_tracks)

    def track(self, key: int | str) -> Track:
        """Return a track by id or path; TrackNotFoundError if none.

        Links do not matter: it is found by any path that leads to its file.
        """
        return self._storage.find([key])[0]

    def taken_paths(self, paths: Sequence[str]) -> set[str]:
        """Return those of some absolute paths that tracks have."""
        return self._store.taken_paths(paths)

    def audio_file(self, key: int | str) -> Path:
        """Return the file of a track if it still is what was added.

        Raises
        ------
        TrackNotFoundError
            No track has this id or path.
        TrackFileError
            It is gone, cannot be read, or has changed since it was added.
        """
        track_id = self.track(key).id
        noted = self._store.new_tracks([track_id]).get(track_id)
        if noted is None:  # removed meanwhile
            raise TrackNotFoundError(key)
        path = Path(noted.path)
        try:
            require_regular(path)
            with open(path, "rb") as file:
                found = os.fstat(file.fileno())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise TrackFileError(track_id, path, reason) from error
        if (found.st_size, found.st_mtime_ns) != (noted.n_bytes, noted.modified_ns):
            reason = "has changed since it was added; `astound add` it again"
            raise TrackFileError(track_id, path, reason)
        return path

    def delete(self, keys: Iterable[int | str], *, expected: Iterable[Track] = ()) -> list[Track]:
        """Remove tracks, by id or path; removes none if one of them does not exist.

        Parameters
        ----------
        keys : iterable of int or str
        expected : iterable of Track
            Those of them that must still be as they are here.

        Returns
        -------
        list of Track
            The removed tracks.

        Raises
        ------
        TrackNotFoundError
            Lists all ids and paths that do not exist.
        TrackChangedError
            One of `expected` has been changed.
        """
        with self._store.write_lock():
            tracks = self._storage.find(keys)
            self._require_unchanged(expected)
            self._store.delete(track.id for track in tracks)
        return tracks

    def update(self, key: int | str, *, expected: Track | None = None, **changes: Any) -> Track:
        """Change the tags and metadata of a track.

        Parameters
        ----------
        key : int or str
            Id or path.
        expected : Track, optional
            The track must still be as it is here.
        changes
            title, artist, album, isrc, path, or metadata (a mapping; an empty value removes a key).

        Raises
        ------
        TrackNotFoundError
        TrackChangedError
            It is not as `expected`.
        """
        with self._store.write_lock():
            track_id = self._storage.find([key])[0].id
            self._require_unchanged([expected] if expected else [])
            if changes.get("path"):
                changes["path"] = os.path.abspath(changes["path"])
            self._store.update(track_id, **changes)
        return self._store.track(track_id)

    def _require_unchanged(self, expected: Iterable[Track]) -> None:
        for track in expected:
            if track_version(self._store.track(track.id)) != track_version(track):
                raise TrackChangedError(track.id)

    def stats(self) -> Stats:
        """Count tracks, seconds, segments and bytes."""
        return self._store.stats()

    @property
    def keys(self) -> Keys:
        """The keys of the service; without any, only this machine is served."""
        return self._store.keys

    @property
    def jobs(self) -> Jobs:
        """The jobs of the service."""
        return self._store.jobs

    # -- maintenance ----------------------------------------------------------------------------

    def verify(self, *, on_progress: OnProgress = _ignore_progress) -> list[str]:
        """Check every shard against the database and its own hashes.

        Parameters
        ----------
        on_progress : callable, optional
            Called after every shard with the number of shards done and in total.

        Returns
        -------
        list of str
            One line for each problem.
        """
        return self._check_shards(on_progress).messages

    def notices(self) -> list[str]:
        """Describe what :meth:`verify` does not count as a problem.

        Returns
        -------
        list of str
            One line for each shard that the database does not name, and for each track whose
            file is gone.
        """
        from indexer.lost import find_lost

        gone = [
            f"track {track.id}: file {printable(track.path)} is gone"
            for track in self._store.tracks()
            if not os.path.lexists(track.path)
        ]
        return [*map(str, find_lost(self._store, self._shards)), *gone]

    def repair(
        self, *, config: IngestConfig | None = None, on_progress: OnProgress = _ignore_progress
    ) -> RepairReport:
        """Repair the problems that :meth:`verify` finds.

        Tracks in a damaged shard are fingerprinted again from their files and keep their ids; a
        track whose file is missing or has changed is removed. All other tracks stay as they are.
        Tracks that are only in a shard that the database does not name are restored from it, unless
        the database is intact and has other tracks of that shard: then they were deleted.

        Parameters
        ----------
        config : IngestConfig, optional
        on_progress : callable, optional
            Called with the number of items done and in total, after every shard that is checked
            and then after every track that is fingerprinted.

        Returns
        -------
        RepairReport
            The problems, the tracks that were repaired, restored and removed, and the problems
            that remain.

        Raises
        ------
        StoreError
            The folder of shards is missing.
        """
        from indexer.lost import require_folder
        from indexer.repair import Repair

        with self._store.write_lock():
            require_folder(self._store, self._shards)
            problems = self._check_shards(on_progress)
            repair = Repair(
                self._store, self._shards, self.segment_hop_s, config or IngestConfig(), on_progress
            )
            report = repair.run(problems, lambda: self.fingerprinter)
            if report.problems:
                report.remaining = self._check_shards(on_progress).messages
            return report

    def _check_shards(self, on_progress: OnProgress) -> Problems:
        from indexer.verify import check_shards

        return check_shards(self._store, self._shards, self.recipe_id, on_progress)

    def compact(
        self,
        storage: Storage | None = None,
        *,
        config: IndexConfig | None = None,
        on_progress: OnProgress = _ignore_progress,
    ) -> CompactReport:
        """Merge small shards into large ones, and drop the vectors of deleted tracks.

        With more than `config.max_flat_segments` segments, queries then search an inverted index
        of short codes (IVF-PQ) and compare what they find exactly.

        Parameters
        ----------
        storage : {"full", "codes"}, optional
            Store exact vectors, or codes only: a third of the bytes, and slightly less accurate.
            Unchanged by default, which is "full" at first.
        config : IndexConfig, optional
        on_progress : callable, optional
            Called with the number of segments written and in total.

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

    def backup(
        self,
        folder: str | os.PathLike[str],
        *,
        on_progress: OnProgress = _ignore_progress,
    ) -> BackupReport:
        """Copy the catalog as it is at one moment, while others may use and change it.

        The copy is a catalog. Of the files of tracks, it has those that were uploaded to a service.

        Parameters
        ----------
        folder : path-like
            A new or empty folder, or an earlier backup of this catalog, which is brought up to
            date.
        on_progress : callable, optional
            Called with the number of shards copied and in total.

        Returns
        -------
        BackupReport

        Raises
        ------
        ConfigError
            The folder contains something else.
        StoreError
            The database is on a server, a shard is missing, or the copy cannot be written.
        CatalogBusyError
            Another backup writes to the folder.
        """
        from astound.backup import Backup

        return Backup(self._storage, Path(folder), on_progress).run()

    # -- exchange without audio -----------------------------------------------------------------

    def merge(
        self,
        folder: str | os.PathLike[str],
        *,
        config: IngestConfig | None = None,
        on_progress: OnProgress = _ignore_progress,
    ) -> MergeReport:
        """Copy the tracks of another catalog into this one, without their audio.

        Content that is already in this catalog is skipped, so an interrupted run can be resumed by
        repeating it. A track whose path belongs to another recording here gets a new path. The
        other catalog is only read.

        Parameters
        ----------
        folder : path-like
        config : IngestConfig, optional
            Bounds what is held in memory before a commit.
        on_progress : callable, optional
            Called after every track with the number of tracks done and in total.

        Returns
        -------
        MergeReport
            The tracks that were merged, skipped and renamed.

        Raises
        ------
        StoreError
            The folder contains no catalog, or is this one.
        RecipeMismatchError, ConfigError
            Its fingerprints have another recipe or another hop.
        CatalogBusyError
            Another process is writing to this catalog.
        """
        with Catalog(folder, create=False) as other:
            if other.folder.samefile(self.folder):
                raise StoreError(f"{other.folder}: cannot merge a catalog into itself")
            return self._merge(other._storage.source(), config, on_progress)

    def import_(
        self,
        path: str | os.PathLike[str],
        *,
        config: IngestConfig | None = None,
        on_progress: OnProgress = _ignore_progress,
    ) -> MergeReport:
        """Copy the tracks of a file written by :meth:`export` into this catalog.

        Parameters
        ----------
        path : path-like
        config, on_progress
            As in :meth:`merge`.

        Returns
        -------
        MergeReport

        Raises
        ------
        ConfigError
            The file is no export, is damaged, has a newer format, or another hop.
        RecipeMismatchError, CatalogBusyError
        """
        from indexer.archive import ArchiveSource

        with ArchiveSource(Path(path)) as archive:
            return self._merge(archive, config, on_progress)

    def export(
        self,
        path: str | os.PathLike[str],
        keys: Iterable[int | str] | None = None,
        *,
        on_progress: OnProgress = _ignore_progress,
    ) -> int:
        """Write fingerprints and metadata to one file, without the audio.

        Parameters
        ----------
        path : path-like
            An existing export is replaced, any other file is not.
        keys : iterable of int or str, optional
            Ids or paths of the tracks; all by default.
        on_progress : callable, optional
            Called with the number of tracks written and in total.

        Returns
        -------
        int
            Number of tracks written.

        Raises
        ------
        ConfigError
            The file cannot be written, or exists and is no export.
        TrackNotFoundError
            Lists all ids and paths that do not exist.
        StoreError
            There is no track to write.
        """
        from indexer.archive import write_archive

        ids = None if keys is None else [track.id for track in self._storage.find(keys)]
        source = self._storage.source(ids)
        if not source.n_tracks:
            raise StoreError(f"{self.folder}: no track to export")
        return write_archive(Path(path), source, on_progress)

    def _merge(
        self, source: TrackSource, config: IngestConfig | None, on_progress: OnProgress
    ) -> MergeReport:
        from indexer.merge import Merge

        with self._store.write_lock():
            self._storage.require_database()
            merge = Merge(self._store, self._shards, config or IngestConfig(), on_progress)
            return merge.run(source)

    # -- index ----------------------------------------------------------------------------------

    @property
    def index(self) -> Index:
        """Index of the current tracks; opened again if a process has changed them."""
        return self._storage.current_index(self.recipe_id, self._gpu)

    @cached_property
    def _gpu(self) -> Gpu | None:
        from engine.vectors.gpu import find_gpu

        return find_gpu(self.device)
