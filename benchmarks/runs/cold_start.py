"""What a catalog costs a process that begins afresh: time to open, memory, time to answer.

Run as ``python -m benchmarks.runs.cold_start compact|ask JSON``, it does one of these and prints
JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

Storage = Literal["full", "compact"]

N_WARM_UP = 5

_KEYS = {"VmRSS": "rss", "VmHWM": "peak_rss", "RssAnon": "anonymous", "RssFile": "file"}
_STEPS = ("encode", "search", "align")


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How to open a catalog.

    Parameters
    ----------
    folder, model : str, str or None
    device : str
    """

    folder: str
    model: str | None
    device: str

    def options(self) -> dict[str, Any]:
        """Give the keyword arguments of :func:`astound.open`."""
        return {**asdict(self), "create": False}


def compact(opening: Opening, storage: Storage) -> dict[str, Any]:
    """Compact a catalog in a process of its own.

    Returns
    -------
    dict
        compact_s; train_s of it, until the first segment is written; peak_rss_bytes of the process.
    """
    return _in_child("compact", {"opening": asdict(opening), "storage": storage})


def ask(opening: Opening, clips: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Open a catalog in a process of its own and ask it for clips, one after the other.

    Parameters
    ----------
    opening : Opening
    clips : mapping
        Audio files by what was done to them.

    Returns
    -------
    dict
        model_s and open_s (the first after its libraries are loaded), memory_bytes before the index
        is opened, once it is and after all queries, and for each kind of clip what latency says.
    """
    paths = {kind: [str(path) for path in files] for kind, files in clips.items()}
    return _in_child("ask", {"opening": asdict(opening), "clips": paths})


def _in_child(verb: str, request: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.runs.cold_start", verb, json.dumps(request)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=root)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


# -- in the child ------------------------------------------------------------------------------


def _compact(opening: Opening, storage: Storage) -> dict[str, Any]:
    import astound

    with astound.open(**opening.options()) as catalog:
        times_s = [time.perf_counter()]
        # Nothing is written before the quantizer is trained.
        catalog.compact(storage=storage, on_progress=lambda *_: times_s.append(time.perf_counter()))
        compact_s = time.perf_counter() - times_s[0]
    return {
        "compact_s": compact_s,
        "train_s": times_s[1] - times_s[0] if len(times_s) > 1 else 0.0,
        "peak_rss_bytes": memory_bytes()["peak_rss"],
    }


def _ask(opening: Opening, clips: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    import astound

    with astound.open(**opening.options()) as catalog:
        began = time.perf_counter()
        catalog.fingerprinter  # noqa: B018 - loads the model
        loaded = time.perf_counter()
        memory = {"before": memory_bytes()}
        catalog.searcher()
        opened = time.perf_counter()
        memory["opened"] = memory_bytes()
        for path in next(iter(clips.values()))[:N_WARM_UP]:
            catalog.query(path)
        found = {kind: _latency(catalog, paths) for kind, paths in clips.items()}
    memory["asked"] = memory_bytes()
    return {
        "model_s": loaded - began,
        "open_s": opened - loaded,
        "memory_bytes": memory,
        "latency": found,
    }


def _latency(catalog: Any, paths: Sequence[str]) -> dict[str, Any]:
    taken_ms: list[float] = []
    steps_ms: list[Mapping[str, float]] = []
    for path in paths:
        began = time.perf_counter()
        result = catalog.query(path)
        taken_ms.append((time.perf_counter() - began) * 1000)
        steps_ms.append(result.timings_ms)
    return {
        "n": len(taken_ms),
        "median_ms": median(taken_ms),
        "p95_ms": sorted(taken_ms)[int(0.95 * (len(taken_ms) - 1) + 0.5)],
        "median_step_ms": {step: median(one.get(step, 0.0) for one in steps_ms) for step in _STEPS},
    }


def memory_bytes() -> dict[str, int]:
    """Memory of this process that is resident: all, its peak, its own, and that of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(found[key].split()[0]) * 1024 for key, name in _KEYS.items()}


def _main(verb: str, request: dict[str, Any]) -> dict[str, Any]:
    opening = Opening(**request.pop("opening"))
    return _compact(opening, **request) if verb == "compact" else _ask(opening, **request)


if __name__ == "__main__":
    print(json.dumps(_main(sys.argv[1], json.loads(sys.argv[2]))))
