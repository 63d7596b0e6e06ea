"""Ingest files: discover, skip known content, decode, fingerprint, commit."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from engine.audio.source import AudioSource
from engine.config import IngestConfig
from engine.errors import AstoundError, AudioError
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
        known = self._store.known_files()
        fresh = [file for file in self._discover(paths) if not self._skip_untouched(file, known)]
        self._replaceable = {file.path for file in fresh if file.path in known}
        try:
            self._ingest_all(fresh, metadata)
        finally:  # after Ctrl-C too, so that nothing done is lost
            self._commit()
        self._on_progress(self._report)
        return self._report

    def _ingest_all(self, files: Sequence[FoundFile], metadata: Metadata) -> None:
        added: set[str] = set()

        def is_wanted(content: Content) -> bool:
            is_new = content.content_hash not in added
            return is_new and self._store.id_by_hash(*content.hashes) is None

        rate = self._fingerprinter.sample_rate
        with DecoderPool(files, rate, self._config.n_jobs, is_wanted) as recordings:
            for file, recording in zip(files, recordings, strict=True):
                if isinstance(recording, AudioError):
                    self._fail(file, recording)
                elif recording.blocks is None or recording.content.content_hash in added:
                    self._skip_known(recording)
                elif self._add(recording, _metadata_of(file, metadata)):
                    added.add(recording.content.content_hash)
                self._finish(file)

    def _discover(self, paths: Iterable[str | os.PathLike[str]]) -> list[FoundFile]:
        files: list[FoundFile] = []
        for found in discover(paths):
            if isinstance(found, Failure):
                self._report.failed.append(found)
            else:
                files.append(found)
        self._report.n_files = len(files) + len(self._report.failed)
        self._report.n_bytes = sum(file.n_bytes for file in files)
        return files

    def _skip_untouched(self, file: FoundFile, known: Mapping[str, tuple[int, int, int]]) -> bool:
        track_id, *stored = known.get(file.path, (None,))
        untouched = stored == [file.n_bytes, file.modified_ns]
        if untouched:
            self._report.skipped.append(Skipped(file.path, track_id))
            self._report.n_bytes_done += file.n_bytes
        return untouched

    def _skip_known(self, recording: Recording) -> None:
        with suppress(AudioError):
            for _ in recording.blocks or ():
                pass
        track_id = self._store.id_by_hash(*recording.content.hashes)
        if track_id is not None:
            self._update_file(recording, track_id)
        self._report.skipped.append(Skipped(recording.file.path, track_id))

    def _update_file(self, recording: Recording, track_id: int) -> None:
        """Store the new path, time and tags of a known file that was moved, touched or tagged."""
        file = recording.file
        known_path = self._store.track(track_id).path
        moved = file.path not in self._replaceable and not Path(known_path).exists()
        if moved or known_path == file.path:
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
        replaced = self._store.track(file.path).id if file.path in self._replaceable else None
        self._writer.add(fingerprint, track, replaced)
        self._report.audio_s += fingerprint.duration_s
        return True

    def _fail(self, file: FoundFile, error: AstoundError) -> None:
        reason = error.reason if isinstance(error, AudioError) else str(error)
        self._report.failed.append(Failure(file.path, reason))

    def _finish(self, file: FoundFile) -> None:
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
