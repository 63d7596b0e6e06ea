from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.sounds import decibels, music, only, pitch_hz, pool_of, rms, tone
from training.augment.noise import NoiseMixer
from training.augment.rng import Rng

HISS = pool_of(0.1 * np.random.default_rng(0).standard_normal(16000))
KINDS_HZ = (500, 1001, 2000)  # two voices in opposite phase would be silent
TONES = NoiseMixer(*(pool_of(tone(hz)) for hz in KINDS_HZ))


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 15.0])
def test_noise_has_the_configured_ratio(snr_db: float) -> None:
    clean = music() * torch.tensor([0.01, 0.1, 0.5, 1.0, 1.0, 1.0])[:, None]
    config = only(noise_prob=1.0, snr_db=(snr_db, snr_db), two_noises_prob=0.0)
    added = NoiseMixer(HISS, HISS, HISS).add(clean, Rng((0,)), config) - clean
    measured = decibels(rms(clean) / rms(added))
    torch.testing.assert_close(measured, torch.full((6,), snr_db), atol=0.05, rtol=0)


def test_noise_of_two_reaches_the_ratio_too() -> None:
    config = only(noise_prob=1.0, snr_db=(3.0, 3.0), two_noises_prob=1.0)
    added = TONES.add(music(), Rng((0,)), config) - music()
    torch.testing.assert_close(
        decibels(rms(music()) / rms(added)), torch.full((6,), 3.0), atol=0.05, rtol=0
    )


def test_silent_noise_changes_nothing() -> None:
    silence = pool_of(np.zeros(8000))
    config = only(noise_prob=1.0, noise_kind_probs=(0.4, 0.3, 0.3, 0.0))
    noisy = NoiseMixer(silence, silence, silence).add(music(), Rng((0,)), config)
    assert torch.equal(noisy, music())


def test_each_kind_has_its_probability() -> None:
    config = only(noise_kind_probs=(0.6, 0.25, 0.15, 0.0), two_noises_prob=0.0)
    pitches_hz = [round(pitch_hz(one)) for one in TONES.draw(Rng((0,)), 400, 4000, config)]
    shares = [np.mean([abs(one - hz) < 5 for one in pitches_hz]) for hz in KINDS_HZ]
    assert shares == pytest.approx([0.6, 0.25, 0.15], abs=0.07)


@pytest.mark.parametrize("has_composed", [True, False])
def test_composed_noise_takes_its_part_of_the_recorded_if_there_is_any(has_composed: bool) -> None:
    noise, speech, other = (pool_of(tone(hz)) for hz in KINDS_HZ)
    composed = pool_of(tone(3000)) if has_composed else None
    mixer = NoiseMixer(noise, speech, other, composed)
    config = only(
        noise_kind_probs=(0.8, 0.2, 0.0, 0.0), composed_noise_prob=0.5, two_noises_prob=0.0
    )
    pitches_hz = [round(pitch_hz(one)) for one in mixer.draw(Rng((0,)), 400, 4000, config)]
    shares = [np.mean([abs(one - hz) < 5 for one in pitches_hz]) for hz in (500, 1001, 3000)]
    expected = [0.4, 0.2, 0.4] if has_composed else [0.8, 0.2, 0.0]
    assert shares == pytest.approx(expected, abs=0.07)


def test_two_noises_are_both_present() -> None:
    config = only(noise_kind_probs=(0.5, 0.5, 0.0, 0.0), two_noises_prob=1.0)
    drawn = TONES.draw(Rng((0,)), 40, 8000, config)
    power = torch.fft.rfft(drawn).abs()[:, KINDS_HZ[:2]]
    both = (power.amin(dim=1) > 0.1 * power.amax(dim=1)).float().mean()
    assert float(both) == pytest.approx(0.5, abs=0.3)  # half of the mates are of the same kind


def test_coloured_noise_falls_by_0_to_6_db_per_octave() -> None:
    config = only(noise_kind_probs=(0.0, 0.0, 0.0, 1.0))
    drawn = TONES.draw(Rng((0,)), 40, 16000, config)
    power = torch.fft.rfft(drawn).abs().square()  # bins of half a hertz
    octaves = torch.stack([power[:, 2**k : 2 ** (k + 1)].mean(dim=1) for k in range(7, 13)])
    slopes = 10 * torch.log10(octaves[-1] / octaves[0]) / 5
    assert -6.8 < float(slopes.min()) < -4.5
    assert -1.5 < float(slopes.max()) < 0.8
