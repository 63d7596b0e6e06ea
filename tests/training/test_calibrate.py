from __future__ import annotations

import pytest

from training.calibrate import heard
from training.config import AugmentConfig


def test_clips_have_no_other_music_in_them() -> None:
    config = heard(AugmentConfig())
    assert config.noise_kinds[2] == config.mix_share == config.transpose_share == 0.0
    recorded, voices, _, coloured = AugmentConfig().noise_kinds
    assert config.noise_kinds[0] / config.noise_kinds[3] == pytest.approx(recorded / coloured)
    assert config.noise_kinds[1] / config.noise_kinds[3] == pytest.approx(voices / coloured)


@pytest.mark.parametrize(("noise", "speech"), [(True, False), (False, True), (False, False)])
def test_only_noises_that_are_recorded_are_drawn(noise: bool, speech: bool) -> None:
    kinds = heard(AugmentConfig(), noise=noise, speech=speech).noise_kinds
    assert [kind > 0 for kind in kinds] == [noise, speech, False, True]
