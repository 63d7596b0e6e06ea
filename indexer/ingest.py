"""From paths to tracks: scan, skip what is known, decode, fingerprint, commit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from engine.config import IngestConfig
from engine.errors import AstoundError, AudioError
from engine.protocol import AudioFingerprinter
from engine.records import Fingerprint, NewTrack
from engine.store.store import Store
from engine.vectors.storage import ShardStorage
from indexer.decoder_pool import Lanes, Recording
from indexer.discover import FoundFile, scan
from indexer.report import Added, Failure, IngestReport, Skipped
from indexer.shard_writer import ShardWriter

Metadata = Mapping[str, Mapping[str, str]]
"""For each absolute path, what to note about it: tags by name, anything else as free metadata."""

OnProgress = Callable[[IngestReport], None]


class Ingest:
    """One run over some paths; the caller holds the catalog's write lock.

    Parameters
    ----------
    store : Store
    shards : ShardStorage
    fingerprinter : AudioFingerprinter
    segment_hop_s : float
    config : IngestConfig
    on_progress : callable
        Told the report so far after every file.
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
        shards.sweep(store.shard_names())

    def run(self, paths: Iterable[str | os.PathLike[str]], metadata: Metadata) -> IngestReport:
        """Ingest paths; what one file suffers never stops the others.

        Parameters
        ----------
        paths : iterable of path-like
        metadata : Metadata

        Returns
        -------
        IngestReport
        """
        known = self._store.known_files()
        fresh = [file for file in self._found(paths) if not self._skip_untouched(file, known)]
        self._replaceable = {file.path for file in fresh if file.path in known}
        try:
            self._take_all(fresh, metadata)
        finally:  # after Ctrl-C too: what is done is kept
            self._commit()
        self._on_progress(self._report)
        return self._report

    def _take_all(self, files: Sequence[FoundFile], metadata: Metadata) -> None:
        seen: set[str] = set()

        def wanted(content_hash: str) -> bool:
            return content_hash not in seen and self._store.id_by_hash(content_hash) is None

        rate = self._fingerprinter.sample_rate
        with Lanes(files, rate, self._config.n_jobs, wanted) as lanes:
            for file, recording in zip(files, lanes, strict=True):
                if isinstance(recording, AudioError):
                    self._fail(file, recording)
                elif recording.blocks is None or recording.content_hash in seen:
                    self._skip_known(recording)
                elif self._take(recording, metadata.get(file.path, {})):
                    seen.add(recording.content_hash)
                self._tick(file)

    def _found(self, paths: Iterable[str | os.PathLike[str]]) -> list[FoundFile]:
        files: list[FoundFile] = []
        for found in scan(paths):
            if isinstance(found, Failure):
                self._report.failed.append(found)
            else:
                files.append(found)
        self._report.n_files = len(files) + len(self._report.failed)
        self._report.n_bytes = sum(file.n_bytes for file in files)
        return files

    def _skip_untouched(self, file: FoundFile, known: Mapping[str, tuple[int, int, int]]) -> bool:
        track_id, *noted = known.get(file.path, (None,))
        untouched = noted == [file.n_bytes, file.modified_ns]
        if untouched:
            self._report.skipped.append(Skipped(file.path, track_id))
            self._report.n_bytes_done += file.n_bytes
        return untouched

    def _skip_known(self, recording: Recording) -> None:
        with suppress(AudioError):
            for _ in recording.blocks or ():
                pass
        file = recording.file
        track_id = self._store.id_by_hash(recording.content_hash)
        if track_id is not None:
            self._note_place(file, track_id)
        self._report.skipped.append(Skipped(file.path, track_id))

    def _note_place(self, file: FoundFile, track_id: int) -> None:
        """Remember where known content lies now, if it was moved or only touched."""
        known_path = self._store.track(track_id).path
        moved = file.path not in self._replaceable and not Path(known_path).exists()
        if moved or known_path == file.path:
            self._store.note_file(
                track_id, path=file.path, n_bytes=file.n_bytes, modified_ns=file.modified_ns
            )

    def _take(self, recording: Recording, noted: Mapping[str, str]) -> bool:
        """Fingerprint a recording; False where that fails."""
        assert recording.blocks is not None
        file = recording.file
        try:
            fingerprint = self._fingerprinter.fingerprint(recording.blocks, self._hop_s, file.path)
        except AstoundError as error:
            self._fail(file, error)
            return False
        track = _new_track(recording, fingerprint, noted)
        replaced = self._store.track(file.path).id if file.path in self._replaceable else None
        self._writer.add(fingerprint, track, replaced)
        self._report.audio_s += fingerprint.duration_s
        return True

    def _fail(self, file: FoundFile, error: AstoundError) -> None:
        reason = error.reason if isinstance(error, AudioError) else str(error)
        self._report.failed.append(Failure(file.path, reason))

    def _tick(self, file: FoundFile) -> None:
        self._report.n_bytes_done += file.n_bytes
        self._report.elapsed_s = time.monotonic() - self._began
        if self._writer.due:
            self._commit()
        self._on_progress(self._report)

    def _commit(self) -> None:
        self._report.added += [Added(path, track_id) for path, track_id in self._writer.commit()]
        self._report.elapsed_s = time.monotonic() - self._began


def _new_track(
    recording: Recording, fingerprint: Fingerprint, noted: Mapping[str, str]
) -> NewTrack:
    tags = {name: noted.get(name) or tag for name, tag in vars(recording.tags).items()}
    return NewTrack(
        path=recording.file.path,
        content_hash=recording.content_hash,
        n_bytes=recording.file.n_bytes,
        modified_ns=recording.file.modified_ns,
        duration_s=fingerprint.duration_s,
        n_segments=len(fingerprint.embeddings),
        n_clips=len(fingerprint.clip_embeddings),
        tags=type(recording.tags)(**tags),
        metadata={key: value for key, value in noted.items() if key not in tags},
    )
