from __future__ import annotations

import math
from itertools import groupby

import pytest
import torch
from torch import Tensor

from tests.training.sounds import RATE, decibels, music, only, rms, tones, white
from training.augment import channel
from training.augment.rng import Rng

CHANCE = (0,)


def runs(flags: Tensor) -> list[int]:
    """Lengths of the stretches that are true."""
    return [len(list(same)) for value, same in groupby(flags.tolist()) if value]


def test_filter_attenuates_by_its_slopes() -> None:
    config = only(
        band_prob=1.0,
        low_hz=(500.0, 500.0),
        high_hz=(2000.0, 2000.0),
        slope_db=(24.0, 24.0),
    )
    sound = tones(125.0, 250.0, 500.0, 1000.0, 2000.0, 3000.0)
    out = channel.filter_band(sound, Rng(CHANCE), config, RATE)
    expected = torch.tensor([-48.0, -24.0, 0.0, 0.0, 0.0, -24 * math.log2(1.5)])
    torch.testing.assert_close(decibels(rms(out) / rms(sound)), expected, atol=0.3, rtol=0)


def test_filter_tilts_around_1024_hz() -> None:
    everything = {"low_hz": (20.0, 20.0), "high_hz": (4000.0, 4000.0)}
    config = only(band_prob=1.0, tilt_db=(-3.0, -3.0), **everything)
    sound = tones(256.0, 512.0, 1024.0, 2048.0)
    out = channel.filter_band(sound, Rng(CHANCE), config, RATE)
    expected = torch.tensor([6.0, 3.0, 0.0, -3.0])
    torch.testing.assert_close(decibels(rms(out) / rms(sound)), expected, atol=0.3, rtol=0)


def test_devices_are_uneven_within_their_range_and_all_different() -> None:
    impulse = torch.zeros(20, 4096)
    impulse[:, 0] = 1.0
    config = only(device_prob=1.0, n_resonances=3, resonance_db=(-8.0, 8.0))
    out = channel.equalise(impulse, Rng(CHANCE), config, RATE)
    gain_db = decibels(torch.fft.rfft(out).abs())
    assert float(gain_db.abs().max()) <= 3 * 8 + 0.1
    assert float((gain_db.amax(dim=1) - gain_db.amin(dim=1)).min()) > 1
    assert not torch.allclose(gain_db[0], gain_db[1], atol=1.0)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_compression_evens_out_what_is_loud_and_soft(strength: float) -> None:
    config = only(compress_prob=1.0, compression=(strength, strength))
    sound = tones(500.0)
    sound[:, RATE:] *= 0.1
    out = channel.compress(sound, Rng(CHANCE), config, RATE)
    loud, soft = (rms(out[0, start : start + RATE // 2]) for start in (RATE // 4, 5 * RATE // 4))
    assert float(decibels(soft / loud)) == pytest.approx(-20 * (1 - strength), abs=0.5)


def test_clip_cuts_at_the_quantile_and_nothing_else() -> None:
    config = only(clip_prob=1.0, clip_quantile=(0.9, 0.9))
    out = channel.clip(music(), Rng(CHANCE), config)
    limits = music().abs().quantile(0.9, dim=1)
    torch.testing.assert_close(out.abs().amax(dim=1), limits, atol=1e-3, rtol=0)
    within = music().abs() <= out.abs().amax(dim=1, keepdim=True)
    assert torch.equal(out[within], music()[within])
    assert float(within.float().mean()) == pytest.approx(0.9, abs=0.01)


def test_drops_are_short_silences_and_the_rest_is_untouched() -> None:
    config = only(drop_prob=1.0, n_drops=2, drop_s=(0.01, 0.02))
    sound = white(50, RATE)
    out = channel.drop_samples(sound, Rng(CHANCE), config, RATE)
    lost = out == 0
    assert torch.equal(out[~lost], sound[~lost])
    for row in lost:
        gone = runs(row)
        assert 1 <= len(gone) <= 2
        assert sum(gone) <= 2 * 0.02 * RATE + 2
    longest = [max(runs(row)) for row in lost]
    assert sorted(longest)[25] >= 0.01 * RATE - 1


def test_mask_hides_one_stripe_each_way() -> None:
    config = only(mask_prob=1.0, mask_width=(0.1, 0.2))
    features = white(30, 64 * 128).view(30, 64, 128)
    out = channel.mask(features, Rng(CHANCE), config)
    hidden = out == 0
    assert torch.equal(out[~hidden], features[~hidden])
    for one in hidden:
        frames, bands = one.all(dim=1), one.all(dim=0)
        for stripe in (frames, bands):
            (width,) = runs(stripe)
            assert 0.1 * len(stripe) - 1 <= width <= 0.2 * len(stripe) + 1
        assert torch.equal(one, frames[:, None] | bands[None])
