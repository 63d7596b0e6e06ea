"""Pairs of views of the same moment of music, drawn from a pool of recordings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.augment import degrade
from training.augment.noise import Noises
from training.augment.pool import AudioPool
from training.augment.reverb import Rooms
from training.augment.rng import Chance
from training.augment.tempo import change_speed, change_tempo
from training.config import AugmentConfig, Range

_LOUDEST_SILENCE = 1e-3


class Pairs(NamedTuple):
    """What the model learns from.

    Parameters
    ----------
    clean, degraded : float32 tensors of shape (n_pairs, n_samples)
        The same moment of music.
    tracks : int64 tensor of shape (n_pairs,)
        Where it comes from.
    """

    clean: Tensor
    degraded: Tensor
    tracks: Tensor


@dataclass(frozen=True)
class PairSampler:
    """Draws a clean and a degraded view of the same moment of music.

    Parameters
    ----------
    music : AudioPool
    tracks : int64 array of shape (n_tracks,)
        The recordings to draw from; those that could not be decoded are left out.
    noises : Noises
    rooms : Rooms
    config : AugmentConfig
    """

    music: AudioPool
    tracks: NDArray[np.int64]
    noises: Noises
    rooms: Rooms
    config: AugmentConfig

    def __post_init__(self) -> None:
        decoded = [track for track in self.tracks if self.music.lengths[track]]
        object.__setattr__(self, "tracks", np.array(decoded, dtype=np.int64))

    def draw(self, chance: Chance, n_pairs: int, n_samples: int) -> Pairs:
        """Draw pairs, each from another track while there are enough.

        Parameters
        ----------
        chance : Chance
        n_pairs, n_samples : int
            Number and length of the pairs.
        """
        config, rate = self.config, self.rooms.sample_rate
        context, margin = int(config.context_s * rate), int(config.shift_s * rate)
        # A view that runs faster begins earlier and ends later around the same middle.
        fastest = config.speed[1] * 2 ** (config.pitch[1] / 12)
        stretch = max(fastest - 1, 0) * (n_samples / 2 + context)
        before = context + margin + stretch
        reach = int((2 * before + n_samples) * config.transpose[1]) + 8
        tracks, source = self._sources(chance, n_pairs, reach)
        speed = _rates(chance, n_pairs, config.transpose, config.transpose_share)
        start = 2 + before * speed
        clean = change_speed(source, speed, start, n_samples)
        shift = chance.uniform((-margin, margin), n_pairs).double()
        middle = start + speed * (n_samples / 2 + shift)
        heard = self._heard(source, middle, speed, context, n_samples, chance)
        degraded = degrade.degrade(heard, chance, config, self.rooms, self.noises)
        return Pairs(clean, degraded[:, context:], chance.tensor(tracks))

    def _heard(
        self,
        source: Tensor,
        middle: Tensor,
        speed: Tensor,
        context: int,
        n_samples: int,
        chance: Chance,
    ) -> Tensor:
        """Read the degraded view around its middle, at its own speed, pitch and tempo."""
        config, n = self.config, len(source)
        faster = speed * _rates(chance, n, config.speed, config.speed_share)
        semitones = _rates(chance, n, _frequencies(config.pitch), config.pitch_share)
        tempo = _rates(chance, n, config.tempo, config.tempo_share) / semitones
        faster = faster * semitones
        changed = (tempo != 1).nonzero()[:, 0]
        n_heard = context + n_samples
        begin = (middle - faster * (context + n_samples / 2)).clamp(min=2)
        heard = change_speed(source, faster, begin, n_heard)
        if len(changed):
            # The vocoder changes pace around the middle of what it gets: read as much behind it.
            of = source[changed], faster[changed], begin[changed]
            longer = change_speed(*of, n_heard + context)
            heard[changed] = change_tempo(longer, tempo[changed])[:, :n_heard]
        return heard

    def _sources(self, chance: Chance, n: int, n_samples: int) -> tuple[NDArray[np.int64], Tensor]:
        lengths = self.music.lengths[self.tracks].astype(float)
        chosen = chance.rng.choice(
            self.tracks, size=n, replace=n > len(lengths), p=lengths / lengths.sum()
        )
        cuts = np.stack([self._audible(chance.rng, track, n_samples) for track in chosen])
        source = chance.tensor(cuts)
        mixed = chance.struck(n, self.config.mix_share)
        if len(mixed):
            gain = 10 ** (chance.uniform(self.config.mix_db, len(mixed)) / 20)
            source[mixed] += source[mixed.roll(1)] * gain[:, None]
        return chosen, source

    def _audible(self, rng: np.random.Generator, track: int, n_samples: int) -> NDArray[np.float32]:
        for _ in range(8):
            cut = self.music.excerpt(track, int(rng.integers(self.music.lengths[track])), n_samples)
            if np.abs(cut[n_samples // 3 :]).mean() > _LOUDEST_SILENCE:
                break
        return cut


def _rates(chance: Chance, n: int, bounds: Range, share: float) -> Tensor:
    """Draw factors for a share of the examples, 1 for the others; float64 of shape (n,)."""
    rates = torch.ones(n, dtype=torch.float64, device=chance.device)
    struck = chance.struck(n, share)
    rates[struck] = chance.log_uniform(bounds, len(struck)).double()
    return rates


def _frequencies(semitones: Range) -> Range:
    low, high = semitones
    return 2 ** (low / 12), 2 ** (high / 12)
