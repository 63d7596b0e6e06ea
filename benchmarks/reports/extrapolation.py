"""Estimates for catalogs larger than any measured, by linear extrapolation.

Nothing here was run. With N segments, and `small` and `large` the two largest measured catalogs
with inverted lists, all quantities are straight lines:

* bytes(N) = N · bytes(large) / N(large). Of the database: N · tracks per segment · bytes per track,
  both of the catalog of real music, whose tracks and paths are realistic.
* memory(N) = memory(large) + slope · (N − N(large)), with the slope from small to large: memory
  that a process owns after queries.
* open(N): the line through both opening times.
* codes(N) = shards · (nlist + probes · rows / nlist): comparisons per query segment, with
  rows = N / shards, and nlist and probes as :mod:`engine.vectors.quantizer` chooses them.
* latency(N) = encode + align + search, with search on the line through both search times over their
  codes. m machines share the codes; the rest stays the same.
* build(N) = hours of music / speed of adding on one machine, and the time of compaction: training,
  which happens once, and the rest, which grows with N.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

from engine.config import IndexConfig
from engine.errors import ConfigError
from engine.records import POSITION_BITS
from engine.store.tables import LARGEST_ID
from engine.vectors import quantizer

Results = Mapping[str, Any]

N_SEGMENTS = (10**8, 10**9, 10**10)
RAM_GB = (64, 256)
USABLE = 0.75
"""Fraction of a machine's memory for the process; the rest caches files."""
_GB = 10**9
_HOUR_S = 3600.0
_MAX_QUERY_MS = 1000.0
_MAX_OPENING_S = 10.0
_YEAR_H = 8766.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimated costs at one size.

    Parameters
    ----------
    n_segments : int
    audio_h : float
        Hours of music.
    index_bytes, vector_bytes, clip_bytes, database_bytes : float
        On disk: codes with ids, whole vectors, clip-level vectors, the database.
    memory_bytes : float
        Memory that one process with the whole catalog owns.
    machines : mapping of int to int
        Number of machines needed, by the GB of memory of each.
    n_shards : int
    query_ms, wide_query_ms : float
        Latency of a 5-s query on one machine; the same with the widest shards.
    machines_for_speed : int
        Machines like the measured one that answer within a second.
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
    """A limit.

    Parameters
    ----------
    what : str
    n_segments : float
        Size of the catalog that reaches it; inf if none does.
    """

    what: str
    n_segments: float


