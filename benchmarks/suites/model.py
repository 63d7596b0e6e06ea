"""Speed of the networks in torch, in both precisions, and in onnxruntime."""

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
from engine.device import resolve_device
from engine.model.ast_model import ASTModel
from engine.model.encoder import Encoder
from engine.model.network import Network
from engine.model.onnx import Graph
from engine.recipe import ASTConfig

_TURN_S = 0.2
_BASELINE = "torch, cpu, float32"
_HEAD = ["model", "batch", "runs on", "inputs/s", "× real time", f"speed / {_BASELINE}"]


class Case(NamedTuple):
    """A model and the batch sizes to measure it at.

    `input_s` is the seconds of a recording per input.
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
    """Settings of the benchmark.

    Parameters
    ----------
    out : Path
        JSON file to write.
    device : str
        Device to measure besides the CPU.
    seconds : float
        Approximate time for each comparison; everything runs at least once.
    cases : sequence of Case
    """

    out: Path
    device: str = "auto"
    seconds: float = 10.0
    cases: Sequence[Case] = (BASE, SHIPPED)


@dataclass(frozen=True)
class Speed:
    """Best speed of one backend; `ratio` is relative to torch on the CPU in float32."""

    model: str
    batch_size: int
    runs_on: str
    n_turns: int
    inputs_per_s: float
    realtime_factor: float
    ratio: float


def run(config: ModelConfig) -> dict[str, Any]:
    """Run the benchmark, write the results as JSON and return them."""
    device = resolve_device(config.device)
    speeds = [row for case in config.cases for row in _measure(case, device, config.seconds)]
    results = provenance() | {
        "onnxruntime": metadata.version("onnxruntime"),
        "device": device,
        "speeds": [asdict(speed) for speed in speeds],
        "table": report.table(_HEAD, [_row(speed) for speed in speeds]),
    }
    report.write(config.out, results)
    return results


# -- time ------------------------------------------------------------------------------------


def best_of(
    runs: Mapping[str, Callable[[], object]], seconds: float
) -> tuple[dict[str, float], int]:
    """Time calls in turns, so that other load on the machine affects all of them.

    Returns
    -------
    shortest_s : dict of float
        Shortest time of each call in seconds.
    n_turns : int
    """
    shortest_s = dict.fromkeys(runs, math.inf)
    n_turns, end = 0, time.perf_counter() + seconds
    while not n_turns or time.perf_counter() < end:
        for name, call in runs.items():
            shortest_s[name] = min(shortest_s[name], _turn(call))
        n_turns += 1
    return shortest_s, n_turns


def _turn(call: Callable[[], object]) -> float:
    """Call repeatedly for a moment; return the shortest time in seconds."""
    shortest_s, end = math.inf, time.perf_counter() + _TURN_S
    while shortest_s == math.inf or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        shortest_s = min(shortest_s, time.perf_counter() - start)
    return shortest_s


# -- models ----------------------------------------------------------------------------------


def _measure(case: Case, device: str, seconds: float) -> list[Speed]:
    """Measure all backends of a model at each batch size."""
    model = case.make("cpu")
    encoders = _torch_encoders(model) | {"onnxruntime, cpu, float32": _onnx_encoder(model)}
    if device != "cpu":
        encoders |= _torch_encoders(case.make(device))
    for encoder in encoders.values():  # warm up
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


def _torch_encoders(model: ASTModel) -> dict[str, Encoder]:
    """Return encoders in float32 and, if the processor is fast at it, in bfloat16."""
    half, whole = _encoder(model, model.network), _encoder(model, model.network)
    encoders = {f"torch, {whole.device}, float32": whole}
    if half.half:
        encoders[f"torch, {half.device}, bfloat16"] = half
    whole.half = False
    return encoders


def _onnx_encoder(model: ASTModel) -> Encoder:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.export_onnx(path)
        encoder = _encoder(model, Graph(path))
    encoder.half = False
    return encoder


def _encoder(model: ASTModel, network: Network) -> Encoder:
    return Encoder(network, model.clip_head, model.recipe, model.device)


def _noise(batch_size: int, model: ASTModel) -> Waveform:
    """Return waveforms of one segment each, shape (batch_size, n_samples)."""
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
