from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from engine.errors import ModelError
from engine.model.network import new_models
from tests.training.sounds import CONFIG, RECIPE
from training.learner import Learner
from training.packed import CHECKPOINT, pack, unpack


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Folder of a run with a checkpoint after two steps and a long log."""
    out = tmp_path / "run"
    out.mkdir()
    torch.manual_seed(0)
    learner = Learner(new_models(RECIPE)[0], CONFIG, RECIPE)
    for seed in range(2):
        learner.step(torch.randn(8, 64, 128, generator=torch.Generator().manual_seed(seed)), 1e-3)
    learner.save(out / CHECKPOINT, 2)
    (out / "log.jsonl").write_text("".join(f'{{"step": {i}}}\n' for i in range(5000)))
    return out


def test_packed_weights_are_exact_and_moments_nearly(run: Path, tmp_path: Path) -> None:
    pack(run, tmp_path / "run.pack")
    settings = unpack(tmp_path / "run.pack", tmp_path / "other")
    assert settings == (CONFIG, RECIPE)
    before, after = (load_file(out / CHECKPOINT) for out in (run, tmp_path / "other"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        is_exact = name.startswith("model.") or not tensor.ndim
        torch.testing.assert_close(
            after[name], tensor, rtol=0 if is_exact else 2**-8, atol=0 if is_exact else 1e-30
        )
    assert Learner(new_models(RECIPE)[0], CONFIG, RECIPE).load(tmp_path / "other" / CHECKPOINT) == 2
    lines = (tmp_path / "other" / "log.jsonl").read_text().splitlines()
    assert lines[-1] == '{"step": 4999}'
    assert len(lines) == 2000


def test_packed_run_is_smaller_than_its_checkpoint(run: Path, tmp_path: Path) -> None:
    pack(run, tmp_path / "run.pack")
    smaller = (tmp_path / "run.pack").stat().st_size / (run / CHECKPOINT).stat().st_size
    assert smaller < 0.75


def test_unpack_leaves_degradations_off_that_are_newer_than_the_file(
    run: Path, tmp_path: Path
) -> None:
    tensors = load_file(run / CHECKPOINT)
    with safe_open(run / CHECKPOINT, framework="pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["config"])
    for name in ("packet_loss_prob", "lost_fraction", "wide_pitch_prob"):
        del config["augment"][name]
    save_file(tensors, run / CHECKPOINT, {**metadata, "config": json.dumps(config)})
    pack(run, tmp_path / "run.pack")
    augment = unpack(tmp_path / "run.pack", tmp_path / "other").config.augment
    assert augment == dataclasses.replace(CONFIG.augment, packet_loss_prob=0.0, wide_pitch_prob=0.0)


def test_unpack_keeps_the_checkpoint_of_a_run_that_went_on(run: Path, tmp_path: Path) -> None:
    pack(run, tmp_path / "run.pack")
    (run / CHECKPOINT).write_bytes(b"newer")
    unpack(tmp_path / "run.pack", run)
    assert (run / CHECKPOINT).read_bytes() == b"newer"
    assert len((run / "log.jsonl").read_text().splitlines()) == 5000


def test_pack_of_a_folder_without_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such checkpoint"):
        pack(tmp_path, tmp_path / "run.pack")


@pytest.mark.parametrize("content", [b"", b"text", gzip.compress(b"text", mtime=0), None])
def test_unpack_of_another_file_is_refused(
    run: Path, tmp_path: Path, content: bytes | None
) -> None:
    packed = tmp_path / "run.pack"
    pack(run, packed)
    packed.write_bytes(packed.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ModelError, match="not a packed run"):
        unpack(packed, tmp_path / "other")
    assert not (tmp_path / "other").exists()
