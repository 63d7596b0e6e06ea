"""The service under load: answers, latencies, refusals, large uploads, its end."""

from __future__ import annotations

import io
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile

from astound.catalog import Catalog
from astound.results import result_object
from benchmarks.queries import datasets
from benchmarks.reports import report, service_tables
from benchmarks.runs.ingest_profile import Ingest
from benchmarks.runs.progress import log, track
from benchmarks.runs.provenance import provenance
from benchmarks.runs.served import Answer, Served, serving

_QUERY_S = 5.0
_N_WARM_UP = 5
_N_HEALTH, _HEALTH_PAUSE_S = 300, 0.02
_N_HEALTH_CLIENTS = 8
_N_ROUNDS = 5
_CHUNK_BYTES = 1 << 20
_LONG_S, _TOO_LONG_S = 30.0, 600.0
_N_STREAMS = 5


@dataclass(frozen=True, kw_only=True)
class ServiceBenchmarkConfig:
    """Settings of the benchmark.

    Parameters
    ----------
    references : sequence of Path
        Folders of music, for a temporary catalog.
    out : Path
        JSON file to write.
    n_queries : int
        Clips that are compared with the Python API, and queries of each client.
    n_clients : int
        Clients that query without a pause; a service answers 16 of one address at most.
    n_at_once : int
        Clients that query at the same moment.
    upload_bytes : int
        Size of a large upload.
    limit_bytes : int
        Limit that another upload exceeds.
    seed : int
    model : Path or None
        Weights to encode with; the shipped ones by default.
    device : str
    jobs : int or None
        Number of decoder processes.
    """

    references: Sequence[Path]
    out: Path
    n_queries: int = 50
    n_clients: int = 16
    n_at_once: int = 60
    upload_bytes: int = 500_000_000
    limit_bytes: int = 50_000_000
    seed: int = 1
    model: Path | None = None
    device: str = "auto"
    jobs: int | None = None


def run(config: ServiceBenchmarkConfig) -> dict[str, Any]:
    """Run the benchmark, write the results as JSON and return them."""
    paths = datasets.audio_files(config.references)
    results = provenance()
    with tempfile.TemporaryDirectory() as folder:
        ingest = Ingest(
            folder=Path(folder) / "catalog", paths=paths, model=config.model,
            device=config.device, jobs=config.jobs,
        )  # fmt: skip
        results |= _measure(config, ingest)
    results["table"] = service_tables.summary_table(results)
    report.write(config.out, results)
    return results


def _measure(config: ServiceBenchmarkConfig, ingest: Ingest) -> dict[str, Any]:
    cuts = datasets.excerpts(ingest.paths, config.n_queries, _QUERY_S, config.seed)
    first, n_samples = round(datasets.CONTEXT_S * datasets.RATE), round(_QUERY_S * datasets.RATE)
    clips = [_wav(cut.waveform[first : first + n_samples]) for cut in cuts]
    results: dict[str, Any] = {"n_clips": len(clips)}
    with ingest.open() as catalog:
        log(f"adding {len(ingest.paths)} recordings")
        catalog.add(ingest.paths)
        results["recipe_id"] = catalog.recipe_id
        with _served(ingest) as service:
            results["answers"] = _compared(catalog, service, clips)
            results["health"] = _health(service, clips)
            results["clients"] = _clients(config, service, clips)
            results["at_once"] = _at_once(config, service, clips)
        results["upload"] = _large_upload(config, ingest)
        results["oversized"] = _oversized_upload(config, ingest)
        results["end"] = _end(ingest, catalog, clips)
        results["end_too_long"] = _end_too_long(ingest)
    return results


def _served(ingest: Ingest, *options: str) -> Any:
    return serving(ingest.folder, *options, model=ingest.model, device=ingest.device)


def _wav(waveform: datasets.Waveform) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, datasets.RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


# -- answers -------------------------------------------------------------------------------------


def _compared(catalog: Catalog, service: Served, clips: Sequence[bytes]) -> dict[str, Any]:
    """Query each clip by the Python API and by the service in turn."""
    local_ms, served_ms, n_different = [], [], 0
    for clip in clips[:_N_WARM_UP]:
        _locally(catalog, clip)
        service.query(clip)
    for clip in track(clips, "single queries", len(clips)):
        start = time.perf_counter()
        expected = _locally(catalog, clip)
        local_ms.append((time.perf_counter() - start) * 1000)
        answer = service.query(clip)
        served_ms.append(answer.elapsed_ms)
        n_different += _untimed(answer.content) != _untimed(expected)
    return {
        "n_different": n_different,
        "local_median_ms": median(local_ms),
        "served_median_ms": median(served_ms),
    }


def _locally(catalog: Catalog, clip: bytes) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile() as file:  # as the service decodes it, in a process
        file.write(clip)
        file.flush()
        made = result_object(catalog.query(file.name, name="upload"))
        return dict(json.loads(json.dumps(made)))


def _untimed(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"timings_ms": None}


# -- load ----------------------------------------------------------------------------------------


def _health(service: Served, clips: Sequence[bytes]) -> dict[str, Any]:
    """Time `/healthz` while clients query all the time."""
    log(f"/healthz beside {_N_HEALTH_CLIENTS} clients")
    done = threading.Event()

    def query_on(number: int) -> None:
        while not done.is_set():
            service.query(clips[number % len(clips)])

    with ThreadPoolExecutor(_N_HEALTH_CLIENTS) as threads:
        clients = [threads.submit(query_on, number) for number in range(_N_HEALTH_CLIENTS)]
        taken_ms = []
        for _ in range(_N_HEALTH):
            taken_ms.append(service.send("GET", "healthz").elapsed_ms)
            time.sleep(_HEALTH_PAUSE_S)
        done.set()
        for client in clients:
            client.result()
    return {"n_clients": _N_HEALTH_CLIENTS} | _percentiles(taken_ms)


