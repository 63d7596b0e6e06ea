"""Settings of index, search, alignment and ingest; each default is written once.

They are not part of the recipe (:mod:`engine.recipe`). Those of index and ingest shape what is
stored; search and alignment settings may change per call.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from engine.errors import ConfigError
from engine.validation import check_value

T = TypeVar("T")

MAX_MATCHES = 5
"""Matches of a query, by default."""

QUERY_GAP_S = 2.0
"""Longest gap in a match of a query."""

HOP_RANGE_S = (1e-3, 60.0)
"""Least and greatest distance of stored segments in seconds; far beyond any use."""

MIN_SHARED_S = 4.0
"""Length of the shortest passage that two files share, by default."""

MIN_REPEAT_S = 5.0
"""Length of the shortest passage that is repeated, by default."""


def require(condition: bool, key: str, value: object, requirement: str) -> None:
    """Raise ConfigError unless the condition holds.

    Parameters
    ----------
    condition : bool
    key : str
        Name of the setting.
    value : object
        Its value, shown in the message.
    requirement : str
        What the value must fulfil, such as "must be positive".
    """
    if not condition:
        raise ConfigError.invalid(key, value, requirement)


def require_hop(segment_hop_s: float | str) -> None:
    """Raise ConfigError unless a number, or the text of one, is in HOP_RANGE_S."""
    least, most = HOP_RANGE_S
    with suppress(ValueError):
        if least <= float(segment_hop_s) <= most:
            return
    requirement = f"must be in [{least:g}, {most:g}]"
    raise ConfigError.invalid("segment_hop_s", segment_hop_s, requirement)


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """How the vectors of a catalog are stored.

    Parameters
    ----------
    segment_hop_s : float
        Distance of the stored segments in seconds. A shorter one finds more and costs more.
    max_flat_segments : int
        Up to this many segments, a query is compared with all of them. Beyond, compaction makes
        large shards with an approximate index.
    max_shard_segments : int
        Largest shard that compaction makes of several.
    """

    segment_hop_s: float = 0.5
    max_flat_segments: int = 250_000
    max_shard_segments: int = 4_000_000

    def __post_init__(self) -> None:
        for key in ("max_flat_segments", "max_shard_segments"):
            require(getattr(self, key) > 0, key, getattr(self, key), "must be positive")
        require_hop(self.segment_hop_s)


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How a query is searched; may change per call.

    Parameters
    ----------
    query_hop_s : float
        Distance of the query's segments in seconds. It is finer than the catalog's, so that one of
        every few segments lies close to a stored one. The catalog's hop must be a multiple of it.
    k : int
        Nearest neighbours of each segment; the cosine of the last one is the segment's background.
    n_fallback_neighbours : int
        Neighbours of each segment in a second search of large shards, for queries without a sure
        candidate; 0 to skip that search.
    n_rescored : int
        Neighbours by short codes in a large shard that are compared exactly.
    nprobe : int or None
        Lists of a large shard that are searched; chosen by its size by default.
    speeds : tuple of float
        Factors by which a query without a sure candidate is played faster; empty to skip that. The
        encoder tolerates about three quarters of a semitone to either side, and people transpose
        by whole ones.
    speeds_s : float
        Only this much of a query's beginning is played at other speeds.
    resampled_weight : float
        Factor of the evidence at other speeds. It is below 1 because the best of many more wrong
        candidates has more evidence.
    """

    query_hop_s: float = 0.125
    k: int = 50
    n_fallback_neighbours: int = 500
    n_rescored: int = 400
    nprobe: int | None = None
    speeds: tuple[float, ...] = tuple(
        2 ** (n / 12) for n in (*range(-6, 0), -0.5, 0.5, *range(1, 7))
    )
    speeds_s: float = 30.0
    resampled_weight: float = 0.9

    def __post_init__(self) -> None:
        for key in (
            "query_hop_s",
            "k",
            "n_rescored",
            "nprobe",
            "speeds_s",
            "resampled_weight",
        ):
            value = getattr(self, key)
            require(value is None or value > 0, key, value, "must be positive")
        n_fallback = self.n_fallback_neighbours
        require(n_fallback >= 0, "n_fallback_neighbours", n_fallback, "must be 0 or more")
        require(all(s > 0 for s in self.speeds), "speeds", self.speeds, "must all be positive")


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """How hits become candidates; may change per call.

    Parameters
    ----------
    max_candidates : int
        Diagonals with most votes that are rescored exactly.
    max_tracks : int
        Tracks with most evidence that become candidates.
    min_cosine : float
        A query segment agrees with the track from this cosine on.
    n_tilted : int
        Candidates for which lines of other speeds than 1 are tried.
    max_tilt : float
        Greatest difference of these speeds to 1.
    tilted_weight : float
        Factor of the evidence along such lines in queries of up to five seconds, nearer to 1 in
        longer ones. It is below 1 because many more lines than diagonals are tried.
    """

    max_candidates: int = 200
    max_tracks: int = 50
    min_cosine: float = 0.5
    n_tilted: int = 10
    max_tilt: float = 0.25
    tilted_weight: float = 0.9

    def __post_init__(self) -> None:
        for key in ("max_candidates", "max_tracks"):
            require(getattr(self, key) > 0, key, getattr(self, key), "must be positive")
        require(self.n_tilted >= 0, "n_tilted", self.n_tilted, "must be 0 or more")
        require(0 <= self.max_tilt < 1, "max_tilt", self.max_tilt, "must be in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class ScanConfig:
    """How a long recording is scanned; may change per call.

    Parameters
    ----------
    search, alignment : SearchConfig, AlignConfig
        How it is searched. Tracks last long, so the defaults take less time than those of a query,
        and try fewer speeds.
    max_gap_s : float
        Longest stretch without a track in one of its entries.
    min_confidence : float
        Least confidence of an entry. It is higher than that of a query because an hour has
        hundreds of passages that may be wrong.
    """

    search: SearchConfig = field(
        default_factory=lambda: SearchConfig(
            query_hop_s=0.25, speeds=tuple(2 ** (n / 12) for n in (-1.0, 1.0))
        )
    )
    alignment: AlignConfig = field(
        default_factory=lambda: AlignConfig(max_candidates=60, n_tilted=4, max_tilt=0.1)
    )
    max_gap_s: float = 20.0
    min_confidence: float = 0.97

    def __post_init__(self) -> None:
        is_share = 0 <= self.min_confidence <= 1
        require(is_share, "min_confidence", self.min_confidence, "must be in [0, 1]")
        require(self.max_gap_s >= 0, "max_gap_s", self.max_gap_s, "must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class DedupConfig:
    """How the duplicates in a catalog are found; may change per call.

    Parameters
    ----------
    min_length_s : float
        Length of the shortest passage that makes two tracks duplicates in part. Their other
        passages are found from :data:`MIN_SHARED_S` on.
    full_only : bool
        Find full duplicates only, which takes far fewer searches.
    max_speed_change : float
        Greatest difference of the speed to 1.
    """

    min_length_s: float = 10.0
    full_only: bool = False
    max_speed_change: float = 0.05

    def __post_init__(self) -> None:
        require(self.min_length_s > 0, "min_length_s", self.min_length_s, "must be positive")
        is_valid = 0 <= self.max_speed_change < 1
        require(is_valid, "max_speed_change", self.max_speed_change, "must be in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """How files are added.

    Parameters
    ----------
    n_jobs : int or None
        Decoding processes; one for each core by default.
    commit_every_s : float
        Time between commits. A crash loses the fingerprints since the last one.
    max_segments : int
        Segments in memory that cause a commit as well.
    """

    n_jobs: int | None = None
    commit_every_s: float = 60.0
    max_segments: int = 200_000

    def __post_init__(self) -> None:
        require(self.n_jobs is None or self.n_jobs > 0, "n_jobs", self.n_jobs, "must be positive")
        for key in ("commit_every_s", "max_segments"):
            require(getattr(self, key) > 0, key, getattr(self, key), "must be positive")


def n_threads() -> int:
    """Return the number of threads that the user sets for all libraries, else that of the CPUs."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_query_jobs() -> int:
    """Return how many queries to answer at a time: one for each thread, four at most."""
    return min(n_threads(), 4)


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """What the HTTP service takes on.

    Parameters
    ----------
    n_jobs : int or None
        Queries answered at a time; one for each core, four at most, by default.
    max_waiting : int
        Queries that wait beside them; further ones are refused.
    max_per_client : int
        Queries of one client at a time, waiting or not.
    max_upload_bytes : int
        Largest body of a query.
    max_clip_s : float
        Longest clip; nothing behind it is decoded.
    max_pause_s : float
        Longest pause while a body is received.
    media : Path or None
        Folder whose files jobs may name; none by default.
    max_job_upload_bytes : int
        Largest body of a job: the recordings to ingest, or the one to scan.
    max_waiting_jobs : int
        Jobs that wait or run at a time; further ones are refused.
    max_rate : float or None
        Requests of one client per minute; any number by default.
    share_audio : bool
        Also send the files of tracks.
    """

    n_jobs: int | None = None
    max_waiting: int = 32
    max_per_client: int = 16
    max_upload_bytes: int = 500_000_000
    max_clip_s: float = 600.0
    max_pause_s: float = 30.0
    media: Path | None = None
    max_job_upload_bytes: int = 2_000_000_000
    max_waiting_jobs: int = 100
    max_rate: float | None = None
    share_audio: bool = False

    def __post_init__(self) -> None:
        rate = self.max_rate
        require(rate is None or rate > 0, "max_rate", rate, "must be positive")
        require(self.n_jobs is None or self.n_jobs > 0, "n_jobs", self.n_jobs, "must be positive")
        require(self.max_waiting >= 0, "max_waiting", self.max_waiting, "must be 0 or more")
        for key in (
            "max_per_client",
            "max_upload_bytes",
            "max_clip_s",
            "max_pause_s",
            "max_job_upload_bytes",
            "max_waiting_jobs",
        ):
            require(getattr(self, key) > 0, key, getattr(self, key), "must be positive")

    @property
    def n_threads(self) -> int:
        """Threads that answer queries."""
        return self.n_jobs or default_query_jobs()


def load(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Build a config dataclass from nested plain values.

    Parameters
    ----------
    cls : type
    values : mapping
        Values of some fields by their names; a mapping for a field that is a dataclass.
    prefix : str
        Start of the names in error messages.

    Raises
    ------
    ConfigError
        A name is unknown, or a value is invalid.
    """
    if not isinstance(values, Mapping):
        raise ConfigError.invalid(prefix.rstrip(".") or cls.__name__, values, "must be an object")
    kinds = get_type_hints(cls)
    for key in values:
        if key not in kinds:
            raise ConfigError(f"{prefix}{key}", f"unknown setting; choose from {', '.join(kinds)}")
    built = {
        key: load(kinds[key], value, f"{prefix}{key}.")
        if dataclasses.is_dataclass(kinds[key])
        else check_value(kinds[key], value, f"{prefix}{key}")
        for key, value in values.items()
    }
    return cls(**built)


def require_positive(config: object, largest: Mapping[str, float]) -> None:
    """Raise ConfigError unless fields are positive and at most as large as given.

    Parameters
    ----------
    config : object
    largest : mapping of str to number
        Largest value of each field. It is far beyond any use, and keeps what is allocated for a
        damaged file small.
    """
    for key, most in largest.items():
        value = getattr(config, key)
        require(value > 0, key, value, "must be positive")
        require(value <= most, key, value, f"must be at most {most}")
