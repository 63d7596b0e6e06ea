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
from training.augment.noise import Noises
from training.augment.rng import Chance
from training.config import AugmentConfig

TUNES = pool_of(*(cached_tune(seed, 3.0) for seed in range(20, 23)))
NOISES = Noises(TUNES, TUNES, TUNES)


class Stage(NamedTuple):
    run: Callable[[Tensor, Chance, AugmentConfig], Tensor]
    share: str


STAGES = {
    "reverberate": Stage(NO_ROOMS.reverberate, "room_share"),
    "noise": Stage(NOISES.add, "noise_share"),
    "colour": Stage(lambda x, c, config: channel.colour(x, c, config, RATE), "device_share"),
    "filter": Stage(lambda x, c, config: channel.filter_band(x, c, config, RATE), "band_share"),
    "compress": Stage(lambda x, c, config: channel.compress(x, c, config, RATE), "compress_share"),
    "clip": Stage(channel.clip, "clip_share"),
    "encode": Stage(lambda x, c, config: codec.encode(x, c, config, RATE), "codec_share"),
    "drop": Stage(lambda x, c, config: channel.drop_samples(x, c, config, RATE), "drop_share"),
    "mask": Stage(
        lambda x, c, config: channel.mask(x.view(len(x), -1, 20), c, config).view(x.shape),
        "mask_share",
    ),
}


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> Stage:
    return STAGES[request.param]


def test_stage_keeps_shape_and_input_and_stays_finite(stage: Stage) -> None:
    clean = music()
    out = stage.run(clean, Chance((0,)), only(**{stage.share: 1.0}))
    assert out.shape == clean.shape
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    assert torch.equal(clean, music())
    assert all(not torch.allclose(*pair, atol=1e-4) for pair in zip(out, clean, strict=True))


def test_stage_of_silence_stays_finite(stage: Stage) -> None:
    out = stage.run(torch.zeros(3, RATE), Chance((0,)), only(**{stage.share: 1.0}))
    assert torch.isfinite(out).all()


def test_stage_is_decided_by_the_key_alone(stage: Stage) -> None:
    config = only(**{stage.share: 1.0})
    torch.manual_seed(0)
    first = stage.run(music(), Chance((7,)), config)
    torch.manual_seed(1)
    assert torch.equal(first, stage.run(music(), Chance((7,)), config))
    assert not torch.equal(first, stage.run(music(), Chance((8,)), config))


def test_stage_with_share_zero_changes_nothing(stage: Stage) -> None:
    every = {one.share: 1.0 for one in STAGES.values()} | {stage.share: 0.0}
    assert torch.equal(stage.run(music(), Chance((0,)), only(**every)), music())


def test_stage_strikes_about_its_share(stage: Stage) -> None:
    clean = white(300, 2000)
    config = only(**{stage.share: 0.3, "clip_quantile": (0.8, 0.9)})
    out = stage.run(clean, Chance((0,)), config)
    assert float((out != clean).any(dim=1).float().mean()) == pytest.approx(0.3, abs=0.08)


# -- all of them -------------------------------------------------------------------------------


def test_degrade_without_harm_changes_nothing() -> None:
    unharmed = AugmentConfig.unharmed()
    out = degrade.degrade(music(), Chance((0,)), unharmed, NO_ROOMS, NOISES)
    assert torch.equal(out, music())


@pytest.mark.parametrize("share", [one.share for one in STAGES.values()][:-1])
def test_degrade_goes_through_every_stage(share: str) -> None:
    config = only(**{share: 1.0, "clip_quantile": (0.8, 0.9)})
    out = degrade.degrade(music(), Chance((0,)), config, NO_ROOMS, NOISES)
    assert (out != music()).any(dim=1).all()


def test_degrade_with_everything_stays_finite_and_is_repeatable() -> None:
    config = only(**{one.share: 1.0 for one in STAGES.values()})
    first, second = (
        degrade.degrade(music(), Chance((3,)), config, NO_ROOMS, NOISES) for _ in range(2)
    )
    assert torch.isfinite(first).all()
    assert torch.equal(first, second)
    likeness = [abs(np.corrcoef(*pair)[0, 1]) for pair in zip(first, music(), strict=True)]
    assert max(likeness) < 0.99
