"""Markdown tables of `bench scale`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import isinf
from statistics import mean
from typing import Any

from benchmarks.reports.extrapolation import RAM_GB, Estimate, Extrapolation, estimates
from benchmarks.reports.report import percent, table

Results = Mapping[str, Any]

_MIB = 2**20
_GB = 10**9
_EXTRAPOLATED = 2
"""Catalogs larger than this multiple of the music that the model was fitted to get a star."""
_FILES = {
    "segments.faiss": "index",
    "segments.i8": "vectors for rescoring",
    "clips.i8": "clip-level vectors",
}
_COUNTS = ("n_right", "n_right_exact", "n")


def cost_table(results: Results) -> str:
    """Format a column for each catalog and a row for each cost."""
    rows = [[what, *map(show, results["sizes"])] for what, show in _COSTS.items()]
    return table(["", *_heads(results)], rows)


def recall_table(results: Results) -> str:
    """Format the hit rate of each cell in each catalog, in per cent."""
    labels = [cell["cell"] for cell in results["sizes"][0]["cells"]]
    rows = [
        [label, *(_hit_rate(catalog["cells"][i]) for catalog in results["sizes"])]
        for i, label in enumerate(labels)
    ]
    return table(["right track, %", *_heads(results)], rows)


def comparison_table(results: Results) -> str:
    """Format the comparison with an exact search: a row for each catalog and number of lists."""
    head = [
        "catalog", "probed lists", "neighbours found", "right", "right, exact", "queries", "search",
    ]  # fmt: skip
    rows = [
        [_head(results, catalog), "default" if n_probe is None else str(n_probe), *columns]
        for catalog in results["sizes"]
        for n_probe, columns in _comparisons(catalog["efforts"])
    ]
    return table(head, rows)


def realism_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Format how near synthetic and real music come to queries."""
    head = ["query", "segments", "neighbour", "real music", "synthetic", "difference"]
    return table(head, [_realism(row) for row in rows])


def estimate_table(results: Results) -> str:
    """Format estimates for catalogs larger than any measured: a column for each size."""
    sizes = estimates(results)
    rows = [[what, *map(show, sizes)] for what, show in _ESTIMATES.items()]
    return table(["estimated", *(f"{estimate.n_segments:,} segments" for estimate in sizes)], rows)


def limits_table(results: Results) -> str:
    """Format the limits and the sizes that reach them, ascending."""
    limits = Extrapolation(results).limits()
    rows = [[limit.what, _power(limit.n_segments)] for limit in limits]
    return table(["limit", "segments"], rows)


def _realism(row: Mapping[str, Any]) -> list[str]:
    sides = (" / ".join(f"{cosine:.2f}" for cosine in row[side]) for side in ("real", "made_up"))
    place = [row["query"], f"{row['n_segments']:,}", str(row["rank"])]
    return [*place, *sides, f"{row['difference']:+.3f}"]


def _comparisons(rows: Sequence[Mapping[str, Any]]) -> Iterable[tuple[int | None, list[str]]]:
    """Sum over the cells for each number of lists."""
    for n_probe in dict.fromkeys(row["n_probe"] for row in rows):
        chosen = [row for row in rows if row["n_probe"] == n_probe]
        right, exact, n = (sum(row[key] for row in chosen) for key in _COUNTS)
        found = mean(row["neighbours_found"] for row in chosen)
        search_ms = mean(row["search_ms"] for row in chosen)
        yield n_probe, [f"{found:.1%}", str(right), str(exact), str(n), f"{search_ms:.1f} ms"]


def _heads(results: Results) -> list[str]:
    return [_head(results, catalog) for catalog in results["sizes"]]


def _head(results: Results, catalog: Results) -> str:
    """Format size and kind of a catalog, with a star if it is far larger than the real music."""
    kind = "synthetic" if catalog["name"].startswith("made-up") else catalog["name"]
    star = " *" if is_extrapolated(results, catalog) else ""
    return f"{catalog['n_segments']:,} {kind}{star}"


def is_extrapolated(results: Results, catalog: Results) -> bool:
    """Whether a catalog is far larger than the music that the model was fitted to."""
    return bool(catalog["n_segments"] > _EXTRAPOLATED * results["others"]["n_segments"])


def _hit_rate(cell: Mapping[str, Any]) -> str:
    return percent(cell["present"]["hit_rate"], digits=0)


