"""What requests and responses contain, beyond the objects of the command line."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from astound.results import JsonObject
from engine.config import MAX_MATCHES, DedupConfig
from engine.records import JobKind, JobStatus, QueryResult, Track
from engine.validation import parse_time

PROBLEM_TYPE = "application/problem+json"

MAX_BINS = 4000
"""Maximum number of parts of a waveform."""

MAX_QUERIES = 200
"""How many of the latest queries are kept."""

REPEATABLE = ("status",)
"""Parameters that are lists, which may be given more than once."""

_MAX_PAGE = 500


class RefusedError(Exception):
    """A request that the service does not fulfil.

    Parameters
    ----------
    status : int
        Of the response.
    code : str
        Stable name of the reason in snake case.
    reason : str
        One sentence.
    retry_after_s : int, optional
        When to repeat the request.
    """

    def __init__(
        self, status: int, code: str, reason: str, retry_after_s: int | None = None
    ) -> None:
        self.status, self.code, self.reason = status, code, reason
        self.retry_after_s = retry_after_s
        super().__init__(reason)


class Problem(BaseModel):
    """An error, as RFC 9457 describes it."""

    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="One sentence.", examples=["not in the catalog: 7"])
    code: str = Field(description="Stable name of the kind of error.", examples=["track_not_found"])
    tracks: list[int] | None = Field(
        None, description="Of `track_not_found`: the ids that do not exist."
    )
    result: QueryResult | None = Field(
        None, description="Of a query whose clip is not usable audio: the object with the error."
    )


_Time = Annotated[
    float | None,
    BeforeValidator(lambda text: None if text is None else parse_time(str(text))),
]


class ClipOptions(BaseModel):
    """What of a clip is read."""

    model_config = ConfigDict(extra="forbid")

    start: _Time = Field(None, description="Start at this time: seconds, m:ss or h:mm:ss.")
    end: _Time = Field(None, description="Stop at this time.")
    stream: int | None = Field(None, ge=1, description="Sound stream of the file, from 1.")
    name: str | None = Field(
        None,
        max_length=1000,
        description="Name of the clip in the answer; that of the file if any.",
    )

    def keywords(self) -> JsonObject:
        """Return the keywords of :meth:`astound.catalog.Catalog.query` that were set."""
        keywords = {"start_s": self.start, "end_s": self.end, "stream": self.stream}
        return {key: value for key, value in keywords.items() if value is not None}


class QueryOptions(ClipOptions):
    """The options of the command `query`, under their names."""

    max_matches: int = Field(
        MAX_MATCHES, ge=1, le=1000, alias="max-matches", description="Maximum number of matches."
    )
    min_confidence: float | None = Field(
        None,
        ge=0,
        le=1,
        alias="min-confidence",
        description="Minimum confidence of a match; the calibrated threshold by default.",
    )

    def keywords(self) -> JsonObject:
        """Return the keywords of :meth:`astound.catalog.Catalog.query` that were set."""
        keywords = super().keywords() | {"max_matches": self.max_matches}
        if self.min_confidence is not None:
            keywords["min_confidence"] = self.min_confidence
        return keywords


class ExplainOptions(ClipOptions):
    """The options of the command `explain`, under their names."""

    track: int | None = Field(
        None, ge=1, description="Id of the track to examine; the best one by default."
    )

    record: bool = Field(
        False, description="Also return all of it with unrounded numbers, for `astound.connect`."
    )

    def keywords(self) -> JsonObject:
        """Return the keywords of :meth:`astound.catalog.Catalog.explain` that were set."""
        return super().keywords() | ({} if self.track is None else {"track": self.track})


class RecipeDescription(BaseModel):
    """What the fingerprint of a query must be."""

    recipe_id: str
    segment_hop_s: float = Field(description="Seconds between the starts of two segments.")


class PageOptions(BaseModel):
    """Which tracks to list."""

    model_config = ConfigDict(extra="forbid")

    search: str = Field(
        "",
        max_length=200,
        description="Words that all occur in the title, artist, album or path, in any case.",
    )
    cursor: int = Field(0, ge=0, description="`next` of the page before.")
    limit: int = Field(50, ge=1, le=_MAX_PAGE, description="Maximum number of tracks.")


class TrackPage(BaseModel):
    """Some tracks, in the order of their ids."""

    tracks: list[Track]
    next: int | None = Field(description="Cursor of the next page; null on the last one.")


class RecentOptions(BaseModel):
    """How many of the latest queries to list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=MAX_QUERIES, description="Maximum number of queries.")


class FoundTrack(BaseModel):
    """The first match of a query."""

    track_id: int
    title: str | None
    artist: str | None
    path: str
    confidence: float


class RecentQuery(BaseModel):
    """A query that was answered, without its audio."""

    answered_at: str
    name: str | None = Field(description="Of the clip; null if the client gave none.")
    status: str = Field(description="`match`, `no_match` or `error`.")
    duration_s: float | None = Field(description="Of the clip.")
    elapsed_s: float = Field(description="From the request to the answer.")
    best: FoundTrack | None


class RecentPage(BaseModel):
    """The latest queries, the last one first."""

    queries: list[RecentQuery]


