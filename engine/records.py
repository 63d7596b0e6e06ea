"""The shared vocabulary: frozen records that stages hand to each other.

Time is in seconds everywhere; `hop` alone counts frames or samples where its name says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""float32 array of shape (n, dim)."""

Addresses = NDArray[np.int64]
"""int64 array of vector addresses, ``track_id << 24 | position``."""

POSITION_BITS = 24
NO_ADDRESS = -1


def address(track_id: int, position: int) -> int:
    """Join a track's id and a segment's position to the address of its vector."""
    return track_id << POSITION_BITS | position


def track_ids(addresses: Addresses) -> NDArray[np.int64]:
    """Track ids of addresses, same shape."""
    return addresses >> POSITION_BITS


def positions(addresses: Addresses) -> NDArray[np.int64]:
    """Positions of addresses, same shape, in segment hops."""
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
    """What a file says about itself; None where it says nothing."""

    title: str | None = None
    artist: str | None = None
    album: str | None = None
    isrc: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewTrack:
    """A recording about to become a track.

    Parameters
    ----------
    path : str
    content_hash : str
        Hash of the file's bytes, hex.
    n_bytes, modified_ns : int
        Size and time of change of the file, to recognise it without reading it.
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
    """A known recording, as the catalog remembers it."""

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
    """Where in which shard the vectors of a track lie.

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
        NO_ADDRESS where there are fewer neighbours than asked for.
    cosines : float32 array of shape (n_queries, k)
        Falling along the second axis.
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
    """Where votes met: a track and the offset in ticks of a query hop, with the votes for it."""

    track_id: int
    ticks: int
    votes: int


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One (track, offset) with the votes for it and how well it agrees.

    Parameters
    ----------
    track_id : int
    offset_s : float
        Where in the track the query's second 0 lies; reference time minus query time where the
        speed is 1.
    votes : int
        Query segments with a hit on this diagonal.
    evidence : float
        How far the segments stand out above what any music reaches, 0 for not at all; what
        candidates are ranked by.
    score : float
        Mean cosine along the diagonal, in [-1, 1].
    coverage : float
        Share of the audible query segments that agree with the reference, in [0, 1].
    query_start_s, query_end_s : float
        The part of the query that agrees.
    speed : float
        Reference seconds per query second: reference time is offset_s + speed * query time.
    resampled : float
        How many times as fast the query had to be played to agree, 1 for as it was.
    margin : float
        Evidence minus that of the best candidate of another track with other audio.
    others : float
        Mean evidence of the ten best candidates of other tracks: what chance reaches here.
    pitch : float
        Semitones the query is above the reference; 0 if it was found as it was.
    also : tuple of float
        Other values `offset_s` may have as well: where else in the track the same is heard, by
        falling evidence. Empty but for music that repeats itself.
    """

    track_id: int
    offset_s: float
    votes: int
    evidence: float
    score: float
    coverage: float
    query_start_s: float
    query_end_s: float
    speed: float = 1.0
    resampled: float = 1.0
    margin: float = 0.0
    others: float = 0.0
    pitch: float = 0.0
    also: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Match:
    """A candidate accepted with a confidence; the fields of the command line's JSON.

    Parameters
    ----------
    rank : int
        From 1 on.
    track_id, path, title, artist
        Of the track.
    query_start_s, query_end_s : float
        The part of the query that agrees.
    reference_start_s, reference_end_s : float
        Where it lies in the track: ``offset_s + speed * query_start_s``, within the track.
    offset_s, score, votes, coverage, margin
        Of the :class:`Candidate`.
    confidence : float
        Probability in [0, 1] that it is right.
    speed : float
        Reference seconds per query second.
    tempo : float
        How many times as fast as the track the query runs, 1.08 for 8 % faster: `speed` under the
        name it has where the pitch did not change with it.
    pitch : float
        Semitones that the query is above the track, negative if below. 0.0 if it was found as it
        is, as it may be up to about half a semitone away. The first match of a clear lead is told
        to about a tenth, others in the steps of `SearchConfig.speeds`.
    also_at_s : tuple of float
        Other values `reference_start_s` may have as well: where else in the track the same is
        heard, best first. Empty but for music that repeats itself.
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


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A stretch that two recordings share.

    Parameters
    ----------
    query_start_s, query_end_s : float
        Where it lies in the query.
    reference_start_s, reference_end_s : float
        Where it lies in the reference.
    score : float
        Mean cosine of the segments that lie beside each other, in [-1, 1].
    speed : float
        Reference seconds per query second.
    """

    query_start_s: float
    query_end_s: float
    reference_start_s: float
    reference_end_s: float
    score: float
    speed: float


DuplicateKind = Literal["full", "version", "part"]


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """Two tracks that hold the same recording.

    Parameters
    ----------
    kind : {"full", "version", "part"}
        "full" if nearly all of either is in the other, as alike as copies are; "version" if it is
        there but less alike, such as another mix; "part" if some passages are.
    first_id, second_id : int
        The earlier id is the first.
    first_share, second_share : float
        How much of what is audible in either lies in the other, in [0, 1].
    passages : tuple of Passage
        What they share; the first track is the query. One unless the kind is "part".
    """

    kind: DuplicateKind
    first_id: int
    second_id: int
    first_share: float
    second_share: float
    passages: tuple[Passage, ...]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Tracks that are full duplicates of each other, directly or by way of others.

    Parameters
    ----------
    keeper_id : int
        The longest of them; of those within 5 % of it, the one with the earliest id.
    other_ids : tuple of int
        The others, by id.
    """

    keeper_id: int
    other_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Occurrence:
    """One of the places where a passage is heard.

    Parameters
    ----------
    recording : int
        Which of the recordings given, from 0.
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
        Mean cosine of the pair of them that agrees best, in [-1, 1].
    """

    occurrences: tuple[Occurrence, ...]
    score: float


