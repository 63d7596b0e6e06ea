"""Frozen records that the stages pass to each other. All times are in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError

Waveform = NDArray[np.float32]
"""float32 array of shape (n_samples,), mono."""

Vectors = NDArray[np.float32]
"""float32 array of shape (n, dim)."""

Addresses = NDArray[np.int64]
"""int64 array of vector addresses, ``track_id << 24 | position``."""

RESERVED_PREFIX = "astound:"
"""Begins the keys of metadata that astound keeps for itself and does not show."""

CUT_OFF_KEY = "cut_off"
"""Key in the metadata of a track whose file ends before its header says; the value says where."""

SOUND_KEY = f"{RESERVED_PREFIX}sound"
"""Key of a track's :class:`Sound`, as JSON."""

USER_TAGS_KEY = f"{RESERVED_PREFIX}user_tags"
"""Key of the names of the tags that the user set, which those of the file do not replace."""

SCOPES = ("query", "read", "write", "admin")
"""What a key of the service allows; each scope includes those before it."""

JobKind = Literal["ingest", "scan", "dedup", "compact", "verify"]
JobStatus = Literal["queued", "running", "done", "failed", "cancelled"]

ENDED: tuple[JobStatus, ...] = ("done", "failed", "cancelled")
"""Statuses of a job that do not change any more."""

POSITION_BITS = 24
NO_ADDRESS = -1


def address(track_id: int, position: int) -> int:
    """Return the address of a vector, from the track's id and the position of the segment."""
    return track_id << POSITION_BITS | position


def track_ids(addresses: Addresses) -> NDArray[np.int64]:
    """Return the track ids of addresses, in the same shape."""
    return addresses >> POSITION_BITS


def positions(addresses: Addresses) -> NDArray[np.int64]:
    """Return the positions of addresses in segment hops, in the same shape."""
    return addresses & ((1 << POSITION_BITS) - 1)


@dataclass(frozen=True, kw_only=True)
class StoredVectors:
    """The embeddings of one recording as a shard stores them.

    Parameters
    ----------
    embeddings : float32 array of shape (n_segments, dim)
        Frame-level, unit norm; all zeros where the segment is silent.
    clip_embeddings : float32 array of shape (n_clips, dim)
        Clip-level, unit norm; all zeros where the clip is silent.
    segment_hop_s : float
        Distance of the segments in seconds.
    recipe_id : str
    """

    embeddings: Vectors
    clip_embeddings: Vectors
    segment_hop_s: float
    recipe_id: str


@dataclass(frozen=True, kw_only=True)
class Fingerprint(StoredVectors):
    """All embeddings of one recording, and what is known of its time.

    Parameters
    ----------
    segment_s : float
        Length of a segment in seconds.
    duration_s : float
        Length of the recording in seconds.
    """

    segment_s: float
    duration_s: float

    @property
    def audible(self) -> NDArray[np.bool_]:
        """Which segments are not silent, bool array of shape (n_segments,)."""
        return np.asarray(self.embeddings.any(axis=1))

    @property
    def audible_s(self) -> float:
        """Number of audible segments times their distance, in seconds."""
        return float(self.audible.sum() * self.segment_hop_s)

    @property
    def starts_s(self) -> NDArray[np.float64]:
        """Where the segments begin, float64 array of shape (n_segments,)."""
        return np.arange(len(self.embeddings), dtype=np.float64) * self.segment_hop_s


@dataclass(frozen=True, kw_only=True)
class Tags:
    """Metadata in a file; None for what it does not contain."""

    title: str | None = None
    artist: str | None = None
    album: str | None = None
    isrc: str | None = None


def user_tags_entry(names: Iterable[str]) -> dict[str, str]:
    """Return the metadata that state which tags the user set; empty without any."""
    joined = " ".join(sorted(set(names)))
    return {USER_TAGS_KEY: joined} if joined else {}


def require_free_keys(keys: Iterable[str]) -> None:
    """Raise ConfigError if one of the user's metadata keys is reserved."""
    for key in keys:
        if key.startswith(RESERVED_PREFIX):
            raise ConfigError(key, f"keys that begin with {RESERVED_PREFIX} are reserved")


