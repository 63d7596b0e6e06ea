"""Degradations for trying a catalog: one kind each, with a fixed strength."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.audio import decode
from engine.audio.walk import audio_files
from engine.errors import AudioError, ConfigError
from engine.records import Waveform
from training.augment import degrade, tempo
from training.augment.config import AugmentConfig
from training.augment.noise import NoiseMixer
from training.augment.pool import AudioPool
from training.augment.reverb import Reverb
from training.augment.rng import Rng

log = logging.getLogger(__name__)

CONTEXT_S = 1.0
"""Seconds of music before a clip that reverberate into it."""

MAX_SPEED = 1.03

_PHONE_HZ = 300.0, 3400.0
# Bounds of the recordings in memory.
_MAX_FILES = 200
_MAX_LENGTH_S = 60.0
# The sample rates of Opus; MP3 and AAC support them too.
_CODED_HZ = (8000, 12000, 16000, 24000, 48000)


@dataclass(frozen=True, kw_only=True)
class AcousticConditions:
    """Noises, voices and rooms for clips, recorded or synthesised.

    Parameters
    ----------
    noises : NoiseMixer
    rooms : Reverb
    has_noise, has_speech : bool
        Whether there are recordings. Without recorded noise, only coloured noise may be drawn.
    """

    noises: NoiseMixer
    rooms: Reverb
    has_noise: bool
    has_speech: bool

    @property
    def has_codecs(self) -> bool:
        """Whether lossy codecs support the sample rate."""
        return self.rooms.sample_rate in _CODED_HZ

    @classmethod
    def from_folders(
        cls,
        sample_rate: int,
        seed: int,
        *,
        noise: Path | None = None,
        speech: Path | None = None,
        rooms: Path | None = None,
    ) -> AcousticConditions:
        """Read recordings from folders; synthesise what has no folder.

        Parameters
        ----------
        sample_rate : int
            Hz.
        seed : int
            Selects among the files of a large folder.
        noise, speech, rooms : Path, optional
            Folders of recorded noise, speech and room impulse responses.

        Raises
        ------
        ConfigError
            A folder contains no readable audio.
        """
        none = AudioPool.from_waveforms([np.zeros(1, np.float32)])
        noises, voices = (
            none if folder is None else _pool(folder, sample_rate, seed)
            for folder in (noise, speech)
        )
        recorded = Reverb(torch.zeros(0, 1), sample_rate)
        if rooms is not None:
            recorded = Reverb.from_pool(_pool(rooms, sample_rate, seed), sample_rate)
        return cls(
            noises=NoiseMixer(noises, voices, none),
            rooms=recorded,
            has_noise=noise is not None,
            has_speech=speech is not None,
        )


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """One kind of degradation with a fixed strength.

    Parameters
    ----------
    name : str
    config : AugmentConfig
    speed : float
        Recording seconds per second of the clip.
    context_s : float
        Music before the clip that is degraded with it; 0 where a noise ratio refers to the clip.
    """

    name: str
    config: AugmentConfig
    speed: float = 1.0
    context_s: float = CONTEXT_S

    def clip(
        self,
        waveform: Waveform,
        start: float,
        n_samples: int,
        rng: Rng,
        conditions: AcousticConditions,
    ) -> Waveform:
        """Cut a clip and degrade it.

        Parameters
        ----------
        waveform : float32 array of shape (n_waveform_samples,)
        start : float
            First sample of the clip; at least `context_s` after the start of the waveform.
        n_samples : int
        rng : Rng
        conditions : AcousticConditions

        Returns
        -------
        float32 array of shape (n_samples,)
        """
        n_context = round(self.context_s * conditions.rooms.sample_rate)
        speeds = torch.tensor([self.speed], dtype=torch.float64)
        played = tempo.change_speed(
            torch.from_numpy(np.require(waveform, np.float32, ["C", "W"]))[None],
            speeds,
            start - speeds * n_context,
            n_context + n_samples,
        )
        degraded = degrade.degrade(played, rng, self.config, conditions.rooms, conditions.noises)
        return degraded[0, n_context:].numpy()


def degradations(conditions: AcousticConditions) -> tuple[Degradation, ...]:
    """Return all degradations, with recorded noise and rooms where there are recordings."""
    recorded = float(conditions.has_noise)
    noise = _only(noise_prob=1.0, noise_kind_probs=(recorded, 0.0, 0.0, 1.0 - recorded))
    room = _only(room_prob=1.0, recorded_room_prob=1.0)
    low_hz, high_hz = ((hz, hz) for hz in _PHONE_HZ)
    telephone = _only(band_prob=1.0, low_hz=low_hz, high_hz=high_hz, slope_db=(24.0, 24.0))
    coded = (
        [Degradation(name="codec", config=_only(codec_prob=1.0))] if conditions.has_codecs else []
    )
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
            for name, speed in (("speed-3", 2 - MAX_SPEED), ("speed+3", MAX_SPEED))
        ),
    )


def _only(**changes: Any) -> AugmentConfig:
    """Return a configuration with this degradation alone."""
    return replace(AugmentConfig.disabled(), **changes)


def _pool(folder: Path, sample_rate: int, seed: int) -> AudioPool:
    paths = sorted(map(Path, audio_files(folder)))
    recordings = []
    for i in np.random.default_rng(seed).permutation(len(paths))[:_MAX_FILES]:
        try:
            recordings.append(decode.read(paths[i], sample_rate, end_s=_MAX_LENGTH_S))
        except AudioError as error:
            log.warning("%s", error)
    if not recordings:
        raise ConfigError("folder", f"{folder} contains no readable audio")
    return AudioPool.from_waveforms(recordings)
