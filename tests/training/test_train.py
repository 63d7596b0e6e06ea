from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

import engine
from engine.errors import ConfigError, ModelError
from engine.model.fingerprinter import Fingerprinter
from engine.model.weights import load_weights
from engine.recipe import Recipe
from engine.search.calibration import Calibration
from tests.audio_files import cached_tune, write_wav
from tests.training.sounds import CONFIG, N_TRACKS, RATE, RECIPE, be_brief, only, pitch_hz, tone
from training.augment.rng import Rng
from training.config import TrainConfig
from training.learner import Learner, StepMetrics
from training.packed import pack, unpack
from training.sources import Sources
from training.train import held_out_tracks, open_samplers, train

TONES_HZ = range(300, 2300, 100)


@pytest.fixture(scope="module", autouse=True)
def _brief() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        be_brief(patch)
        yield


def logged(out: Path, key: str = "loss") -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line[key]) for line in lines if key in line]


def weights_of(path: Path) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(load_weights(path)[0].parameters())


def bursting(n_steps: int) -> Callable[..., StepMetrics]:
    """Replace Learner.step by one that is interrupted as by Ctrl-C."""
    step = Learner.step
    done: list[int] = []

    def interrupted(self: Learner, *args: Any) -> StepMetrics:
        if len(done) == n_steps:
            raise KeyboardInterrupt
        done.append(0)
        return step(self, *args)

    return interrupted


def saving_every_third() -> Callable[..., None]:
    """Replace Learner.save, so that an interrupted run has steps to repeat."""
    save = Learner.save

    def seldom(self: Learner, path: Path, n_steps: int) -> None:
        if n_steps % 3 == 0:
            save(self, path, n_steps)

    return seldom


def train_interrupted(
    patching: pytest.MonkeyPatch, n_steps: int, sources: Sources, out: Path, **changes: Any
) -> None:
    with patching.context() as patch:
        patch.setattr(Learner, "step", bursting(n_steps))
        patch.setattr(Learner, "save", saving_every_third())
        with pytest.raises(KeyboardInterrupt):
            train(sources, out, dataclasses.replace(CONFIG, **changes), RECIPE, device="cpu")