@dataclass(frozen=True, kw_only=True)
class Sound:
    """How a recording is encoded.

    Parameters
    ----------
    codec : str
        FFmpeg's name.
    is_lossless : bool
    sample_rate : int
        Hz.
    n_bytes : int
        Size of the packets, without tags, pictures and other streams.
    """

    codec: str
    is_lossless: bool
    sample_rate: int
    n_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Content:
    """What identifies the recording in a file.

    Parameters
    ----------
    content_hash : str
        Hash of the sound, hex: :func:`engine.audio.content.read_sound`. That of the file's bytes
        if no sound can be read.
    file_hash : str
        SHA-256 of the file's bytes, hex. Older catalogs identify their tracks by it.
    sound : Sound or None
        None if no sound can be read.
    """

    content_hash: str
    file_hash: str
    sound: Sound | None = None

    @property
    def hashes(self) -> tuple[str, str]:
        """The hashes that a track of this recording may have, the more specific one first."""
        return self.file_hash, self.content_hash


@dataclass(frozen=True, kw_only=True)
class NewTrack:
    """A recording that is added to the catalog.

    Parameters
    ----------
    path : str
    content_hash : str
        As in :class:`Content`; the `file_hash` in older catalogs.
    n_bytes, modified_ns : int
        Size and modification time of the file, which identify it without reading it.
    duration_s : float
    n_segments, n_clips : int
        Rows it takes in its shard.
    tags : Tags
    metadata : mapping
        Free key/value pairs.
    """

    path: str
    content_hash: str
    n_bytes: int
    modified_ns: int
    duration_s: float
    n_segments: int
    n_clips: int
    tags: Tags = field(default_factory=Tags)
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Track:
    """A recording in the catalog."""

    id: int
    path: str
    title: str | None
    artist: str | None
    album: str | None
    isrc: str | None
    duration_s: float
    content_hash: str
    n_segments: int
    added_at: datetime
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Position of a track's vectors in a shard.

    Parameters
    ----------
    track_id : int
    shard : str
        Name of the shard.
    first_row, n_segments : int
        Its rows among the shard's frame-level vectors.
    first_clip, n_clips : int
        Its rows among the shard's clip-level vectors.
    """

    track_id: int
    shard: str
    first_row: int
    n_segments: int
    first_clip: int
    n_clips: int


class Rows(NamedTuple):
    """Rows of one recording in a shard.

    Parameters
    ----------
    first_row, n_segments : int
        Its rows among the frame-level vectors.
    first_clip, n_clips : int
        Its rows among the clip-level vectors.
    """

    first_row: int
    n_segments: int
    first_clip: int
    n_clips: int


@dataclass(frozen=True, kw_only=True)
class WrittenShard:
    """A shard on disk that the database does not name yet.

    Parameters
    ----------
    name, recipe_id : str
    n_bytes : int
        Size of its files.
    rows : tuple of Rows
        Rows of each recording, in the order they were written.
    """

    name: str
    recipe_id: str
    n_bytes: int
    rows: tuple[Rows, ...]

    @property
    def n_segments(self) -> int:
        """Number of frame-level vectors."""
        return sum(rows.n_segments for rows in self.rows)

    @property
    def n_clips(self) -> int:
        """Number of clip-level vectors."""
        return sum(rows.n_clips for rows in self.rows)

    def placements(self, track_ids: Iterable[int]) -> list[Placement]:
        """Place tracks in the shard, one for each of `rows`."""
        return [
            Placement(track_id=track_id, shard=self.name, **rows._asdict())
            for track_id, rows in zip(track_ids, self.rows, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Nearest neighbours of query segments.

    Parameters
    ----------
    addresses : int64 array of shape (n_queries, k)
        NO_ADDRESS if there are fewer than k neighbours.
    cosines : float32 array of shape (n_queries, k)
        In descending order along the second axis.
    """

    addresses: Addresses
    cosines: NDArray[np.float32]

    def first(self, n: int) -> Hits:
        """Keep the n nearest of each segment."""
        return Hits(addresses=self.addresses[:, :n], cosines=self.cosines[:, :n])