class MediaOptions(BaseModel):
    """Which folder to list."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field("", max_length=4096, description="Below the media folder; itself if empty.")
    cursor: int = Field(0, ge=0, description="`next` of the page before.")
    limit: int = Field(200, ge=1, le=1000, description="Maximum number of entries.")


class MediaEntry(BaseModel):
    """A folder, or a file with the name of audio."""

    name: str
    path: str = Field(description="As `/v1/ingest` and `/v1/scan` take it.")
    is_folder: bool
    size_bytes: int | None = Field(description="Null of a folder.")


class MediaPage(BaseModel):
    """Some entries of a folder: its folders by name, then its audio files by name."""

    path: str = Field(description="Of the folder, below the media folder.")
    entries: list[MediaEntry]
    next: int | None = Field(description="Cursor of the next page; null on the last one.")


class PeakOptions(BaseModel):
    """How finely to draw a waveform."""

    model_config = ConfigDict(extra="forbid")

    n_bins: int = Field(
        800, ge=1, le=MAX_BINS, description="Number of equal parts of the track.", alias="n-bins"
    )


class TrackPeaks(BaseModel):
    """The waveform of a track, for drawing it."""

    track_id: int
    duration_s: float
    peaks: list[float] = Field(
        description="Largest absolute sample of each part, as a share of the largest one of all."
    )
    shares_audio: bool = Field(description="Whether `/v1/tracks/{id}/audio` is answered.")


class TrackIds(BaseModel):
    """Some tracks."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"ids": [1, 2]}]})

    ids: list[Annotated[int, Field(strict=True)]] = Field(min_length=1, max_length=5000)


class TrackList(BaseModel):
    """Some tracks, in the order of the request."""

    tracks: list[Track]


class TrackChanges(BaseModel):
    """What to change of a track; null or empty text removes a value."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"title": "Quiet Rain", "metadata": {"mood": "calm"}}]},
    )

    title: str | None = Field(None, max_length=1000)
    artist: str | None = Field(None, max_length=1000)
    album: str | None = Field(None, max_length=1000)
    isrc: str | None = Field(None, max_length=100)
    metadata: dict[str, str | None] = Field(default_factory=dict, description="Any other keys.")

    def keywords(self) -> dict[str, Any]:
        """Return the keywords of :meth:`astound.catalog.Catalog.update` that were set."""
        given = self.model_dump(exclude_unset=True)
        metadata = {key: value or "" for key, value in (given.pop("metadata", None) or {}).items()}
        keywords: dict[str, Any] = {key: value or "" for key, value in given.items()}
        return keywords | ({"metadata": metadata} if metadata else {})


# -- jobs ----------------------------------------------------------------------------------------


class IngestPaths(BaseModel):
    """What to ingest of the files below the media folder."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"paths": ["new"]}]})

    paths: list[str] = Field(
        min_length=1, max_length=1000, description="Files, or folders searched recursively."
    )


class IngestOptions(BaseModel):
    """How an upload is stored."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(
        None, max_length=1000, description="Name of a file that is the whole body."
    )


class ScanPath(BaseModel):
    """What to scan of the files below the media folder."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"path": "mix.mp3"}]})

    path: str


class ScanOptions(ClipOptions):
    """The options of the command `scan`, under their names."""

    min_confidence: float | None = Field(
        None,
        ge=0,
        le=1,
        alias="min-confidence",
        description="Minimum confidence of an entry, in place of the default.",
    )

    def keywords(self) -> JsonObject:
        """Return the keywords of :meth:`astound.catalog.Catalog.scan` that were set."""
        keywords = super().keywords()
        given = {"name": self.name, "min_confidence": self.min_confidence}
        return keywords | {key: value for key, value in given.items() if value is not None}