@pytest.fixture(scope="module")
def finished(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a run that was never interrupted."""
    return train(sources, tmp_path_factory.mktemp("finished"), CONFIG, RECIPE, device="cpu")


def test_train_gives_weights_that_fingerprint(finished: Path) -> None:
    fingerprinter = Fingerprinter.load(finished, "cpu")
    fingerprint = fingerprinter.fingerprint([cached_tune(1, 6.0)], 0.5)
    assert fingerprint.embeddings.shape[1] == RECIPE.encoder.fingerprint_dim
    assert np.isfinite(fingerprint.clip_embeddings).all()
    assert load_weights(finished)[2].weights_sha256


def test_train_gives_the_calibration_of_its_weights(finished: Path) -> None:
    calibration = Calibration.load(finished.with_name("calibration.json"))
    assert calibration.recipe_id == load_weights(finished)[2].recipe_id
    assert np.isfinite(calibration.weights).all()
    assert 0 <= calibration.min_confidence <= 1.001


def test_train_logs_every_step_and_validation(finished: Path) -> None:
    out = finished.parent
    assert [step for step, _ in logged(out)] == list(range(8))
    assert all(0 <= rate <= 1 for _, rate in logged(out, "hit_rate"))
    assert [step for step, _ in logged(out, "validation/mean")] == [3, 7]
    rates = [rate for _, rate in logged(out, "learning_rate")]
    assert rates[:3] == pytest.approx([1e-3, 2e-3, 3e-3])
    assert rates[-1] < 1e-3


def test_train_shows_its_curves_in_tensorboard(finished: Path) -> None:
    pytest.importorskip("tensorboard")
    (events,) = (finished.parent / "tensorboard").iterdir()
    assert events.name.startswith("events.out.tfevents")
    assert events.stat().st_size > 500


def test_train_record_keeps_the_config_and_every_validation(finished: Path) -> None:
    with safe_open(finished, framework="pt") as file:
        record = json.loads(file.metadata()["training_record"])
    assert record["config"]["learning_rate"] == 3e-3
    assert record["config"]["augment"]["shift_s"] == 0.25
    assert [n_steps for n_steps, _ in record["validations"]] == [4, 8]
    assert 0 <= record["clip_hit_rate"] <= 1


def test_train_again_gives_the_same(finished: Path, sources: Sources, tmp_path: Path) -> None:
    torch.manual_seed(99)  # what happened before in this process does not matter
    again = train(sources, tmp_path, CONFIG, RECIPE, device="cpu")
    assert logged(tmp_path) == logged(finished.parent)
    assert load_weights(again)[2] == load_weights(finished)[2]


def test_train_other_seed_gives_other_losses(
    finished: Path, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_interrupted(monkeypatch, 3, sources, tmp_path, seed=1)
    for (_, loss), (_, other) in zip(logged(tmp_path), logged(finished.parent), strict=False):
        assert loss != other


# -- interrupted and resumed -------------------------------------------------------------------


def test_train_interrupted_and_resumed_is_exact(
    finished: Path, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n_steps in (2, 5, 2):  # before the first checkpoint, after one, at one
        train_interrupted(monkeypatch, n_steps, sources, tmp_path)
    assert [step for step, _ in logged(tmp_path)] == list(range(5))
    resumed = train(sources, tmp_path, CONFIG, RECIPE, device="cpu")
    for key in ("loss", "hit_rate", "learning_rate", "validation/mean"):
        assert logged(tmp_path, key) == logged(finished.parent, key)
    assert load_weights(resumed)[2] == load_weights(finished)[2]


_KILLED = """
import os, signal, sys
from pathlib import Path
import pytest
from tests.training import sounds
from training.learner import Learner
from training.sources import Sources
from training.train import train

step, done = Learner.step, []

def step_and_die(self, *args):
    if len(done) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(0)
    return step(self, *args)

Learner.step = step_and_die
sounds.be_brief(pytest.MonkeyPatch())
sources = Sources(*map(Path, sys.argv[2:]))
train(sources, Path(sys.argv[1]), sounds.CONFIG, sounds.RECIPE, device="cpu")
"""


def start(code: str, *arguments: object, **variables: str) -> subprocess.Popen[str]:
    root = str(Path(engine.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": root} | variables,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_train_killed_and_resumed_is_exact(
    finished: Path, sources: Sources, tmp_path: Path
) -> None:
    killed = start(_KILLED, tmp_path, *sources)
    _, said = killed.communicate(timeout=250)
    assert killed.returncode == -signal.SIGKILL, said
    assert len(logged(tmp_path)) == 5
    train(sources, tmp_path, CONFIG, RECIPE, device="cpu")
    losses, expected = logged(tmp_path), logged(finished.parent)
    assert [step for step, _ in losses] == list(range(8))
    # Another process may have another number of threads, and so sum in another order.
    assert [loss for _, loss in losses] == pytest.approx([one for _, one in expected], rel=1e-3)


_SHARING = """
import sys
from pathlib import Path
import pytest
from tests.training import sounds
from training.sources import Sources
from training.train import train

sounds.be_brief(pytest.MonkeyPatch())
sources = Sources(*map(Path, sys.argv[2:]))
train(sources, Path(sys.argv[1]), sounds.CONFIG, sounds.RECIPE, device="cpu")
"""


@pytest.mark.slow
def test_train_in_two_processes(sources: Sources, tmp_path: Path, unused_port: int) -> None:
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(unused_port), "WORLD_SIZE": "2"}
    processes = [
        start(_SHARING, tmp_path, *sources, RANK=str(rank), LOCAL_RANK=str(rank), **meeting)
        for rank in range(2)
    ]
    for one in processes:
        _, said = one.communicate(timeout=280)
        assert one.returncode == 0, said
    assert [step for step, _ in logged(tmp_path)] == list(range(8))
    assert load_weights(tmp_path / "weights.safetensors").recipe.weights_sha256
    assert (tmp_path / "calibration.json").exists()
    assert len(list((tmp_path / "tensorboard").iterdir())) <= 1


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_pairs_that_cannot_be_shared_are_refused(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.train.n_processes", lambda: 3)
    with pytest.raises(
        ConfigError, match=r"n_pairs=4: must be a multiple of the number of processes \(3\)"
    ):
        train(sources, tmp_path, CONFIG, RECIPE, device="cpu")


# -- limited in time ---------------------------------------------------------------------------


def test_train_ends_with_its_time(sources: Sources, tmp_path: Path) -> None:
    limited = dataclasses.replace(CONFIG, n_steps=1_000_000, max_minutes=1e-9)
    weights = train(sources, tmp_path, limited, RECIPE, device="cpu")
    assert [step for step, _ in logged(tmp_path)] == [0]
    assert [step for step, _ in logged(tmp_path, "validation/mean")] == [0]
    assert load_weights(weights)[2].weights_sha256
    with safe_open(tmp_path / "checkpoint.safetensors", framework="pt") as file:
        assert file.metadata()["n_steps"] == "1"


def test_train_cut_off_after_the_encoder_leaves_weights_and_the_packed_run(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    out, elsewhere, packed = tmp_path / "run", tmp_path / "elsewhere", tmp_path / "run.pack"
    config = dataclasses.replace(CONFIG, validate_every=CONFIG.n_steps)
    with monkeypatch.context() as patch:
        patch.setattr("training.train.retrieval_hit_rates", cut_off)
        with pytest.raises(KeyboardInterrupt):
            train(sources, out, config, RECIPE, packed=packed, device="cpu")
    encoder = load_weights(out / "weights.safetensors").network
    run = unpack(packed, elsewhere)
    weights = train(sources, elsewhere, run.config, run.recipe, device="cpu")
    assert [step for step, _ in logged(elsewhere, "validation/mean")] == [7]
    finished = load_weights(weights).network.state_dict()
    for name, tensor in encoder.state_dict().items():
        torch.testing.assert_close(tensor, finished[name], rtol=0, atol=0)


# -- packed ------------------------------------------------------------------------------------


def test_train_packed_and_resumed_elsewhere_has_the_same_losses(
    finished: Path, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here, packed = tmp_path / "there", tmp_path / "here", tmp_path / "run.pack"
    train_interrupted(monkeypatch, 5, sources, there)
    pack(there, packed)
    run = unpack(packed, here)
    assert run == (CONFIG, RECIPE)
    train(sources, here, run.config, run.recipe, device="cpu")
    expected = logged(finished.parent)
    assert [step for step, _ in logged(here)] == list(range(8))
    assert logged(here)[:4] == expected[:4]  # the first step after it is that of the checkpoint
    losses = [[loss for _, loss in one] for one in (logged(here), expected)]
    # The moments are rounded; how much that shows depends on the processor.
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


# -- weights to begin with ---------------------------------------------------------------------


def test_train_begins_with_the_weights_given(
    finished: Path, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[torch.Tensor] = []
    init = Learner.__init__

    def noting(self: Learner, model: Any, *args: Any) -> None:
        began.append(torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone())
        init(self, model, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(Learner, "__init__", noting)
    for init_from in (finished, None):
        with pytest.raises(KeyboardInterrupt):
            train(sources, tmp_path, CONFIG, RECIPE, init_from=init_from, device="cpu")
    assert torch.equal(began[0], weights_of(finished))
    assert not torch.equal(began[0], began[1])


@pytest.mark.parametrize("part", ["encoder", "spectrogram"])
def test_weights_of_another_shape_are_refused(
    finished: Path, sources: Sources, tmp_path: Path, part: str
) -> None:
    changes = {"encoder": {"embedding_dim": 32}, "spectrogram": {"hop_length": 200}}[part]
    other = dataclasses.replace(getattr(RECIPE, part), **changes)
    recipe: Recipe = dataclasses.replace(RECIPE, **{part: other})
    with pytest.raises(ModelError, match="another shape than the run"):
        train(sources, tmp_path, CONFIG, recipe, init_from=finished, device="cpu")


# -- what is held out --------------------------------------------------------------------------


def test_held_out_tracks_are_fixed_by_the_seed() -> None:
    chosen = held_out_tracks(100, TrainConfig())
    assert len(set(chosen)) == 32
    assert chosen == held_out_tracks(100, TrainConfig())
    assert chosen != held_out_tracks(100, TrainConfig(seed=1))
    assert set(chosen) <= set(range(100))


def heard(views: torch.Tensor) -> set[int]:
    """Which tones stand out in a view, though another may be as loud."""
    power = torch.fft.rfft(views * torch.hann_window(views.shape[1])).abs().square()
    hz = torch.fft.rfftfreq(views.shape[1], 1 / RATE)
    near = torch.stack([power[:, (hz - tone).abs() < 10].amax(dim=1) for tone in TONES_HZ], dim=1)
    return {TONES_HZ[i] for i in (near > 0.02 * power.amax(dim=1)[:, None]).any(dim=0).nonzero()}


@pytest.mark.parametrize("noise_prob", [0.0, 1.0])
def test_held_out_music_is_never_used(sources: Sources, tmp_path: Path, noise_prob: float) -> None:
    """Each track is a tone of its own; those of held-out tracks are in no view, nor in noise."""
    (tmp_path / "music").mkdir()
    for i, hz in enumerate(TONES_HZ):
        write_wav(tmp_path / "music" / f"{i:02}.wav", tone(hz, 3.0), RATE)
    mixing = only(
        mix_prob=0.3,
        noise_prob=noise_prob,
        noise_kind_probs=(0.0, 0.0, 1.0, 0.0),
        snr_db=(0.0, 3.0),
    )
    config = dataclasses.replace(CONFIG, n_held_out=5, augment=mixing)
    music = sources._replace(music=tmp_path / "music")
    training, held_out = open_samplers(music, tmp_path / "cache", config, RECIPE)
    kept = {TONES_HZ[track] for track in held_out.tracks}
    assert kept == {TONES_HZ[track] for track in held_out_tracks(20, config)}
    views = training.draw(Rng((0,)), 300, 7324)
    assert heard(views.clean) == heard(views.degraded) == set(TONES_HZ) - kept
    (known,) = {round(pitch_hz(held_out.draw(Rng((0,)), 1, 7324).clean[0]), -2)}
    assert known in kept


def test_synthetic_tunes_are_trained_on_but_never_held_out(
    sources: Sources, tmp_path: Path
) -> None:
    """The tunes and the voices are tones, and no noise is added."""
    for kind, hz in {"tunes": 1300.0, "voices": 700.0}.items():
        (tmp_path / kind).mkdir()
        write_wav(tmp_path / kind / "0.wav", tone(hz, 60.0), RATE)
    more = sources._replace(tunes=tmp_path / "tunes", voices=tmp_path / "voices")
    config = dataclasses.replace(CONFIG, augment=only())
    with_more, without = (
        open_samplers(one, tmp_path / "cache", config, RECIPE) for one in (more, sources)
    )
    np.testing.assert_array_equal(with_more.held_out.tracks, without.held_out.tracks)
    np.testing.assert_array_equal(with_more.training.tracks[:-1], without.training.tracks)
    assert len(with_more.held_out.music) == len(without.held_out.music)
    assert 1300.0 in heard(with_more.training.draw(Rng((0,)), 50, 7324).clean)
    music = with_more.training.noise.music
    assert 1300.0 not in {pitch_hz(one) for one in music.draw(np.random.default_rng(0), 50, 8000)}
    spoken = with_more.training.noise.speech
    assert spoken.lengths.sum() == without.training.noise.speech.lengths.sum() + 60 * RATE


def test_composed_noise_is_made_for_its_minutes_and_only_if_it_is_drawn(
    sources: Sources, tmp_path: Path
) -> None:
    pools = []
    for prob in (1.0, 1.0, 0.0):
        augment = only(composed_noise_prob=prob, composed_minutes=0.5)
        config = dataclasses.replace(CONFIG, augment=augment)
        pools.append(open_samplers(sources, tmp_path, config, RECIPE).training.noise.composed)
    first, again, none = pools
    assert first is not None
    assert again is not None
    assert first.lengths.sum() == 30 * RATE
    assert torch.equal(first.samples, again.samples)
    assert none is None


@pytest.mark.parametrize("n_held_out", [N_TRACKS, 100])
def test_too_little_music_is_refused(sources: Sources, tmp_path: Path, n_held_out: int) -> None:
    config = dataclasses.replace(CONFIG, n_held_out=n_held_out)
    with pytest.raises(ConfigError, match=f"too few recordings to hold out {n_held_out}"):
        train(sources, tmp_path, config, RECIPE, device="cpu")
