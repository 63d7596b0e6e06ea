from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import engine
from engine.errors import ModelError
from engine.model.network import new_models
from tests.training.sounds import RATE, RECIPE, music, only
from training import learner as learner_module
from training.augment.rng import Rng
from training.config import LOSSES, TrainConfig
from training.dataset import Pairs
from training.learner import Learner, learning_rate

N_PAIRS = 6


def new_learner(**changes: Any) -> Learner:
    torch.manual_seed(0)
    config = TrainConfig(n_pairs=N_PAIRS, temperature=0.2, **changes)
    return Learner(new_models(RECIPE)[0].train(), config, RECIPE)


def features(seed: int = 0, n_pairs: int = N_PAIRS) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, n_pairs, 64, 128, generator=generator)
    return torch.cat([clean, clean + 0.5 * noise])


def parameters(one: Learner) -> Tensor:
    return torch.nn.utils.parameters_to_vector(one.model.parameters()).detach()


def gradients(one: Learner) -> Tensor:
    """Gradient of a step without a length: nothing is clipped and nothing is moved."""
    one.step(features(), 0.0)
    return torch.cat([p.grad.flatten() for p in one.model.parameters() if p.grad is not None])


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in full precision."""
    monkeypatch.setattr(learner_module, "has_fast_bfloat16", lambda _device: False)


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in bfloat16, also where that is slower."""
    monkeypatch.setattr(learner_module, "has_fast_bfloat16", lambda _device: True)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n_pairs_per_chunk", [1, 2, 4])
@pytest.mark.usefixtures("exact")
def test_gradient_in_chunks_is_that_of_the_whole(n_pairs_per_chunk: int, loss: str) -> None:
    whole = gradients(new_learner(loss=loss, max_grad_norm=1e9))
    pieces = gradients(
        new_learner(loss=loss, max_grad_norm=1e9, n_pairs_per_chunk=n_pairs_per_chunk)
    )
    assert float(whole.norm()) > 1e-3
    torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("rounded")
def test_gradient_in_chunks_is_nearly_that_of_the_whole_in_bfloat16() -> None:
    whole, pieces = gradients(new_learner()), gradients(new_learner(n_pairs_per_chunk=2))
    assert float(torch.cosine_similarity(whole, pieces, dim=0)) > 0.999


@pytest.mark.parametrize("n_pairs_per_chunk", [2, N_PAIRS])
def test_checkpointed_gradient_is_the_same(n_pairs_per_chunk: int) -> None:
    plain, checkpointed = (
        gradients(
            new_learner(n_pairs_per_chunk=n_pairs_per_chunk, gradient_checkpointing=checkpointing)
        )
        for checkpointing in (False, True)
    )
    torch.testing.assert_close(checkpointed, plain, rtol=0, atol=0)


def test_checkpointed_activations_take_less_memory() -> None:
    def n_kept(*, gradient_checkpointing: bool) -> int:
        kept: list[int] = []

        def note(x: Tensor) -> Tensor:
            kept.append(x.nbytes)
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            new_learner(gradient_checkpointing=gradient_checkpointing)._embed(features())
        return sum(kept)

    # The last of two layers keeps little anyway: only the class tokens go through it.
    assert n_kept(gradient_checkpointing=True) < 0.8 * n_kept(gradient_checkpointing=False)


def test_small_steps_add_up() -> None:
    """The weights are more precise than those that compute the gradient."""
    one = new_learner(optimizer="adamw", weight_decay=0.0)
    weight = one.model.blocks[0].mlp[0].weight  # type: ignore[union-attr, index]
    before = weight.detach().clone()
    for _ in range(10):
        one.step(features(), 1e-7)
    moved = (weight.detach() - before).abs()
    assert 2e-7 < float(moved.max()) < 1.2e-6


