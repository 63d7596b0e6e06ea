from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.sounds import RATE, pool_of, tone
from training.augment.composed import KINDS, LENGTH_S, compose, compose_pool
from training.augment.pool import AudioPool

VOICES = pool_of(tone(700.0, 0.5), np.zeros(0, np.float32), tone(1000.0, 6.0))
N_SAMPLES = 6 * RATE


def noise(kind: str, seed: int = 0, speech: AudioPool = VOICES) -> NDArray[np.float32]:
    return compose(kind, np.random.default_rng(seed), N_SAMPLES, RATE, speech)


def power_between(sound: NDArray[np.float32], low_hz: float, high_hz: float) -> float:
    power = np.abs(np.fft.rfft(sound)) ** 2
    hz = np.fft.rfftfreq(len(sound), 1 / RATE)
    return float(power[(hz >= low_hz) & (hz < high_hz)].sum() / power.sum())


def crest(sound: NDArray[np.float32]) -> float:
    """Peak over RMS: high for single events."""
    return float(np.abs(sound).max() / np.sqrt(np.mean(sound**2)))


def mean_of(kind: str, low_hz: float, high_hz: float) -> float:
    return float(np.mean([power_between(noise(kind, seed), low_hz, high_hz) for seed in range(6)]))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_finite_at_full_scale_and_decided_by_the_seed(kind: str) -> None:
    sound = noise(kind)
    assert sound.shape == (N_SAMPLES,)
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() == pytest.approx(0.9, abs=1e-3)
    np.testing.assert_array_equal(sound, noise(kind))
    assert abs(np.corrcoef(sound, noise(kind, 1))[0, 1]) < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_audible_above_30_hz(kind: str) -> None:
    assert mean_of(kind, 30.0, RATE / 2) > 0.98


def test_crowd_is_many_voices_at_other_speeds() -> None:
    """The voices are tones of 700 and 1000 Hz, at 0.7 to 1.4 of their speed."""
    crowd = noise("crowd")
    assert power_between(crowd, 480.0, 1420.0) > 0.9
    assert power_between(crowd, 690.0, 710.0) + power_between(crowd, 990.0, 1010.0) < 0.5


def test_crowd_of_silent_voices_is_silent() -> None:
    assert not noise("crowd", speech=pool_of(np.zeros(RATE))).any()


def test_wind_and_engines_are_low_and_claps_are_not() -> None:
    assert mean_of("wind", 0.0, 1000.0) > 0.8
    assert mean_of("engine", 0.0, 1000.0) > 0.7
    assert mean_of("applause", 0.0, 400.0) < 0.2


@pytest.mark.parametrize("kind", ["clinking", "keyboard"])
def test_single_events_stand_out_and_steady_noise_does_not(kind: str) -> None:
    assert min(crest(noise(kind, seed)) for seed in range(4)) > 6
    assert max(crest(noise("fan", seed)) for seed in range(4)) < 6


def test_pool_has_all_kinds_and_the_minutes_asked_for() -> None:
    minutes = len(KINDS) * LENGTH_S / 60
    pool = compose_pool(np.random.default_rng(0), minutes, RATE, VOICES)
    assert len(pool) == len(KINDS)
    assert set(pool.lengths) == {int(LENGTH_S * RATE)}
    assert len(compose_pool(np.random.default_rng(0), 0.01, RATE, VOICES)) == 1
    generator = np.random.default_rng(0)
    for i, kind in enumerate(KINDS):
        one = compose(kind, generator, int(LENGTH_S * RATE), RATE, VOICES)
        np.testing.assert_allclose(pool.recording(i), one, atol=1e-4)
