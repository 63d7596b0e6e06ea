from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from astound.demo.composer import artist, compose, title, write_library
from engine.errors import ConfigError

RATE = 8000


def best_fit(clip: np.ndarray, track: np.ndarray) -> np.ndarray:
    """Normalised cross-correlation of a clip with every place in a track."""
    n_fft = 1 << (len(track) + len(clip)).bit_length()
    spectrum = np.fft.rfft(track, n_fft) * np.fft.rfft(clip, n_fft).conj()
    products = np.fft.irfft(spectrum, n_fft)[: len(track) - len(clip) + 1]
    energy = np.cumsum(np.r_[0.0, np.square(track, dtype=float)])
    return products / np.sqrt((energy[len(clip) :] - energy[: -len(clip)]) * np.sum(clip**2))


def harmony(tune: np.ndarray) -> np.ndarray:
    """How strong each of the twelve pitch classes is every quarter of a second, of unit norm."""
    frames = np.lib.stride_tricks.sliding_window_view(tune, 4096)[:: RATE // 4] * np.hanning(4096)
    hz = np.fft.rfftfreq(4096, 1 / RATE)
    audible = (hz > 120) & (hz < 1500)
    spectra = np.abs(np.fft.rfft(frames))[:, audible]
    classes = np.round(12 * np.log2(hz[audible] / 440)).astype(int) % 12
    strengths = np.stack([spectra[:, classes == k].sum(axis=1) for k in range(12)], axis=1)
    shares = strengths / strengths.sum(axis=1, keepdims=True) - 1 / 12
    return shares / np.linalg.norm(shares)


def test_compose_same_seed_is_bit_identical() -> None:
    first = compose(7, 5.0, RATE)
    compose(8, 1.0, RATE)
    np.testing.assert_array_equal(compose(7, 5.0, RATE), first)


def test_compose_different_seeds_share_no_passage() -> None:
    tunes = [compose(seed, 20.0, RATE) for seed in range(6)]
    for i, tune in enumerate(tunes):
        for other in tunes[:i]:
            assert np.abs(best_fit(tune[5 * RATE : 8 * RATE], other)).max() < 0.5


def test_compose_different_seeds_have_different_harmony() -> None:
    harmonies = [harmony(compose(seed, 20.0, RATE)) for seed in range(6)]
    for i, first in enumerate(harmonies):
        for second in harmonies[:i]:
            assert np.sum(first * second) < 0.5


@pytest.mark.parametrize("seed", range(4))
def test_compose_passage_comes_only_once(seed: int) -> None:
    tune = compose(seed, 60.0, RATE)
    for start_s in (3, 20, 41):
        fit = best_fit(tune[start_s * RATE : (start_s + 3) * RATE], tune)
        assert np.argmax(fit) == start_s * RATE
        fit[(start_s - 1) * RATE : (start_s + 1) * RATE] = 0
        assert fit.max() < 0.5


@pytest.mark.parametrize("seed", range(4))
def test_compose_is_loud_throughout_and_never_clips(seed: int) -> None:
    tune = compose(seed, 30.0)
    assert np.isfinite(tune).all()
    assert np.abs(tune).max() == pytest.approx(0.9, abs=1e-3)
    seconds = tune.reshape(30, -1)
    assert np.std(seconds, axis=1).min() > 0.02


@pytest.mark.parametrize(
    ("duration_s", "rate"), [(0.001, 8000), (0.5, 8000), (2.0, 44100), (3.3333, 11025)]
)
def test_compose_has_the_wanted_shape(duration_s: float, rate: int) -> None:
    tune = compose(1, duration_s, rate)
    assert tune.dtype == np.float32
    assert tune.shape == (round(duration_s * rate),)
    assert np.isfinite(tune).all()


def test_compose_at_another_rate_is_the_same_tune() -> None:
    low, high = compose(3, 8.0, RATE), compose(3, 8.0, 2 * RATE)
    n_bins = 4 * 1500  # below 1.5 kHz, where no rate leaves harmonics out
    first, second = np.fft.rfft(low)[:n_bins], np.fft.rfft(high)[:n_bins]
    agreement = np.abs(np.vdot(first, second)) / np.linalg.norm(first) / np.linalg.norm(second)
    assert agreement > 0.9


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ((-1,), "seed"),
        ((0, 0.0), "duration_s"),
        ((0, float("nan")), "duration_s"),
        ((0, 1.0, 0), "sample_rate"),
    ],
)
def test_compose_refuses_what_makes_no_sense(arguments: tuple, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(*arguments)
    assert caught.value.key == key


def test_titles_differ_for_every_seed() -> None:
    assert len({title(seed) for seed in range(900)}) == 900


def test_artists_are_many_and_fixed() -> None:
    names = [artist(seed) for seed in range(40)]
    assert len(set(names)) > 20
    assert names == [artist(seed) for seed in range(40)]


def test_names_make_file_names() -> None:
    for seed in range(900):
        assert f"{artist(seed)}{title(seed)}".replace(" ", "").isalpha()


def test_write_library_writes_each_tune_once(tmp_path: Path) -> None:
    paths = write_library(tmp_path / "music", 3, first_seed=5, duration_s=2.0)
    assert sorted(paths) == sorted((tmp_path / "music").iterdir())
    assert paths[0].name == f"{artist(5)} - {title(5)}.wav"
    with wave.open(str(paths[0])) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 22050)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    np.testing.assert_allclose(samples, compose(5, 2.0), atol=1 / 32767)
