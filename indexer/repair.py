"""Repair a damaged catalog: fingerprint files again, and delete tracks whose files are gone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.config import IngestConfig
from engine.errors import AstoundError, AudioError
from engine.protocol import AudioFingerprinter
from engine.records import Content, NewTrack, StoredVectors, Track, Waveform
from engine.store.store import Store
from engine.vectors.shard import write_shard
from engine.vectors.storage import ShardStorage
from indexer.decoder_pool import DecoderPool, Recording
from indexer.discover import FoundFile, discover
from indexer.lost import LostSource, describe_lost, find_lost, has_all_shards, set_aside
from indexer.merge import Merge
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
        Names of shards that the database does not name: incomplete and superseded ones were
        deleted, others set aside.
    restored : list of Track
        Tracks restored from shards that were set aside.
    lost : list of str
        Shards that stay aside, one line each.
    repaired : list of Track
        Tracks that were fingerprinted again; their ids are unchanged.
    removed : list of RemovedTrack
    remaining : list of str
        What is still wrong, one line each.
    """

    problems: list[str] = field(default_factory=list)
    swept: list[str] = field(default_factory=list)
    restored: list[Track] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    repaired: list[Track] = field(default_factory=list)
    removed: list[RemovedTrack] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)


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
        self._pending: list[tuple[int, StoredVectors]] = []
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
        swept = set_aside(self._store, self._shards)
        bad = {track.id: track for track in self._store.tracks(problems.bad_tracks)}
        intact = self._intact_lost(fingerprinter)
        found = {i for source in intact for i in self._move_to_intact(source, bad)}
        if left := sorted(bad.keys() - found):
            self._fingerprint_again(left, fingerprinter())
        if self._reasons:
            self._store.delete(self._reasons)
        # Before the rows of missing shards go: they show that the database is not intact.
        restored = self._restore(intact)
        if problems.bad_shards:
            # A damaged shard with tracks that could not be repaired might still be of use.
            self._store.delete_shards(problems.bad_shards, superseded=not self._reasons)
        for shard in problems.miscounted:
            self._store.recount(shard)
        set_aside(self._store, self._shards)
        return RepairReport(
            problems=problems.messages,
            swept=swept,
            restored=restored,
            lost=list(map(str, find_lost(self._store, self._shards))),
            repaired=[track for track in bad.values() if track.id not in self._reasons],
            removed=[RemovedTrack(bad[i], reason) for i, reason in self._reasons.items()],
        )

    def _intact_lost(self, fingerprinter: Callable[[], AudioFingerprinter]) -> list[LostSource]:
        """Open the shards set aside that are intact and of the catalog's recipe and hop."""
        sources = []
        settings = self._store.settings()
        for path in self._shards.lost():
            try:
                recipe = settings.get("recipe") or json.dumps(fingerprinter().metadata())
                recipe_id = settings.get("recipe_id") or fingerprinter().recipe_id
                source = LostSource(path, recipe)
                hop_s = settings.get("segment_hop_s") or source.settings["segment_hop_s"]
            except (AstoundError, OSError):  # it stays aside, and the report says why
                continue
            if (recipe_id, float(hop_s)) == (source.recipe_id, source.segment_hop_s):
                sources.append(source)
        return sources

    def _move_to_intact(self, source: LostSource, bad: Mapping[int, Track]) -> set[int]:
        """Take the vectors of bad tracks from a shard set aside; return the tracks' ids."""
        by_hash = {track.content_hash: number for number, track in enumerate(source.tracks)}
        found = {i: by_hash[one.content_hash] for i, one in bad.items()
                 if one.content_hash in by_hash}  # fmt: skip
        for track_id, number in found.items():
            self._pending.append((track_id, source.read(number)))
            if self._is_due():
                self._commit()
        self._commit()
        return set(found)

    def _restore(self, sources: Sequence[LostSource]) -> list[Track]:
        """Add the tracks that only shards set aside have, then delete these shards."""
        is_intact = has_all_shards(self._store, self._shards)
        before = {track.id for track in self._store.tracks()}
        for source in sources:
            if is_intact and describe_lost(self._store, source.path).is_partly_known:
                continue
            merge = Merge(self._store, self._shards, self._config, lambda done, total: None)
            merge.run(source)
            self._shards.delete_lost(source.path)
        return [track for track in self._store.tracks() if track.id not in before]

    def _fingerprint_again(self, ids: list[int], fingerprinter: AudioFingerprinter) -> None:
        tracks = self._store.new_tracks(ids)
        files = self._find_files(tracks)
        hashes = {track.content_hash for track in tracks.values()}
        rate, n_jobs = fingerprinter.sample_rate, self._config.n_jobs

        def is_wanted(content: Content) -> bool:
            return not hashes.isdisjoint(content.hashes)

        try:
            with DecoderPool(list(files.values()), rate, n_jobs, is_wanted) as recordings:
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
        n_segments = sum(len(vectors.embeddings) for _, vectors in self._pending)
        elapsed_s = time.monotonic() - self._committed_at
        return n_segments >= self._config.max_segments or elapsed_s >= self._config.commit_every_s

    def _commit(self) -> None:
        """Write pending fingerprints as one shard and move their tracks to it."""
        self._committed_at = time.monotonic()
        if not self._pending:
            return
        known = self._store.new_tracks([track_id for track_id, _ in self._pending])
        # Another process may have deleted some meanwhile.
        pending = [one for one in self._pending if one[0] in known]
        self._pending = []
        if not pending:
            return
        tracks = [_with_counts(known[track_id], vectors) for track_id, vectors in pending]
        written = write_shard(self._shards, (vectors for _, vectors in pending), tracks=tracks)
        self._store.move_tracks(written, [track_id for track_id, _ in pending])


def _with_counts(track: NewTrack, vectors: StoredVectors) -> NewTrack:
    n_segments, n_clips = len(vectors.embeddings), len(vectors.clip_embeddings)
    return replace(track, n_segments=n_segments, n_clips=n_clips)


def _blocks(recording: Recording | AudioError, track: NewTrack) -> Iterator[Waveform]:
    """Return the audio of a track; AudioError if its file is unreadable or has changed."""
    if isinstance(recording, AudioError):
        raise recording
    if track.content_hash in recording.content.hashes and recording.blocks is not None:
        return recording.blocks
    for _ in recording.blocks or ():  # decoded because another track has this content
        pass
    raise AudioError(track.path, "content of the file has changed")
