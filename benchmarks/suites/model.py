"""How fast the networks are: torch in both precisions, and onnxruntime, in one run."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.queries.datasets import Waveform
from benchmarks.reports import report
from benchmarks.runs.provenance import provenance
from engine.config import IndexConfig
from engine.model.ast_model import ASTModel
from engine.model.fingerprinter import Encoder, resolve_device
from engine.model.network import Network
from engine.model.onnx import Graph
from engine.recipe import ASTConfig

_TURN_S = 0.2
_BASELINE = "torch, cpu, float32"
_HEAD = ["model", "batch", "runs on", "inputs a second", "× real time", f"speed / {_BASELINE}"]


class Case(NamedTuple):
    """A model to measure, and at which batch sizes.

    `input_s` are the seconds of a recording for each of which it runs once.
    """

    name: str
    make: Callable[[str], ASTModel]
    input_s: float
    batch_sizes: tuple[int, ...]


BASE = Case("base, 10.24 s", lambda device: ASTModel(ASTConfig(), device=device), 10.24, (1, 8))
SHIPPED = Case(
    "shipped, segments",
    lambda device: ASTModel.shipped(device=device),
    IndexConfig().segment_hop_s,
    (1, 128),
)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What to measure.

    Parameters
    ----------
    out : Path
        The JSON.
    device : str
        Measured besides the CPU.
    seconds : float
        For about how long each comparison goes on; each way has one turn at least.
    cases : sequence of Case
    """

    out: Path
    device: str = "auto"
    seconds: float = 10.0
    cases: Sequence[Case] = (BASE, SHIPPED)


@dataclass(frozen=True)
class Speed:
    """The best of one way to run a model; `ratio` is its speed over that of torch on the CPU."""

    model: str
    batch_size: int
    runs_on: str
    n_turns: int
    inputs_per_s: float
    realtime_factor: float
    ratio: float


def run(config: ModelConfig) -> dict[str, Any]:
    """Measure, write the results and return them, as the plain dict of the JSON."""
    device = resolve_device(config.device)
    speeds = [one for case in config.cases for one in _measure(case, device, config.seconds)]
    results = provenance() | {
        "onnxruntime": metadata.version("onnxruntime"),
        "device": device,
        "speeds": [asdict(one) for one in speeds],
        "table": report.table(_HEAD, [_row(one) for one in speeds]),
    }
    report.write(config.out, results)
    return results


# -- time ------------------------------------------------------------------------------------


def best_of(
    runs: Mapping[str, Callable[[], object]], seconds: float
) -> tuple[dict[str, float], int]:
    """Time calls in turns, so that whatever else the machine does slows all of them.

    Returns
    -------
    tuple
        The shortest time of each in seconds, and how many turns each had.
    """
    shortest_s = dict.fromkeys(runs, math.inf)
    n_turns, end = 0, time.perf_counter() + seconds
    while not n_turns or time.perf_counter() < end:
        for name, call in runs.items():
            shortest_s[name] = min(shortest_s[name], _turn(call))
        n_turns += 1
    return shortest_s, n_turns


def _turn(call: Callable[[], object]) -> float:
    """Call again and again for a moment; give the shortest time."""
    shortest_s, end = math.inf, time.perf_counter() + _TURN_S
    while shortest_s == math.inf or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        shortest_s = min(shortest_s, time.perf_counter() - began)
    return shortest_s


# -- models ----------------------------------------------------------------------------------


def _measure(case: Case, device: str, seconds: float) -> list[Speed]:
    """Time all ways to run a model against each other, one batch size after the other."""
    model = case.make("cpu")
    encoders = _by_torch(model) | {"onnxruntime, cpu, float32": _by_onnxruntime(model)}
    if device != "cpu":
        encoders |= _by_torch(case.make(device))
    for encoder in encoders.values():  # the first call of each takes longer
        encoder.embed_segments(model.preprocess(_noise(1, model)))
    speeds = []
    for batch_size in case.batch_sizes:
        features = model.preprocess(_noise(batch_size, model))
        runs = {name: partial(one.embed_segments, features) for name, one in encoders.items()}
        shortest_s, n_turns = best_of(runs, seconds)
        for name, taken_s in shortest_s.items():
            per_s, ratio = batch_size / taken_s, shortest_s[_BASELINE] / taken_s
            factor = per_s * case.input_s
            speeds.append(Speed(case.name, batch_size, name, n_turns, per_s, factor, ratio))
    return speeds


def _by_torch(model: ASTModel) -> dict[str, Encoder]:
    """In float32 and, where the machine is fast at that, in bfloat16."""
    half, whole = _encoder(model, model.network), _encoder(model, model.network)
    encoders = {f"torch, {whole.device}, float32": whole}
    if half.half:
        encoders[f"torch, {half.device}, bfloat16"] = half
    whole.half = False
    return encoders


def _by_onnxruntime(model: ASTModel) -> Encoder:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.export_onnx(path)
        encoder = _encoder(model, Graph(path))
    encoder.half = False
    return encoder


def _encoder(model: ASTModel, network: Network) -> Encoder:
    return Encoder(network, model.clip_head, model.recipe, model.device)


def _noise(batch_size: int, model: ASTModel) -> Waveform:
    """Waveforms of one segment each, of shape (batch_size, n_samples)."""
    n_samples = model.recipe.spectrogram.samples_per_segment
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.1, (batch_size, n_samples)).astype(np.float32)


def _row(speed: Speed) -> list[str]:
    return [
        speed.model,
        str(speed.batch_size),
        speed.runs_on,
        f"{speed.inputs_per_s:.3g}",
        f"{speed.realtime_factor:.3g}",
        f"{speed.ratio:.2f}",
    ]