@dataclass(frozen=True)
class TrackReader:
    """Read access to the stored vectors of tracks.

    Parameters
    ----------
    hop_s : float
        Distance of the stored segments in seconds.
    n_positions : callable
        Returns the number of segments of a track, by its id.
    vectors : callable
        Returns the vectors of ``(track_id, first, last)`` at the positions first..last, the last
        one excluded: float32 array of shape (last - first, dim).
    """

    hop_s: float
    n_positions: Callable[[int], int]
    vectors: Callable[[int, int, int], Vectors]


@dataclass(frozen=True)
class Diagonal:
    """A track and an offset in ticks of one query hop, with the number of votes for it."""

    track_id: int
    ticks: int
    votes: int


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A track and an offset that a query may come from, and how well they agree.

    Parameters
    ----------
    track_id : int
    offset_s : float
        Reference time of the query's second 0; may be negative.
    votes : int
        Query segments with a hit on this diagonal.
    evidence : float
        How far the cosines exceed those of unrelated music, 0 or more. Candidates are ranked by
        it.
    score : float
        Mean cosine along the line, in [-1, 1].
    coverage : float
        Share of the audible query segments that agree with the reference, in [0, 1].
    query_start_s, query_end_s : float
        The part of the query that agrees.
    direction : float
        How much less evidence there is where the track plays backwards, as a share of what the
        track itself would lose: 1 for music, about 0 for steady sound, negative in reverse.
    speed : float
        Reference seconds per query second: reference time is offset_s + speed * query time.
    resampled : float
        Factor of the playback speed at which it was found, 1 for the query's own speed.
    margin : float
        Evidence minus that of the best candidate of another track with other audio.
    others : float
        Mean evidence of the ten best candidates of other tracks.
    pitch : float
        Semitones that the query is above the reference; 0 if found at its own speed.
    also : tuple of float
        Further values of `offset_s` with nearly the same evidence, best first. Empty unless the
        music repeats itself.
    audible_s : float
        Audible seconds of what it was searched with.
    confidence : float
        Probability in [0, 1] that it is right; 0 until it is judged.
    start_error_s, end_error_s : float
        Expected errors of `query_start_s` and `query_end_s`: nine of ten are at most that large.
    """

    track_id: int
    offset_s: float
    votes: int
    evidence: float
    score: float
    coverage: float
    query_start_s: float
    query_end_s: float
    direction: float = 0.0
    speed: float = 1.0
    resampled: float = 1.0
    margin: float = 0.0
    others: float = 0.0
    pitch: float = 0.0
    also: tuple[float, ...] = ()
    audible_s: float = 0.0
    confidence: float = 0.0
    start_error_s: float = 0.0
    end_error_s: float = 0.0

    def later(self, start_s: float) -> Candidate:
        """Return it with the times of a recording in which its query begins at `start_s`."""
        return replace(
            self,
            offset_s=self.offset_s - self.speed * start_s,
            query_start_s=self.query_start_s + start_s,
            query_end_s=self.query_end_s + start_s,
            also=tuple(place_s - self.speed * start_s for place_s in self.also),
        )


@dataclass(frozen=True, kw_only=True)
class Match:
    """A candidate that was accepted; its fields are those of the command line's JSON.

    Parameters
    ----------
    rank : int
        From 1 on.
    track_id, path, title, artist
        Of the track.
    query_start_s, query_end_s : float
        The part of the query that agrees.
    reference_start_s, reference_end_s : float
        Its position in the track: ``offset_s + speed * query_start_s``, within the track.
    offset_s, score, votes, coverage, margin
        Those of the :class:`Candidate`.
    confidence : float
        Probability in [0, 1] that it is right.
    speed : float
        Reference seconds per query second.
    tempo : float
        The same number as `speed`, under its name for music whose pitch did not change with it:
        1.08 for a query that is 8 % faster than the track.
    pitch : float
        Semitones that the query is above the track, negative if below. It is 0.0 if the query was
        found at its own speed, which tolerates about three quarters of a semitone. A first match
        with a clear lead is accurate to about a tenth, others to the steps of
        `SearchConfig.speeds`.
    also_at_s : tuple of float
        Further values of `reference_start_s` with nearly the same evidence, best first. Empty
        unless the music repeats itself.
    start_error_s, end_error_s : float
        Expected errors of `query_start_s` and `query_end_s`: nine of ten are at most that large.
    """

    rank: int
    track_id: int
    path: str
    title: str | None
    artist: str | None
    query_start_s: float
    query_end_s: float
    reference_start_s: float
    reference_end_s: float
    offset_s: float
    score: float
    confidence: float
    votes: int
    coverage: float
    speed: float
    margin: float
    tempo: float = 1.0
    pitch: float = 0.0
    also_at_s: tuple[float, ...] = ()
    start_error_s: float = 0.0
    end_error_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A stretch that two recordings share.

    Parameters
    ----------
    query_start_s, query_end_s : float
        Its position in the query.
    reference_start_s, reference_end_s : float
        Its position in the reference.
    score : float
        Mean cosine of the aligned segments, in [-1, 1].
    speed : float
        Reference seconds per query second.
    """

    query_start_s: float
    query_end_s: float
    reference_start_s: float
    reference_end_s: float
    score: float
    speed: float


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Counts of a catalog.

    Parameters
    ----------
    n_tracks : int
    duration_s : float
        Length of all tracks together.
    n_segments : int
        Segments of these tracks.
    n_shards, n_stored_segments, n_bytes : int
        Shards, the segments in them including those of deleted tracks, and the size of their files.
    """

    n_tracks: int
    duration_s: float
    n_segments: int
    n_shards: int
    n_stored_segments: int
    n_bytes: int


@dataclass(frozen=True, kw_only=True)
class ServiceKey:
    """A key of the service; its fields are those of the command line's JSON.

    Parameters
    ----------
    id : int
    scope : str
        What it allows: one of SCOPES.
    note : str or None
        Who has it.
    created_at : datetime
    """

    id: int
    scope: str
    note: str | None
    created_at: datetime

    def allows(self, scope: str) -> bool:
        """Return whether its scope includes another."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Work that the service does beside the queries; its fields are those of its JSON.

    Parameters
    ----------
    id : int
        Later jobs have greater ones.
    kind : {"ingest", "scan", "dedup", "compact", "verify"}
    status : {"queued", "running", "done", "failed", "cancelled"}
    created_at : datetime
    started_at, cancelled_at, finished_at : datetime or None
        A running job that was cancelled stops soon; its status is then "cancelled".
    key_id : int or None
        Id of the key that was used; None if none was needed.
    options : mapping
        What to do.
    progress : mapping or None
        done and total (numbers; the total may be None), unit, and message (a sentence or "").
    result : mapping or None
        Depends on the kind. That of a scan which runs, or of what was cancelled or failed, is what
        there was until then.
    error : mapping or None
        Why it failed: title, status, detail and code.
    upload : str or None
        Name of the folder of its uploads.
    """

    id: int
    kind: JobKind
    status: JobStatus
    created_at: datetime
    started_at: datetime | None = None
    cancelled_at: datetime | None = None
    finished_at: datetime | None = None
    key_id: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    progress: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    upload: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it changes any more."""
        return self.status in ENDED


