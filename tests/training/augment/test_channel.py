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


def gain_db_of(sound: Tensor, out: Tensor, at_s: float) -> float:
    """Gain of the tenth of a second from `at_s` on."""
    piece = slice(round(at_s * RATE), round((at_s + 0.1) * RATE))
    return float(decibels(rms(out[0, piece]) / rms(sound[0, piece])))


def test_gain_control_follows_a_rise_at_once_and_a_fall_late() -> None:
    sound = tones(500.0, duration_s=6.0)
    sound[:, : 2 * RATE] *= 0.1
    sound[:, 4 * RATE :] *= 0.1
    config = only(
        gain_control_prob=1.0, gain_control=(1.0, 1.0), attack_s=(0.02, 0.02), release_s=(0.5, 0.5)
    )
    out = channel.control_gain(sound, Rng(CHANCE), config, RATE)
    soft_db, loud_db = (gain_db_of(sound, out, at_s) for at_s in (1.8, 3.8))
    assert soft_db - loud_db == pytest.approx(20, abs=0.5)
    assert gain_db_of(sound, out, 2.1) == pytest.approx(loud_db, abs=1)
    assert gain_db_of(sound, out, 4.0) < loud_db + 4
    half_released_db = gain_db_of(sound, out, 4.3)
    assert loud_db + 5 < half_released_db < soft_db - 5


def test_gain_control_raises_a_silence_by_30_db_at_most() -> None:
    sound = tones(500.0, duration_s=4.0)
    sound[:, 3 * RATE :] *= 1e-4
    config = only(
        gain_control_prob=1.0, gain_control=(1.0, 1.0), attack_s=(0.01, 0.01), release_s=(0.1, 0.1)
    )
    out = channel.control_gain(sound, Rng(CHANCE), config, RATE)
    assert gain_db_of(sound, out, 3.8) == pytest.approx(30, abs=0.1)


def test_suppression_removes_steady_noise_down_to_its_floor_and_keeps_the_rest() -> None:
    burst = torch.zeros(1, 2 * RATE)
    burst[:, RATE : RATE + RATE // 4] = tones(1000.0)[:, : RATE // 4]
    hiss = 0.05 * white(1, 2 * RATE)
    config = only(suppress_prob=1.0, suppress_factor=(4.0, 4.0), suppress_floor_db=(-20.0, -20.0))
    out = channel.suppress_noise(burst + hiss, Rng(CHANCE), config, RATE)
    assert gain_db_of(hiss, out, 0.5) == pytest.approx(-20, abs=4)
    assert gain_db_of(burst + hiss, out, 1.1) == pytest.approx(0, abs=0.5)
    low = channel.suppress_noise(
        burst + hiss,
        Rng(CHANCE),
        only(suppress_prob=1.0, suppress_factor=(4.0, 4.0), suppress_floor_db=(-6.0, -6.0)),
        RATE,
    )
    assert gain_db_of(hiss, low, 0.5) == pytest.approx(-6, abs=2)


PACKET = RATE // 50


def test_lost_packets_are_fading_repetitions_or_silent_and_the_rest_is_untouched() -> None:
    config = only(packet_loss_prob=1.0, lost_fraction=(0.2, 0.2))
    sound = white(200, 50 * PACKET)
    out = channel.lose_packets(sound, Rng(CHANCE), config, RATE)
    before, after = (x.view(200, 50, PACKET) for x in (sound, out))
    lost = (before != after).any(dim=2)
    assert not lost[:, 0].any()
    assert lost.any(dim=1).all()
    assert 0.1 < float(lost.float().mean()) < 0.25
    silent = 0
    for stream, packet in lost.nonzero().tolist():
        last = packet - 1
        while lost[stream, last]:
            last -= 1
        source, repeated = before[stream, last], after[stream, packet]
        fade = float((source @ repeated) / (source @ source))
        torch.testing.assert_close(repeated, fade * source, atol=1e-6, rtol=0)
        assert fade == 0 or 0.39 ** (packet - last) <= fade <= 1
        silent += fade == 0
    assert silent / int(lost.sum()) == pytest.approx(0.3, abs=0.12)


def test_a_stream_of_one_packet_loses_nothing() -> None:
    sound = white(5, PACKET)
    config = only(packet_loss_prob=1.0)
    assert torch.equal(channel.lose_packets(sound, Rng(CHANCE), config, RATE), sound)


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
