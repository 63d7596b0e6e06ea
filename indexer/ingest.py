"""Ingest files: discover, skip known content, decode, fingerprint, commit."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict

from engine.audio.source import AudioSource
from engine.config import IngestConfig
from engine.errors import AstoundError, AudioError, TrackNotFoundError
from engine.protocol import AudioFingerprinter
from engine.records import (
    CUT_OFF_KEY,
    SOUND_KEY,
    Content,
    Fingerprint,
    NewTrack,
    user_tags_entry,
)
from engine.store.store import Store
from engine.vectors.storage import ShardStorage
from indexer.decoder_pool import DecoderPool, Recording
from indexer.discover import FoundFile, discover
from indexer.lost import set_aside
from indexer.report import Added, Failure, IngestReport, Skipped, Warned
from indexer.shard_writer import ShardWriter

Metadata = Mapping[str, Mapping[str, str]]
"""Tags by name, and any other keys as free metadata, by absolute path."""

OnProgress = Callable[[IngestReport], None]


class Ingest:
    """One ingest of some paths; the caller holds the write lock.

    Parameters
    ----------
    store : Store
    shards : ShardStorage
    fingerprinter : AudioFingerprinter
    segment_hop_s : float
    config : IngestConfig
    on_progress : callable
        Called after every file with the report so far.
    """

    def __init__(
        self,
        store: Store,
        shards: ShardStorage,
        fingerprinter: AudioFingerprinter,
        segment_hop_s: float,
        config: IngestConfig,
        on_progress: OnProgress,
    ) -> None:
        self._store, self._fingerprinter, self._hop_s = store, fingerprinter, segment_hop_s
        self._config, self._on_progress = config, on_progress
        self._writer = ShardWriter(store, shards, config)
        self._report = IngestReport()
        self._added: set[str] = set()
        self._known: dict[str, tuple[int, int, int]] = {}
        self._inspected: dict[str, Recording] = {}
        self._began = time.monotonic()
        set_aside(store, shards)

    def run(self, paths: Iterable[str | os.PathLike[str]], metadata: Metadata) -> IngestReport:
        """Ingest all files; an error of one file does not stop the others.

        Parameters
        ----------
        paths : iterable of path-like
        metadata : Metadata

        Returns
        -------
        IngestReport
        """
        self._known = self._store.known_files()
        fresh = [file for file in self._discover(paths) if not self._skip_untouched(file)]
        changed = self._skip_own([file for file in fresh if file.path in self._known])
        try:
            # First the files under new paths: one may be where a file went that another replaced.
            self._ingest_all([file for file in fresh if file.path not in self._known], metadata)
            self._move_among(changed)
            self._ingest_all(changed, metadata)
        finally:  # after Ctrl-C too, so that nothing done is lost
            self._commit()
        self._on_progress(self._report)
        return self._report

    def _ingest_all(self, files: Sequence[FoundFile], metadata: Metadata) -> None:
        def is_wanted(content: Content) -> bool:
            is_new = content.content_hash not in self._added
            return is_new and self._store.id_by_hash(*content.hashes) is None

        rate = self._fingerprinter.sample_rate
        with DecoderPool(files, rate, self._config.n_jobs, is_wanted) as recordings:
            for file, recording in zip(files, recordings, strict=True):
                if isinstance(recording, AudioError):
                    self._fail(file, recording)
                elif recording.blocks is None or recording.content.content_hash in self._added:
                    self._skip_known(recording)
                elif self._add(recording, _metadata_of(file, metadata)):
                    self._added.add(recording.content.content_hash)
                self._finish(file)

    def _discover(self, paths: Iterable[str | os.PathLike[str]]) -> list[FoundFile]:
        files: list[FoundFile] = []
        for found in discover(paths):
            if isinstance(found, Failure):
                self._report.failed.append(found)
            else:
                files.append(found)
        self._report.n_files_done = len(self._report.failed)
        self._report.n_files = len(files) + len(self._report.failed)
        self._report.n_bytes = sum(file.n_bytes for file in files)
        return files

    def _skip_untouched(self, file: FoundFile) -> bool:
        track_id, *stored = self._known.get(file.path, (None,))
        untouched = stored == [file.n_bytes, file.modified_ns]
        if untouched:
            self._report.skipped.append(Skipped(file.path, track_id))
            self._report.n_files_done += 1
            self._report.n_bytes_done += file.n_bytes
        return untouched

    def _skip_known(self, recording: Recording) -> None:
        with suppress(AudioError):
            for _ in recording.blocks or ():
                pass
        track_id = self._known_id(recording)
        if track_id is not None:
            self._update_file(recording, track_id)
        self._report.skipped.append(Skipped(recording.file.path, track_id))

    def _update_file(self, recording: Recording, track_id: int) -> None:
        """Store the new path, time and tags of a known file that was moved, touched or tagged."""
        file = recording.file
        is_own = self._store.track(track_id).path == file.path
        if is_own or (file.path not in self._known and self._has_left(track_id)):
            self._store.update_file(
                track_id,
                path=file.path,
                n_bytes=file.n_bytes,
                modified_ns=file.modified_ns,
                content_hash=recording.content.content_hash,
                tags=recording.tags,
            )

    def _add(self, recording: Recording, metadata: Mapping[str, str]) -> bool:
        """Fingerprint a recording and return whether that succeeded."""
        assert recording.blocks is not None
        file, rate = recording.file, self._fingerprinter.sample_rate
        source = AudioSource(file.path, recording.blocks, rate, report=recording.report)
        try:
            with source.explaining_silence():
                fingerprint = self._fingerprinter.fingerprint(source, self._hop_s, file.path)
        except AstoundError as error:
            self._fail(file, error)
            return False
        self._report.warned += [Warned(file.path, warning) for warning in source.warnings]
        track = _new_track(recording, fingerprint, metadata)
        self._writer.add(fingerprint, track, self._owner(file))
        self._report.audio_s += fingerprint.duration_s
        return True

    # -- files that have other sound now, or that were moved ------------------------------------

    def _skip_own(self, files: Sequence[FoundFile]) -> list[FoundFile]:
        """Skip those files of tracks that were only touched or tagged; return the others."""
        left = []
        for file, recording in zip(files, self._inspect(files), strict=True):
            if recording and self._known_id(recording) == self._owner(file):
                self._skip_known(recording)
                self._finish(file)
            else:
                left.append(file)
        return left

    def _inspect(self, files: Sequence[FoundFile]) -> list[Recording | None]:
        """Read what identifies files, but not their sound; None for one that cannot be read."""
        rate = self._fingerprinter.sample_rate
        with DecoderPool(files, rate, self._config.n_jobs, lambda content: False) as pool:
            found = [one if isinstance(one, Recording) else None for one in pool]
        self._inspected |= {one.file.path: one for one in found if one}
        return found

    def _move_among(self, files: Sequence[FoundFile]) -> None:
        """Move tracks to those of some files that have their sound now, in place of others."""
        moved: dict[int, FoundFile] = {}
        for file in files:
            recording = self._inspected.get(file.path)
            track_id = self._known_id(recording) if recording else None
            if track_id is not None and track_id not in moved and self._has_left(track_id):
                moved[track_id] = file
        owners = (self._owner(file) for file in moved.values())
        replaced = {owner for owner in owners if owner is not None} - moved.keys()
        if moved:
            paths = {track_id: file.path for track_id, file in moved.items()}
            self._store.move_files(paths, replacing=replaced)

    def _has_left(self, track_id: int) -> bool:
        """Decide whether the file of a track is gone, or has other sound now."""
        path = self._store.track(track_id).path
        if not os.path.isfile(path):
            return True
        if path not in self._inspected:
            file, stored = next(iter(discover([path]))), self._known.get(path)
            if isinstance(file, Failure) or stored is None:  # unreadable, or added by this run
                return False
            if stored[1:] == (file.n_bytes, file.modified_ns):
                return False
            self._inspect([file])
        now = self._inspected.get(path)
        return now is not None and self._known_id(now) != track_id

    def _known_id(self, recording: Recording) -> int | None:
        return self._store.id_by_hash(*recording.content.hashes)

    def _owner(self, file: FoundFile) -> int | None:
        """Return the id of the track that has the path of a file, or None."""
        if file.path not in self._known:
            return None
        try:
            return self._store.track(file.path).id
        except TrackNotFoundError:  # it was moved
            return None

    def _fail(self, file: FoundFile, error: AstoundError) -> None:
        reason = error.reason if isinstance(error, AudioError) else str(error)
        self._report.failed.append(Failure(file.path, reason))

    def _finish(self, file: FoundFile) -> None:
        self._report.n_files_done += 1
        self._report.n_bytes_done += file.n_bytes
        self._report.elapsed_s = time.monotonic() - self._began
        if self._writer.is_due:
            self._commit()
        self._on_progress(self._report)

    def _commit(self) -> None:
        self._report.added += [Added(path, track_id) for path, track_id in self._writer.commit()]
        self._report.elapsed_s = time.monotonic() - self._began


def _metadata_of(file: FoundFile, metadata: Metadata) -> Mapping[str, str]:
    """Return what is given for a file, by the path it has or the one that its links lead to."""
    return metadata.get(file.path) or metadata.get(os.path.realpath(file.path)) or {}


def _new_track(
    recording: Recording, fingerprint: Fingerprint, metadata: Mapping[str, str]
) -> NewTrack:
    noted = {CUT_OFF_KEY: recording.report.cut_off} if recording.report.cut_off else {}
    if recording.content.sound:
        noted[SOUND_KEY] = json.dumps(asdict(recording.content.sound))
    tags = {name: metadata.get(name) or tag for name, tag in vars(recording.tags).items()}
    noted |= user_tags_entry(name for name in tags if metadata.get(name))
    return NewTrack(
        path=recording.file.path,
        content_hash=recording.content.content_hash,
        n_bytes=recording.file.n_bytes,
        modified_ns=recording.file.modified_ns,
        duration_s=fingerprint.duration_s,
        n_segments=len(fingerprint.embeddings),
        n_clips=len(fingerprint.clip_embeddings),
        tags=type(recording.tags)(**tags),
        metadata={key: value for key, value in metadata.items() if key not in tags} | noted,
    )
