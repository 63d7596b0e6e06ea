"""Apply all degradations to a batch: room, noise, device, recorder, codec, transmission."""

from __future__ import annotations

from torch import Tensor

from training.augment import channel, codec
from training.augment.config import AugmentConfig
from training.augment.noise import NoiseMixer
from training.augment.reverb import Reverb
from training.augment.rng import Rng


def degrade(
    music: Tensor, rng: Rng, config: AugmentConfig, reverb: Reverb, noise: NoiseMixer
) -> Tensor:
    """Degrade music as playing it in a noisy room, recording it and sending it does.

    Parameters
    ----------
    music : float32 tensor of shape (n, n_samples)
    rng : Rng
        The only source of randomness.
    config : AugmentConfig
    reverb : Reverb
    noise : NoiseMixer

    Returns
    -------
    float32 tensor of shape (n, n_samples)
    """
    rate = reverb.sample_rate
    music = reverb.apply(music, rng, config)
    music = noise.add(music, rng, config)
    music = channel.equalise(music, rng, config, rate)
    music = channel.filter_band(music, rng, config, rate)
    music = channel.compress(music, rng, config, rate)
    music = channel.clip(music, rng, config)
    music = codec.encode(music, rng, config, rate)
    return channel.drop_samples(music, rng, config, rate)