@pytest.mark.slow
def test_compiled_step_is_the_same() -> None:
    plain, compiled = (new_learner(compiled=compiled) for compiled in (False, True))
    for seed in range(2):
        losses = [one.step(features(seed), 1e-3).loss for one in (plain, compiled)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_steps_lower_the_loss() -> None:
    one = new_learner()
    losses = [one.step(features(), 3e-3).loss for _ in range(8)]
    assert losses[-1] < 0.7 * losses[0]


def test_progress_tells_loss_and_hit_rate_before_the_step() -> None:
    first = new_learner().step(features(), 1e-3)
    assert first == new_learner().step(features(), 0.1)
    assert 0 <= first.hit_rate <= 1


def test_long_gradients_are_clipped() -> None:
    assert float(gradients(new_learner(max_grad_norm=0.01)).norm()) == pytest.approx(0.01, rel=1e-3)


def test_features_are_clean_then_degraded_and_only_those_are_masked() -> None:
    n_samples = RECIPE.spectrogram.samples_per_segment
    sound = music(4)[:, :n_samples]
    pairs = Pairs(sound, sound, torch.arange(4))
    one = new_learner(augment=only(mask_prob=1.0))
    clean, degraded = one.features(pairs, Rng((0,))).chunk(2)
    assert clean.shape == (4, 64, 128)
    torch.testing.assert_close(clean.mean(dim=(1, 2)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(clean.std(dim=(1, 2)), torch.ones(4), atol=1e-2, rtol=0)
    hidden = degraded == 0
    assert hidden.any(dim=2).any(dim=1).all()
    assert torch.equal(clean[~hidden], degraded[~hidden])
    assert RECIPE.spectrogram.sample_rate == RATE


# -- checkpoints -------------------------------------------------------------------------------


def test_saved_and_loaded_goes_on_exactly(tmp_path: Path) -> None:
    one = new_learner()
    for seed in range(3):
        one.step(features(seed), 1e-2)
    one.save(tmp_path / "checkpoint.safetensors", 3)
    other = new_learner()
    assert other.load(tmp_path / "checkpoint.safetensors") == 3
    assert torch.equal(parameters(other), parameters(one))
    for seed in range(3, 6):
        assert one.step(features(seed), 1e-2) == other.step(features(seed), 1e-2)
    assert torch.equal(parameters(other), parameters(one))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _other_shape(path: Path) -> None:
    tensors = load_file(path) | {"model.positions": torch.zeros(1, 2, 3)}
    save_file(tensors, path, {"n_steps": "3"})


@pytest.mark.parametrize("harm", [_cut, _other_shape])
def test_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    one = new_learner()
    one.save(path, 3)
    harm(path)
    with pytest.raises(ModelError, match="not a checkpoint of this model"):
        one.load(path)


# -- the learning rate -------------------------------------------------------------------------


def test_learning_rate_rises_stays_and_falls() -> None:
    config = TrainConfig(n_steps=100, n_warmup_steps=10, cooldown_fraction=0.4, learning_rate=2.0)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[:2] == pytest.approx([0.2, 0.4])
    assert rates[9:61] == [2.0] * 52
    assert rates[61] < 2.0
    assert rates[80] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(0.05)


def test_learning_rate_of_a_longer_run_begins_alike() -> None:
    short, long = (TrainConfig(n_steps=n, cooldown_fraction=0.4) for n in (1000, 2000))
    assert all(learning_rate(step, short) == learning_rate(step, long) for step in range(600))


def test_learning_rate_falls_at_the_end_of_the_time_too() -> None:
    config = TrainConfig(n_steps=1_000_000, n_warmup_steps=0, max_minutes=10, learning_rate=2.0)
    rates = [learning_rate(100, config, 60.0 * minutes) for minutes in (0, 5.9, 8, 10, 11)]
    assert rates == pytest.approx([2.0, 2.0, 1.0, 0.0, 0.0])


def test_learning_rate_without_warm_up_and_cool_down_is_constant() -> None:
    config = TrainConfig(n_steps=10, n_warmup_steps=0, cooldown_fraction=0.0, learning_rate=2.0)
    assert [learning_rate(step, config) for step in range(10)] == [2.0] * 10


# -- optimizers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_optimizers_share_all_parameters(optimizer: str) -> None:
    one = new_learner(optimizer=optimizer)
    steered = [p for o in one.optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(map(id, steered)) == sorted(map(id, one.model.parameters()))
    assert len(one.optimizers) == (2 if optimizer == "muon" else 1)


def test_muon_steps_equally_far_in_all_directions_of_a_matrix() -> None:
    spreads = {}
    for optimizer in ("adamw", "muon"):
        one = new_learner(optimizer=optimizer, weight_decay=0.0)
        before = one.model.blocks[0].mlp[0].weight.detach().clone()  # type: ignore[union-attr, index]
        one.step(features(0), 1e-2)
        step = one.model.blocks[0].mlp[0].weight.detach() - before  # type: ignore[union-attr, index]
        lengths = torch.linalg.svdvals(step)
        spreads[optimizer] = float(lengths.max() / lengths.median())
    assert spreads["muon"] < 2 < spreads["adamw"]


# -- several processes -------------------------------------------------------------------------

_PROCESS = """
import sys
import torch
import torch.distributed as dist
from pathlib import Path
from safetensors.torch import save_file
from tests.training import test_learner as t

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
found = {}
for n_pairs_per_chunk in (512, 1):
    one = t.new_learner(n_pairs_per_chunk=n_pairs_per_chunk)
    for seed in range(2):
        first, second = (view.chunk(2)[rank] for view in t.features(seed).chunk(2))
        progress = one.step(torch.cat([first, second]), 1e-2)
    found[f"parameters {n_pairs_per_chunk}"] = t.parameters(one)
    found[f"progress {n_pairs_per_chunk}"] = torch.tensor(progress)
save_file(found, folder / f"{rank}.safetensors")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    root = Path(engine.__file__).parents[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(rank), str(tmp_path)],
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    alone = new_learner()
    progress = [alone.step(features(seed), 1e-2) for seed in range(2)][-1]
    moved = parameters(alone) - parameters(new_learner())
    for n_pairs_per_chunk in (512, 1):
        together = first[f"parameters {n_pairs_per_chunk}"] - parameters(new_learner())
        assert float(torch.cosine_similarity(together, moved, dim=0)) > 0.99
        assert float(together.norm() / moved.norm()) == pytest.approx(1, abs=0.02)
        told = first[f"progress {n_pairs_per_chunk}"].tolist()
        assert told == pytest.approx(list(progress), rel=0.01)
