from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.audio_files import cached_tune
from training import augment
from training.config import AugmentConfig

RATE = 8000
ALL = AugmentConfig(room_share=1.0, noise_share=1.0, band_share=1.0, clip_share=1.0)
NONE = AugmentConfig(room_share=0.0, noise_share=0.0, band_share=0.0, clip_share=0.0)


def music(n: int = 6, duration_s: float = 1.0) -> Tensor:
    return torch.from_numpy(np.stack([cached_tune(seed, duration_s) for seed in range(n)]))


def white(rng: np.random.Generator, n: int, n_samples: int) -> Tensor:
    return torch.from_numpy(0.3 * rng.standard_normal((n, n_samples), dtype=np.float32))


def tone(hz: float, n_samples: int = 2 * RATE) -> Tensor:
    return torch.sin(2 * math.pi * hz * torch.arange(n_samples, dtype=torch.float64) / RATE).float()


def pitch_hz(waveform: Tensor) -> float:
    """Frequency of a single tone, between the bins by a parabola."""
    log = torch.fft.rfft(waveform * torch.hann_window(len(waveform))).abs().log()
    peak = int(log.argmax())
    left, top, right = log[peak - 1 : peak + 2].tolist()
    return (peak + 0.5 * (left - right) / (left - 2 * top + right)) * RATE / len(waveform)


def rms(waveforms: Tensor) -> Tensor:
    return waveforms.square().mean(dim=-1).sqrt()


STEPS: dict[str, Callable[[Tensor, np.random.Generator, AugmentConfig], Tensor]] = {
    "reverberate": lambda x, rng, config: augment.reverberate(x, rng, config, RATE, None),
    "add_noise": lambda x, rng, config: augment.add_noise(x, rng, config, white),
    "filter_band": lambda x, rng, config: augment.filter_band(x, rng, config, RATE),
    "clip": augment.clip,
    "degrade": lambda x, rng, config: augment.degrade(x, rng, config, RATE, white, None),
}


@pytest.fixture(params=STEPS)
def step(
    request: pytest.FixtureRequest,
) -> Callable[[Tensor, np.random.Generator, AugmentConfig], Tensor]:
    return STEPS[request.param]


def test_step_keeps_shape_and_input_and_stays_finite(step) -> None:
    clean = music()
    out = step(clean, np.random.default_rng(0), ALL)
    assert out.shape == clean.shape
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    assert torch.equal(clean, music())
    assert all(not torch.allclose(*pair, atol=1e-3) for pair in zip(out, clean, strict=True))


def test_step_is_decided_by_the_generator_alone(step) -> None:
    torch.manual_seed(0)
    first = step(music(), np.random.default_rng(7), ALL)
    torch.manual_seed(1)
    assert torch.equal(first, step(music(), np.random.default_rng(7), ALL))
    assert not torch.equal(first, step(music(), np.random.default_rng(8), ALL))


def test_step_with_share_zero_changes_nothing(step) -> None:
    assert torch.equal(step(music(), np.random.default_rng(0), NONE), music())


def test_step_strikes_about_its_share(step) -> None:
    half = AugmentConfig(room_share=0.5, noise_share=0.0, band_share=0.0, clip_share=0.0)
    clean = tone(440.0, 2000).repeat(400, 1)
    out = STEPS["degrade"](clean, np.random.default_rng(0), half)
    struck = (out != clean).any(dim=1).float().mean()
    assert 0.4 < struck < 0.6


@pytest.mark.parametrize("snr_db", [-8.0, 0.0, 15.0])
def test_add_noise_reaches_the_ratio_asked_for(snr_db: float) -> None:
    config = AugmentConfig(noise_share=1.0, snr_db=(snr_db, snr_db))
    clean = music() * torch.tensor([0.01, 0.1, 0.5, 1.0, 1.0, 1.0])[:, None]
    added = augment.add_noise(clean, np.random.default_rng(0), config, white) - clean
    measured = 20 * torch.log10(rms(clean) / rms(added))
    torch.testing.assert_close(measured, torch.full((6,), snr_db), atol=0.05, rtol=0)


def test_add_noise_of_silence_changes_nothing() -> None:
    def silence(_: np.random.Generator, n: int, n_samples: int) -> Tensor:
        return torch.zeros(n, n_samples)

    config = AugmentConfig(noise_share=1.0)
    assert torch.equal(
        augment.add_noise(music(), np.random.default_rng(0), config, silence), music()
    )


def impulse(n: int) -> Tensor:
    out = torch.zeros(n, 2 * RATE)
    out[:, 100] = 1.0
    return out


