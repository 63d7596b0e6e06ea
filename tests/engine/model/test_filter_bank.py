from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from transformers import ASTFeatureExtractor

from engine.model.filter_bank import fbank
from engine.recipe import ASTConfig, SpectrogramConfig
from tests.audio_files import cached_tune

PUBLISHED = SpectrogramConfig.kaldi(ASTConfig())
OTHER = SpectrogramConfig(
    sample_rate=8000, n_fft=256, hop_length=100, n_mels=23, f_min_hz=100.0, f_max_hz=3700.0
)
FLOOR = math.log(np.finfo(np.float32).eps)


def music(seed: int, duration_s: float = 1.0) -> Tensor:
    """A tune, heard as if recorded at 16 kHz; no matter that it is played too fast."""
    return torch.from_numpy(cached_tune(seed, 2 * duration_s).copy())


def hum_and_noise() -> Tensor:
    """A loud low tone with an offset, and noise far below it."""
    rng = np.random.default_rng(0)
    time_s = np.arange(16000) / 16000
    wave = 0.2 + 0.7 * np.sin(2 * np.pi * 60 * time_s) + 3e-4 * rng.standard_normal(16000)
    return torch.from_numpy(wave.astype(np.float32))


def kaldi(waveform: NDArray[np.float64], config: SpectrogramConfig) -> NDArray[np.float64]:
    """The filter bank in plain loops and double precision, after kaldi's feature-window.cc."""
    n = config.n_fft
    padded = next(2**k for k in range(20) if 2**k >= n)

    def mel(hz: float) -> float:
        return 1127 * math.log(1 + hz / 700)

    low, high = mel(config.f_min_hz), mel(config.f_max_hz)
    step = (high - low) / (config.n_mels + 1)
    rows = []
    for start in range(0, len(waveform) - n + 1, config.hop_length):
        frame = waveform[start : start + n] - waveform[start : start + n].mean()
        for i in range(n - 1, 0, -1):
            frame[i] -= 0.97 * frame[i - 1]
        frame[0] -= 0.97 * frame[0]
        for i in range(n):
            frame[i] *= 0.5 - 0.5 * math.cos(2 * math.pi * i / (n - 1))
        power = np.abs(np.fft.rfft(frame, padded)) ** 2
        bands = np.zeros(config.n_mels)
        for k in range(padded // 2):  # kaldi leaves the last bin out
            at = (mel(k * config.sample_rate / padded) - low) / step
            for band in range(config.n_mels):
                bands[band] += power[k] * max(0.0, 1 - abs(at - band - 1))
        rows.append(np.log(np.maximum(bands, np.finfo(np.float32).eps)))
    return np.array(rows)


@pytest.mark.parametrize("config", [PUBLISHED, OTHER], ids=["published", "other"])
@pytest.mark.parametrize(
    ("wave", "atol"), [(music(1, 0.2), 1e-3), (hum_and_noise()[:3000], 1e-2)], ids=["music", "hum"]
)
def test_fbank_equals_kaldis_definition(
    config: SpectrogramConfig, wave: Tensor, atol: float
) -> None:
    expected = kaldi(wave.numpy().astype(np.float64), config)
    assert (expected > FLOOR).mean() > 0.3
    np.testing.assert_allclose(fbank(wave.double(), config).numpy(), expected, atol=1e-9)
    np.testing.assert_allclose(fbank(wave, config).numpy(), expected, atol=atol)


@pytest.mark.parametrize(
    ("wave", "atol"),
    [(music(2), 1e-3), (music(2).double(), 1e-4), (hum_and_noise().double(), 1e-4)],
    ids=["music", "music, double", "hum, double"],
)
def test_fbank_equals_the_published_extractor(wave: Tensor, atol: float) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one mel filter has all zero values")
        extractor = ASTFeatureExtractor(do_normalize=False, max_length=98)
    expected = extractor(
        wave.float().numpy(), sampling_rate=16000, return_tensors="pt"
    ).input_values[0]
    assert expected.shape == (98, 128)
    torch.testing.assert_close(fbank(wave, PUBLISHED).float(), expected, atol=atol, rtol=0)


@pytest.mark.parametrize(
    ("n_samples", "n_frames"), [(0, 0), (1, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16000, 98)]
)
def test_fbank_counts_only_whole_frames(n_samples: int, n_frames: int) -> None:
    assert fbank(torch.zeros(n_samples), PUBLISHED).shape == (n_frames, 128)
    assert fbank(torch.zeros(2, 3, n_samples), PUBLISHED).shape == (2, 3, n_frames, 128)


def test_fbank_batch_equals_one_by_one() -> None:
    waves = torch.stack([music(seed, 0.3) for seed in (1, 2, 3)])
    expected = torch.stack([fbank(wave, PUBLISHED) for wave in waves])
    torch.testing.assert_close(fbank(waves, PUBLISHED), expected, atol=1e-5, rtol=0)


@given(first=st.integers(0, 50), n_frames=st.integers(1, 20), loud=st.floats(-1, 1))
@settings(deadline=None, max_examples=10)
def test_fbank_frames_never_look_outside_themselves(first: int, n_frames: int, loud: float) -> None:
    begin, end = first * 160, (first + n_frames - 1) * 160 + 400
    surrounded = torch.full((16000,), loud)
    surrounded[begin:end] = music(3)[begin:end]
    found = fbank(surrounded, PUBLISHED)[first : first + n_frames]
    torch.testing.assert_close(found, fbank(music(3)[begin:end], PUBLISHED), atol=1e-5, rtol=0)


def test_fbank_offset_is_not_heard() -> None:
    wave = 0.3 * music(4)
    torch.testing.assert_close(
        fbank(wave.double() + 0.5, PUBLISHED), fbank(wave.double(), PUBLISHED)
    )


def test_fbank_silence_stands_at_the_floor() -> None:
    silence = fbank(torch.zeros(16000), PUBLISHED)
    torch.testing.assert_close(silence, torch.full((98, 128), FLOOR))


def test_fbank_gradient_is_that_of_small_differences() -> None:
    config = dataclasses.replace(OTHER, n_fft=48, hop_length=20, n_mels=4)
    wave = music(5, 0.05)[:70].double() + 0.01 * torch.randn(70, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: fbank(x, config), wave.requires_grad_(), fast_mode=True
    )


def test_fbank_first_heard_in_inference_mode_still_has_gradients() -> None:
    config = dataclasses.replace(PUBLISHED, n_mels=31)  # not yet in any cache
    with torch.inference_mode():
        fbank(music(6), config)
    wave = music(6).requires_grad_()
    fbank(wave, config).sum().backward()
    assert wave.grad is not None
    assert wave.grad.abs().sum() > 0
