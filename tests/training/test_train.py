from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from engine.calibration import Calibration
from engine.config import ClipConfig, Recipe
from engine.encoder import load_encoder, load_weights
from engine.errors import ConfigError
from engine.fingerprint import Fingerprinter
from tests.audio_files import Waveform, cached_tune, write_wav
from tests.encoders import TINY_AST
from training.config import AugmentConfig, TrainConfig
from training.dataset import AudioPool, Noises, PairSampler
from training.train import Sources, held_out_tracks, train
from training.validate import hit_rate

RATE = 8000
RECIPE = Recipe(encoder=TINY_AST, clip=ClipConfig(n_segments=3, hop_segments=2, n_heads=2))
CONFIG = TrainConfig(
    n_pairs=6,
    n_steps=12,
    n_warmup_steps=3,
    learning_rate=3e-3,
    n_clip_steps=2,
    n_clip_pairs=4,
    n_held_out=1,
    checkpoint_every=2,
    validate_every=1000,
    augment=AugmentConfig(speed_share=0.0),
)
UNTOUCHED: dict[str, Any] = {key: 0.0 for key in vars(AugmentConfig()) if key.endswith("_share")}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Ten tunes, hiss, other tunes for voices, and a room."""
    root = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    recordings: dict[str, list[Any]] = {
        "music": [cached_tune(seed, 6.0) for seed in range(10)],
        "noise": [0.1 * rng.standard_normal(2 * RATE)],
        "speech": [cached_tune(30, 6.0)],
        "rooms": [0.9 * rng.standard_normal(4000) * 0.999 ** np.arange(4000)],
    }
    for name, waveforms in recordings.items():
        (root / name).mkdir()
        for i, waveform in enumerate(waveforms):
            write_wav(root / name / f"{i}.wav", np.clip(waveform, -1, 1), RATE)
    return Sources(*(root / name for name in Sources._fields))


def logged(out: Path, key: str = "loss") -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line[key]) for line in lines if key in line]


def stop_after(n_steps: int) -> Callable[..., Any]:
    """Replace PairSampler.draw by one that is interrupted as a user would."""
    draw = PairSampler.draw
    drawn: list[int] = []

    def interrupted(self: PairSampler, *args: Any) -> tuple[Tensor, Tensor]:
        if len(drawn) == n_steps:
            raise KeyboardInterrupt
        drawn.append(0)
        return draw(self, *args)

    return interrupted


def train_interrupted(
    patching: pytest.MonkeyPatch,
    n_steps: int,
    sources: Sources,
    out: Path,
    config: TrainConfig = CONFIG,
) -> None:
    with patching.context() as patch:
        patch.setattr(PairSampler, "draw", stop_after(n_steps))
        with pytest.raises(KeyboardInterrupt):
            train(sources, out, config, RECIPE)


@pytest.fixture(scope="module")
def finished(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a run that was never interrupted."""
    return train(sources, tmp_path_factory.mktemp("finished"), CONFIG, RECIPE)


def test_train_gives_weights_that_fingerprint(finished: Path) -> None:
    fingerprinter = Fingerprinter(load_encoder(finished, "cpu"))
    fingerprint = fingerprinter.fingerprint([cached_tune(1, 6.0)], 0.5)
    assert fingerprint.embeddings.shape[1] == TINY_AST.embedding_dim
    assert np.isfinite(fingerprint.clip_embeddings).all()
    assert load_weights(finished)[2].weights_sha256


def test_train_gives_the_calibration_of_its_weights(finished: Path) -> None:
    calibration = Calibration.load(finished.with_name("calibration.json"))
    assert calibration.recipe_id == load_weights(finished)[2].recipe_id
    assert np.isfinite(calibration.weights).all()
    assert 0 <= calibration.min_confidence <= 1


def test_train_logs_every_step(finished: Path) -> None:
    assert [step for step, _ in logged(finished.parent)] == list(range(12))
    assert all(0 <= rate <= 1 for _, rate in logged(finished.parent, "hit_rate"))


