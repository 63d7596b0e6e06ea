from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.config import SpectrogramConfig
from engine.errors import ConfigError
from tests.audio_files import Waveform, cached_tune, write_wav
from training.config import AugmentConfig
from training.dataset import AudioPool, Noises, PairSampler, room_responses

RATE = 8000
CONFIG = SpectrogramConfig()
N_SAMPLES = CONFIG.samples_per_segment
UNTOUCHED = AugmentConfig(
    shift_s=0.0,
    transpose_share=0.0,
    mix_share=0.0,
    speed_share=0.0,
    room_share=0.0,
    noise_share=0.0,
    band_share=0.0,
    clip_share=0.0,
)


def pool_of(*waveforms: Waveform) -> AudioPool:
    """Pool in memory."""
    samples = np.concatenate([(one * 32767).astype(np.int16) for one in waveforms])
    return AudioPool(samples, np.cumsum([0, *map(len, waveforms)], dtype=np.int64))


def tone(hz: float, duration_s: float = 6.0) -> Waveform:
    at = np.arange(round(duration_s * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * hz * at)).astype(np.float32)


def loudest_hz(waveforms: torch.Tensor) -> np.ndarray:
    spectrum = np.abs(np.fft.rfft(waveforms.numpy(), axis=1))
    return np.argmax(spectrum, axis=1) * RATE / waveforms.shape[1]


@pytest.fixture(scope="module")
def tunes() -> AudioPool:
    return pool_of(*(cached_tune(seed, 6.0) for seed in range(8)))


@pytest.fixture
def sampler(tunes: AudioPool) -> Callable[[AugmentConfig], PairSampler]:
    """Give sampler(config) over all tunes."""
    noises = Noises(tunes, tunes, tunes)
    return lambda config: PairSampler(tunes, range(8), noises, None, CONFIG, config)


# -- the pool ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "audio" / "music"
    (path / "below").mkdir(parents=True)
    write_wav(path / "b.wav", cached_tune(2, 1.5), RATE, "FLOAT")
    write_wav(path / "a.wav", cached_tune(1, 1.0), RATE, "FLOAT")
    write_wav(path / "below" / "c.wav", cached_tune(3, 0.5), RATE, "FLOAT")
    (path / "notes.txt").write_text("no audio")
    return path


def test_pool_gives_what_was_written(folder: Path, tmp_path: Path) -> None:
    pool = AudioPool.of(folder, tmp_path / "cache", RATE)
    assert len(pool) == 3
    for index, (seed, duration_s) in enumerate([(1, 1.0), (2, 1.5), (3, 0.5)]):
        recording = pool.recording(index)
        assert recording.dtype == np.float32
        np.testing.assert_allclose(recording, cached_tune(seed, duration_s), atol=1 / 16000)


def test_pool_full_scale_does_not_wrap(folder: Path, tmp_path: Path) -> None:
    write_wav(folder / "a.wav", np.array([1.5, 1, -1, -1.5] * 500, np.float32), RATE, "FLOAT")
    recording = AudioPool.of(folder, tmp_path / "cache", RATE).recording(0)
    np.testing.assert_allclose(recording, [1, 1, -1, -1] * 500, atol=1e-3)


def test_pool_second_opening_reads_the_cache(folder: Path, tmp_path: Path) -> None:
    first = AudioPool.of(folder, tmp_path / "cache", RATE)
    for path in folder.rglob("*.wav"):
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = AudioPool.of(folder, tmp_path / "cache", RATE)
    np.testing.assert_array_equal(first.samples, second.samples)
    np.testing.assert_array_equal(first.starts, second.starts)


def test_pool_new_file_is_decoded(folder: Path, tmp_path: Path) -> None:
    AudioPool.of(folder, tmp_path / "cache", RATE)
    write_wav(folder / "aa.wav", cached_tune(4, 0.7), RATE, "FLOAT")
    pool = AudioPool.of(folder, tmp_path / "cache", RATE)
    assert (pool.lengths / RATE).tolist() == [1.0, 0.7, 1.5, 0.5]


def test_pool_other_rate_has_its_own_cache(folder: Path, tmp_path: Path) -> None:
    lengths = [
        AudioPool.of(folder, tmp_path / "cache", rate).lengths.sum() for rate in (RATE, 4000)
    ]
    assert lengths == [3.0 * RATE, 3.0 * 4000]