def _bytes_per_segment(catalog: Results) -> str:
    named = {name: catalog["n_bytes"].get(file, 0) for file, name in _FILES.items()}
    other = sum(catalog["n_bytes"].values()) - sum(named.values())
    parts = (*named.values(), other)
    return " + ".join(f"{part / catalog['n_segments']:.0f}" for part in parts)


def _resident(stage: str, kind: str) -> Callable[[Results], str]:
    return lambda catalog: f"{catalog['memory_bytes'][stage][kind] / _MIB:,.0f} MiB"


def _latency(kind: str) -> Callable[[Results], str]:
    return lambda catalog: "{median_ms:.0f} / {p95_ms:.0f} ms".format(**catalog["latency"][kind])


def _steps(catalog: Results) -> str:
    return " + ".join(f"{ms:.0f}" for ms in catalog["latency"]["clean"]["median_step_ms"].values())


def _writing(catalog: Results) -> str:
    is_complete = catalog["build"]["n_segments"] == catalog["n_segments"]  # not if resumed
    return f"{catalog['build']['write_s']:.1f} s" if is_complete else "-"


def _deleting(catalog: Results) -> str:
    change = catalog["change"]
    return f"{change['delete_s']:.2f} s" if change["n_deleted"] else "-"


_COSTS: dict[str, Callable[[Results], str]] = {
    "hours of music": lambda catalog: f"{catalog['duration_s'] / 3600:,.0f}",
    "writing": _writing,
    "compaction": lambda catalog: f"{catalog['compact']['compact_s']:.1f} s",
    "of that, training": lambda catalog: f"{catalog['compact']['train_s']:.1f} s",
    "peak memory of compaction": lambda catalog: (
        f"{catalog['compact']['peak_rss_bytes'] / _MIB:,.0f} MiB"
    ),
    "shards": lambda catalog: ", ".join(f"{n} {kind}" for kind, n in catalog["n_shards"].items()),
    f"bytes per segment: {' + '.join(_FILES.values())} + rest": _bytes_per_segment,
    "bytes per second of audio": lambda catalog: (
        f"{sum(catalog['n_bytes'].values()) / catalog['duration_s']:.0f}"
    ),
    "opening": lambda catalog: f"{catalog['open_s']:.2f} s",
    "memory before opening": _resident("before", "rss"),
    "own memory after queries": _resident("asked", "anonymous"),
    "mapped files in memory after queries": _resident("asked", "file"),
    "5-s query, clean, median / p95": _latency("clean"),
    "encode + search + align, median": _steps,
    "5-s query, noise 0 dB, median / p95": _latency("noise0"),
    "adding an hour": lambda catalog: f"{catalog['change']['add_s']:.1f} s",
    "deleting 1,000 tracks": _deleting,
}


def _power(n_segments: float) -> str:
    """Format a size with two digits, the precision of an estimate."""
    if isinf(n_segments):
        return "never"
    digits, exponent = f"{n_segments:.1e}".split("e")
    return f"{digits} · 10^{int(exponent)}"


def _duration(hours: float) -> str:
    return f"{hours:,.1f} h" if hours < 48 else f"{hours / 24:,.0f} days"


def _gigabytes(n_bytes: float) -> str:
    return f"{n_bytes / _GB:,.1f} GB"


_ESTIMATES: dict[str, Callable[[Estimate], str]] = {
    "hours of music": lambda estimate: f"{estimate.audio_h:,.0f}",
    "codes and ids, on disk": lambda estimate: _gigabytes(estimate.index_bytes),
    "whole vectors, on disk": lambda estimate: _gigabytes(estimate.vector_bytes),
    "clip-level vectors, on disk": lambda estimate: _gigabytes(estimate.clip_bytes),
    "database": lambda estimate: _gigabytes(estimate.database_bytes),
    "own memory of one process": lambda estimate: _gigabytes(estimate.memory_bytes),
    **{
        f"machines of {gb} GB needed": partial(lambda gb, estimate: str(estimate.machines[gb]), gb)
        for gb in RAM_GB
    },
    "shards": lambda estimate: f"{estimate.n_shards:,}",
    "5-s query on one machine": lambda estimate: f"{estimate.query_ms / 1000:,.1f} s",
    "machines for answers within a second": lambda estimate: f"{estimate.machines_for_speed:,}",
    "5-s query on one machine, widest shards": lambda estimate: (
        f"{estimate.wide_query_ms / 1000:,.1f} s"
    ),
    "opening on one machine": lambda estimate: f"{estimate.open_s:,.0f} s",
    "adding on one machine": lambda estimate: _duration(estimate.add_h),
    "compacting on one machine": lambda estimate: _duration(estimate.compact_h),
}
