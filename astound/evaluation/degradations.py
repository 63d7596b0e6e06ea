"""The degradations that a catalog is tried with: one harm each, of one strength."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from astound.evaluation.surroundings import Surroundings
from engine.audio.decode import Waveform
from training.augment import degrade, tempo
from training.augment.config import AugmentConfig
from training.augment.rng import Rng

CONTEXT_S = 1.0
"""Seconds of music before a clip that reverberate into it."""

FASTEST = 1.03

_PHONE_HZ = 300.0, 3400.0


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """One thing that happens to music, always with the same strength.

    Parameters
    ----------
    name : str
    config : AugmentConfig
    speed : float
        Seconds of the recording in one second of the clip.
    context_s : float
        Music before the clip that goes through the same; 0 where a ratio is to be that of the
        clip.
    """

    name: str
    config: AugmentConfig
    speed: float = 1.0
    context_s: float = CONTEXT_S

    def clip(
        self, waveform: Waveform, start: float, n_samples: int, rng: Rng, around: Surroundings
    ) -> Waveform:
        """Cut a clip and degrade it.

        Parameters
        ----------
        waveform : float32 array of shape (n_waveform_samples,)
        start : float
            Sample of the waveform that becomes the clip's first; `context_s` at least from its
            beginning.
        n_samples : int
        rng : Rng
        around : Surroundings

        Returns
        -------
        float32 array of shape (n_samples,)
        """
        n_context = round(self.context_s * around.rooms.sample_rate)
        speeds = torch.tensor([self.speed], dtype=torch.float64)
        played = tempo.change_speed(
            torch.from_numpy(np.require(waveform, np.float32, ["C", "W"]))[None],
            speeds,
            start - speeds * n_context,
            n_context + n_samples,
        )
        heard = degrade.degrade(played, rng, self.config, around.rooms, around.noises)
        return heard[0, n_context:].numpy()


def degradations(around: Surroundings) -> tuple[Degradation, ...]:
    """All that is measured, with recorded noise and rooms where there are some."""
    recorded = float(around.has_noise)
    noise = _only(noise_prob=1.0, noise_kind_probs=(recorded, 0.0, 0.0, 1.0 - recorded))
    room = _only(room_prob=1.0, recorded_room_prob=1.0)
    low_hz, high_hz = ((hz, hz) for hz in _PHONE_HZ)
    telephone = _only(band_prob=1.0, low_hz=low_hz, high_hz=high_hz, slope_db=(24.0, 24.0))
    coded = [Degradation(name="codec", config=_only(codec_prob=1.0))] if around.has_codecs else []
    return (
        Degradation(name="clean", config=_only()),
        *(
            Degradation(name=f"noise{db}", config=replace(noise, snr_db=(db, db)), context_s=0.0)
            for db in (10, 0)
        ),
        Degradation(name="room", config=room),
        Degradation(name="telephone", config=telephone),
        *coded,
        *(
            Degradation(name=name, config=_only(), speed=speed)
            for name, speed in (("speed-3", 2 - FASTEST), ("speed+3", FASTEST))
        ),
    )


def _only(**changes: Any) -> AugmentConfig:
    """No harm but this."""
    return replace(AugmentConfig.disabled(), **changes)