def test_pool_undecodable_file_is_left_empty(folder: Path, tmp_path: Path) -> None:
    (folder / "aa.wav").write_bytes(b"not audio")
    pool = AudioPool.of(folder, tmp_path / "cache", RATE)
    assert pool.lengths.tolist() == [8000, 0, 12000, 4000]
    assert pool.draw(np.random.default_rng(0), 50, 100).shape == (50, 100)


def test_pool_folder_without_audio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no audio files"):
        AudioPool.of(tmp_path, tmp_path / "cache", RATE)


def test_excerpt_beyond_an_end_begins_again() -> None:
    pool = pool_of(tone(50.0, 0.5), (np.arange(10) / 100).astype(np.float32))
    got = pool.excerpt(1, -3, 25) * 100
    np.testing.assert_allclose(got, np.arange(-3, 22) % 10, atol=0.01)
    np.testing.assert_allclose(pool.excerpt(1, 2, 5) * 100, np.arange(2, 7), atol=0.01)


def test_draw_takes_long_recordings_more_often() -> None:
    pool = pool_of(np.full(9000, 0.5, np.float32), np.full(1000, -0.5, np.float32))
    drawn = pool.draw(np.random.default_rng(0), 1000, 10)[:, 0]
    assert (drawn > 0).float().mean() == pytest.approx(0.9, abs=0.03)


# -- noises and rooms --------------------------------------------------------------------------


def test_noises_come_from_every_source() -> None:
    noises = Noises(pool_of(tone(500.0)), pool_of(tone(1000.0)), pool_of(tone(2000.0)))
    drawn = noises.draw(np.random.default_rng(0), 400, 4000)
    hz = loudest_hz(drawn)
    shares = [float(np.mean(np.abs(hz - kind) < 10)) for kind in (500, 1000, 2000)]
    assert shares == pytest.approx([0.65, 0.15, 0.08], abs=0.06)


