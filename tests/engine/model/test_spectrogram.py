from __future__ import annotations

import dataclasses
import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from engine.model.filter_bank import fbank
from engine.model.spectrogram import log_mel, mel_filters, normalise, segments, silent
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


def test_log_mel_equals_the_book() -> None:
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
@settings(deadline=None, max_examples=30)
def test_features_never_look_outside_their_segment(start: int, n_hops: int) -> None:
    begin = start * HOP
    part = music(1, 4.0)[begin : begin + SEGMENT + n_hops * HOP]
    expected = features_of_the_whole()[start : start + n_hops + 1]
    assert len(expected) == n_hops + 1
    torch.testing.assert_close(features(part), expected, atol=1e-5, rtol=0)


@cache
def features_of_the_whole() -> Tensor:
    return features(music(1, 4.0))


@given(gain=st.floats(0.01, 1.0))
@settings(deadline=None, max_examples=20)
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


def test_normalise_constant_segment_gives_next_to_nothing() -> None:
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
def test_silent_is_what_stays_below_the_threshold(waveform: Tensor, expected: bool) -> None:
    raw = segments(log_mel(waveform, CONFIG), 1, CONFIG)
    assert silent(raw, CONFIG).tolist() == [expected]


def test_silent_one_loud_moment_is_audible() -> None:
    waveform = torch.zeros(SEGMENT)
    waveform[3000:3400] = 0.1 * torch.sin(torch.arange(400.0))
    assert silent(segments(log_mel(waveform, CONFIG), 1, CONFIG), CONFIG).tolist() == [False]


@pytest.mark.parametrize(
    "config", [CONFIG, SpectrogramConfig(n_mels=64, n_fft=512), SpectrogramConfig(f_min_hz=0.0)]
)
def test_mel_filters_every_band_hears_something(config: SpectrogramConfig) -> None:
    filters = mel_filters(config)
    assert filters.shape == (config.n_fft // 2 + 1, config.n_mels)
    assert torch.isfinite(filters).all()
    assert (filters >= 0).all()
    assert (filters <= 1).all()
    assert (filters.sum(dim=0) > 0).all()


def test_mel_filters_peaks_rise() -> None:
    assert (mel_filters(CONFIG).argmax(dim=0).diff() > 0).all()


def test_log_mel_kaldi_is_the_filter_bank() -> None:
    waveform = music(1, 2.0)
    torch.testing.assert_close(log_mel(waveform, KALDI), fbank(waveform, KALDI), atol=0, rtol=0)
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


def test_log_mel_first_heard_in_inference_mode_still_has_gradients() -> None:
    config = dataclasses.replace(CONFIG, n_mels=31)  # not yet in any cache
    with torch.inference_mode():
        log_mel(chirp(), config)
    waveform = chirp().requires_grad_()
    log_mel(waveform, config).sum().backward()
    assert waveform.grad is not None
    assert waveform.grad.abs().sum() > 0