class Extrapolation:
    """Straight lines through the measured catalogs.

    Parameters
    ----------
    results : mapping
        Results of `bench scale`.

    Raises
    ------
    ConfigError
        Fewer than two catalogs with lists were measured.
    """

    def __init__(self, results: Results) -> None:
        listed = _listed(results)
        if len(listed) < 2:
            raise ConfigError("n_segments", "estimates need two catalogs with lists")
        self.small, self.large = listed[-2:]
        self.real = next(catalog for catalog in results["sizes"] if catalog["name"] == "real")
        self.empty = results["empty"]

    def estimate(self, n_segments: int) -> Estimate:
        """Estimate the costs of `n_segments`."""
        memory_bytes = self.memory_bytes(n_segments)
        n_bytes = self.large["n_bytes"]
        each = {name: n_bytes.get(name, 0) / _size(self.large) * n_segments for name in _FILES}
        audio_h = self.real["duration_s"] / _size(self.real) * n_segments / _HOUR_S
        return Estimate(
            n_segments=n_segments,
            audio_h=audio_h,
            index_bytes=each["segments.faiss"],
            vector_bytes=each["segments.i8"],
            clip_bytes=each["clips.i8"],
            database_bytes=self.n_tracks(n_segments) * self._bytes_per_track(),
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
        """Return the limits by size, ascending."""
        gb = min(RAM_GB)
        add_h = self.estimate(_size(self.large)).add_h / _size(self.large)
        found = {
            f"a 5-s query takes {_MAX_QUERY_MS / 1000:.0f} s on one machine": self._codes_within(),
            f"opening takes {_MAX_OPENING_S:.0f} s": self._at("open_s", _MAX_OPENING_S),
            f"memory of one machine with {gb} GB": self._at("memory", gb * _GB * USABLE),
            "one writer adds for a year": _YEAR_H / add_h,
            f"track ids, {LARGEST_ID:,}": LARGEST_ID / self._tracks_per_segment(),
            f"lists of a single shard, {quantizer.choose_nlist(2**62):,}": float(WIDEST),
            "vector ids, 64 bits": 2.0**63 / 2**POSITION_BITS / self._tracks_per_segment(),
        }
        limits = [Limit(what=what, n_segments=n) for what, n in found.items()]
        return sorted(limits, key=lambda limit: limit.n_segments)

    def n_tracks(self, n_segments: int) -> float:
        """Estimate the number of tracks."""
        return n_segments * self._tracks_per_segment()

    def memory_bytes(self, n_segments: float) -> float:
        """Estimate the memory that a process owns after queries."""
        return self._line("memory", n_segments)

    def open_s(self, n_segments: float) -> float:
        """Estimate the time to open the catalog."""
        return self._line("open_s", n_segments)

    def query_ms(self, n_codes: float, n_machines: int = 1) -> float:
        """Estimate the latency of a 5-s query, with `n_codes` comparisons per segment."""
        steps_ms = self.large["latency"]["clean"]["median_step_ms"]
        fixed_ms, code_ms = self._search()
        rest_ms = sum(ms for step, ms in steps_ms.items() if step != "search")
        return float(rest_ms + fixed_ms + code_ms * n_codes / n_machines)

    # -- lines -------------------------------------------------------------------------------

    def _line(self, what: str, n_segments: float) -> float:
        (small, low), (large, high) = ((_size(o), _MEASURED[what](o)) for o in self._both)
        return float(high + (high - low) / (large - small) * (n_segments - large))

    def _at(self, what: str, value: float) -> float:
        """Return the size at which a line reaches a value."""
        at_zero, slope = self._line(what, 0), self._line(what, 1) - self._line(what, 0)
        return (value - at_zero) / slope if slope > 0 else inf

    @property
    def _both(self) -> tuple[Results, Results]:
        return self.small, self.large

    def _search(self) -> tuple[float, float]:
        """Return the milliseconds of a search without codes, and those of each code."""
        low, high = (
            catalog["latency"]["clean"]["median_step_ms"]["search"] for catalog in self._both
        )
        few, many = (codes(_size(catalog)) for catalog in self._both)
        code_ms = max((high - low) / (many - few), 0.0)
        return high - code_ms * many, code_ms

    def _machines(self, n_segments: int, owned_bytes: float) -> int:
        """Return the number of machines, each with the memory of an empty catalog."""
        return max(ceil(n_segments / self._at("memory", owned_bytes)), 1)

    def _fast_machines(self, n_segments: int) -> int:
        return max(ceil(n_segments / self._codes_within()), 1)

    def _codes_within(self) -> float:
        """Return the number of segments that are searched in time, in shards of full size."""
        _, code_ms = self._search()
        left_ms = _MAX_QUERY_MS - self.query_ms(0)
        if code_ms == 0:
            return inf
        full = IndexConfig().max_shard_segments
        return max(left_ms, 0.0) / code_ms * full / codes(full)

    def _tracks_per_segment(self) -> float:
        return float(self.real["n_tracks"] / _size(self.real))

    def _bytes_per_track(self) -> float:
        return float(self.real["n_bytes"]["catalog.db"] / self.real["n_tracks"])

    def _compact_h(self, n_segments: int) -> float:
        measured = self.large["compact"]
        each_s = (measured["compact_s"] - measured["train_s"]) / _size(self.large)
        return float((measured["train_s"] + each_s * n_segments) / _HOUR_S)


WIDEST = quantizer.choose_nlist(2**62) * quantizer.N_PER_LIST
"""Segments in a shard with the maximum number of lists, filled as usual."""

_FILES = ("segments.faiss", "segments.i8", "clips.i8")
_MEASURED: Mapping[str, Callable[[Results], float]] = {
    "memory": lambda catalog: catalog["memory_bytes"]["asked"]["anonymous"],
    "open_s": lambda catalog: catalog["open_s"],
}


def n_shards(n_segments: int, max_shard_segments: int | None = None) -> int:
    """Return the number of shards that compaction makes."""
    return ceil(n_segments / (max_shard_segments or IndexConfig().max_shard_segments))


def codes(n_segments: int, max_shard_segments: int | None = None) -> float:
    """Return the comparisons per query segment: list centres, and codes in the probed lists.

    Parameters
    ----------
    n_segments : int
    max_shard_segments : int, optional
        As compaction uses by default.
    """
    shards = n_shards(n_segments, max_shard_segments)
    rows = n_segments / shards
    nlist = quantizer.choose_nlist(int(rows))
    return shards * (nlist + quantizer.choose_nprobe(nlist) * rows / nlist)


def is_possible(results: Results) -> bool:
    """Whether two catalogs with lists were measured, as estimates need."""
    return len(_listed(results)) >= 2


def estimates(results: Results, sizes: Sequence[int] = N_SEGMENTS) -> list[Estimate]:
    """Estimate several sizes."""
    extrapolation = Extrapolation(results)
    return [extrapolation.estimate(n_segments) for n_segments in sizes]


def _listed(results: Results) -> list[Results]:
    """Return the catalogs with lists, by size."""
    listed = [catalog for catalog in results["sizes"] if set(catalog["n_shards"]) != {"flat"}]
    return sorted({_size(catalog): catalog for catalog in listed}.values(), key=_size)


def _size(catalog: Results) -> int:
    return int(catalog["n_segments"])
