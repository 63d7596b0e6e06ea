"""Speed and costs: ingest and its parts, single queries, and concurrent queries."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import soundfile

from astound.catalog import Catalog
from benchmarks.queries import datasets
from benchmarks.queries.datasets import Excerpt, Waveform
from benchmarks.reports import report, speed_tables
from benchmarks.runs import concurrency, ingest_profile
from benchmarks.runs.cold_start import OpenOptions
from benchmarks.runs.concurrency import Answer
from benchmarks.runs.ingest_profile import Ingest
from benchmarks.runs.process import run_in_process
from benchmarks.runs.progress import log, track
from benchmarks.runs.provenance import provenance
from engine.records import QueryResult

_QUERY_S = 5.0
_N_WARM_UP = 5
_N_COLD = 5


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """Settings of the benchmark.

    Parameters
    ----------
    references : sequence of Path
        Folders of music, for a temporary catalog.
    out : Path
        JSON file to write.
    n_queries, seed : int
    n_askers : sequence of int
        Numbers of threads that query concurrently.
    model : Path or None
        Weights to encode with; the shipped ones by default.
    device : str
    jobs : int or None
        Number of decoder processes.
    """

    references: Sequence[Path]
    out: Path
    n_queries: int = 100
    seed: int = 1
    n_askers: Sequence[int] = concurrency.N_THREADS
    model: Path | None = None
    device: str = "auto"
    jobs: int | None = None


def run(config: SpeedConfig) -> dict[str, Any]:
    """Run the benchmark, write the results as JSON and return them."""
    paths = datasets.audio_files(config.references)
    wait_policy = os.environ.get("OMP_WAIT_POLICY", "ACTIVE").lower()
    results = provenance() | {"wait_policy": wait_policy}
    with tempfile.TemporaryDirectory() as folder:
        results |= _measure(config, paths, Path(folder))
    results["table"] = speed_tables.summary_table(results)
    results["tables"] = {
        "ingest": speed_tables.ingest_table(results),
        "query": speed_tables.query_table(results),
        "askers": speed_tables.concurrency_table(results),
    }
    report.write(config.out, results)
    return results


def _measure(config: SpeedConfig, paths: Sequence[Path], folder: Path) -> dict[str, Any]:
    ingest = Ingest(
        folder=folder / "catalog", paths=paths, model=config.model, device=config.device,
        jobs=config.jobs,
    )  # fmt: skip
    log(f"adding {len(paths)} recordings")
    results: dict[str, Any] = {"ingest": _ingest(ingest)}
    cuts = datasets.excerpts(paths, config.n_queries + _N_WARM_UP, _QUERY_S, config.seed)
    clips = [_clip(excerpt) for excerpt in cuts]
    files = _write_clips(folder / "clips", clips)
    with ingest.open() as catalog:
        results["recipe_id"] = catalog.recipe_id
        log("measuring each part of ingest alone")
        results["parts"] = ingest_profile.profile_parts(catalog, folder / "parts", config.jobs)
        results["query_file"] = _latency(lambda i: catalog.query(files[i]), len(files))
        results["query_array"] = _latency(lambda i: _query_array(catalog, clips[i]), len(clips))
        expected = [concurrency.answer(catalog.query(file)) for file in files]
    results["cold_command_s"] = _cold_command(ingest, files[0])
    results["askers"] = _concurrent(config, ingest, files, expected)
    return results


# -- ingest ----------------------------------------------------------------------------------


def _ingest(ingest: Ingest) -> dict[str, Any]:
    done, cost = run_in_process(ingest_profile.add, ingest)
    files = (file for file in ingest.folder.rglob("*") if file.is_file())
    n_bytes = sum(file.stat().st_size for file in files)
    return (
        dict(done)
        | asdict(cost)
        | {
            "realtime_factor": done["audio_s"] / cost.wall_s,
            "n_bytes": n_bytes,
            "bytes_per_audio_s": n_bytes / done["audio_s"],
        }
    )


# -- queries ---------------------------------------------------------------------------------


def _clip(excerpt: Excerpt) -> Waveform:
    first = round(datasets.CONTEXT_S * datasets.RATE)
    return excerpt.waveform[first : first + round(_QUERY_S * datasets.RATE)]


def _write_clips(folder: Path, clips: Iterable[Waveform]) -> list[Path]:
    folder.mkdir()
    files = []
    for i, clip in enumerate(clips):
        files.append(folder / f"{i}.wav")
        soundfile.write(files[-1], clip, datasets.RATE)
    return files


def _query_array(catalog: Catalog, clip: Waveform) -> QueryResult:
    return catalog.query(clip, sample_rate=datasets.RATE)


def _latency(query: Callable[[int], QueryResult], n_queries: int) -> dict[str, Any]:
    """Time queries one after the other, without the first few."""
    taken_ms, steps_ms = [], []
    for i in track(range(n_queries), "single queries", n_queries):
        start = time.perf_counter()
        result = query(i)
        if i >= _N_WARM_UP:
            taken_ms.append((time.perf_counter() - start) * 1000)
            steps_ms.append(result.timings_ms)
    steps = dict.fromkeys(step for timings in steps_ms for step in timings)
    means_ms = {step: fmean(one.get(step, 0.0) for one in steps_ms) for step in steps}
    mean_ms = fmean(taken_ms)
    return {
        "n": len(taken_ms),
        "mean_ms": mean_ms,
        "median_ms": median(taken_ms),
        "p95_ms": float(np.percentile(taken_ms, 95)),
        "p99_ms": float(np.percentile(taken_ms, 99)),
        "mean_step_ms": means_ms | {"rest": mean_ms - sum(means_ms.values())},
    }


def _concurrent(
    config: SpeedConfig, ingest: Ingest, files: Sequence[Path], expected: Sequence[Answer]
) -> list[dict[str, Any]]:
    """Run concurrent queries, each number of threads in a fresh process to measure its memory."""
    model = None if config.model is None else str(config.model)
    options = OpenOptions(folder=str(ingest.folder), model=model, device=config.device)
    rows = []
    for n_threads in track(config.n_askers, "numbers of threads", len(config.n_askers)):
        arguments = options, files, expected, n_threads, config.n_queries
        row, cost = run_in_process(concurrency.open_and_run, *arguments)
        rows.append(row | {"peak_rss_bytes": cost.peak_rss_bytes})
    return rows


def _cold_command(ingest: Ingest, clip: Path) -> float:
    """Return the median wall time of `astound query` in seconds, with its start."""
    script = shutil.which("astound", path=Path(sys.executable).parent)
    command = [script] if script else [sys.executable, "-m", "astound"]
    command += ["--catalog", str(ingest.folder), "--device", ingest.device]
    command += [] if ingest.model is None else ["--model", str(ingest.model)]
    taken_s = []
    for _ in range(_N_COLD):
        start = time.perf_counter()
        subprocess.run([*command, "query", str(clip)], stdout=subprocess.DEVNULL, check=True)
        taken_s.append(time.perf_counter() - start)
    return median(taken_s)
