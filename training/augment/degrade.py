"""From a clean excerpt to what a microphone in a bar hears, for whole batches at once."""

from __future__ import annotations

from torch import Tensor

from training.augment import channel, codec
from training.augment.noise import Noises
from training.augment.reverb import Rooms
from training.augment.rng import Chance
from training.config import AugmentConfig


def degrade(
    music: Tensor, chance: Chance, config: AugmentConfig, rooms: Rooms, noises: Noises
) -> Tensor:
    """Play music through a small speaker in a room with noise, record and send it.

    Parameters
    ----------
    music : float32 tensor of shape (n, n_samples)
    chance : Chance
        Alone decides, so a step can be repeated exactly.
    config : AugmentConfig
    rooms : Rooms
    noises : Noises

    Returns
    -------
    float32 tensor of shape (n, n_samples)
    """
    rate = rooms.sample_rate
    music = rooms.reverberate(music, chance, config)
    music = noises.add(music, chance, config)
    music = channel.colour(music, chance, config, rate)
    music = channel.filter_band(music, chance, config, rate)
    music = channel.compress(music, chance, config, rate)
    music = channel.clip(music, chance, config)
    music = codec.encode(music, chance, config, rate)
    return channel.drop_samples(music, chance, config, rate)
