from __future__ import annotations

import pytest

from training.augment.config import AugmentConfig
from training.calibrate import query_augmentation


def test_clips_have_no_other_music_in_them() -> None:
    config = query_augmentation(AugmentConfig())
    assert config.noise_kind_probs[2] == config.mix_prob == config.transpose_prob == 0.0
    recorded, voices, _, coloured = AugmentConfig().noise_kind_probs
    assert config.noise_kind_probs[0] / config.noise_kind_probs[3] == pytest.approx(
        recorded / coloured
    )
    assert config.noise_kind_probs[1] / config.noise_kind_probs[3] == pytest.approx(
        voices / coloured
    )


@pytest.mark.parametrize(("noise", "speech"), [(True, False), (False, True), (False, False)])
def test_only_noises_that_are_recorded_are_drawn(noise: bool, speech: bool) -> None:
    kinds = query_augmentation(AugmentConfig(), noise=noise, speech=speech).noise_kind_probs
    assert [kind > 0 for kind in kinds] == [noise, speech, False, True]
