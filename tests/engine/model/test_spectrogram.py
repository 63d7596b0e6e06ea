from __future__ import annotations

import dataclasses
import math
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from transformers import ASTFeatureExtractor

from engine.model.spectrogram import (
    kaldi_log_mel,
    log_mel,
    mel_filters,
    normalise,
    segments,
    silent,
)
from engine.recipe import ASTConfig, SpectrogramConfig
from tests.audio_files import cached_tune

CONFIG = SpectrogramConfig()
KALDI = SpectrogramConfig.kaldi(ASTConfig(target_length=100))
RATE = CONFIG.sample_rate
SEGMENT = CONFIG.samples_per_segment
HOP = CONFIG.hop_length


def music(seed: int, duration_s: float) -> Tensor:
    return torch.from_numpy(cached_tune(seed, duration_s).copy())


def chirp(duration_s: float = 2.0) -> Tensor:
    """A sine that rises from 200 to 3,800 Hz."""
    time_s = np.arange(round(duration_s * RATE)) / RATE
    phase = 2 * np.pi * (200 * time_s + 0.5 * (3600 / duration_s) * time_s**2)
    return torch.from_numpy((0.5 * np.sin(phase)).astype(np.float32))


def tone(level_db: float, hz: float = 1000.0) -> Tensor:
    return 10 ** (level_db / 20) * torch.sin(2 * math.pi * hz * torch.arange(SEGMENT) / RATE)


def noise(level_db: float, rng: np.random.Generator) -> Tensor:
    """White noise whose rms is that of a sine at this level below full scale."""
    rms = 10 ** (level_db / 20) / math.sqrt(2)
    return torch.from_numpy((rms * rng.standard_normal(SEGMENT)).astype(np.float32))


def features(waveform: Tensor, hop_frames: int = 1) -> Tensor:
    return normalise(segments(log_mel(waveform, CONFIG), hop_frames, CONFIG), CONFIG)


