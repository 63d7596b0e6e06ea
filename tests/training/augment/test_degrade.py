"""What every stage promises; what each does to sound is in the test of its own module."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.audio_files import cached_tune
from tests.training.sounds import NO_ROOMS, RATE, music, only, pool_of, white
from training.augment import channel, codec, degrade
from training.augment.config import AugmentConfig
from training.augment.noise import NoiseMixer
from training.augment.rng import Rng

TUNES = pool_of(*(cached_tune(seed, 3.0) for seed in range(20, 23)))
NOISES = NoiseMixer(TUNES, TUNES, TUNES)


class Stage(NamedTuple):
    run: Callable[[Tensor, Rng, AugmentConfig], Tensor]
    prob: str


STAGES = {
    "reverberate": Stage(NO_ROOMS.apply, "room_prob"),
    "noise": Stage(NOISES.add, "noise_prob"),
    "equalise": Stage(lambda x, c, config: channel.equalise(x, c, config, RATE), "device_prob"),
    "filter": Stage(lambda x, c, config: channel.filter_band(x, c, config, RATE), "band_prob"),
    "compress": Stage(lambda x, c, config: channel.compress(x, c, config, RATE), "compress_prob"),
    "gain": Stage(
        lambda x, c, config: channel.control_gain(x, c, config, RATE), "gain_control_prob"
    ),
    "suppress": Stage(
        lambda x, c, config: channel.suppress_noise(x, c, config, RATE), "suppress_prob"
    ),
    "clip": Stage(channel.clip, "clip_prob"),
    "encode": Stage(lambda x, c, config: codec.encode(x, c, config, RATE), "codec_prob"),
    "drop": Stage(lambda x, c, config: channel.drop_samples(x, c, config, RATE), "drop_prob"),
    "lose": Stage(
        lambda x, c, config: channel.lose_packets(x, c, config, RATE), "packet_loss_prob"
    ),
    "mask": Stage(
        lambda x, c, config: channel.mask(x.view(len(x), -1, 20), c, config).view(x.shape),
        "mask_prob",
    ),
}


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> Stage:
    return STAGES[request.param]


def test_stage_keeps_shape_and_input_and_stays_finite(stage: Stage) -> None:
    clean = music()
    out = stage.run(clean, Rng((0,)), only(**{stage.prob: 1.0}))
    assert out.shape == clean.shape
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    assert torch.equal(clean, music())
    assert all(not torch.allclose(*pair, atol=1e-4) for pair in zip(out, clean, strict=True))


def test_stage_of_silence_stays_finite(stage: Stage) -> None:
    out = stage.run(torch.zeros(3, RATE), Rng((0,)), only(**{stage.prob: 1.0}))
    assert torch.isfinite(out).all()


def test_stage_is_decided_by_the_key_alone(stage: Stage) -> None:
    config = only(**{stage.prob: 1.0})
    torch.manual_seed(0)
    first = stage.run(music(), Rng((7,)), config)
    torch.manual_seed(1)
    assert torch.equal(first, stage.run(music(), Rng((7,)), config))
    assert not torch.equal(first, stage.run(music(), Rng((8,)), config))


def test_stage_with_probability_0_changes_nothing(stage: Stage) -> None:
    every = {one.prob: 1.0 for one in STAGES.values()} | {stage.prob: 0.0}
    assert torch.equal(stage.run(music(), Rng((0,)), only(**every)), music())


def test_stage_changes_its_probability_of_examples(stage: Stage) -> None:
    clean = white(300, 2000)
    config = only(**{stage.prob: 0.3, "clip_quantile": (0.8, 0.9)})
    out = stage.run(clean, Rng((0,)), config)
    assert float((out != clean).any(dim=1).float().mean()) == pytest.approx(0.3, abs=0.08)


# -- all of them -------------------------------------------------------------------------------


def test_degrade_disabled_config_changes_nothing() -> None:
    disabled = AugmentConfig.disabled()
    out = degrade.degrade(music(), Rng((0,)), disabled, NO_ROOMS, NOISES)
    assert torch.equal(out, music())


@pytest.mark.parametrize("prob", [one.prob for one in STAGES.values()][:-1])
def test_degrade_goes_through_every_stage(prob: str) -> None:
    config = only(**{prob: 1.0, "clip_quantile": (0.8, 0.9)})
    out = degrade.degrade(music(), Rng((0,)), config, NO_ROOMS, NOISES)
    assert (out != music()).any(dim=1).all()


def test_degrade_with_everything_stays_finite_and_is_repeatable() -> None:
    config = only(**{one.prob: 1.0 for one in STAGES.values()})
    first, second = (
        degrade.degrade(music(), Rng((3,)), config, NO_ROOMS, NOISES) for _ in range(2)
    )
    assert torch.isfinite(first).all()
    assert torch.equal(first, second)
    likeness = [abs(np.corrcoef(*pair)[0, 1]) for pair in zip(first, music(), strict=True)]
    assert max(likeness) < 0.99
