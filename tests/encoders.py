"""A tiny encoder with random weights: fast, and confident for identical audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.model import spectrogram
from engine.model.network import AST, new_models
from engine.model.weights import Weights, save_weights
from engine.recipe import ASTConfig, Recipe
from engine.search.calibration import Calibration
from tests.audio_files import cached_tune

TINY_AST = ASTConfig(
    sample_rate=8000,
    target_length=64,
    stride=16,
    embedding_dim=32,
    num_layers=2,
    num_heads=2,
    num_classes=0,
    fingerprint_dim=16,
    projection_dim=32,
    norm_eps=1e-5,
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny encoder, and a calibration.json that accepts identical audio only."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        recipe = Recipe(encoder=TINY_AST)
        model, clip_head = new_models(recipe)
        _make_smooth(model)
        _spread(model, recipe)
        recipe = save_weights(path, Weights(model, clip_head, recipe))
    # Confidence 0.5 at an evidence of 0.9 in 2 s of sound, more in less and at other speeds.
    threshold = (0.0, 20.0, 0.0, 0.0, 3.0, 0.0, -6.0, 0.0, 0.0)
    calibration = Calibration(recipe_id=recipe.recipe_id, weights=threshold, min_confidence=0.5)
    calibration.save(path.with_name("calibration.json"))
    return path


@pytest.fixture
def tiny_weights(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the command line use :func:`tiny_model`, in this process and its children."""
    monkeypatch.setenv("ASTOUND_MODEL", str(tiny_model))
    return tiny_model


@torch.no_grad()
def _make_smooth(model: AST) -> None:
    """Make embeddings change slowly with time, as those of a trained encoder do."""
    weight = model.patches.weight
    weight.copy_(4 * weight.mean(dim=3, keepdim=True).expand_as(weight))
    n_bands, n_times = model.config.n_patches
    positions = model.positions[0, -n_bands * n_times :].view(n_bands, n_times, -1)
    positions.copy_(positions.mean(dim=1, keepdim=True).expand_as(positions))


@torch.no_grad()
def _spread(model: AST, recipe: Recipe) -> None:
    """Make embeddings of different music differ; random weights give nearly equal ones."""
    config = recipe.spectrogram
    music = torch.from_numpy(np.concatenate([cached_tune(seed, 10.0) for seed in range(50, 58)]))
    raw = spectrogram.segments(spectrogram.log_mel(music, config), 40, config)
    summaries = model.eval().summary(spectrogram.normalise(raw, config))
    model.projection[2].bias -= model.projection(summaries).mean(dim=0)
