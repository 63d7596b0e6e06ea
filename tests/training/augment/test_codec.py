from __future__ import annotations

import pytest
import torch

from tests.training.sounds import RATE, decibels, lag, music, only, rms
from training.augment import codec
from training.augment.rng import Rng

ENCODING = only(codec_prob=1.0)


@pytest.fixture(params=codec.CODECS, ids=lambda one: one.encoder)
def one_codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "CODECS", (request.param,))


@pytest.mark.parametrize("duration_s", [0.9155, 2.0])
@pytest.mark.usefixtures("one_codec")
def test_codec_keeps_alignment_and_length(duration_s: float) -> None:
    sound = music(4, duration_s)
    for key in range(3):  # bit rates
        coded = codec.encode(sound, Rng((key,)), ENCODING, RATE)
        assert coded.shape == sound.shape
        lags = [lag(*pair) for pair in zip(sound, coded, strict=True)]
        assert max(map(abs, lags)) <= 0.002 * RATE


@pytest.mark.usefixtures("one_codec")
def test_codec_loses_something_and_keeps_the_level() -> None:
    levels = torch.tensor([0.01, 0.1, 1.0, 10.0])[:, None]
    sound = music(4, 2.0) * levels
    coded = codec.encode(sound, Rng((0,)), ENCODING, RATE)
    lost = rms(coded - sound) / rms(sound)
    assert float(lost.min()) > 0.02
    assert float(lost.max()) < 1.0
    assert float(decibels(rms(coded) / rms(sound)).abs().max()) < 3


def test_only_the_struck_go_through_the_codec() -> None:
    sound = music(6)
    coded = codec.encode(sound, Rng((1,)), only(codec_prob=0.5), RATE)
    same = (coded == sound).all(dim=1)
    assert 0 < int(same.sum()) < 6
    assert [lag(*pair) for pair in zip(sound, coded, strict=True)] == pytest.approx([0] * 6, abs=16)
