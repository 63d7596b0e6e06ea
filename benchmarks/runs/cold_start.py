"""Costs of a catalog in a fresh process: time to open, memory, time to answer, compaction.

``python -m benchmarks.runs.cold_start compact|query JSON`` does one of these and prints JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

Storage = Literal["full", "codes"]

N_WARM_UP = 5

_KEYS = {"VmRSS": "rss", "VmHWM": "peak_rss", "RssAnon": "anonymous", "RssFile": "file"}
_STEPS = ("encode", "search", "align")


@dataclass(frozen=True, kw_only=True)
class OpenOptions:
    """Arguments to open an existing catalog; can be sent to another process.

    Parameters
    ----------
    folder, model : str, str or None
    device : str
    """

    folder: str
    model: str | None
    device: str

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of :func:`astound.open`."""
        return {**asdict(self), "create": False}


def compact(options: OpenOptions, storage: Storage) -> dict[str, Any]:
    """Compact a catalog in a process of its own.

    Returns
    -------
    dict
        compact_s; train_s of it, before the first segment is written; peak_rss_bytes.
    """
    return _in_child("compact", {"options": asdict(options), "storage": storage})


def query(options: OpenOptions, clips: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Open a catalog in a process of its own and query it with clips, one after the other.

    Parameters
    ----------
    options : OpenOptions
    clips : mapping
        Audio files by distortion.

    Returns
    -------
    dict
        model_s and open_s, without the import of libraries; memory_bytes before the index is
        opened, after that, and after all queries; latency of each kind of clip.
    """
    paths = {kind: [str(path) for path in files] for kind, files in clips.items()}
    return _in_child("query", {"options": asdict(options), "clips": paths})


def _in_child(verb: str, request: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.runs.cold_start", verb, json.dumps(request)]
    # It finds this package from any folder, so that relative paths mean the same there.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


# -- in the child ------------------------------------------------------------------------------


def _compact(options: OpenOptions, storage: Storage) -> dict[str, Any]:
    import astound

    with astound.open(**options.arguments()) as catalog:
        times_s = [time.perf_counter()]
        # The first call of the callback marks the end of the training.
        catalog.compact(storage=storage, on_progress=lambda *_: times_s.append(time.perf_counter()))
        compact_s = time.perf_counter() - times_s[0]
    return {
        "compact_s": compact_s,
        "train_s": times_s[1] - times_s[0] if len(times_s) > 1 else 0.0,
        "peak_rss_bytes": memory_bytes()["peak_rss"],
    }


def _query(options: OpenOptions, clips: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    import astound

    with astound.open(**options.arguments()) as catalog:
        start = time.perf_counter()
        catalog.fingerprinter  # noqa: B018 - loads the model
        loaded = time.perf_counter()
        memory = {"before": memory_bytes()}
        catalog.searcher()
        opened = time.perf_counter()
        memory["opened"] = memory_bytes()
        for path in next(iter(clips.values()))[:N_WARM_UP]:
            catalog.query(path)
        latency = {kind: _latency(catalog, paths) for kind, paths in clips.items()}
    memory["asked"] = memory_bytes()
    return {
        "model_s": loaded - start,
        "open_s": opened - loaded,
        "memory_bytes": memory,
        "latency": latency,
    }


def _latency(catalog: Any, paths: Sequence[str]) -> dict[str, Any]:
    taken_ms: list[float] = []
    steps_ms: list[Mapping[str, float]] = []
    for path in paths:
        start = time.perf_counter()
        result = catalog.query(path)
        taken_ms.append((time.perf_counter() - start) * 1000)
        steps_ms.append(result.timings_ms)
    return {
        "n": len(taken_ms),
        "median_ms": median(taken_ms),
        "p95_ms": float(np.percentile(taken_ms, 95)),
        "median_step_ms": {
            step: median(timings.get(step, 0.0) for timings in steps_ms) for step in _STEPS
        },
    }


def memory_bytes() -> dict[str, int]:
    """Return the resident memory of this process: all, its peak, anonymous, and of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[key].split()[0]) * 1024 for key, name in _KEYS.items()}


def _main(verb: str, request: dict[str, Any]) -> dict[str, Any]:
    options = OpenOptions(**request.pop("options"))
    function = _compact if verb == "compact" else _query
    result: dict[str, Any] = function(options, **request)
    return result


if __name__ == "__main__":
    print(json.dumps(_main(sys.argv[1], json.loads(sys.argv[2]))))
