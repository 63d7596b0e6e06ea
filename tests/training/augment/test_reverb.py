from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.sounds import NO_ROOMS, RATE, decibels, only, pool_of, tone
from training.augment.reverb import Reverb
from training.augment.rng import Rng


def impulses(n: int) -> Tensor:
    out = torch.zeros(n, 2 * RATE)
    out[:, 100] = 1.0
    return out


@pytest.mark.parametrize("room_s", [0.3, 1.0])
def test_impulse_decays_as_its_room(room_s: float) -> None:
    config = only(room_prob=1.0, room_s=(room_s, room_s), direct_db=(0.0, 0.0))
    heard = NO_ROOMS.apply(impulses(40), Rng((0,)), config)
    torch.testing.assert_close(heard[:, 100], torch.ones(40), atol=1e-4, rtol=0)
    # The low frequencies decay by 60 dB in that time, the high ones may do so sooner.
    spectrum = torch.fft.rfft(heard[:, 101 : 101 + int(room_s * RATE)].view(40, 10, -1))
    n_low = spectrum.shape[2] // 16
    power = spectrum[:, :, 1 : 1 + n_low].abs().square().sum(dim=(0, 2))
    decay_db = 10 * torch.log10(power[7] / power[2])
    assert float(decay_db) == pytest.approx(-30, abs=5)


@pytest.mark.parametrize("n_samples", [500, 2 * RATE])
def test_nothing_sounds_before_its_cause(n_samples: int) -> None:
    heard = NO_ROOMS.apply(impulses(20)[:, :n_samples], Rng((0,)), only(room_prob=1.0))
    assert float(heard[:, :100].abs().max()) < 1e-5
    assert float(heard[:, 100].min()) > 0.05


@pytest.mark.parametrize("direct_db", [-8.0, 8.0])
def test_synthesised_rooms_have_the_configured_direct_ratio(direct_db: float) -> None:
    rooms = NO_ROOMS.synthesise(Rng((0,)), 10, only(direct_db=(direct_db, direct_db)))
    ratio_db = decibels(rooms[:, 0].abs() / rooms[:, 1:].norm(dim=1))
    torch.testing.assert_close(ratio_db, torch.full((10,), direct_db), atol=0.01, rtol=0)


def test_reverberation_builds_up() -> None:
    def late_share(build_up_s: float) -> float:
        config = only(room_s=(2.0, 2.0), build_up_s=(build_up_s, build_up_s))
        energy = NO_ROOMS.synthesise(Rng((0,)), 20, config)[:, 1:].square()
        return float(energy[:, int(0.06 * RATE) :].sum() / energy.sum())

    assert late_share(0.1) > late_share(0.001) + 0.1


def test_shortest_room_is_finite() -> None:
    rooms = NO_ROOMS.synthesise(Rng((0,)), 50, only(room_s=(0.05, 0.1)))
    assert torch.isfinite(rooms).all()


def test_recorded_room_is_used() -> None:
    rooms = Reverb(torch.tensor([[1.0, 0.0, -0.5]]), RATE)
    config = only(room_prob=1.0, recorded_room_prob=1.0)
    expected = impulses(3)
    expected[:, 102] = -0.5
    heard = rooms.apply(impulses(3), Rng((0,)), config)
    torch.testing.assert_close(heard, expected, atol=1e-5, rtol=0)


def test_recorded_rooms_have_their_probability() -> None:
    rooms = Reverb(torch.tensor([[1.0, 0.0, -0.5]]), RATE)
    config = only(room_prob=1.0, recorded_room_prob=0.3)
    heard = rooms.apply(impulses(200)[:, :2000], Rng((0,)), config)
    is_recorded = (heard[:, 102] + 0.5).abs() < 1e-4
    assert float(is_recorded.float().mean()) == pytest.approx(0.3, abs=0.1)


def test_recorded_responses_begin_at_their_onset_with_unit_energy() -> None:
    late = np.zeros(3000, np.float32)
    late[700:1700] = 0.5 * 0.99 ** np.arange(1000)
    rooms = Reverb.from_pool(pool_of(late, late[700:900]), RATE).recorded
    torch.testing.assert_close(rooms.norm(dim=1), torch.ones(2), atol=1e-4, rtol=0)
    assert rooms[:, 0].tolist() == rooms.abs().amax(dim=1).tolist()
    assert not rooms[1, 200:].any()


@pytest.mark.parametrize("n_samples", [0, 4000], ids=["undecodable", "silent"])
def test_file_without_a_response_is_left_out(n_samples: int) -> None:
    pool = pool_of(tone(50.0, 0.1), np.zeros(n_samples, np.float32))
    assert len(Reverb.from_pool(pool, RATE).recorded) == 1