def _clients(
    config: ServiceBenchmarkConfig, service: Served, clips: Sequence[bytes]
) -> dict[str, Any]:
    """Let clients query one clip after the other."""
    log(f"{config.n_clients} clients with {len(clips)} queries each")
    start = time.perf_counter()
    with ThreadPoolExecutor(config.n_clients) as threads:
        of_clients = list(
            threads.map(lambda _: [service.query(clip) for clip in clips], range(config.n_clients))
        )
    wall_s = time.perf_counter() - start
    answers = [answer for answers in of_clients for answer in answers]
    return {
        "n_clients": config.n_clients,
        "n": len(answers),
        "n_errors": sum(answer.status != 200 for answer in answers),
        "queries_per_s": len(answers) / wall_s,
    } | _percentiles([answer.elapsed_ms for answer in answers])


def _at_once(
    config: ServiceBenchmarkConfig, service: Served, clips: Sequence[bytes]
) -> dict[str, Any]:
    """Let more clients query at the same moment than there is room for."""
    log(f"{config.n_at_once} clients at once")
    answers: list[Answer] = []
    sent = [clips[number % len(clips)] for number in range(config.n_at_once)]
    for _ in range(_N_ROUNDS):
        answers += service.query_at_once(sent)
    counts = Counter(answer.status for answer in answers)
    refused_ms = [answer.elapsed_ms for answer in answers if answer.status in (429, 503)]
    return {
        "n_clients": config.n_at_once,
        "statuses": {str(status): n for status, n in sorted(counts.items())},
        "n_unexpected": sum(n for status, n in counts.items() if status not in (200, 429, 503)),
        "refused": _percentiles(refused_ms) if refused_ms else None,
    }


def _percentiles(taken_ms: Iterable[float]) -> dict[str, float]:
    values = list(taken_ms)
    return {f"p{q}_ms": float(np.percentile(values, q)) for q in (50, 95, 99)}


# -- uploads -------------------------------------------------------------------------------------


def _large_upload(config: ServiceBenchmarkConfig, ingest: Ingest) -> dict[str, Any]:
    log("a large upload")
    limit = str(2 * config.upload_bytes / 1e6)
    with _served(ingest, "--max-upload", limit) as service, service.watching_memory() as risen:
        answer = service.send("POST", "v1/query", _noise(config.upload_bytes, config.seed))
    return {"n_bytes": config.upload_bytes, "status": answer.status, "risen_bytes": risen[0]}


def _oversized_upload(config: ServiceBenchmarkConfig, ingest: Ingest) -> dict[str, Any]:
    log("an upload beyond the limit")
    with _served(ingest, "--max-upload", str(config.limit_bytes / 1e6)) as service:
        before = service.n_written
        answer = service.send("POST", "v1/query", _noise(3 * config.limit_bytes, config.seed))
        n_written = service.n_written - before
    return {"limit_bytes": config.limit_bytes, "status": answer.status, "n_written": n_written}


def _noise(n_bytes: int, seed: int) -> Iterator[bytes]:
    chunk = np.random.default_rng(seed).bytes(_CHUNK_BYTES)
    for first in range(0, n_bytes, _CHUNK_BYTES):
        yield chunk[: n_bytes - first]


# -- the end -------------------------------------------------------------------------------------


def _end(ingest: Ingest, catalog: Catalog, clips: Sequence[bytes]) -> dict[str, Any]:
    """End a service with streams of events and a query that runs."""
    log("SIGTERM with streams of events and a query")
    joined = np.concatenate([soundfile.read(io.BytesIO(clip))[0] for clip in clips])
    long = _wav(np.resize(joined, round(_LONG_S * datasets.RATE)).astype(np.float32))
    with (
        _served(ingest) as service,
        ThreadPoolExecutor(_N_STREAMS + 1) as threads,
        catalog._store.write_lock(),  # so that the job waits, and its streams stay open
    ):
        job_id = service.send("POST", "v1/ingest", clips[0]).content["id"]
        streams = [threads.submit(lambda: list(service.events(job_id))) for _ in range(_N_STREAMS)]
        time.sleep(1.0)  # until they are open
        query = threads.submit(service.query, long)
        time.sleep(0.3)  # until it runs
        code, elapsed_s = service.stop()
        status = query.result().status
        n_ended = sum(bool(stream.result()) for stream in streams)
    catalog.jobs.cancel(job_id)
    return {"exit_code": code, "elapsed_s": elapsed_s, "status": status, "n_streams": n_ended}


def _end_too_long(ingest: Ingest) -> dict[str, Any]:
    """End a service with a query that takes longer than it has."""
    log("SIGTERM with a query of ten minutes of unknown sound")
    noise = np.random.default_rng(0).normal(0, 0.1, round(_TOO_LONG_S * datasets.RATE))
    clip = _wav(noise.astype(np.float32))
    with _served(ingest) as service, ThreadPoolExecutor(1) as threads:
        query = threads.submit(service.query, clip)
        time.sleep(2.0)  # until it runs
        code, elapsed_s = service.stop()
        status = query.result().status
    return {"exit_code": code, "elapsed_s": elapsed_s, "status": status}
