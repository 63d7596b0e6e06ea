"""Reverberate waveforms with recorded or synthesised room responses."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from training.augment.config import AugmentConfig
from training.augment.pool import AudioPool
from training.augment.rng import Rng

log = logging.getLogger(__name__)

MAX_ROOM_S = 4.0
_DECAY_60_DB = 6.9
_EARLY_S = 0.06
_N_EARLY = 12
_DARKNESS = 5
_N_FINE = 256


class Reverb:
    """Convolves waveforms with room responses.

    Parameters
    ----------
    recorded : float32 tensor of shape (n_rooms, n_samples)
        Recorded responses; n_rooms may be 0.
    sample_rate : int
        Hz.
    """

    def __init__(self, recorded: Tensor, sample_rate: int) -> None:
        self.recorded, self.sample_rate = recorded, sample_rate

    @classmethod
    def from_pool(cls, pool: AudioPool, sample_rate: int) -> Reverb:
        """Use the recordings of a pool, cut at their onset and scaled to unit energy.

        Silent recordings are left out.
        """
        n_samples = int(MAX_ROOM_S * sample_rate)
        decoded = [index for index in range(len(pool)) if pool.recording(index).any()]
        out = np.zeros((len(decoded), n_samples), np.float32)
        for row, index in zip(out, decoded, strict=True):
            response = pool.recording(index)
            onset = int(np.argmax(np.abs(response) > 0.1 * np.abs(response).max()))
            tail = response[onset : onset + n_samples]
            row[: len(tail)] = tail / np.linalg.norm(tail)
        return cls(torch.from_numpy(out).to(pool.samples.device), sample_rate)

    def apply(self, music: Tensor, rng: Rng, config: AugmentConfig) -> Tensor:
        """Reverberate some of the waveforms.

        Parameters
        ----------
        music : float32 tensor of shape (n, n_samples)
        rng : Rng
        config : AugmentConfig

        Returns
        -------
        float32 tensor of shape (n, n_samples)
        """
        selected = rng.select(len(music), config.room_prob)
        if not len(selected):
            return music
        responses = self.synthesise(rng, len(selected), config)
        if len(self.recorded):
            rows = rng.select(len(selected), config.recorded_room_prob)
            chosen = self.recorded[rng.generator.integers(len(self.recorded), size=len(rows))]
            length = min(chosen.shape[1], responses.shape[1])
            responses[rows] = 0
            responses[rows, :length] = chosen[:, :length].to(music.device)
        return music.index_copy(0, selected, _convolve(music[selected], responses))

    def synthesise(self, rng: Rng, n: int, config: AugmentConfig) -> Tensor:
        """Synthesise room responses.

        A direct path, early reflections, then noise that builds up and decays exponentially
        (Moorer 1979), high frequencies faster than low ones.

        Returns
        -------
        float32 tensor of shape (n, n_room_samples)
        """
        rate = self.sample_rate
        n_samples = int(min(config.room_s[1], MAX_ROOM_S) * rate)
        decay_s = rng.log_uniform(config.room_s, n)[:, None]
        brightness = rng.uniform((0.3, 1.0), n)[:, None]
        noise = rng.normal(n, n_samples)
        dark = sum((noise.roll(k, dims=1) for k in range(1, _DARKNESS)), noise) / _DARKNESS
        per_sample = _DECAY_60_DB / rate / decay_s
        tails = dark * _decay(per_sample, n_samples)
        tails += (noise - dark) * _decay(per_sample / brightness, n_samples)
        build_up_s = rng.log_uniform(config.build_up_s, n)[:, None]
        tails *= 1 - _decay(1 / rate / build_up_s, n_samples)
        gap = rng.integers(1, int(0.02 * rate), n)
        tails[torch.arange(n_samples, device=rng.device) < gap[:, None]] = 0
        self._add_reflections(tails, rng)
        tails /= tails.norm(dim=1, keepdim=True)
        tails[:, 0] = 10 ** (rng.uniform(config.direct_db, n) / 20)
        return tails

    def _add_reflections(self, tails: Tensor, rng: Rng) -> None:
        n = len(tails)
        strength = rng.uniform((0.0, 0.5), n)[:, None] * tails.norm(dim=1, keepdim=True)
        at = rng.integers(8, int(_EARLY_S * self.sample_rate), n * _N_EARLY).view(n, _N_EARLY)
        sign = rng.integers(0, 2, n * _N_EARLY).view(n, _N_EARLY) * 2.0 - 1.0
        tails.scatter_add_(1, at, strength * sign * torch.exp(-at / (0.03 * self.sample_rate)))


def _decay(per_sample: Tensor, n_samples: int) -> Tensor:
    """Compute exp(-per_sample * k) for k < n_samples, as products of few exponentials."""
    k = torch.arange(_N_FINE, device=per_sample.device)
    n_coarse = -(-n_samples // _N_FINE)
    coarse = torch.exp(-per_sample * _N_FINE * torch.arange(n_coarse, device=k.device))
    decay = coarse[:, :, None] * torch.exp(-per_sample * k)[:, None]
    return decay.flatten(1)[:, :n_samples]


def _convolve(waveforms: Tensor, responses: Tensor) -> Tensor:
    n_samples = waveforms.shape[1]
    n_fft = 1 << (n_samples + responses.shape[1] - 2).bit_length()
    spectrum = torch.fft.rfft(waveforms, n_fft) * torch.fft.rfft(responses, n_fft)
    convolved: Tensor = torch.fft.irfft(spectrum, n_fft)
    return convolved[:, :n_samples]
