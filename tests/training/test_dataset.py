from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.recipe import SpectrogramConfig
from tests.audio_files import cached_tune
from tests.training.sounds import (
    RATE,
    lag,
    nearest_correlation,
    only,
    pitch_hz,
    pool_of,
    sampler_of,
    tone,
)
from training.augment.config import AugmentConfig
from training.augment.noise import NoiseMixer
from training.augment.rng import Rng

N_SAMPLES = SpectrogramConfig().samples_per_segment
TUNES = pool_of(*(cached_tune(seed, 6.0) for seed in range(8)))
TONES_HZ = np.arange(300.0, 1500.0, 100.0)
TONES = pool_of(*(tone(float(hz), 6.0) for hz in TONES_HZ))


def correlations(first: Tensor, second: Tensor) -> list[float]:
    return [float(np.corrcoef(*pair)[0, 1]) for pair in zip(first, second, strict=True)]


def loudest(views: Tensor) -> list[int]:
    """Which tone each view is."""
    return [round((pitch_hz(one) - TONES_HZ[0]) / 100) for one in views]


# -- the same moment ---------------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [N_SAMPLES, 3 * N_SAMPLES])
def test_pairs_without_degradations_are_equal(n_samples: int) -> None:
    pairs = sampler_of(TUNES, only(shift_s=0.0)).draw(Rng((0,)), 8, n_samples)
    assert pairs.clean.shape == (8, n_samples)
    torch.testing.assert_close(pairs.degraded, pairs.clean, atol=1e-6, rtol=0)


def test_transposing_and_mixing_change_both_views_alike() -> None:
    config = only(shift_s=0.0, transpose_prob=1.0, mix_prob=0.5)
    new = sampler_of(TUNES, config).draw(Rng((0,)), 8, N_SAMPLES)
    torch.testing.assert_close(new.degraded, new.clean, atol=1e-3, rtol=0)
    old = sampler_of(TUNES, only(shift_s=0.0)).draw(Rng((0,)), 8, N_SAMPLES)
    assert max(correlations(new.clean, old.clean)) < 0.9


def test_shift_is_within_its_limit() -> None:
    config = only(shift_s=0.25, transpose_prob=0.5)
    pairs = sampler_of(TUNES, config).draw(Rng((0,)), 8, N_SAMPLES)
    lags = [lag(*pair) for pair in zip(pairs.clean, pairs.degraded, strict=True)]
    assert max(map(abs, lags)) <= 0.25 * RATE + 2
    assert max(lags) > 200
    assert min(lags) < -200


BLIPS_S = 0.7