@dataclass(frozen=True, kw_only=True)
class SimilarTrack:
    """A track that sounds like something else; the fields of the command line's JSON.

    Parameters
    ----------
    rank : int
        From 1 on.
    track_id, path, title, artist, duration_s
        Of the track.
    clip_score : float
        Mean, over the clips of the shorter of the two, of the best cosine with a clip of the other,
        in [-1, 1].
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
    duration_s : float
    matches : tuple of Match
        Best first; empty unless status is "match".
    warnings : tuple of str
        One sentence for each reason to trust the answer less.
    timings_ms : mapping
        Milliseconds of decode, encode, search and align.
    error : mapping or None
        ``code`` and ``message`` when status is "error".
    """

    query: str
    status: Literal["match", "no_match", "error"]
    duration_s: float = 0.0
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
    """A track that sounds in a long recording; fields have the names they have in a match.

    Parameters
    ----------
    track_id, path, title, artist
        Of the track.
    query_start_s, query_end_s : float
        From when to when it sounds in the recording.
    reference_start_s, reference_end_s : float
        Where that lies in the track.
    offset_s : float
        Where in the track the recording's second 0 would lie.
    score : float
        Mean cosine of the segments beside each other, in [-1, 1].
    confidence : float
        Probability in [0, 1] that not all windows that say so are wrong.
    speed : float
        Reference seconds per second of the recording.
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


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A stretch of a recording in which nothing known sounds."""

    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """What sounds when in a long recording.

    Parameters
    ----------
    recording : str
        The path as given, or "array".
    start_s : float
        Where in the recording it was begun to listen.
    duration_s : float
        Seconds that were heard from there.
    entries : tuple of Entry
        By when they begin; they may overlap, and a track may occur again.
    error : mapping or None
        ``code`` and ``message`` when the recording could not be heard to its end.
    """

    recording: str
    start_s: float = 0.0
    duration_s: float = 0.0
    entries: tuple[Entry, ...] = ()
    error: Mapping[str, Any] | None = None

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Stretches of a second or more without any entry."""
        edges = [(one.query_start_s, one.query_end_s) for one in self.entries]
        end_s = round(self.start_s + self.duration_s, 3)
        found, free_s = [], self.start_s
        for next_s, busy_s in [*sorted(edges), (end_s, end_s)]:
            if next_s - free_s >= 1.0:
                found.append(Gap(start_s=free_s, end_s=next_s))
            free_s = max(free_s, busy_s)
        return tuple(found)
