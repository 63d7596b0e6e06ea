"""Apply all degradations to a batch: room, noise, device, recorder, codec, transmission."""

from __future__ import annotations

from torch import Tensor

from training.augment import channel, codec
from training.augment.config import AugmentConfig
from training.augment.noise import NoiseMixer
from training.augment.reverb import Reverb
from training.augment.rng import Rng

_MAX_LEAD_S = 0.25  # filters, compression and codecs settle in that time


def degrade(
    music: Tensor,
    rng: Rng,
    config: AugmentConfig,
    reverb: Reverb,
    noise: NoiseMixer,
    n_context: int = 0,
) -> Tensor:
    """Degrade music as playing it in a noisy room, recording it and sending it does.

    Parameters
    ----------
    music : float32 tensor of shape (n, n_context + n_samples)
    rng : Rng
        The only source of randomness.
    config : AugmentConfig
    reverb : Reverb
    noise : NoiseMixer
    n_context : int
        Samples of music before those that are returned, which reverberate into them.

    Returns
    -------
    float32 tensor of shape (n, n_samples)
    """
    rate = reverb.sample_rate
    n_lead = min(n_context, int(_MAX_LEAD_S * rate))
    music = reverb.apply(music, rng, config)[:, n_context - n_lead :]
    music = noise.add(music, rng, config)
    music = channel.equalise(music, rng, config, rate)
    music = channel.filter_band(music, rng, config, rate)
    music = channel.compress(music, rng, config, rate)
    music = channel.control_gain(music, rng, config, rate)
    music = channel.suppress_noise(music, rng, config, rate)
    music = channel.clip(music, rng, config)
    music = codec.encode(music, rng, config, rate)
    music = channel.drop_samples(music, rng, config, rate)
    return channel.lose_packets(music, rng, config, rate)[:, n_lead:]
