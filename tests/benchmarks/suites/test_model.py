from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.cli import bench
from benchmarks.suites import model
from benchmarks.suites.model import Case, ModelConfig, best_of
from engine.model.ast_model import ASTModel
from engine.recipe import ASTConfig
from tests.benchmarks.markdown import rows

TINY = ASTConfig(
    num_classes=3,
    embedding_dim=16,
    num_layers=1,
    num_heads=2,
    num_mel_bands=16,
    target_length=16,
    stride=16,
)
CASE = Case("tiny", lambda device: ASTModel(TINY, device=device), 0.5, (1, 3))


def test_command_measures_all_backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "ModelConfig", partial(ModelConfig, cases=(CASE,)))
    out = tmp_path / "model.json"
    options = ["--out", str(out), "--device", "cpu", "--seconds", "0"]
    answer = CliRunner().invoke(bench, ["model", *options], catch_exceptions=False)
    results = json.loads(out.read_text())
    assert answer.stdout == results["table"] + "\n"
    assert {"commit", "machine", "onnxruntime"} <= set(results)
    speeds = {(one["batch_size"], one["runs_on"]): one for one in results["speeds"]}
    for batch_size in (1, 3):
        baseline = speeds[batch_size, "torch, cpu, float32"]
        onnx = speeds[batch_size, "onnxruntime, cpu, float32"]
        assert baseline["ratio"] == 1
        assert onnx["ratio"] == pytest.approx(onnx["inputs_per_s"] / baseline["inputs_per_s"])
        assert onnx["realtime_factor"] == pytest.approx(0.5 * onnx["inputs_per_s"])
        expected = ["tiny", str(batch_size), "onnxruntime, cpu, float32"]
        assert expected in [row[:3] for row in rows(results["table"])]


def test_best_of_takes_turns_and_returns_the_shortest_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model, "_TURN_S", 0.0)
    order = []

    def work(name: str, seconds: float) -> None:
        order.append(name)
        time.sleep(seconds)

    runs = {"slow": lambda: work("slow", 0.03), "quick": lambda: work("quick", 0.01)}
    shortest_s, n_turns = best_of(runs, 1.0)
    assert order == ["slow", "quick"] * n_turns
    assert n_turns > 1
    assert shortest_s["slow"] >= 0.03
    assert 0.01 <= shortest_s["quick"] < 0.03


def test_best_of_without_time_runs_each_once() -> None:
    shortest_s, n_turns = best_of({"one": lambda: None, "other": lambda: None}, 0.0)
    assert n_turns == 1
    assert all(0 < one < 1 for one in shortest_s.values())
