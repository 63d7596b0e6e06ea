"""What else sounds: recorded noise, voices, other music, coloured noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.augment.pool import AudioPool
from training.augment.rng import Chance
from training.config import AugmentConfig

_MAX_VOICES = 6


class Noises:
    """Draws noises, each kind with its own share.

    Parameters
    ----------
    noise, speech, music : AudioPool
        Where they are taken from.
    """

    def __init__(self, noise: AudioPool, speech: AudioPool, music: AudioPool) -> None:
        self.noise, self.speech, self.music = noise, speech, music

    def add(self, music: Tensor, chance: Chance, config: AugmentConfig) -> Tensor:
        """Lay noise over a share of the waveforms at random signal-to-noise ratios.

        Parameters
        ----------
        music : float32 tensor of shape (n, n_samples)
        chance : Chance
        config : AugmentConfig

        Returns
        -------
        float32 tensor of shape (n, n_samples)
        """
        struck = chance.struck(len(music), config.noise_share)
        if not len(struck):
            return music
        noise = self.draw(chance, len(struck), music.shape[1], config)
        gain = _rms(music[struck]) / _rms(noise).clamp(min=1e-6)
        gain *= 10 ** (-chance.uniform(config.snr_db, len(struck))[:, None] / 20)
        return music.index_add(0, struck, noise * gain)

    def draw(self, chance: Chance, n: int, n_samples: int, config: AugmentConfig) -> Tensor:
        """Draw noises, some of them two at once.

        Returns
        -------
        float32 tensor of shape (n, n_samples)
        """
        kinds = chance.rng.choice(4, size=n, p=np.array(config.noise_kinds))
        out = torch.zeros(n, n_samples, device=chance.device)
        draws = (self._recorded, self._voices, self._music, _coloured)
        for kind, draw in enumerate(draws):
            rows = chance.tensor(np.flatnonzero(kinds == kind))
            if len(rows):
                out[rows] = draw(chance, len(rows), n_samples)
        out = out / _rms(out).clamp(min=1e-6)
        mixed = chance.struck(n, config.two_noises_share)
        if len(mixed):
            gain = 10 ** (chance.uniform((-10.0, 0.0), len(mixed)) / 20)
            out[mixed] += out[mixed.roll(1)] * gain[:, None]
        return out

    def _recorded(self, chance: Chance, n: int, n_samples: int) -> Tensor:
        return self.noise.draw(chance.rng, n, n_samples).to(chance.device)

    def _music(self, chance: Chance, n: int, n_samples: int) -> Tensor:
        return self.music.draw(chance.rng, n, n_samples).to(chance.device)

    def _voices(self, chance: Chance, n: int, n_samples: int) -> Tensor:
        n_voices = chance.rng.integers(1, _MAX_VOICES + 1, size=n)
        voices = self.speech.draw(chance.rng, int(n_voices.sum()), n_samples).to(chance.device)
        mixed = torch.zeros(n, n_samples, device=chance.device)
        return mixed.index_add(0, chance.tensor(np.repeat(np.arange(n), n_voices)), voices)


def _coloured(chance: Chance, n: int, n_samples: int) -> Tensor:
    """Noise whose spectrum falls by 0 (white) to 6 (brown) dB per octave."""
    exponent = chance.uniform((0.0, 1.0), n)[:, None]
    bins = torch.arange(1, n_samples // 2 + 2, device=chance.device).float()
    spectrum = torch.fft.rfft(chance.normal(n, n_samples)) * bins**-exponent
    return torch.fft.irfft(spectrum, n_samples)


def _rms(waveforms: Tensor) -> Tensor:
    return waveforms.square().mean(dim=1, keepdim=True).sqrt()
