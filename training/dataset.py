"""Draw pairs of views of the same moment of music from a pool of recordings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.augment import degrade
from training.augment.config import AugmentConfig, Range
from training.augment.noise import NoiseMixer
from training.augment.pool import AudioPool
from training.augment.reverb import Reverb
from training.augment.rng import Rng
from training.augment.tempo import change_speed, change_tempo

_MAX_SILENCE_LEVEL = 1e-3  # mean absolute value of an excerpt that counts as silent
_N_ATTEMPTS = 8  # to find an audible excerpt


class Pairs(NamedTuple):
    """A batch of pairs of views.

    Parameters
    ----------
    clean, degraded : float32 tensors of shape (n_pairs, n_samples)
        The same moment of music.
    tracks : int64 tensor of shape (n_pairs,)
        Indices of the recordings in the pool.
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
        Indices of the recordings to draw from; those of length 0 are left out.
    noise : NoiseMixer
    reverb : Reverb
    config : AugmentConfig
    """

    music: AudioPool
    tracks: NDArray[np.int64]
    noise: NoiseMixer
    reverb: Reverb
    config: AugmentConfig

    def __post_init__(self) -> None:
        decoded = [track for track in self.tracks if self.music.lengths[track]]
        object.__setattr__(self, "tracks", np.array(decoded, dtype=np.int64))

    def draw(self, rng: Rng, n_pairs: int, n_samples: int) -> Pairs:
        """Draw pairs, each from another track while there are enough tracks.

        Parameters
        ----------
        rng : Rng
        n_pairs, n_samples : int
            Number of pairs, and length of each view.

        Returns
        -------
        Pairs
        """
        config, rate = self.config, self.reverb.sample_rate
        context, margin = int(config.context_s * rate), int(config.shift_s * rate)
        # A faster view starts earlier and ends later around the same middle.
        fastest = max(config.speed[1], config.wide_speed[1])
        fastest *= 2 ** (max(config.pitch[1], config.wide_pitch[1]) / 12)
        stretch = max(fastest - 1, 0) * (n_samples / 2 + context)
        before = context + margin + stretch
        n_source = int((2 * before + n_samples) * config.transpose[1]) + 8
        tracks, source = self._draw_sources(rng, n_pairs, n_source)
        speed = _draw_factors(rng, n_pairs, (config.transpose, config.transpose_prob))
        start = 2 + before * speed
        clean = change_speed(source, speed, start, n_samples)
        shift = rng.uniform((-margin, margin), n_pairs).double()
        middle = start + speed * (n_samples / 2 + shift)
        played = self._change_playback(source, middle, speed, (context, n_samples), rng)
        degraded = degrade.degrade(played, rng, config, self.reverb, self.noise, context)
        return Pairs(clean, degraded, rng.tensor(tracks))

    def _change_playback(
        self, source: Tensor, middle: Tensor, speed: Tensor, lengths: tuple[int, int], rng: Rng
    ) -> Tensor:
        """Read the view to degrade around its middle, at its own speed, pitch and tempo.

        `lengths` are those of the context and of the view, in samples.
        """
        config, n, (context, n_samples) = self.config, len(source), lengths
        speeds = (config.speed, config.speed_prob), (config.wide_speed, config.wide_speed_prob)
        pitches = (config.pitch, config.pitch_prob), (config.wide_pitch, config.wide_pitch_prob)
        factor = speed * _draw_factors(rng, n, *speeds)
        pitch = _draw_factors(rng, n, *((_as_factors(range_), prob) for range_, prob in pitches))
        tempo = _draw_factors(rng, n, (config.tempo, config.tempo_prob)) / pitch
        factor = factor * pitch
        changed = (tempo != 1).nonzero()[:, 0]
        n_played = context + n_samples
        start = (middle - factor * (context + n_samples / 2)).clamp(min=2)
        played = change_speed(source, factor, start, n_played)
        if len(changed):
            settings = source[changed], factor[changed], start[changed]
            longer = change_speed(*settings, n_played + n_samples // 2)
            fixed = context + n_samples / 2
            played[changed] = change_tempo(longer, tempo[changed], fixed)[:, :n_played]
        return played

    def _draw_sources(self, rng: Rng, n: int, n_samples: int) -> tuple[NDArray[np.int64], Tensor]:
        """Draw audible excerpts of different tracks, some mixed with another or in reverse."""
        lengths = self.music.lengths[self.tracks].astype(float)
        tracks = rng.generator.choice(
            self.tracks, size=n, replace=n > len(lengths), p=lengths / lengths.sum()
        )
        source = self._audible_excerpts(rng, tracks, n_samples)
        mixed = rng.select(n, self.config.mix_prob)
        if len(mixed):
            gain = 10 ** (rng.uniform(self.config.mix_db, len(mixed)) / 20)
            source[mixed] += source[mixed.roll(1)] * gain[:, None]
        backwards = rng.select(n, self.config.reverse_prob)
        source[backwards] = source[backwards].flip(1)
        return tracks, source

    def _audible_excerpts(self, rng: Rng, tracks: NDArray[np.int64], n_samples: int) -> Tensor:
        """Cut an excerpt from each track; draw those again that are silent."""
        source = torch.empty(len(tracks), n_samples, device=rng.device)
        silent = np.arange(len(tracks))
        for _ in range(_N_ATTEMPTS):
            starts = rng.generator.integers(self.music.lengths[tracks[silent]])
            excerpts = self.music.excerpts(tracks[silent], starts, n_samples).to(rng.device)
            source[rng.tensor(silent)] = excerpts
            level = excerpts[:, n_samples // 3 :].abs().mean(dim=1)
            silent = silent[(level <= _MAX_SILENCE_LEVEL).cpu().numpy()]
            if not len(silent):
                break
        return source


def _draw_factors(rng: Rng, n: int, *choices: tuple[Range, float]) -> Tensor:
    """Draw factors for some of the examples, 1 for the others; float64 tensor of shape (n,).

    Each choice is a range and its probability; a later one replaces what an earlier one drew.
    """
    factors = torch.ones(n, dtype=torch.float64, device=rng.device)
    for bounds, prob in choices:
        selected = rng.select(n, prob)
        factors[selected] = rng.log_uniform(bounds, len(selected)).double()
    return factors


def _as_factors(semitones: Range) -> Range:
    low, high = semitones
    return 2 ** (low / 12), 2 ** (high / 12)
