from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.sounds import RATE, music, pitch_hz, rms, tones
from training.augment.tempo import change_speed, change_tempo


def factors(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_speed_one_is_the_identity() -> None:
    source = music(3)
    out = change_speed(source, factors(1, 1, 1), factors(1, 100, 2000), 5000)
    for row, whole, start in zip(out, source, (1, 100, 2000), strict=True):
        torch.testing.assert_close(row, whole[start : start + 5000], atol=1e-6, rtol=0)


@pytest.mark.parametrize("speed", [0.8, 0.98, 1.02, 1.25])
def test_speed_moves_a_tone_by_its_factor(speed: float) -> None:
    source = tones(440.0, duration_s=3.0)
    (out,) = change_speed(source, factors(speed), factors(2.0), 2 * RATE)
    assert pitch_hz(out) == pytest.approx(440.0 * speed, rel=1e-3)
    assert float(rms(out)) == pytest.approx(float(rms(source[0])), rel=0.02)


def test_fractional_start_reads_between_the_samples() -> None:
    (out,) = change_speed(tones(440.0), factors(1), factors(10.5), 1000)
    at = (np.arange(1000) + 10.5) / RATE
    np.testing.assert_allclose(out, 0.5 * np.sin(2 * math.pi * 440 * at), atol=3e-3)


def test_each_row_has_its_own_speed() -> None:
    out = change_speed(tones(400, 400, 400), factors(0.9, 1, 1.1), factors(2, 2, 2), RATE)
    assert [pitch_hz(one) for one in out] == pytest.approx([360, 400, 440], rel=1e-3)


def test_tempo_keeps_the_pitch() -> None:
    source = tones(440, 440, 1000, 1000)
    out = change_tempo(source, factors(0.8, 1.25, 0.8, 1.25), RATE)[:, RATE // 2 : -RATE // 2]
    assert out.shape == (4, RATE)
    assert [pitch_hz(one) for one in out] == pytest.approx([440, 440, 1000, 1000], rel=1e-3)
    torch.testing.assert_close(rms(out), rms(source), rtol=0.4, atol=0)


@pytest.mark.parametrize("tempo", [0.8, 0.95, 1.05, 1.25])
@pytest.mark.parametrize("offset_s", [-0.6, -0.2, 0.0, 0.2, 0.6])
@pytest.mark.parametrize("fixed_s", [0.8, 1.0])
def test_tempo_moves_a_sound_towards_or_away_from_the_fixed_sample(
    tempo: float, offset_s: float, fixed_s: float
) -> None:
    at_s = torch.arange(2 * RATE) / RATE - fixed_s
    blip = torch.exp(-(((at_s - offset_s) / 0.02) ** 2)) * tones(800)[0]
    (out,) = change_tempo(blip[None], factors(tempo), fixed_s * RATE)
    energy = out.square()
    centre_s = float((energy * at_s).sum() / energy.sum())
    assert centre_s == pytest.approx(offset_s / tempo, abs=0.016)  # within a frame


def test_tempo_one_changes_next_to_nothing() -> None:
    out = change_tempo(music(3), factors(1, 1, 1), 900.0)
    inner = slice(1000, -1000)
    torch.testing.assert_close(out[:, inner], music(3)[:, inner], atol=1e-3, rtol=0)
