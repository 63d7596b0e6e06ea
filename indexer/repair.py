"""A damaged catalog to a whole one: what can be fingerprinted again is, the rest is named."""

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
from indexer.decoder_pool import Lanes, Recording
from indexer.discover import FoundFile, scan
from indexer.verify import Findings


@dataclass(frozen=True)
class Forgotten:
    """A track that could not be fingerprinted again, and why."""

    track: Track
    reason: str


@dataclass
class RepairReport:
    """What a repair found and did.

    Parameters
    ----------
    problems : list of str
        What was wrong.
    swept : list of str
        Shards without a row in the database, left behind by a crash, which were removed.
    repaired : list of Track
        Fingerprinted again; their ids stay.
    forgotten : list of Forgotten
    """

    problems: list[str] = field(default_factory=list)
    swept: list[str] = field(default_factory=list)
    repaired: list[Track] = field(default_factory=list)
    forgotten: list[Forgotten] = field(default_factory=list)


class Repair:
    """One run over what a checkup found; the caller holds the catalog's write lock.

    Parameters
    ----------
    store : Store
    shards : ShardStorage
    segment_hop_s : float
    config : IngestConfig
    on_progress : callable
        Told after every track how many are done, and how many there are.
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
        self, findings: Findings, fingerprinter: Callable[[], AudioFingerprinter]
    ) -> RepairReport:
        """Mend what was found; repeated after a crash, it goes on.

        Tracks in healthy shards are left as they are. Bad ones move to new shards when their file
        still has the same content, and are forgotten when not.

        Parameters
        ----------
        findings : Findings
        fingerprinter : callable
            Asked only when there is audio to be fingerprinted.

        Returns
        -------
        RepairReport
        """
        swept = self._shards.sweep(self._store.shard_names())
        bad = {track.id: track for track in self._store.tracks(findings.bad_tracks)}
        if bad:
            self._fingerprint_again(sorted(bad), fingerprinter())
        if self._reasons:
            self._store.delete(self._reasons)
        if findings.bad_shards:
            self._store.delete_shards(findings.bad_shards)
        for shard in findings.miscounted:
            self._store.recount(shard)
        self._shards.sweep(self._store.shard_names())
        return RepairReport(
            problems=findings.problems,
            swept=swept,
            repaired=[track for track in bad.values() if track.id not in self._reasons],
            forgotten=[Forgotten(bad[i], reason) for i, reason in self._reasons.items()],
        )

    def _fingerprint_again(self, ids: list[int], fingerprinter: AudioFingerprinter) -> None:
        tracks = self._store.new_tracks(ids)
        files = self._files(tracks)
        hashes = {track.content_hash for track in tracks.values()}
        rate, n_jobs = fingerprinter.sample_rate, self._config.n_jobs
        try:
            with Lanes(list(files.values()), rate, n_jobs, hashes.__contains__) as lanes:
                numbered = enumerate(zip(files, lanes, strict=True), 1)
                for n_done, (track_id, recording) in numbered:
                    self._take(track_id, tracks[track_id], recording, fingerprinter)
                    self._on_progress(n_done, len(files))
                    if self._is_due():
                        self._commit()
        finally:  # after Ctrl-C too: what is done is kept
            self._commit()

    def _files(self, tracks: Mapping[int, NewTrack]) -> dict[int, FoundFile]:
        """Find the tracks' files; what is no file any more is noted as a reason."""
        files = {}
        for track_id, track in tracks.items():
            found = next(iter(scan([track.path])), None)
            if isinstance(found, FoundFile) and found.path == track.path:
                files[track_id] = found
            else:
                self._reasons[track_id] = getattr(found, "reason", "not a regular file")
        return files

    def _take(
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
        waited_s = time.monotonic() - self._committed_at
        return n_segments >= self._config.max_segments or waited_s >= self._config.commit_every_s

    def _commit(self) -> None:
        """Write what waits as one shard and move its tracks there."""
        self._committed_at = time.monotonic()
        if not self._pending:
            return
        written = write_shard(self._shards, (fingerprint for _, fingerprint in self._pending))
        self._store.move_tracks(written, [track_id for track_id, _ in self._pending])
        self._pending = []


def _blocks(recording: Recording | AudioError, track: NewTrack) -> Iterator[Waveform]:
    """Give the audio of a track; AudioError when its file is not what it was."""
    if isinstance(recording, AudioError):
        raise recording
    if recording.content_hash == track.content_hash and recording.blocks is not None:
        return recording.blocks
    for _ in recording.blocks or ():  # the content of another track that is mended too
        pass
    raise AudioError(track.path, "its file has other content now")