def test_train_lowers_the_loss(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    easy = replace(
        CONFIG,
        n_pairs=8,
        learning_rate=3e-4,
        temperature=0.2,
        augment=AugmentConfig(shift_s=0.05, **UNTOUCHED),
    )
    train_interrupted(monkeypatch, easy.n_steps, sources, tmp_path, easy)
    losses = [loss for _, loss in logged(tmp_path)]
    assert np.mean(losses[-3:]) < 0.75 * np.mean(losses[:3])


def test_train_again_gives_the_same_weights(
    finished: Path, sources: Sources, tmp_path: Path
) -> None:
    torch.manual_seed(99)  # what happened before in this process does not matter
    again = train(sources, tmp_path, CONFIG, RECIPE)
    assert logged(tmp_path) == logged(finished.parent)
    assert load_weights(again)[2] == load_weights(finished)[2]


@pytest.mark.parametrize("n_steps", [1, 4, 7])
def test_train_interrupted_and_resumed_is_exact(
    finished: Path,
    sources: Sources,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_steps: int,
) -> None:
    train_interrupted(monkeypatch, n_steps, sources, tmp_path)
    assert [step for step, _ in logged(tmp_path)] == list(range(n_steps))
    resumed = train(sources, tmp_path, CONFIG, RECIPE)
    steps = [step for step, _ in logged(tmp_path)][n_steps:]
    assert steps == list(range(n_steps - n_steps % 2, 12))  # from the last checkpoint on
    assert set(logged(tmp_path)) == set(logged(finished.parent))
    assert load_weights(resumed)[2] == load_weights(finished)[2]


def test_train_interrupted_twice_is_exact(
    finished: Path, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n_steps in (5, 4):
        train_interrupted(monkeypatch, n_steps, sources, tmp_path)
    resumed = train(sources, tmp_path, CONFIG, RECIPE)
    assert set(logged(tmp_path)) == set(logged(finished.parent))
    assert load_weights(resumed)[2] == load_weights(finished)[2]


def test_train_other_seed_gives_other_losses(
    finished: Path, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_interrupted(monkeypatch, 2, sources, tmp_path, replace(CONFIG, seed=1))
    for (_, loss), (_, other) in zip(logged(tmp_path), logged(finished.parent), strict=False):
        assert loss != other


def test_train_record_keeps_the_config_and_every_validation(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, n_steps=4, validate_every=2, n_clip_steps=1)
    monkeypatch.setattr("training.validate.N_PAIRS", 128)
    train_interrupted(monkeypatch, 4, sources, tmp_path, config)  # in the third step
    weights = train(sources, tmp_path, config, RECIPE)
    with safe_open(weights, framework="pt") as file:
        record = json.loads(file.metadata()["record"])
    assert record["config"]["learning_rate"] == 3e-3
    assert [step for step, _ in record["validation_hit_rate"]] == [2, 4]


def test_held_out_tracks_are_fixed_by_the_seed() -> None:
    chosen = held_out_tracks(100, TrainConfig())
    assert len(set(chosen)) == 32
    assert chosen == held_out_tracks(100, TrainConfig())
    assert chosen != held_out_tracks(100, TrainConfig(seed=1))
    assert set(chosen) <= set(range(100))


def sine(hz: float) -> Waveform:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(4 * RATE) / RATE)).astype(np.float32)


def tones_heard(view: Tensor) -> set[int]:
    """Which multiples of 100 Hz stand out of what surrounds them, as no noise does."""
    power = torch.fft.rfft(view * torch.hann_window(len(view))).abs().square()
    distance_hz = torch.fft.rfftfreq(len(view), 1 / RATE) - torch.tensor(TONES_HZ)[:, None]
    near, around = distance_hz.abs() < 10, (distance_hz.abs() - 50).abs() < 10
    return {
        tone
        for tone, at, beside in zip(TONES_HZ, near, around, strict=True)
        if power[at].max() > max(100 * power[beside].median(), 1e-4 * power.max())
    }


TONES_HZ = range(300, 2300, 100)


@pytest.mark.parametrize(
    "noise_share",
    [0.0, 1.0],
)
def test_held_out_tracks_never_enter_training(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise_share: float
) -> None:
    """Each track is a tone of its own; that of a held-out track is in no view drawn."""
    music = tmp_path / "tones"
    music.mkdir()
    for i, hz in enumerate(TONES_HZ):
        write_wav(music / f"{i:02}.wav", sine(hz), RATE)
    drawn: list[Tensor] = []
    draw, weights = PairSampler.draw, tmp_path / "out" / "weights.safetensors"

    def listening(self: PairSampler, *args: Any) -> tuple[Tensor, Tensor]:
        if weights.exists():  # what follows is calibration
            raise KeyboardInterrupt
        views = draw(self, *args)
        drawn.extend([*views[0], *views[1]])
        return views

    monkeypatch.setattr(PairSampler, "draw", listening)
    noisy = {"noise_share": noise_share, "mix_share": 0.3, "snr_db": (0.0, 5.0)}
    mixing = AugmentConfig(**(UNTOUCHED | noisy))
    config = replace(CONFIG, n_pairs=14, n_held_out=5, augment=mixing, checkpoint_every=100)
    # Silence for noise and speech: whatever noise there is comes from the music.
    silence = tmp_path / "silence"
    silence.mkdir()
    write_wav(silence / "0.wav", np.zeros(RATE, np.float32), RATE)
    with pytest.raises(KeyboardInterrupt):
        train(Sources(music, silence, silence, sources.rooms), weights.parent, config, RECIPE)

    held_out = {TONES_HZ[track] for track in held_out_tracks(20, config)}
    heard = set().union(*(tones_heard(view) for view in drawn))
    assert len(drawn) > 300
    assert heard == set(TONES_HZ) - held_out


def test_hit_rate_of_undegraded_pairs_is_nearly_one(
    finished: Path, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.validate.N_PAIRS", 128)
    music = AudioPool.of(sources.music, tmp_path, RATE)
    quiet = AugmentConfig(shift_s=0.0, **UNTOUCHED)
    model = load_weights(finished)[0]
    pairs = PairSampler(
        music, range(10), Noises(music, music, music), None, RECIPE.spectrogram, quiet
    )
    assert hit_rate(model, pairs, RECIPE.spectrogram) > 0.9


@pytest.mark.parametrize(
    "values",
    [
        {"n_pairs": 0},
        {"n_steps": 0},
        {"n_clip_pairs": 0},
        {"checkpoint_every": 0},
        {"validate_every": 0},
        {"temperature": 0.0},
        {"temperature": -1.0},
    ],
)
def test_train_config_bad_value_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="positive"):
        TrainConfig(**values)
