from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.audio_files import cached_tune
from tests.training.sounds import NO_ROOMS, music, nearest_correlation, pool_of, sampler_of
from training.augment.config import AugmentConfig
from training.augment.noise import NoiseMixer
from training.augment.rng import Rng
from training.calibrate import query_augmentation, unknown_sounds
from training.dataset import PairSampler


def test_clips_are_of_the_music_that_the_catalog_contains() -> None:
    config = AugmentConfig(transpose_prob=1.0, mix_prob=1.0, reverse_prob=1.0)
    tunes = pool_of(*(cached_tune(seed, 6.0) for seed in range(4)))
    pairs = sampler_of(tunes, query_augmentation(config)).draw(Rng((0,)), 4, 8000)
    for clip, track in zip(pairs.clean, pairs.tracks, strict=True):
        recording = torch.from_numpy(tunes.recording(int(track)))
        assert nearest_correlation(clip, torch.cat([recording, recording])) > 0.95


def test_noise_in_clips_is_no_music() -> None:
    config = query_augmentation(AugmentConfig())
    assert config.noise_kind_probs[2] == 0.0
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


def test_unknown_sounds_are_signals_noise_and_longer_clips_in_reverse() -> None:
    hiss = pool_of(0.1 * np.random.default_rng(0).standard_normal(16000))
    noises = NoiseMixer(hiss, hiss, hiss)
    clips = music()[:2]
    sampler = PairSampler(hiss, np.zeros(1, np.int64), noises, NO_ROOMS, AugmentConfig())
    sounds = unknown_sounds(clips, sampler, Rng((0,)))
    assert [one.is_reversed for one in sounds] == [False] * 4
    assert min(one.waveform.abs().max() for one in sounds) > 0.4
    longer = torch.cat([clips] * 4, dim=1)
    sounds = unknown_sounds(longer, sampler, Rng((0,)))
    assert [one.is_reversed for one in sounds] == [False] * 4 + [True] * 2
    assert torch.equal(torch.stack([one.waveform for one in sounds[4:]]), longer.flip(1))