def mel_oracle(waveform: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-mel spectrogram in plain loops and double precision, by the book."""
    n_fft, n_mels = CONFIG.n_fft, CONFIG.n_mels
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    mel_low, mel_high = (1127 * math.log(1 + hz / 700) for hz in (CONFIG.f_min_hz, CONFIG.f_max_hz))
    edges = [
        700 * (math.exp((mel_low + (mel_high - mel_low) * i / (n_mels + 1)) / 1127) - 1)
        for i in range(n_mels + 2)
    ]
    bins_hz = np.fft.rfftfreq(n_fft, 1 / RATE)
    rows = []
    for start in range(0, len(waveform) - n_fft + 1, HOP):
        power = np.abs(np.fft.rfft(waveform[start : start + n_fft] * window)) ** 2
        bands = [power @ np.interp(bins_hz, edges[i : i + 3], [0, 1, 0]) for i in range(n_mels)]
        rows.append(np.log(np.maximum(bands, 1e-12)))
    return np.array(rows)


def test_log_mel_equals_the_definition() -> None:
    ours = log_mel(chirp(), CONFIG).numpy()
    theirs = mel_oracle(chirp().numpy())
    assert ours.shape == theirs.shape
    # Far below the peak, single precision hears its own rounding.
    loud = theirs > theirs.max() - CONFIG.floor_db * math.log(10) / 10
    assert loud.mean() > 0.1
    np.testing.assert_allclose(ours[loud], theirs[loud], atol=0.02)
    close = theirs > theirs.max() - 5
    np.testing.assert_allclose(ours[close], theirs[close], atol=1e-4)


def test_log_mel_rising_tone_moves_up() -> None:
    bands = log_mel(chirp(), CONFIG).argmax(dim=1)
    assert (bands.diff() >= 0).all()
    assert bands[0] < 20
    assert bands[-1] > 115


@pytest.mark.parametrize(
    ("n_samples", "n_frames"),
    [(0, 0), (1, 0), (1023, 0), (1024, 1), (1123, 1), (1124, 2), (SEGMENT - 1, 63), (SEGMENT, 64)],
)
def test_log_mel_counts_only_whole_frames(n_samples: int, n_frames: int) -> None:
    assert log_mel(torch.zeros(n_samples), CONFIG).shape == (n_frames, 128)
    assert log_mel(torch.zeros(3, n_samples), CONFIG).shape == (3, n_frames, 128)


@pytest.mark.parametrize(
    ("n_samples", "n_segments"),
    [(0, 0), (1023, 0), (7323, 0), (7324, 1), (7325, 1), (8323, 1), (8324, 2)],
)
def test_segments_counts_only_whole_segments(n_samples: int, n_segments: int) -> None:
    assert features(torch.zeros(n_samples), 10).shape == (n_segments, 64, 128)


@given(start=st.integers(0, 220), n_hops=st.integers(0, 20))
@settings(max_examples=30)
def test_features_depend_on_their_segment_only(start: int, n_hops: int) -> None:
    begin = start * HOP
    part = music(1, 4.0)[begin : begin + SEGMENT + n_hops * HOP]
    expected = features_of_the_whole()[start : start + n_hops + 1]
    assert len(expected) == n_hops + 1
    torch.testing.assert_close(features(part), expected, atol=1e-5, rtol=0)


@cache
def features_of_the_whole() -> Tensor:
    return features(music(1, 4.0))


@given(gain=st.floats(0.01, 1.0))
@settings(max_examples=20)
def test_features_do_not_depend_on_level(gain: float) -> None:
    whole = music(2, 3.0)
    torch.testing.assert_close(features(whole * gain, 10), features(whole, 10), atol=1e-3, rtol=0)


def test_features_loud_neighbour_changes_nothing() -> None:
    quiet = 0.01 * music(3, 3.0)
    loud = torch.cat([quiet, 0.99 * music(4, 3.0)])
    expected = features(quiet, 10)
    torch.testing.assert_close(features(loud, 10)[: len(expected)], expected, atol=1e-5, rtol=0)


def test_normalise_gives_zero_mean_and_unit_variance() -> None:
    normal = features(music(5, 4.0), 20)
    assert len(normal) > 5
    torch.testing.assert_close(normal.mean(dim=(1, 2)), torch.zeros(len(normal)), atol=1e-4, rtol=0)
    spread = normal.square().mean(dim=(1, 2)).sqrt()
    torch.testing.assert_close(spread, torch.ones(len(normal)), atol=1e-3, rtol=0)


def test_normalise_constant_segment_is_near_zero() -> None:
    assert features(torch.zeros(SEGMENT)).abs().max() < 0.05


def test_normalise_floors_what_lies_far_below_the_peak() -> None:
    raw = torch.zeros(1, 64, 128)
    raw[0, 0, 0] = -CONFIG.floor_db * math.log(10) / 10
    deeper = raw.clone()
    deeper[0, 0, 0] *= 3
    torch.testing.assert_close(normalise(deeper, CONFIG), normalise(raw, CONFIG))


@pytest.mark.parametrize(
    ("waveform", "expected"),
    [
        (torch.zeros(SEGMENT), True),
        (noise(-90.0, np.random.default_rng(0)), True),
        (tone(-90.0), True),
        (tone(-74.0), True),
        (tone(-69.0), False),
        (tone(-50.0), False),
        (noise(-40.0, np.random.default_rng(0)), False),
        (tone(0.0), False),
    ],
    ids=["zeros", "noise -90", "tone -90", "-74", "-69", "-50", "noise -40", "full scale"],
)
def test_silent_segment_stays_below_the_threshold(waveform: Tensor, expected: bool) -> None:
    raw = segments(log_mel(waveform, CONFIG), 1, CONFIG)
    assert silent(raw, CONFIG).tolist() == [expected]


def test_silent_one_loud_moment_is_audible() -> None:
    waveform = torch.zeros(SEGMENT)
    waveform[3000:3400] = 0.1 * torch.sin(torch.arange(400.0))
    assert silent(segments(log_mel(waveform, CONFIG), 1, CONFIG), CONFIG).tolist() == [False]


@pytest.mark.parametrize(
    "config", [CONFIG, SpectrogramConfig(n_mels=64, n_fft=512), SpectrogramConfig(f_min_hz=0.0)]
)
def test_mel_filters_no_band_is_empty(config: SpectrogramConfig) -> None:
    filters = mel_filters(config)
    assert filters.shape == (config.n_fft // 2 + 1, config.n_mels)
    assert torch.isfinite(filters).all()
    assert (filters >= 0).all()
    assert (filters <= 1).all()
    assert (filters.sum(dim=0) > 0).all()


def test_mel_filters_peaks_rise() -> None:
    assert (mel_filters(CONFIG).argmax(dim=0).diff() > 0).all()


def test_log_mel_front_end_kaldi_is_kaldi_log_mel() -> None:
    waveform = music(1, 2.0)
    torch.testing.assert_close(
        log_mel(waveform, KALDI), kaldi_log_mel(waveform, KALDI), atol=0, rtol=0
    )
    assert log_mel(torch.zeros(399), KALDI).shape == (0, 128)


def test_normalise_kaldi_is_the_same_for_all_segments() -> None:
    raw = torch.stack([torch.full((100, 128), -4.2677393), torch.full((100, 128), 4.8702555)])
    expected = torch.stack([torch.zeros(100, 128), torch.ones(100, 128)])
    torch.testing.assert_close(normalise(raw, KALDI), expected)
    other = dataclasses.replace(KALDI, mean=-6.0, deviation=2.0)
    torch.testing.assert_close(normalise(torch.zeros(1, 100, 128), other)[0, 0, 0].item(), 1.5)


@pytest.mark.parametrize(
    ("gain", "expected"), [(0.0, True), (1e-5, True), (0.01, False), (1.0, False)]
)
def test_silent_kaldi_tells_silence_from_music(gain: float, expected: bool) -> None:
    raw = segments(log_mel(gain * music(2, 3.0)[: KALDI.samples_per_segment], KALDI), 1, KALDI)
    assert silent(raw, KALDI).tolist() == [expected]


def test_log_mel_cached_in_inference_mode_still_has_gradients() -> None:
    config = dataclasses.replace(CONFIG, n_mels=31)  # not yet in any cache
    with torch.inference_mode():
        log_mel(chirp(), config)
    waveform = chirp().requires_grad_()
    log_mel(waveform, config).sum().backward()
    assert waveform.grad is not None
    assert waveform.grad.abs().sum() > 0


# -- the filter bank of the published models -------------------------------------------------

PUBLISHED = SpectrogramConfig.kaldi(ASTConfig())
OTHER = SpectrogramConfig(
    sample_rate=8000, n_fft=256, hop_length=100, n_mels=23, f_min_hz=100.0, f_max_hz=3700.0
)
FLOOR = math.log(np.finfo(np.float32).eps)


def fast_music(seed: int, duration_s: float = 1.0) -> Tensor:
    """A tune read at 16 kHz instead of 8 kHz."""
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
    ("wave", "atol"),
    [(fast_music(1, 0.2), 1e-3), (hum_and_noise()[:3000], 1e-2)],
    ids=["music", "hum"],
)
def test_kaldi_log_mel_equals_the_definition(
    config: SpectrogramConfig, wave: Tensor, atol: float
) -> None:
    expected = kaldi(wave.numpy().astype(np.float64), config)
    assert (expected > FLOOR).mean() > 0.3
    np.testing.assert_allclose(kaldi_log_mel(wave.double(), config).numpy(), expected, atol=1e-9)
    np.testing.assert_allclose(kaldi_log_mel(wave, config).numpy(), expected, atol=atol)


@pytest.mark.parametrize(
    ("wave", "atol"),
    [(fast_music(2), 1e-3), (fast_music(2).double(), 1e-4), (hum_and_noise().double(), 1e-4)],
    ids=["music", "music, double", "hum, double"],
)
def test_kaldi_log_mel_equals_the_published_extractor(wave: Tensor, atol: float) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one mel filter has all zero values")
        extractor = ASTFeatureExtractor(do_normalize=False, max_length=98)
    expected = extractor(
        wave.float().numpy(), sampling_rate=16000, return_tensors="pt"
    ).input_values[0]
    assert expected.shape == (98, 128)
    torch.testing.assert_close(kaldi_log_mel(wave, PUBLISHED).float(), expected, atol=atol, rtol=0)


@pytest.mark.parametrize(
    ("n_samples", "n_frames"), [(0, 0), (1, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16000, 98)]
)
def test_kaldi_log_mel_returns_whole_frames_only(n_samples: int, n_frames: int) -> None:
    assert kaldi_log_mel(torch.zeros(n_samples), PUBLISHED).shape == (n_frames, 128)
    assert kaldi_log_mel(torch.zeros(2, 3, n_samples), PUBLISHED).shape == (2, 3, n_frames, 128)


def test_kaldi_log_mel_batch_equals_one_by_one() -> None:
    waves = torch.stack([fast_music(seed, 0.3) for seed in (1, 2, 3)])
    expected = torch.stack([kaldi_log_mel(wave, PUBLISHED) for wave in waves])
    torch.testing.assert_close(kaldi_log_mel(waves, PUBLISHED), expected, atol=1e-5, rtol=0)


@given(first=st.integers(0, 50), n_frames=st.integers(1, 20), loud=st.floats(-1, 1))
@settings(max_examples=10)
def test_kaldi_log_mel_frame_depends_on_its_own_samples_only(
    first: int, n_frames: int, loud: float
) -> None:
    begin, end = first * 160, (first + n_frames - 1) * 160 + 400
    surrounded = torch.full((16000,), loud)
    surrounded[begin:end] = fast_music(3)[begin:end]
    found = kaldi_log_mel(surrounded, PUBLISHED)[first : first + n_frames]
    torch.testing.assert_close(
        found, kaldi_log_mel(fast_music(3)[begin:end], PUBLISHED), atol=1e-5, rtol=0
    )


def test_kaldi_log_mel_constant_offset_changes_nothing() -> None:
    wave = 0.3 * fast_music(4)
    torch.testing.assert_close(
        kaldi_log_mel(wave.double() + 0.5, PUBLISHED), kaldi_log_mel(wave.double(), PUBLISHED)
    )


def test_kaldi_log_mel_silence_is_the_floor() -> None:
    silence = kaldi_log_mel(torch.zeros(16000), PUBLISHED)
    torch.testing.assert_close(silence, torch.full((98, 128), FLOOR))


def test_kaldi_log_mel_gradient_is_that_of_small_differences() -> None:
    config = dataclasses.replace(OTHER, n_fft=48, hop_length=20, n_mels=4)
    wave = fast_music(5, 0.05)[:70].double() + 0.01 * torch.randn(70, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: kaldi_log_mel(x, config), wave.requires_grad_(), fast_mode=True
    )


def test_kaldi_log_mel_cached_in_inference_mode_still_has_gradients() -> None:
    config = dataclasses.replace(PUBLISHED, n_mels=31)  # not yet in any cache
    with torch.inference_mode():
        kaldi_log_mel(fast_music(6), config)
    wave = fast_music(6).requires_grad_()
    kaldi_log_mel(wave, config).sum().backward()
    assert wave.grad is not None
    assert wave.grad.abs().sum() > 0
