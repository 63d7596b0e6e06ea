from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.audio.mix import mix, without_bad_samples

RATE = 8000


@pytest.fixture
def music(rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.uniform(-0.5, 0.5, 4 * RATE).astype(np.float32)


def columns(*channels: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack(channels, axis=1)


@pytest.mark.parametrize("n_channels", [1, 2, 3, 6, 8])
def test_mix_is_the_mean(n_channels: int, rng: np.random.Generator) -> None:
    channels = rng.uniform(-1, 1, (3 * RATE + 17, n_channels)).astype(np.float32)
    np.testing.assert_allclose(mix(channels, RATE), channels.mean(axis=1), atol=1e-6)


def test_mix_wide_stereo_is_the_mean(music: NDArray[np.float32]) -> None:
    # The difference is 10 dB louder than the mean.
    channels = columns(music, np.float32(-0.5) * music)
    np.testing.assert_allclose(mix(channels, RATE), 0.25 * music, atol=1e-6)


def test_mix_inverted_channel_is_the_other_one(music: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(mix(columns(music, -music), RATE), music)


def test_mix_inverted_and_noisy_channel_is_the_louder_one(
    music: NDArray[np.float32], rng: np.random.Generator
) -> None:
    noise = rng.normal(0, 1e-3, len(music)).astype(np.float32)
    channels = columns(music + noise, np.float32(-0.99) * music)
    np.testing.assert_array_equal(mix(channels, RATE), music + noise)


def test_mix_surround_that_cancels_is_its_loudest_channel(music: NDArray[np.float32]) -> None:
    half = np.float32(0.5) * music
    channels = columns(half, -music, half, 0 * music, 0 * music, 0 * music)
    np.testing.assert_array_equal(mix(channels, RATE), -music)


def test_mix_decides_for_each_half_second(music: NDArray[np.float32]) -> None:
    other = music.copy()
    other[RATE : 2 * RATE] *= -1
    mixed = mix(columns(music, other), RATE)
    np.testing.assert_array_equal(mixed, music)


@pytest.mark.parametrize("n_samples", [0, 1, 100])
def test_mix_short(n_samples: int, music: NDArray[np.float32]) -> None:
    music = music[:n_samples]
    np.testing.assert_array_equal(mix(columns(music, -music), RATE), music)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, -3e38])
def test_without_bad_samples_replaces_them(bad: float) -> None:
    channels = np.ones((5, 2), np.float32)
    channels[3, 1] = bad
    good, n_bad = without_bad_samples(channels)
    assert n_bad == 1
    assert good[3, 1] == 0
    assert good.sum() == 9


def test_without_bad_samples_leaves_integers_stored_as_floats() -> None:
    channels = np.array([[2.0**31], [-(2.0**31)], [0.0]], np.float32)
    good, n_bad = without_bad_samples(channels)
    assert good is channels
    assert n_bad == 0
