"""Repair a damaged catalog: fingerprint files again, and delete tracks whose files are gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from engine.audio.decode import Waveform
from engine.config import IngestConfig
from engine.errors import AstoundError, AudioError
from engine.protocol import AudioFingerprinter
from engine.records import Fingerprint, NewTrack, Track
from engine.store.store import Store
from engine.vectors.shard import write_shard
from engine.vectors.storage import ShardStorage
from indexer.decoder_pool import DecoderPool, Recording
from indexer.discover import FoundFile, discover
from indexer.verify import Problems


@dataclass(frozen=True)
class RemovedTrack:
    """A deleted track, and why it could not be fingerprinted again."""

    track: Track
    reason: str


@dataclass
class RepairReport:
    """What a repair found and did.

    Parameters
    ----------
    problems : list of str
        What was wrong, one line each.
    swept : list of str
        Names of deleted shards that were left from a crash.
    repaired : list of Track
        Tracks that were fingerprinted again; their ids are unchanged.
    removed : list of RemovedTrack
    """

    problems: list[str] = field(default_factory=list)
    swept: list[str] = field(default_factory=list)
    repaired: list[Track] = field(default_factory=list)
    removed: list[RemovedTrack] = field(default_factory=list)


class Repair:
    """One repair of a catalog; the caller holds the write lock.

    Parameters
    ----------
    store : Store
    shards : ShardStorage
    segment_hop_s : float
    config : IngestConfig
    on_progress : callable
        Called after every track with the number of tracks done and in total.
    """

    def __init__(
        self,
        store: Store,
        shards: ShardStorage,
        segment_hop_s: float,
        config: IngestConfig,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._store, self._shards, self._hop_s = store, shards, segment_hop_s
        self._config, self._on_progress = config, on_progress
        self._pending: list[tuple[int, Fingerprint]] = []
        self._reasons: dict[int, str] = {}
        self._committed_at = time.monotonic()

    def run(
        self, problems: Problems, fingerprinter: Callable[[], AudioFingerprinter]
    ) -> RepairReport:
        """Repair what was found; after a crash, run it again to continue.

        Bad tracks are written to new shards if their files have the same content as before, and
        deleted if not. Other tracks are not changed.

        Parameters
        ----------
        problems : Problems
        fingerprinter : callable
            Returns the fingerprinter; called only if a track is to be fingerprinted.

        Returns
        -------
        RepairReport
        """
        swept = self._shards.sweep(self._store.shard_names())
        bad = {track.id: track for track in self._store.tracks(problems.bad_tracks)}
        if bad:
            self._fingerprint_again(sorted(bad), fingerprinter())
        if self._reasons:
            self._store.delete(self._reasons)
        if problems.bad_shards:
            self._store.delete_shards(problems.bad_shards)
        for shard in problems.miscounted:
            self._store.recount(shard)
        self._shards.sweep(self._store.shard_names())
        return RepairReport(
            problems=problems.messages,
            swept=swept,
            repaired=[track for track in bad.values() if track.id not in self._reasons],
            removed=[RemovedTrack(bad[i], reason) for i, reason in self._reasons.items()],
        )

    def _fingerprint_again(self, ids: list[int], fingerprinter: AudioFingerprinter) -> None:
        tracks = self._store.new_tracks(ids)
        files = self._find_files(tracks)
        hashes = {track.content_hash for track in tracks.values()}
        rate, n_jobs = fingerprinter.sample_rate, self._config.n_jobs
        try:
            with DecoderPool(list(files.values()), rate, n_jobs, hashes.__contains__) as recordings:
                numbered = enumerate(zip(files, recordings, strict=True), 1)
                for n_done, (track_id, recording) in numbered:
                    self._fingerprint(track_id, tracks[track_id], recording, fingerprinter)
                    self._on_progress(n_done, len(files))
                    if self._is_due():
                        self._commit()
        finally:  # after Ctrl-C too, so that nothing done is lost
            self._commit()

    def _find_files(self, tracks: Mapping[int, NewTrack]) -> dict[int, FoundFile]:
        """Find the files of tracks, by track id; a missing one becomes a reason to remove."""
        files = {}
        for track_id, track in tracks.items():
            found = next(iter(discover([track.path])), None)
            if isinstance(found, FoundFile) and found.path == track.path:
                files[track_id] = found
            else:
                self._reasons[track_id] = getattr(found, "reason", "not a regular file")
        return files

    def _fingerprint(
        self,
        track_id: int,
        track: NewTrack,
        recording: Recording | AudioError,
        fingerprinter: AudioFingerprinter,
    ) -> None:
        try:
            blocks = _blocks(recording, track)
            fingerprint = fingerprinter.fingerprint(blocks, self._hop_s, track.path)
            self._pending.append((track_id, fingerprint))
        except AstoundError as error:
            self._reasons[track_id] = error.reason if isinstance(error, AudioError) else str(error)

    def _is_due(self) -> bool:
        n_segments = sum(len(fingerprint.embeddings) for _, fingerprint in self._pending)
        elapsed_s = time.monotonic() - self._committed_at
        return n_segments >= self._config.max_segments or elapsed_s >= self._config.commit_every_s

    def _commit(self) -> None:
        """Write pending fingerprints as one shard and move their tracks to it."""
        self._committed_at = time.monotonic()
        if not self._pending:
            return
        written = write_shard(self._shards, (fingerprint for _, fingerprint in self._pending))
        self._store.move_tracks(written, [track_id for track_id, _ in self._pending])
        self._pending = []


def _blocks(recording: Recording | AudioError, track: NewTrack) -> Iterator[Waveform]:
    """Return the audio of a track; AudioError if its file is unreadable or has changed."""
    if isinstance(recording, AudioError):
        raise recording
    if recording.content_hash == track.content_hash and recording.blocks is not None:
        return recording.blocks
    for _ in recording.blocks or ():  # decoded because another track has this content
        pass
    raise AudioError(track.path, "content of the file has changed")
