"""How fast, and at what cost: ingest, queries, the cold command, memory and bytes on disk."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import soundfile

import astound
from astound.catalog import Catalog
from benchmarks import datasets, report
from benchmarks.datasets import Excerpt, Waveform
from benchmarks.provenance import provenance
from engine import audio
from engine.config import IndexConfig
from engine.fingerprint import Fingerprinter
from engine.records import QueryResult

_QUERY_S = 5.0
_N_WARM_UP = 5
_N_COLD = 5
_N_STAGE_TRACKS = 20
_POLL_S = 0.05

# Run by a fresh interpreter, so that its memory is that of ingest and nothing else.
_INGEST = """
import json, sys, astound
from engine.config import IngestConfig
folder, device, jobs, *paths = sys.argv[1:]
with astound.open(folder, device=device) as catalog:
    report = catalog.add(paths, config=IngestConfig(n_jobs=int(jobs) or None))
print(json.dumps({"n_added": len(report.added), "n_failed": len(report.failed),
                  "audio_s": report.audio_s, "add_s": report.elapsed_s}))
"""


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
    device : str
    jobs : int or None
    """

    references: Sequence[Path]
    out: Path
    n_queries: int = 100
    seed: int = 1
    device: str = "auto"
    jobs: int | None = None


def run(config: SpeedConfig) -> dict[str, Any]:
    """Measure, write the results and return them, as the plain dict of the JSON."""
    paths = datasets.audio_files(config.references)
    results = provenance()
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        results["ingest"] = _ingest(where / "catalog", paths, config)
        cuts = datasets.excerpts(paths, config.n_queries + _N_WARM_UP, _QUERY_S, config.seed)
        clips = [_clip(excerpt) for excerpt in cuts]
        files = _write_clips(where / "clips", clips)
        with astound.open(where / "catalog", device=config.device) as catalog:
            results["recipe_id"] = catalog.recipe_id
            results["query_file"] = _latency(lambda i: catalog.query(files[i]), len(files))
            results["query_array"] = _latency(lambda i: _ask(catalog, clips[i]), len(clips))
        results["cold_command_s"] = _cold_command(where / "catalog", files[0], config.device)
    results["stages"] = _stages(paths[:_N_STAGE_TRACKS], config.device)
    results["table"] = report.key_values(_rows(results))
    report.write(config.out, results)
    return results


# -- ingest ----------------------------------------------------------------------------------


def _ingest(catalog: Path, paths: Sequence[Path], config: SpeedConfig) -> dict[str, Any]:
    command = [sys.executable, "-c", _INGEST, str(catalog), config.device, str(config.jobs or 0)]
    began = time.perf_counter()
    child = psutil.Popen([*command, *map(str, paths)], stdout=subprocess.PIPE, text=True)
    peak_bytes = _peak_memory(child)
    wall_s = time.perf_counter() - began
    output, _ = child.communicate()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, "ingest")
    done = json.loads(output.splitlines()[-1])
    n_bytes = sum(file.stat().st_size for file in catalog.rglob("*") if file.is_file())
    return done | {
        "wall_s": wall_s,
        "realtime_factor": done["audio_s"] / wall_s,
        "peak_rss_bytes": peak_bytes,
        "n_bytes": n_bytes,
        "bytes_per_audio_s": n_bytes / done["audio_s"],
    }


def _peak_memory(process: psutil.Popen) -> int:
    """Wait for a process; give the peak of the resident memory of it and its children together.

    Pages they share are counted for each of them: an upper bound.
    """
    peak_bytes = 0
    while process.poll() is None:
        peak_bytes = max(peak_bytes, _tree_memory(process))
        time.sleep(_POLL_S)
    return peak_bytes


def _tree_memory(process: psutil.Process) -> int:
    n_bytes = 0
    try:
        for member in (process, *process.children(recursive=True)):
            n_bytes += member.memory_info().rss
    except psutil.NoSuchProcess:  # a child that ends between being listed and being asked
        return 0
    return n_bytes


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
    for i in range(n_queries):
        began = time.perf_counter()
        result = ask(i)
        if i >= _N_WARM_UP:
            taken_ms.append((time.perf_counter() - began) * 1000)
            steps_ms.append(result.timings_ms)
    steps = sorted({step for timings in steps_ms for step in timings})
    return {
        "n": len(taken_ms),
        "median_ms": median(taken_ms),
        "p95_ms": float(np.percentile(taken_ms, 95)),
        "median_step_ms": {s: median(t.get(s, 0.0) for t in steps_ms) for s in steps},
    }


def _cold_command(catalog: Path, clip: Path, device: str) -> float:
    """Median wall time of the command from nothing to an answer."""
    script = shutil.which("astound", path=Path(sys.executable).parent)
    command = [script] if script else [sys.executable, "-m", "astound"]
    command += ["--catalog", str(catalog), "--device", device, "query", str(clip)]
    taken_s = []
    for _ in range(_N_COLD):
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        taken_s.append(time.perf_counter() - began)
    return median(taken_s)


# -- stages ----------------------------------------------------------------------------------


def _stages(paths: Sequence[Path], device: str) -> dict[str, float]:
    """Time decoding and encoding alone, in this process, as multiples of real time."""
    fingerprinter = Fingerprinter.shipped(device)
    began = time.perf_counter()
    waveforms = [audio.read(path, fingerprinter.sample_rate) for path in paths]
    decoded = time.perf_counter()
    for waveform in waveforms:
        fingerprinter.fingerprint([waveform], IndexConfig().segment_hop_s)
    encoded = time.perf_counter()
    audio_s = sum(map(len, waveforms)) / fingerprinter.sample_rate
    return {
        "decode_realtime_factor": audio_s / (decoded - began),
        "encode_realtime_factor": audio_s / (encoded - decoded),
    }


# -- results ---------------------------------------------------------------------------------


def _rows(results: dict[str, Any]) -> dict[str, str]:
    ingest, stages = results["ingest"], results["stages"]
    return {
        "ingest, end to end": f"{ingest['realtime_factor']:.0f} × real time",
        "decoding alone, one process": f"{stages['decode_realtime_factor']:.0f} × real time",
        "encoding alone": f"{stages['encode_realtime_factor']:.0f} × real time",
        "peak memory of ingest": f"{ingest['peak_rss_bytes'] / 2**20:.0f} MiB",
        "catalog on disk": f"{ingest['bytes_per_audio_s']:.0f} bytes per second of audio",
        "5-s query from a file, median / p95": _milliseconds(results["query_file"]),
        "5-s query from an array, median / p95": _milliseconds(results["query_array"]),
        "cold `astound query`, median": f"{results['cold_command_s']:.2f} s",
    }


def _milliseconds(latency: dict[str, Any]) -> str:
    return f"{latency['median_ms']:.0f} / {latency['p95_ms']:.0f} ms"
