"""Rooms that music is played in, recorded or made up."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from training.augment.pool import AudioPool
from training.augment.rng import Chance
from training.config import AugmentConfig

log = logging.getLogger(__name__)

MAX_ROOM_S = 4.0
_DECAY_60_DB = 6.9
_EARLY_S = 0.06
_N_EARLY = 12
_DARKNESS = 5


class Rooms:
    """Reverberates waveforms.

    Parameters
    ----------
    recorded : float32 tensor of shape (n_rooms, n_samples)
        Recorded responses; there may be none.
    sample_rate : int
    """

    def __init__(self, recorded: Tensor, sample_rate: int) -> None:
        self.recorded, self.sample_rate = recorded, sample_rate

    @classmethod
    def of(cls, pool: AudioPool, sample_rate: int) -> Rooms:
        """Cut recorded responses at their onset and give them unit energy; silent ones are none."""
        n_samples = int(MAX_ROOM_S * sample_rate)
        decoded = [index for index in range(len(pool)) if pool.recording(index).any()]
        out = np.zeros((len(decoded), n_samples), np.float32)
        for row, index in zip(out, decoded, strict=True):
            response = pool.recording(index)
            onset = int(np.argmax(np.abs(response) > 0.1 * np.abs(response).max()))
            tail = response[onset : onset + n_samples]
            row[: len(tail)] = tail / np.linalg.norm(tail)
        return cls(torch.from_numpy(out), sample_rate)

    def reverberate(self, music: Tensor, chance: Chance, config: AugmentConfig) -> Tensor:
        """Convolve a share of the waveforms with room responses.

        Parameters
        ----------
        music : float32 tensor of shape (n, n_samples)
        chance : Chance
        config : AugmentConfig

        Returns
        -------
        float32 tensor of shape (n, n_samples)
        """
        struck = chance.struck(len(music), config.room_share)
        if not len(struck):
            return music
        responses = self.synthesise(chance, len(struck), config)
        if len(self.recorded):
            rows = chance.struck(len(struck), config.recorded_room_share)
            chosen = self.recorded[chance.rng.integers(len(self.recorded), size=len(rows))]
            length = min(chosen.shape[1], responses.shape[1])
            responses[rows] = 0
            responses[rows, :length] = chosen[:, :length].to(music.device)
        return music.index_copy(0, struck, _convolve(music[struck], responses))

    def synthesise(self, chance: Chance, n: int, config: AugmentConfig) -> Tensor:
        """Make up room responses.

        A direct path, early reflections, then noise that builds up and decays exponentially
        (Moorer 1979), its high frequencies sooner than its low ones.

        Returns
        -------
        float32 tensor of shape (n, n_room_samples)
        """
        rate = self.sample_rate
        n_samples = int(min(config.room_s[1], MAX_ROOM_S) * rate)
        time_s = torch.arange(n_samples, device=chance.device) / rate
        decay_s = chance.log_uniform(config.room_s, n)[:, None]
        brightness = chance.uniform((0.3, 1.0), n)[:, None]
        noise = chance.normal(n, n_samples)
        dark = sum((noise.roll(k, dims=1) for k in range(1, _DARKNESS)), noise) / _DARKNESS
        tails = dark * torch.exp(-_DECAY_60_DB * time_s / decay_s)
        tails += (noise - dark) * torch.exp(-_DECAY_60_DB * time_s / (decay_s * brightness))
        tails *= 1 - torch.exp(-time_s / chance.log_uniform(config.build_up_s, n)[:, None])
        gap = chance.integers(1, int(0.02 * rate), n)
        tails[torch.arange(n_samples, device=chance.device) < gap[:, None]] = 0
        self._add_reflections(tails, chance)
        tails /= tails.norm(dim=1, keepdim=True)
        tails[:, 0] = 10 ** (chance.uniform(config.direct_db, n) / 20)
        return tails

    def _add_reflections(self, tails: Tensor, chance: Chance) -> None:
        n = len(tails)
        strength = chance.uniform((0.0, 0.5), n)[:, None] * tails.norm(dim=1, keepdim=True)
        at = chance.integers(8, int(_EARLY_S * self.sample_rate), n * _N_EARLY).view(n, _N_EARLY)
        sign = chance.integers(0, 2, n * _N_EARLY).view(n, _N_EARLY) * 2.0 - 1.0
        tails.scatter_add_(1, at, strength * sign * torch.exp(-at / (0.03 * self.sample_rate)))


def _convolve(waveforms: Tensor, responses: Tensor) -> Tensor:
    n_samples = waveforms.shape[1]
    n_fft = 1 << (n_samples + responses.shape[1] - 2).bit_length()
    spectrum = torch.fft.rfft(waveforms, n_fft) * torch.fft.rfft(responses, n_fft)
    return torch.fft.irfft(spectrum, n_fft)[:, :n_samples]