def test_noises_are_decided_by_the_generator_alone(tunes: AudioPool) -> None:
    noises = Noises(tunes, tunes, tunes)
    first, second, other = (
        noises.draw(np.random.default_rng(seed), 20, 1000) for seed in (3, 3, 4)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_room_responses_begin_at_their_onset_with_unit_energy() -> None:
    late = np.zeros(3000, np.float32)
    late[700:1700] = 0.5 * 0.99 ** np.arange(1000)
    rooms = room_responses(pool_of(late, late[700:900]), 0.25, RATE)
    assert rooms.shape == (2, 2000)
    torch.testing.assert_close(rooms.norm(dim=1), torch.ones(2), atol=1e-4, rtol=0)
    assert rooms[:, 0].tolist() == rooms.abs().amax(dim=1).tolist()
    assert not rooms[1, 200:].any()


def test_room_responses_undecodable_file_is_left_out() -> None:
    rooms = room_responses(pool_of(tone(50.0, 0.1), np.zeros(0, np.float32)), 0.25, RATE)
    assert len(rooms) == 1


# -- pairs -------------------------------------------------------------------------------------


def correlations(clean: torch.Tensor, degraded: torch.Tensor) -> list[float]:
    return [float(np.corrcoef(*pair)[0, 1]) for pair in zip(clean, degraded, strict=True)]


@pytest.mark.parametrize("n_samples", [N_SAMPLES, 3 * N_SAMPLES])
def test_pairs_without_degradation_are_the_same_moment(sampler, n_samples: int) -> None:
    clean, degraded = sampler(UNTOUCHED).draw(np.random.default_rng(0), 8, n_samples)
    assert clean.shape == degraded.shape == (8, n_samples)
    assert min(correlations(clean, degraded)) > 0.99


def test_pairs_transposed_together_stay_the_same_moment(sampler) -> None:
    config = AugmentConfig(**(vars(UNTOUCHED) | {"transpose_share": 1.0, "mix_share": 0.5}))
    assert min(correlations(*sampler(config).draw(np.random.default_rng(0), 8, N_SAMPLES))) > 0.99


def test_pairs_are_shifted_no_further_than_asked(sampler) -> None:
    config = AugmentConfig(**(vars(UNTOUCHED) | {"shift_s": 0.25}))
    clean, degraded = sampler(config).draw(np.random.default_rng(0), 8, N_SAMPLES)
    lags = [best_lag(*pair) for pair in zip(clean, degraded, strict=True)]
    assert max(map(abs, lags)) <= 0.25 * RATE + 1
    assert max(lags) > 200
    assert min(lags) < -200


def best_lag(clean: torch.Tensor, degraded: torch.Tensor) -> int:
    """Samples by which the degraded view begins later in the music."""
    n_fft = 2 * len(clean)
    spectra = [np.fft.rfft(one.numpy(), n_fft) for one in (clean, degraded)]
    lag = int(np.argmax(np.fft.irfft(spectra[0] * spectra[1].conj())))
    return lag if lag < len(clean) else lag - n_fft


def test_pairs_with_their_own_speed_stay_together_in_the_middle() -> None:
    """A click at the very middle of the clean view is in the middle of the faster one."""
    clicks = np.zeros(20 * RATE, np.float32)
    clicks[:: RATE // 4] = 0.9
    pool = pool_of(clicks)
    config = AugmentConfig(**(vars(UNTOUCHED) | {"speed_share": 1.0, "speed": (1.05, 1.05)}))
    sampler = PairSampler(pool, [0], Noises(pool, pool, pool), None, CONFIG, config)
    clean, faster = sampler.draw(np.random.default_rng(0), 16, N_SAMPLES)
    middle = N_SAMPLES / 2
    for one, other in zip(clean, faster, strict=True):
        places = [torch.nonzero(view > 0.4)[:, 0].float() - middle for view in (one, other)]
        nearest = [float(at[at.abs().argmin()]) for at in places]
        assert nearest[1] == pytest.approx(nearest[0] / 1.05, abs=3)


def test_pairs_come_from_different_tracks_while_there_are_enough() -> None:
    pool = pool_of(*(tone(200.0 + 100 * i) for i in range(12)))
    sampler = PairSampler(pool, range(12), Noises(pool, pool, pool), None, CONFIG, UNTOUCHED)
    clean, degraded = sampler.draw(np.random.default_rng(0), 12, N_SAMPLES)
    tracks = np.round((loudest_hz(clean) - 200) / 100).astype(int)
    assert sorted(tracks) == list(range(12))
    np.testing.assert_allclose(loudest_hz(degraded), loudest_hz(clean))
    more, _ = sampler.draw(np.random.default_rng(0), 30, N_SAMPLES)
    assert len(more) == 30


def test_pairs_come_only_from_the_tracks_given() -> None:
    pool = pool_of(*(tone(200.0 + 100 * i) for i in range(12)))
    noise = pool_of(tone(3800.0))
    sampler = PairSampler(pool, [3, 5], Noises(noise, noise, noise), None, CONFIG, UNTOUCHED)
    clean, _ = sampler.draw(np.random.default_rng(0), 20, N_SAMPLES)
    assert set(np.round((loudest_hz(clean) - 200) / 100).astype(int)) == {3, 5}


def test_pairs_empty_track_is_never_drawn() -> None:
    pool = pool_of(tone(300.0), np.zeros(0, np.float32), tone(400.0))
    sampler = PairSampler(pool, range(3), Noises(pool, pool, pool), None, CONFIG, UNTOUCHED)
    clean, _ = sampler.draw(np.random.default_rng(0), 3, N_SAMPLES)
    assert (clean.abs().amax(dim=1) > 0.1).all()


def test_pairs_prefer_what_can_be_heard() -> None:
    mostly_silent = np.concatenate([np.zeros(20 * RATE, np.float32), tone(300.0, 20.0)])
    pool = pool_of(mostly_silent)
    sampler = PairSampler(pool, [0], Noises(pool, pool, pool), None, CONFIG, UNTOUCHED)
    clean, _ = sampler.draw(np.random.default_rng(0), 50, N_SAMPLES)
    assert (clean.abs().mean(dim=1) > 1e-3).float().mean() > 0.9


def test_pairs_are_decided_by_the_generator_alone(sampler) -> None:
    draw = sampler(AugmentConfig()).draw
    torch.manual_seed(0)
    first = draw(np.random.default_rng((0, 5)), 4, N_SAMPLES)
    torch.manual_seed(1)
    second = draw(np.random.default_rng((0, 5)), 4, N_SAMPLES)
    other = draw(np.random.default_rng((0, 6)), 4, N_SAMPLES)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])


def test_pairs_with_every_degradation_are_finite_and_differ(sampler) -> None:
    shares: dict[str, Any] = {key: 1.0 for key in vars(AugmentConfig()) if key.endswith("_share")}
    config = AugmentConfig(**(shares | {"recorded_room_share": 0.0}))
    clean, degraded = sampler(config).draw(np.random.default_rng(0), 8, N_SAMPLES)
    assert torch.isfinite(degraded).all()
    assert max(correlations(clean, degraded)) < 0.99