class TimelineOptions(BaseModel):
    """How to write a timeline."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["csv", "cue", "audacity"] = Field(
        "csv", description="A format of the command `scan`."
    )


class DedupOptions(BaseModel):
    """The options of the command `dedup`, under their names."""

    model_config = ConfigDict(extra="forbid")

    min_length: float = Field(
        DedupConfig.min_length_s,
        ge=2,
        alias="min-length",
        allow_inf_nan=False,
        description="Minimum length of a passage in seconds.",
    )
    full_only: bool = Field(
        False, alias="full-only", description="Find full duplicates only; much faster."
    )

    def keywords(self) -> JsonObject:
        """Return the fields of :class:`engine.config.DedupConfig`."""
        return {"min_length_s": self.min_length, "full_only": self.full_only}


class CompactOptions(BaseModel):
    """The options of the command `compact`, under their names."""

    model_config = ConfigDict(extra="forbid")

    storage: Literal["full", "compact"] | None = Field(
        None, description="Store exact vectors, or codes only; unchanged by default."
    )

    def keywords(self) -> JsonObject:
        """Return the storage as :meth:`astound.catalog.Catalog.compact` names it."""
        if self.storage is None:
            return {}
        return {"storage": "codes" if self.storage == "compact" else "full"}


class JobPageOptions(BaseModel):
    """Which jobs to list."""

    model_config = ConfigDict(extra="forbid")

    status: list[JobStatus] = Field([], description="Only jobs with one of these.")
    cursor: int | None = Field(None, ge=1, description="`next` of the page before.")
    limit: int = Field(50, ge=1, le=_MAX_PAGE, description="Maximum number of jobs.")


class JobProgress(BaseModel):
    """How far a job is."""

    done: float
    total: float | None = Field(description="Null if it is unknown.")
    unit: str = Field(description="`files`, `seconds`, `tracks`, `segments` or `shards`.")
    message: str = Field(description="What it waits for, or empty.")


class JobState(BaseModel):
    """A job without its result."""

    id: int = Field(description="Later jobs have greater ones.")
    kind: JobKind
    status: JobStatus
    created_at: str
    started_at: str | None
    cancelled_at: str | None = Field(description="A job that runs stops soon after it.")
    finished_at: str | None
    key_id: int | None = Field(description="The key that was used; null if none was needed.")
    options: dict[str, Any]
    progress: JobProgress | None = Field(description="Null before it has begun.")
    error: dict[str, Any] | None = Field(description="The problem because of which it failed.")


class JobDescription(JobState):
    """A job."""

    result: dict[str, Any] | None = Field(
        description="Null until it has ended; that of a scan grows while it runs."
    )


class JobPage(BaseModel):
    """Some jobs, the newest first."""

    jobs: list[JobState]
    next: int | None = Field(description="Cursor of the next page; null on the last one.")


_ARRAY_SCHEMA: JsonObject = {
    "type": "object",
    "required": ["shape", "base64"],
    "additionalProperties": False,
    "properties": {
        "shape": {"type": "array", "items": {"type": "integer"}},
        "base64": {"type": "string", "contentEncoding": "base64"},
    },
    "description": "Numbers of 32 bits, little endian, one row of unit norm for each segment.",
}
FINGERPRINT_SCHEMA: JsonObject = {
    "type": "object",
    "required": ["recipe_id", "segment_hop_s", "duration_s", "clips"],
    "additionalProperties": False,
    "properties": {
        "recipe_id": {"type": "string", "description": "That of `/v1/recipe`."},
        "segment_hop_s": {"type": "number", "description": "That of `/v1/recipe`."},
        "duration_s": {"type": "number", "description": "Of the recording."},
        "clips": {
            "type": "array",
            "description": "Stretches of up to 128 s, each 112 s behind the one before.",
            "items": {
                "type": "object",
                "required": ["start_s", "duration_s", "embeddings"],
                "additionalProperties": False,
                "properties": {
                    "start_s": {"type": "number"},
                    "duration_s": {"type": "number"},
                    "embeddings": _ARRAY_SCHEMA,
                },
            },
        },
    },
}
"""The fields of :class:`engine.search.query_fingerprint.QueryFingerprint`."""

# -- examples ------------------------------------------------------------------------------------

QUERY_EXAMPLE: JsonObject = {
    "query": "clip.wav",
    "status": "match",
    "duration_s": 5.0,
    "matches": [
        {
            "rank": 1,
            "track_id": 12,
            "path": "/music/a.ogg",
            "title": "Quiet Rain",
            "artist": None,
            "query_start_s": 0.0,
            "query_end_s": 5.0,
            "reference_start_s": 61.52,
            "reference_end_s": 66.52,
            "offset_s": 61.52,
            "score": 0.83,
            "confidence": 0.998,
            "votes": 17,
            "coverage": 0.95,
            "speed": 1.0,
            "margin": 0.41,
            "tempo": 1.0,
            "pitch": 0.0,
            "also_at_s": [93.5],
            "start_error_s": 0.1,
            "end_error_s": 0.1,
        }
    ],
    "warnings": [],
    "timings_ms": {"decode": 3.1, "encode": 18.0, "search": 2.2, "align": 1.0},
}
TRACK_EXAMPLE: JsonObject = {
    "id": 12,
    "path": "/music/a.ogg",
    "title": "Quiet Rain",
    "artist": None,
    "album": None,
    "isrc": None,
    "duration_s": 187.2,
    "content_hash": "9f71c9c7d85642c7c7c5119b406285310ca2c83bc05e2c306a027d21f9b2052f",
    "n_segments": 373,
    "added_at": "2026-11-29T15:47:03+00:00",
    "metadata": {"mood": "calm"},
}


JOB_EXAMPLE: JsonObject = {
    "id": 3,
    "kind": "ingest",
    "status": "running",
    "created_at": "2026-11-29T15:47:03+00:00",
    "started_at": "2026-11-29T15:47:03+00:00",
    "cancelled_at": None,
    "finished_at": None,
    "key_id": None,
    "options": {"paths": ["/music/new"]},
    "progress": {"done": 17, "total": 240, "unit": "files", "message": ""},
    "error": None,
    "result": None,
}


def example(answer: JsonObject, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """Return the description of a successful response with an example."""
    return {status: {"content": {"application/json": {"example": answer}}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of responses that are problems."""
    content = {"content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    return {
        status: {"description": "The code names the reason.", "model": Problem} | content
        for status in statuses
    }