@pytest.mark.parametrize("room_s", [0.3, 1.0])
def test_reverberate_impulse_decays_as_its_room(room_s: float) -> None:
    config = AugmentConfig(room_share=1.0, room_s=(room_s, room_s), direct_db=(0.0, 0.0))
    heard = augment.reverberate(impulse(20), np.random.default_rng(0), config, RATE, None)
    assert heard[:, :100].abs().max() < 1e-5  # nothing before its cause
    torch.testing.assert_close(heard[:, 100], torch.ones(20), atol=1e-4, rtol=0)
    tenths = heard[:, 101 : 101 + int(room_s * RATE)].square().mean(dim=0)
    energy = torch.stack([part.sum() for part in tenths.chunk(10)])
    decay_db = 10 * torch.log10(energy[7] / energy[2])
    assert float(decay_db) == pytest.approx(-30, abs=4)  # half of 60 dB in half the time


@pytest.mark.parametrize("direct_db", [-8.0, 8.0])
def test_synthesised_rooms_have_the_direct_ratio_asked_for(direct_db: float) -> None:
    config = AugmentConfig(direct_db=(direct_db, direct_db))
    rooms = augment.synthesise_rooms(np.random.default_rng(0), 10, config, RATE)
    ratio_db = 20 * torch.log10(rooms[:, 0] / rooms[:, 1:].norm(dim=1))
    torch.testing.assert_close(ratio_db, torch.full((10,), direct_db), atol=0.01, rtol=0)


def test_reverberate_uses_the_recorded_room() -> None:
    config = AugmentConfig(room_share=1.0, recorded_room_share=1.0)
    room = torch.tensor([[1.0, 0.0, -0.5]])
    heard = augment.reverberate(impulse(3), np.random.default_rng(0), config, RATE, room)
    expected = impulse(3)
    expected[:, 102] = -0.5
    torch.testing.assert_close(heard, expected, atol=1e-5, rtol=0)


def test_filter_band_cuts_what_lies_outside() -> None:
    config = AugmentConfig(
        band_share=1.0,
        low_hz=(500.0, 500.0),
        high_hz=(2000.0, 2000.0),
        slope_db=(24.0, 24.0),
        tilt_db=(0.0, 0.0),
    )
    tones = torch.stack([tone(hz) for hz in (125.0, 250.0, 1000.0, 4000.0 - 1000.0)])
    out = augment.filter_band(tones, np.random.default_rng(0), config, RATE)
    gain_db = 20 * torch.log10(rms(out) / rms(tones))
    expected = torch.tensor([-48.0, -24.0, 0.0, -24 * math.log2(1.5)])
    torch.testing.assert_close(gain_db, expected, atol=0.5, rtol=0)


def test_clip_cuts_at_the_quantile_and_nothing_else() -> None:
    config = AugmentConfig(clip_share=1.0, clip_quantile=(0.9, 0.9))
    clean = music()
    out = augment.clip(clean, np.random.default_rng(0), config)
    limits = clean.abs().quantile(0.9, dim=1)
    torch.testing.assert_close(out.abs().amax(dim=1), limits, atol=1e-3, rtol=0)
    within = clean.abs() <= out.abs().amax(dim=1, keepdim=True)
    assert torch.equal(out[within], clean[within])
    assert within.float().mean() == pytest.approx(0.9, abs=0.01)


def test_change_speed_factor_one_is_the_identity() -> None:
    source = music(3)
    starts = torch.tensor([1.0, 100.0, 2000.0], dtype=torch.float64)
    out = augment.change_speed(source, torch.ones(3, dtype=torch.float64), starts, 5000)
    for row, whole, start in zip(out, source, (1, 100, 2000), strict=True):
        torch.testing.assert_close(row, whole[start : start + 5000], atol=1e-6, rtol=0)


@pytest.mark.parametrize("speed", [0.8, 0.98, 1.02, 1.25])
def test_change_speed_moves_a_tone_by_its_factor(speed: float) -> None:
    source = tone(440.0, 3 * RATE)[None]
    out = augment.change_speed(
        source, torch.tensor([speed], dtype=torch.float64), torch.tensor([2.0]), 2 * RATE
    )[0]
    assert pitch_hz(out) == pytest.approx(440.0 * speed, rel=1e-3)
    assert float(rms(out)) == pytest.approx(float(rms(source[0])), rel=0.02)


def test_change_speed_fractional_start_reads_between_the_samples() -> None:
    out = augment.change_speed(
        tone(440.0)[None], torch.ones(1, dtype=torch.float64), torch.tensor([10.5]), 1000
    )[0]
    at = (torch.arange(1000, dtype=torch.float64) + 10.5) / RATE
    expected = torch.sin(2 * math.pi * 440 * at).float()
    torch.testing.assert_close(out, expected, atol=5e-3, rtol=0)
