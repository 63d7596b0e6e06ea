"""The encoder that travels with the package: without it nothing works, so nothing is skipped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.config import AlignConfig, SearchConfig
from engine.model import spectrogram
from engine.model.encoder import Encoder
from engine.model.weights import load_weights
from engine.model.weights_file import SHIPPED_WEIGHTS
from engine.recipe import FINGERPRINT_AST
from engine.search.calibration import SHIPPED_CALIBRATION, Calibration
from tests.audio_files import Waveform, cached_tune


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(device="cpu")


@pytest.fixture(scope="module")
def music() -> torch.Tensor:
    return features(np.concatenate([cached_tune(seed, 5.0) for seed in range(4)]))


def features(waveform: Waveform) -> torch.Tensor:
    """Normalised segments, half a second apart."""
    config = load_weights(SHIPPED_WEIGHTS).recipe.spectrogram
    mel = spectrogram.log_mel(torch.from_numpy(waveform), config)
    return spectrogram.normalise(spectrogram.segments(mel, 40, config), config)


def test_shipped_weights_load_and_are_small() -> None:
    recipe = load_weights(SHIPPED_WEIGHTS).recipe
    assert recipe.encoder == FINGERPRINT_AST
    assert SHIPPED_WEIGHTS.stat().st_size < 16e6


def test_shipped_calibration_belongs_to_the_weights() -> None:
    assert SHIPPED_CALIBRATION.is_file()
    assert Calibration.load().recipe_id == load_weights(SHIPPED_WEIGHTS).recipe.recipe_id


def test_shipped_calibration_is_fitted_for_the_default_settings() -> None:
    assert Calibration.load().is_fitted_for(SearchConfig(), AlignConfig())


@pytest.mark.parametrize("half", [False, True])
def test_shipped_encoder_batch_changes_nothing(
    encoder: Encoder, music: torch.Tensor, half: bool
) -> None:
    encoder.half = half
    together = encoder.embed_segments(music)
    apart = torch.cat([encoder.embed_segments(part) for part in music.split(3)])
    assert torch.cosine_similarity(apart, together).min() >= 0.9999


def test_shipped_encoder_half_precision_is_close_to_single(
    encoder: Encoder, music: torch.Tensor
) -> None:
    encoder.half = False
    single = encoder.embed_segments(music)
    encoder.half = True
    assert torch.cosine_similarity(encoder.embed_segments(music), single).min() >= 0.999


def test_shipped_encoder_matches_music_in_noise(encoder: Encoder) -> None:
    waveform = np.concatenate([cached_tune(seed, 5.0) for seed in range(4)])
    noise = np.random.default_rng(0).standard_normal(len(waveform)).astype(np.float32)
    noise *= np.std(waveform) * 10 ** (-10 / 20)
    clean, noisy = (encoder.embed_segments(features(one)) for one in (waveform, waveform + noise))
    nearest = (noisy @ clean.T).argmax(dim=1)
    assert len(clean) > 30
    assert ((nearest - torch.arange(len(clean))).abs() <= 1).float().mean() > 0.9
