"""How fast, and at what cost: ingest part by part, queries one by one and many at once."""

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
from benchmarks.runs.cold_start import Opening
from benchmarks.runs.concurrency import Answer
from benchmarks.runs.ingest_profile import Intake
from benchmarks.runs.process import measured
from benchmarks.runs.progress import followed
from benchmarks.runs.provenance import provenance
from engine.records import QueryResult

_QUERY_S = 5.0
_N_WARM_UP = 5
_N_COLD = 5


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """What to measure.

    Parameters
    ----------
    references : sequence of Path
        Folders of music, ingested into a catalog that is thrown away.
    out : Path
        The JSON.
    n_queries, seed : int
    n_askers : sequence of int
        How many ask at once.
    model : Path or None
        Weights to encode with; those astound ships by default.
    device : str
    jobs : int or None
        Processes that decode.
    """

    references: Sequence[Path]
    out: Path
    n_queries: int = 100
    seed: int = 1
    n_askers: Sequence[int] = concurrency.N_ASKERS
    model: Path | None = None
    device: str = "auto"
    jobs: int | None = None


def run(config: SpeedConfig) -> dict[str, Any]:
    """Measure, write the results and return them, as the plain dict of the JSON."""
    paths = datasets.audio_files(config.references)
    waiting = os.environ.get("OMP_WAIT_POLICY", "ACTIVE").lower()  # what torch's threads do
    results = provenance() | {"wait_policy": waiting}
    with tempfile.TemporaryDirectory() as folder:
        results |= _measured(config, paths, Path(folder))
    results["table"] = speed_tables.summary_table(results)
    results["tables"] = {
        "ingest": speed_tables.ingest_table(results),
        "query": speed_tables.query_table(results),
        "askers": speed_tables.askers_table(results),
    }
    report.write(config.out, results)
    return results


def _measured(config: SpeedConfig, paths: Sequence[Path], where: Path) -> dict[str, Any]:
    adding = Intake(
        folder=where / "catalog", paths=paths, model=config.model, device=config.device,
        jobs=config.jobs,
    )  # fmt: skip
    _say(f"adding {len(paths)} recordings")
    results: dict[str, Any] = {"ingest": _ingest(adding)}
    cuts = datasets.excerpts(paths, config.n_queries + _N_WARM_UP, _QUERY_S, config.seed)
    clips = [_clip(excerpt) for excerpt in cuts]
    files = _write_clips(where / "clips", clips)
    with adding.open() as catalog:
        results["recipe_id"] = catalog.recipe_id
        _say("each part of it alone")
        results["parts"] = ingest_profile.parts(catalog, where / "parts", config.jobs)
        results["query_file"] = _latency(lambda i: catalog.query(files[i]), len(files))
        results["query_array"] = _latency(lambda i: _ask(catalog, clips[i]), len(clips))
        alone = [concurrency.answer(catalog.query(file)) for file in files]
    results["cold_command_s"] = _cold_command(adding, files[0])
    results["askers"] = _asked_at_once(config, adding, files, alone)
    return results


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


# -- ingest ----------------------------------------------------------------------------------


def _ingest(adding: Intake) -> dict[str, Any]:
    done, cost = measured(ingest_profile.add, adding)
    files = (file for file in adding.folder.rglob("*") if file.is_file())
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


def _ask(catalog: Catalog, clip: Waveform) -> QueryResult:
    return catalog.query(clip, sample_rate=datasets.RATE)


def _latency(ask: Callable[[int], QueryResult], n_queries: int) -> dict[str, Any]:
    """Time queries one after the other, the first few left out."""
    taken_ms, steps_ms = [], []
    for i in followed(range(n_queries), "queries, one after the other", n_queries):
        began = time.perf_counter()
        result = ask(i)
        if i >= _N_WARM_UP:
            taken_ms.append((time.perf_counter() - began) * 1000)
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


def _asked_at_once(
    config: SpeedConfig, adding: Intake, files: Sequence[Path], alone: Sequence[Answer]
) -> list[dict[str, Any]]:
    """Ask with more and more at once, each time in a fresh process for its memory's sake."""
    model = None if config.model is None else str(config.model)
    opening = Opening(folder=str(adding.folder), model=model, device=config.device)
    rows = []
    for n_askers in followed(config.n_askers, "numbers of askers", len(config.n_askers)):
        done, cost = measured(concurrency.ask, opening, files, alone, n_askers, config.n_queries)
        rows.append(done | {"peak_rss_bytes": cost.peak_rss_bytes})
    return rows


def _cold_command(adding: Intake, clip: Path) -> float:
    """Median wall time of the command from nothing to an answer."""
    script = shutil.which("astound", path=Path(sys.executable).parent)
    command = [script] if script else [sys.executable, "-m", "astound"]
    command += ["--catalog", str(adding.folder), "--device", adding.device]
    command += [] if adding.model is None else ["--model", str(adding.model)]
    taken_s = []
    for _ in range(_N_COLD):
        began = time.perf_counter()
        subprocess.run([*command, "query", str(clip)], stdout=subprocess.DEVNULL, check=True)
        taken_s.append(time.perf_counter() - began)
    return median(taken_s)
