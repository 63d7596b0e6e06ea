"""What catalogs larger than any measured would take: an estimate on paper, from measured growth.

Nothing here was run. With N segments, and `small` and `large` the two largest catalogs measured
that are searched by lists, all quantities are straight lines:

* bytes(N) = N · bytes(large) / N(large); of the database, N · tracks a segment · bytes a track,
  both of real music, whose tracks and paths are what people have.
* memory(N) = memory(large) + slope · (N − N(large)), slope from small to large: what a process
  owns after queries.
* open(N), the same line through both times of opening.
* codes(N) = shards · (nlist + probes · rows / nlist), what a query segment is compared with, with
  rows = N / shards, and nlist and probes those of :mod:`engine.vectors.quantizer` for so many rows.
* latency(N) = encode + align + search, with search the line through both measured times over their
  codes; m machines share the codes, and what does not depend on them stays.
* build(N) = hours of music / speed of adding on one machine of those measured, and the time of
  compaction: training, which happens once, and the rest, which grows with N.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

from engine.config import IndexConfig
from engine.errors import ConfigError
from engine.records import POSITION_BITS
from engine.store.queries import LARGEST_ID
from engine.vectors import quantizer

Results = Mapping[str, Any]

N_SEGMENTS = (10**8, 10**9, 10**10)
RAM_GB = (64, 256)
USABLE = 0.75
"""Share of a machine's memory for what its process owns; the rest caches files."""
_GB = 10**9
_HOUR_S = 3600.0
_WANTED_MS = 1000.0
_OPENING_S = 10.0
_YEAR_H = 8766.0


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """An estimate for one size.

    Parameters
    ----------
    n_segments : int
    audio_h : float
        Hours of music.
    index_bytes, vector_bytes, clip_bytes, database_bytes : float
        On disk: codes with their ids, whole vectors, clip-level vectors, the database.
    memory_bytes : float
        What one process that holds all of it owns.
    machines : mapping of int to int
        Machines by the GB of memory each has, so that what they own fits.
    n_shards : int
    query_ms, wide_query_ms : float
        Of a 5-s query on one machine; with the largest shards lists allow, too.
    machines_for_speed : int
        Machines of the kind measured that answer within a second.
    open_s : float
    add_h, compact_h : float
        On one machine.
    """

    n_segments: int
    audio_h: float
    index_bytes: float
    vector_bytes: float
    clip_bytes: float
    database_bytes: float
    memory_bytes: float
    machines: Mapping[int, int]
    n_shards: int
    query_ms: float
    wide_query_ms: float
    machines_for_speed: int
    open_s: float
    add_h: float
    compact_h: float


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Where something ends.

    Parameters
    ----------
    what : str
    n_segments : float
        Size of the catalog that reaches it; inf for never.
    """

    what: str
    n_segments: float


class Growth:
    """Straight lines through what was measured.

    Parameters
    ----------
    results : mapping
        Of `bench scale`.

    Raises
    ------
    ConfigError
        Fewer than two catalogs were measured that have lists.
    """

    def __init__(self, results: Results) -> None:
        listed = _listed(results)
        if len(listed) < 2:
            raise ConfigError("n_segments", "an estimate needs two catalogs that have lists")
        self.small, self.large = listed[-2:]
        self.real = next(one for one in results["sizes"] if one["name"] == "real")
        self.empty = results["empty"]

    def forecast(self, n_segments: int) -> Forecast:
        """Estimate what so many segments take."""
        memory_bytes = self.memory_bytes(n_segments)
        n_bytes = self.large["n_bytes"]
        each = {name: n_bytes.get(name, 0) / _size(self.large) * n_segments for name in _FILES}
        audio_h = self.real["duration_s"] / _size(self.real) * n_segments / _HOUR_S
        return Forecast(
            n_segments=n_segments,
            audio_h=audio_h,
            index_bytes=each["segments.faiss"],
            vector_bytes=each["segments.i8"],
            clip_bytes=each["clips.i8"],
            database_bytes=self.n_tracks(n_segments) * self._bytes_a_track(),
            memory_bytes=memory_bytes,
            machines={gb: self._machines(n_segments, gb * _GB * USABLE) for gb in RAM_GB},
            n_shards=n_shards(n_segments),
            query_ms=self.query_ms(codes(n_segments)),
            wide_query_ms=self.query_ms(codes(n_segments, WIDEST)),
            machines_for_speed=self._fast_machines(n_segments),
            open_s=self.open_s(n_segments),
            add_h=audio_h * self.empty["add_s"] / self.empty["audio_s"],
            compact_h=self._compact_h(n_segments),
        )

    def limits(self) -> list[Limit]:
        """List what ends, the first to end first."""
        gb = min(RAM_GB)
        add_h = self.forecast(_size(self.large)).add_h / _size(self.large)
        found = {
            f"a 5-s query takes {_WANTED_MS / 1000:.0f} s on one machine": self._codes_within(),
            f"opening takes {_OPENING_S:.0f} s": self._at("open_s", _OPENING_S),
            f"memory of one machine with {gb} GB": self._at("memory", gb * _GB * USABLE),
            "one writer adds for a year": _YEAR_H / add_h,
            f"ids of tracks, {LARGEST_ID:,}": LARGEST_ID / self._tracks_a_segment(),
            f"lists of a single shard, {quantizer.n_lists(2**62):,}": float(WIDEST),
            "ids of vectors, 64 bits": 2.0**63 / 2**POSITION_BITS / self._tracks_a_segment(),
        }
        limits = [Limit(what=what, n_segments=n) for what, n in found.items()]
        return sorted(limits, key=lambda one: one.n_segments)

    def n_tracks(self, n_segments: int) -> float:
        """Estimate how many tracks have so many segments together."""
        return n_segments * self._tracks_a_segment()

    def memory_bytes(self, n_segments: float) -> float:
        """Estimate what a process owns after queries."""
        return self._line("memory", n_segments)

    def open_s(self, n_segments: float) -> float:
        """Estimate how long opening takes."""
        return self._line("open_s", n_segments)

    def query_ms(self, n_codes: float, n_machines: int = 1) -> float:
        """Estimate a 5-s query whose segments are each compared with so many codes."""
        steps_ms = self.large["latency"]["clean"]["median_step_ms"]
        fixed_ms, code_ms = self._search()
        rest_ms = sum(ms for step, ms in steps_ms.items() if step != "search")
        return float(rest_ms + fixed_ms + code_ms * n_codes / n_machines)

    # -- lines -------------------------------------------------------------------------------

    def _line(self, what: str, n_segments: float) -> float:
        (small, low), (large, high) = ((_size(o), _MEASURED[what](o)) for o in self._both)
        return float(high + (high - low) / (large - small) * (n_segments - large))

    def _at(self, what: str, value: float) -> float:
        """Where a line reaches a value."""
        at_zero, slope = self._line(what, 0), self._line(what, 1) - self._line(what, 0)
        return (value - at_zero) / slope if slope > 0 else inf

    @property
    def _both(self) -> tuple[Results, Results]:
        return self.small, self.large

    def _search(self) -> tuple[float, float]:
        """Milliseconds of a search without codes, and of each code."""
        low, high = (one["latency"]["clean"]["median_step_ms"]["search"] for one in self._both)
        few, many = (codes(_size(one)) for one in self._both)
        code_ms = max((high - low) / (many - few), 0.0)
        return high - code_ms * many, code_ms

    def _machines(self, n_segments: int, owned_bytes: float) -> int:
        """Machines whose parts of the segments fit, each with what the first byte costs."""
        return max(ceil(n_segments / self._at("memory", owned_bytes)), 1)

    def _fast_machines(self, n_segments: int) -> int:
        return max(ceil(n_segments / self._codes_within()), 1)

    def _codes_within(self) -> float:
        """Segments whose codes are searched within the time wanted, in shards of full size."""
        _, code_ms = self._search()
        left_ms = _WANTED_MS - self.query_ms(0)
        if code_ms == 0:
            return inf
        full = IndexConfig().max_shard_segments
        return max(left_ms, 0.0) / code_ms * full / codes(full)

    def _tracks_a_segment(self) -> float:
        return float(self.real["n_tracks"] / _size(self.real))

    def _bytes_a_track(self) -> float:
        return float(self.real["n_bytes"]["catalog.db"] / self.real["n_tracks"])

    def _compact_h(self, n_segments: int) -> float:
        measured = self.large["compact"]
        each_s = (measured["compact_s"] - measured["train_s"]) / _size(self.large)
        return float((measured["train_s"] + each_s * n_segments) / _HOUR_S)


WIDEST = quantizer.n_lists(2**62) * quantizer.N_PER_LIST
"""Segments in a shard that has as many lists as there may be, filled as others are."""

_FILES = ("segments.faiss", "segments.i8", "clips.i8")
_MEASURED: Mapping[str, Callable[[Results], float]] = {
    "memory": lambda one: one["memory_bytes"]["asked"]["anonymous"],
    "open_s": lambda one: one["open_s"],
}


def n_shards(n_segments: int, largest: int | None = None) -> int:
    """Count the shards that compaction makes of so many segments."""
    return ceil(n_segments / (largest or IndexConfig().max_shard_segments))


def codes(n_segments: int, largest: int | None = None) -> float:
    """Count what a query segment is compared with: the lists, then the codes in those chosen.

    Parameters
    ----------
    n_segments : int
    largest : int, optional
        Segments in a shard at most; as compaction makes them by default.
    """
    shards = n_shards(n_segments, largest)
    rows = n_segments / shards
    nlist = quantizer.n_lists(int(rows))
    return shards * (nlist + quantizer.n_probes(nlist) * rows / nlist)


def is_possible(results: Results) -> bool:
    """Whether enough was measured for an estimate: two catalogs that have lists."""
    return len(_listed(results)) >= 2


def forecasts(results: Results, sizes: Sequence[int] = N_SEGMENTS) -> list[Forecast]:
    """Estimate several sizes."""
    growth = Growth(results)
    return [growth.forecast(one) for one in sizes]


def _listed(results: Results) -> list[Results]:
    """Give the catalogs that are searched by lists, by their size."""
    listed = [one for one in results["sizes"] if set(one["n_shards"]) != {"flat"}]
    return sorted({_size(one): one for one in listed}.values(), key=_size)


def _size(one: Results) -> int:
    return int(one["n_segments"])
