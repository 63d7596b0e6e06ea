"""Markdown tables of `bench speed` and `bench scan`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.reports.report import key_values, percent, table
from benchmarks.runs.ingest_profile import DECODERS

Results = Mapping[str, Any]

_HOUR_S = 3600.0
_MIB = 2**20


def summary_table(results: Results) -> str:
    """Format the key figures."""
    ingest, parts = results["ingest"], results["parts"]
    rows = {
        "ingest, end to end": f"{ingest['realtime_factor']:.0f} × real time",
        "decoding alone, one process": _times(parts, "decode", "resample"),
        "encoding alone": _times(parts, "features", "network", "clip head"),
        "peak memory of ingest": f"{ingest['peak_rss_bytes'] / _MIB:.0f} MiB",
        "catalog on disk": f"{ingest['bytes_per_audio_s']:.0f} bytes per second of audio",
        "5-s query from a file, median / p95": _milliseconds(results["query_file"]),
        "5-s query from an array, median / p95": _milliseconds(results["query_array"]),
        "cold `astound query`, median": f"{results['cold_command_s']:.2f} s",
        "load before, OpenMP wait policy": (
            f"{results['machine']['load_average'][0]:.1f}, {results['wait_policy']}"
        ),
    }
    return key_values(rows)


def ingest_table(results: Results) -> str:
    """Format the costs of a real ingest, next to its parts measured alone.

    Seconds are processor seconds per hour of audio. What a process spends beyond the sum of its
    parts is contention: threads that wait for each other, shared caches.
    """
    head = [
        "part", "process", "alone, × real time", "processor s per hour", "% of ingest",
    ]  # fmt: skip
    return table(head, list(_ingest_rows(results["ingest"], results["parts"], _n_cpus(results))))


def query_table(results: Results) -> str:
    """Format the time of each step of a query, without concurrent queries."""
    kinds = ("query_file", "query_array")
    steps = list(dict.fromkeys(step for kind in kinds for step in results[kind]["mean_step_ms"]))
    rows = [[step, *(_step(results[kind], step) for kind in kinds)] for step in steps]
    rows.append(["total", *(f"{results[kind]['mean_ms']:.1f} ms" for kind in kinds)])
    return table(["step, mean", "from a file", "from an array"], rows)


def concurrency_table(results: Results) -> str:
    """Format latency and throughput by the number of threads."""
    head = [
        "threads", "queries", "queries/s", "p50", "p95", "p99", "processor time per query",
        "peak memory", "different answers",
    ]  # fmt: skip
    return table(head, [_concurrency_row(one) for one in results["askers"]])


def _concurrency_row(one: Results) -> list[str]:
    latencies = [f"{one[key]:,.0f} ms" for key in ("p50_ms", "p95_ms", "p99_ms", "cpu_ms")]
    memory = f"{one['peak_rss_bytes'] / _MIB:,.0f} MiB"
    counts = [str(one["n_askers"]), str(one["n"]), f"{one['queries_per_s']:.1f}"]
    return [*counts, *latencies, memory, str(one["n_different"])]


def _ingest_rows(ingest: Results, parts: Results, n_cpus: int) -> Iterator[list[str]]:
    hours = ingest["audio_s"] / _HOUR_S
    used = {name: cpu_s / hours for name, cpu_s in ingest["cpu_s"].items()}
    spent, rest = sum(used.values()), dict(used)
    for name, one in parts["parts"].items():
        process = "decoders" if name in DECODERS else "own"
        cpu_s = one["cpu_s"] * _HOUR_S / parts["audio_s"]
        rest[process] -= cpu_s
        yield [name, process, _times(parts, name), *_share(cpu_s, spent)]
    for process, cpu_s in rest.items():
        yield ["contention", process, "", *_share(cpu_s, spent)]
    yield [
        "ingest, total",
        "",
        f"{ingest['audio_s'] / ingest['add_s']:.0f}",
        *_share(spent, spent),
    ]
    idle = n_cpus * ingest["add_s"] / hours - spent
    yield [f"idle of {n_cpus} processors, or used by others", "", "", *_share(idle, spent)]


def _share(cpu_s: float, of_s: float) -> list[str]:
    return [f"{cpu_s:.2f}", f"{100 * cpu_s / of_s:.1f}"]


def _times(parts: Results, *names: str) -> str:
    """Format the speed of parts together as a multiple of real time; "" if it was not measured."""
    walls_s = [parts["parts"][name]["wall_s"] for name in names]
    if None in walls_s:
        return ""
    suffix = " × real time" if len(names) > 1 else ""
    return f"{parts['audio_s'] / sum(walls_s):,.0f}{suffix}"


def _step(latency: Results, step: str) -> str:
    ms = latency["mean_step_ms"].get(step, 0.0)
    return f"{ms:.1f} ms, {100 * ms / latency['mean_ms']:.0f} %"


def _milliseconds(latency: Results) -> str:
    return f"{latency['median_ms']:.0f} / {latency['p95_ms']:.0f} ms"


def _n_cpus(results: Results) -> int:
    return int(results["machine"]["n_cpus"])


# -- bench scan ------------------------------------------------------------------------------


def scan_table(results: Results) -> str:
    """Format the results of `bench scan`."""
    parts = f"{results['n_known']} known, {results['n_unknown']} unknown"
    rows = {
        "mix": (
            f"{results['duration_s'] / 60:.0f} min, {parts}, "
            f"{results['talk_s'] / 60:.0f} min of speech alone"
        ),
        "known tracks found, %": percent(results["found"]),
        "of these, with a single entry, %": percent(results["in_one_entry"]),
        "boundaries within 2 s of the middle of a fade, %": percent(results["boundaries"]),
        "boundaries within 2 s of a fade, %": percent(results["boundaries_of_fades"]),
        "false entries": str(results["n_false"]),
        "speed, wall clock": f"{results['realtime_factor']:.0f} × real time",
        "speed, CPU seconds": f"{results['cpu_realtime_factor']:.0f} × real time",
        "peak memory": f"{results['peak_rss_bytes'] / _MIB:.0f} MiB",
    }
    return key_values(rows)
