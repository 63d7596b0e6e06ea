"""Add noise to music: recorded or composed noise, voices, other music or coloured noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.augment.config import AugmentConfig
from training.augment.pool import AudioPool
from training.augment.rng import Rng

_MAX_VOICES = 6


class NoiseMixer:
    """Draws noise of several kinds and adds it to waveforms.

    Parameters
    ----------
    noise, speech, music : AudioPool
        Recordings to draw from.
    composed : AudioPool, optional
        Composed noise; without it, recorded noise takes its place.
    """

    def __init__(
        self,
        noise: AudioPool,
        speech: AudioPool,
        music: AudioPool,
        composed: AudioPool | None = None,
    ) -> None:
        self.noise, self.speech, self.music = noise, speech, music
        self.composed = composed

    def add(self, music: Tensor, rng: Rng, config: AugmentConfig) -> Tensor:
        """Add noise to some of the waveforms at random signal-to-noise ratios.

        Parameters
        ----------
        music : float32 tensor of shape (n, n_samples)
        rng : Rng
        config : AugmentConfig

        Returns
        -------
        float32 tensor of shape (n, n_samples)
        """
        selected = rng.select(len(music), config.noise_prob)
        if not len(selected):
            return music
        noise = self.draw(rng, len(selected), music.shape[1], config)
        gain = _rms(music[selected]) / _rms(noise).clamp(min=1e-6)
        gain *= 10 ** (-rng.uniform(config.snr_db, len(selected))[:, None] / 20)
        return music.index_add(0, selected, noise * gain)

    def draw(self, rng: Rng, n: int, n_samples: int, config: AugmentConfig) -> Tensor:
        """Draw noise of random kinds; some examples are the sum of two.

        Returns
        -------
        float32 tensor of shape (n, n_samples)
        """
        recorded, *others = config.noise_kind_probs
        composed = recorded * config.composed_noise_prob * (self.composed is not None)
        kinds = rng.generator.choice(5, size=n, p=[recorded - composed, *others, composed])
        out = torch.zeros(n, n_samples, device=rng.device)
        draws = (self._recorded, self._voices, self._music, _coloured, self._composed)
        for kind, draw in enumerate(draws):
            rows = rng.tensor(np.flatnonzero(kinds == kind))
            if len(rows):
                out[rows] = draw(rng, len(rows), n_samples)
        out = out / _rms(out).clamp(min=1e-6)
        mixed = rng.select(n, config.two_noises_prob)
        if len(mixed):
            gain = 10 ** (rng.uniform((-10.0, 0.0), len(mixed)) / 20)
            out[mixed] += out[mixed.roll(1)] * gain[:, None]
        return out

    def _recorded(self, rng: Rng, n: int, n_samples: int) -> Tensor:
        return self.noise.draw(rng.generator, n, n_samples).to(rng.device)

    def _composed(self, rng: Rng, n: int, n_samples: int) -> Tensor:
        assert self.composed is not None
        return self.composed.draw(rng.generator, n, n_samples).to(rng.device)

    def _music(self, rng: Rng, n: int, n_samples: int) -> Tensor:
        return self.music.draw(rng.generator, n, n_samples).to(rng.device)

    def _voices(self, rng: Rng, n: int, n_samples: int) -> Tensor:
        n_voices = rng.generator.integers(1, _MAX_VOICES + 1, size=n)
        voices = self.speech.draw(rng.generator, int(n_voices.sum()), n_samples).to(rng.device)
        mixed = torch.zeros(n, n_samples, device=rng.device)
        return mixed.index_add(0, rng.tensor(np.repeat(np.arange(n), n_voices)), voices)


def _coloured(rng: Rng, n: int, n_samples: int) -> Tensor:
    """Draw noise whose spectrum falls by 0 (white) to 6 (brown) dB per octave."""
    exponent = rng.uniform((0.0, 1.0), n)[:, None]
    bins = torch.arange(1, n_samples // 2 + 2, device=rng.device).float()
    spectrum = torch.fft.rfft(rng.normal(n, n_samples)) * bins**-exponent
    noise: Tensor = torch.fft.irfft(spectrum, n_samples)
    return noise


def _rms(waveforms: Tensor) -> Tensor:
    return waveforms.square().mean(dim=1, keepdim=True).sqrt()
