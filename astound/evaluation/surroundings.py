"""What clips are heard in: noises, voices and rooms, recorded or made up."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from engine.audio import decode
from engine.errors import AudioError, ConfigError
from training.augment.noise import NoiseMixer
from training.augment.pool import AudioPool
from training.augment.reverb import Reverb

log = logging.getLogger(__name__)

# Enough for variety, and little enough for memory.
_MAX_FILES = 200
_LONGEST_S = 60.0
# What Opus takes; MP3 and AAC take these as well.
_CODED_HZ = (8000, 12000, 16000, 24000, 48000)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """NoiseMixer and rooms, which of them are recorded, and what a clip can be sent through.

    Parameters
    ----------
    noises : NoiseMixer
    rooms : Reverb
    has_noise, has_speech : bool
        Whether there are recordings; without, only coloured noise may be drawn.
    """

    noises: NoiseMixer
    rooms: Reverb
    has_noise: bool
    has_speech: bool

    @property
    def has_codecs(self) -> bool:
        """Whether lossy codecs take the sample rate."""
        return self.rooms.sample_rate in _CODED_HZ

    @classmethod
    def of(
        cls,
        sample_rate: int,
        seed: int,
        *,
        noise: Path | None = None,
        speech: Path | None = None,
        rooms: Path | None = None,
    ) -> Surroundings:
        """Read them from folders; what has none is made up.

        Parameters
        ----------
        sample_rate : int
            Hz.
        seed : int
            Chooses among the files of a large folder.
        noise, speech, rooms : Path, optional
            Folders of recorded noise, speech and room impulse responses.

        Raises
        ------
        ConfigError
            A folder has no audio that can be read.
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


def _pool(folder: Path, sample_rate: int, seed: int) -> AudioPool:
    paths = sorted(p for p in folder.rglob("*") if p.suffix[1:].lower() in decode.EXTENSIONS)
    recordings = []
    for i in np.random.default_rng(seed).permutation(len(paths))[:_MAX_FILES]:
        try:
            recordings.append(decode.read(paths[i], sample_rate, end_s=_LONGEST_S))
        except AudioError as error:
            log.warning("%s", error)
    if not recordings:
        raise ConfigError("folder", f"{folder} has no audio that can be read")
    return AudioPool.from_waveforms(recordings)