def blips() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Give a short hiss every 0.7 s; it loops without a seam."""
    at_s = np.arange(20 * round(BLIPS_S * RATE)) / RATE % BLIPS_S - BLIPS_S / 2
    hiss = np.random.default_rng(0).uniform(-1, 1, len(at_s))
    return ((0.005 + 0.99 * np.exp(-((at_s / 0.01) ** 2))) * hiss).astype(np.float32)


def nearest_blip_s(view: Tensor) -> float:
    """Place of the blip closest to the middle, counted from there."""
    energy = view.square().view(1, 1, -1)
    smooth = torch.nn.functional.avg_pool1d(energy, 401, stride=1, padding=200)[0, 0]
    at_s = (torch.arange(len(view)) - len(view) / 2) / RATE
    inner = at_s.abs() < 0.45
    loud = inner & (smooth > 0.7 * smooth[inner].max())
    first = at_s[loud][at_s[loud].abs().argmin()]
    around = (at_s - first).abs() < 0.05
    return float((energy[0, 0] * at_s)[around].sum() / energy[0, 0][around].sum())


@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_music_in_reverse_is_in_reverse_in_both_views(prob: float) -> None:
    config = only(shift_s=0.0, reverse_prob=prob)
    pairs = sampler_of(TUNES, config).draw(Rng((0,)), 4, N_SAMPLES)
    for clean, degraded, track in zip(*pairs, strict=True):
        recording = torch.from_numpy(TUNES.recording(int(track)))
        forwards, backwards = (
            nearest_correlation(view, torch.cat([recording, recording]))
            for view in (clean, clean.flip(0))
        )
        assert (backwards > forwards) == bool(prob)
        assert max(forwards, backwards) > 0.99
        assert np.corrcoef(clean, degraded)[0, 1] > 0.99


@pytest.mark.parametrize(
    ("changes", "tempo"),
    [
        ({"speed_prob": 1.0, "speed": (1.05, 1.05)}, 1.05),
        ({"speed_prob": 1.0, "speed": (0.95, 0.95)}, 0.95),
        ({"tempo_prob": 1.0, "tempo": (1.25, 1.25)}, 1.25),
        ({"tempo_prob": 1.0, "tempo": (0.8, 0.8)}, 0.8),
        ({"pitch_prob": 1.0, "pitch": (3.0, 3.0)}, 1.0),
        ({"pitch_prob": 1.0, "pitch": (-3.0, -3.0)}, 1.0),
        ({"wide_speed_prob": 1.0, "wide_speed": (1.09, 1.09)}, 1.09),
        ({"wide_pitch_prob": 1.0, "wide_pitch": (3.0, 3.0)}, 1.0),
    ],
    ids=str,
)
def test_middles_of_the_views_coincide_at_any_tempo(changes: dict[str, Any], tempo: float) -> None:
    config = only(shift_s=0.0, transpose_prob=0.5, **changes)
    pairs = sampler_of(pool_of(blips()), config).draw(Rng((0,)), 16, N_SAMPLES)
    places = [
        [nearest_blip_s(view) for view in pair]
        for pair in zip(pairs.clean, pairs.degraded, strict=True)
    ]
    near = [(clean, degraded) for clean, degraded in places if abs(clean) < 0.2]
    assert len(near) > 4
    for clean, degraded in near:
        assert degraded == pytest.approx(clean / tempo, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"speed_prob": 1.0, "speed": (1.05, 1.05)}, 1.05),
        ({"tempo_prob": 1.0, "tempo": (1.25, 1.25)}, 1.0),
        ({"pitch_prob": 1.0, "pitch": (0.5, 0.5)}, 2 ** (0.5 / 12)),
        ({"wide_pitch_prob": 1.0, "wide_pitch": (1.5, 1.5)}, 2 ** (1.5 / 12)),
        ({"wide_speed_prob": 1.0, "wide_speed": (1.09, 1.09)}, 1.09),
    ],
    ids=str,
)
def test_pitch_follows_speed_and_pitch_but_not_tempo(
    changes: dict[str, Any], factor: float
) -> None:
    pairs = sampler_of(TONES, only(**changes)).draw(Rng((0,)), 8, N_SAMPLES)
    for clean, degraded in zip(pairs.clean, pairs.degraded, strict=True):
        assert pitch_hz(degraded) / pitch_hz(clean) == pytest.approx(factor, rel=3e-3)


def test_wide_ranges_replace_the_narrow_ones_in_their_part_of_the_examples() -> None:
    config = only(
        **{"speed_prob": 1.0, "speed": (1.02, 1.02)},
        **{"wide_speed_prob": 0.3, "wide_speed": (1.1, 1.1)},
    )
    pairs = sampler_of(TONES, config).draw(Rng((0,)), 200, N_SAMPLES)
    factors = np.array([pitch_hz(b) / pitch_hz(a) for a, b in zip(*pairs[:2], strict=True)])
    wide, narrow = (np.abs(factors - factor) < 0.01 for factor in (1.1, 1.02))
    assert (wide | narrow).all()
    assert wide.mean() == pytest.approx(0.3, abs=0.1)


def test_music_before_the_view_reverberates_into_it() -> None:
    """A view that begins in silence after a loud part has a tail of it."""
    loud_then_silent = np.concatenate([tone(500.0, 4.0), np.zeros(2 * RATE)])
    reverb = {"room_prob": 1.0, "room_s": (1.6, 1.6), "direct_db": (0.0, 0.0), "shift_s": 0.0}
    tails = []
    for context_s in (0.0, 1.0):
        sampler = sampler_of(pool_of(loud_then_silent), only(context_s=context_s, **reverb))
        pairs = sampler.draw(Rng((0,)), 150, 2000)
        silent = ~pairs.clean.any(dim=1)
        assert silent.any()
        tails.append(float(pairs.degraded[silent].abs().amax(dim=1).median()))
    assert tails[0] == 0
    assert tails[1] > 0


# -- where it comes from -----------------------------------------------------------------------


@pytest.mark.parametrize("n_pairs", [5, 12, 30])
def test_pairs_name_the_tracks_they_come_from(n_pairs: int) -> None:
    pairs = sampler_of(TONES, only()).draw(Rng((0,)), n_pairs, N_SAMPLES)
    assert pairs.tracks.dtype == torch.int64
    assert pairs.tracks.tolist() == loudest(pairs.clean) == loudest(pairs.degraded)


def test_each_pair_has_a_track_of_its_own_while_there_are_enough() -> None:
    sampler = sampler_of(TONES, only())
    assert sorted(sampler.draw(Rng((0,)), 12, N_SAMPLES).tracks.tolist()) == list(range(12))
    assert len(sampler.draw(Rng((0,)), 8, N_SAMPLES).tracks.unique()) == 8
    assert len(sampler.draw(Rng((0,)), 13, N_SAMPLES).tracks) == 13


def test_pairs_come_from_the_sampled_tracks_only() -> None:
    config = only(mix_prob=1.0, transpose_prob=0.0)
    sampler = sampler_of(TONES, config, tracks=np.array([3, 5]))
    pairs = sampler.draw(Rng((0,)), 20, N_SAMPLES)
    assert set(loudest(pairs.clean)) == {3, 5} == set(pairs.tracks.tolist())


def test_long_tracks_are_drawn_more_often() -> None:
    pool = pool_of(tone(300.0, 9.0), tone(400.0, 1.0))
    tracks = sampler_of(pool, only()).draw(Rng((0,)), 200, 1000).tracks
    assert float((tracks == 0).float().mean()) == pytest.approx(0.9, abs=0.07)


def test_undecodable_track_is_never_drawn() -> None:
    pool = pool_of(tone(300.0), np.zeros(0, np.float32), tone(400.0))
    pairs = sampler_of(pool, only()).draw(Rng((0,)), 20, N_SAMPLES)
    assert set(pairs.tracks.tolist()) == {0, 2}


def test_nothing_is_read_outside_a_recording() -> None:
    """Neighbours in the pool are tones; a recording shorter than a view repeats."""
    pool = pool_of(*(tone(float(hz), 0.5) for hz in TONES_HZ))
    speeds = {"transpose_prob": 0.0, "speed_prob": 0.5, "speed": (0.99, 1.01)}
    pairs = sampler_of(pool, only(**speeds)).draw(Rng((0,)), 12, 2 * N_SAMPLES)
    for views in (pairs.clean, pairs.degraded):
        power = torch.fft.rfft(views * torch.hann_window(views.shape[1])).abs().square()
        hz = torch.fft.rfftfreq(views.shape[1], 1 / RATE)
        own = (hz - torch.from_numpy(TONES_HZ)[pairs.tracks][:, None]).abs() < 30
        assert float(((power * own).sum(dim=1) / power.sum(dim=1)).min()) > 0.999


def test_audible_excerpts_are_preferred() -> None:
    mostly_silent = pool_of(np.concatenate([np.zeros(20 * RATE), tone(300.0, 20.0)]))
    pairs = sampler_of(mostly_silent, only()).draw(Rng((0,)), 50, N_SAMPLES)
    assert float((pairs.clean.abs().mean(dim=1) > 1e-3).float().mean()) > 0.8


# -- randomness ------------------------------------------------------------------------------------


def test_pairs_are_decided_by_the_key_alone() -> None:
    sampler = sampler_of(TUNES, AugmentConfig())
    torch.manual_seed(0)
    first = sampler.draw(Rng((0, 5)), 6, N_SAMPLES)
    torch.manual_seed(1)
    second = sampler.draw(Rng((0, 5)), 6, N_SAMPLES)
    other = sampler.draw(Rng((0, 6)), 6, N_SAMPLES)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert not any(torch.equal(*pair) for pair in zip(first, other, strict=True))


@pytest.mark.parametrize("n_samples", [N_SAMPLES, 10 * RATE])
def test_pairs_with_every_degradation_are_finite_and_differ(n_samples: int) -> None:
    probs = {key: 1.0 for key in vars(AugmentConfig()) if key.endswith("_prob")}
    hiss = pool_of(0.1 * np.random.default_rng(0).standard_normal(RATE))
    config = only(**probs, tilt_db=(-4.0, 4.0))
    sampler = sampler_of(TUNES, config, noise=NoiseMixer(hiss, TUNES, TUNES))
    pairs = sampler.draw(Rng((0,)), 4, n_samples)
    assert torch.isfinite(pairs.clean).all()
    assert torch.isfinite(pairs.degraded).all()
    assert max(map(abs, correlations(pairs.clean, pairs.degraded))) < 0.99