DuplicateKind = Literal["full", "version", "part"]


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """Two tracks that contain the same recording.

    Parameters
    ----------
    kind : {"full", "version", "part"}
        "full" if nearly all of either is in the other, as similar as copies are; "version" if it is
        less similar, such as another mix; "part" if they share some passages.
    first_id, second_id : int
        The earlier id is the first.
    first_share, second_share : float
        Share of the audible part of either that lies in the other, in [0, 1].
    passages : tuple of Passage
        The first track is the query. One passage unless the kind is "part".
    """

    kind: DuplicateKind
    first_id: int
    second_id: int
    first_share: float
    second_share: float
    passages: tuple[Passage, ...]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Tracks that are full duplicates of each other, directly or through others.

    Parameters
    ----------
    keeper_id : int
        The best one: :func:`engine.compare.clusters.clusters`.
    other_ids : tuple of int
        The others, by id.
    reason : str
        What it has before the others: "lossless (flac)".
    """

    keeper_id: int
    other_ids: tuple[int, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Occurrence:
    """One occurrence of a passage.

    Parameters
    ----------
    recording : int
        Index of the recording, from 0.
    start_s, end_s : float
    """

    recording: int
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """A passage that occurs more than once.

    Parameters
    ----------
    occurrences : tuple of Occurrence
        Two or more, in the order of the recordings and of time.
    score : float
        Mean cosine of the two that agree best, in [-1, 1].
    """

    occurrences: tuple[Occurrence, ...]
    score: float


@dataclass(frozen=True, kw_only=True)
class SimilarTrack:
    """A track that sounds like a query; its fields are those of the command line's JSON.

    Parameters
    ----------
    rank : int
        From 1 on.
    track_id, path, title, artist, duration_s
        Of the track.
    clip_score : float
        Mean of the best cosines of the clips of the shorter recording with those of the other, in
        [-1, 1].
    """

    rank: int
    track_id: int
    path: str
    title: str | None
    artist: str | None
    duration_s: float
    clip_score: float


@dataclass(frozen=True, kw_only=True)
class QueryResult:
    """The answer to one query.

    Parameters
    ----------
    query : str
        The path as passed, or "array".
    status : {"match", "no_match", "error"}
    duration_s : float or None
        None if an error left it unknown.
    matches : tuple of Match
        Best first; empty unless status is "match".
    warnings : tuple of str
        One sentence for each thing wrong with the clip, and for each reason to trust the answer
        less.
    timings_ms : mapping
        Milliseconds of decode, encode, search and align.
    error : mapping or None
        ``code`` and ``message`` when status is "error".
    """

    query: str
    status: Literal["match", "no_match", "error"]
    duration_s: float | None = None
    matches: tuple[Match, ...] = ()
    warnings: tuple[str, ...] = ()
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None

    @property
    def best(self) -> Match | None:
        """The first match, or None."""
        return self.matches[0] if self.matches else None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A track in a long recording; its fields are named as those of a match.

    Parameters
    ----------
    track_id, path, title, artist
        Of the track.
    query_start_s, query_end_s : float
        Its position in the recording.
    reference_start_s, reference_end_s : float
        The corresponding part of the track.
    offset_s : float
        Reference time of the recording's second 0; may be negative.
    score : float
        Mean cosine of the aligned segments, in [-1, 1].
    confidence : float
        Probability in [0, 1] that at least one of its windows is right.
    speed : float
        Reference seconds per second of the recording.
    start_error_s, end_error_s : float
        Expected errors of `query_start_s` and `query_end_s`: nine of ten are at most that large.
    """

    track_id: int
    path: str
    title: str | None
    artist: str | None
    query_start_s: float
    query_end_s: float
    reference_start_s: float
    reference_end_s: float
    offset_s: float
    score: float
    confidence: float
    speed: float
    start_error_s: float = 0.0
    end_error_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A stretch of a recording without any entry."""

    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The tracks in a long recording.

    Parameters
    ----------
    recording : str
        The path as passed, or "array".
    start_s : float
        Where in the recording the scan began.
    duration_s : float or None
        Seconds that were scanned from there; None if an error left them unknown.
    entries : tuple of Entry
        By their start. They may overlap, and a track may occur again.
    error : mapping or None
        ``code`` and ``message`` if the recording could not be scanned to its end.
    warnings : tuple of str
        One sentence for each thing wrong with the recording.
    """

    recording: str
    start_s: float = 0.0
    duration_s: float | None = None
    entries: tuple[Entry, ...] = ()
    error: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Stretches of a second or more without any entry."""
        spans = sorted((entry.query_start_s, entry.query_end_s) for entry in self.entries)
        if self.duration_s is not None:
            scan_end_s = round(self.start_s + self.duration_s, 3)
            spans.append((scan_end_s, scan_end_s))
        gaps, gap_start_s = [], self.start_s
        for start_s, end_s in spans:
            if start_s - gap_start_s >= 1.0:
                gaps.append(Gap(start_s=gap_start_s, end_s=start_s))
            gap_start_s = max(gap_start_s, end_s)
        return tuple(gaps)
