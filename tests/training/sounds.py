"""Test sounds with known properties, and measurements of them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.recipe import ClipConfig, Recipe
from tests.audio_files import Waveform, cached_tune, write_wav
from tests.encoders import TINY_AST
from training.augment.config import AugmentConfig
from training.augment.noise import NoiseMixer
from training.augment.pool import AudioPool
from training.augment.reverb import Reverb
from training.augment.rng import Rng
from training.config import TrainConfig
from training.dataset import PairSampler
from training.sources import RECORDED, Sources

RATE = 8000
NO_ROOMS = Reverb(torch.zeros(0, 1), RATE)
N_TRACKS = 8
RECIPE = Recipe(
    encoder=dataclasses.replace(TINY_AST, embedding_dim=16, num_layers=1),
    clip=ClipConfig(n_segments=3, hop_segments=2, n_heads=2),
)
CONFIG = TrainConfig(
    n_pairs=4,
    n_steps=8,
    n_warmup_steps=3,
    learning_rate=3e-3,
    n_clips=8,
    n_clip_steps=2,
    n_clip_pairs=4,
    n_held_out=2,
    checkpoint_every_s=1e-9,
    validate_every=4,
    augment=AugmentConfig(composed_minutes=0.1),
)


def write_sources(root: Path) -> Sources:
    """Write eight tunes, hiss, another tune for voices, and a room."""
    rng = np.random.default_rng(0)
    recordings: dict[str, list[Any]] = {
        "music": [cached_tune(seed, 6.0) for seed in range(N_TRACKS)],
        "noise": [0.1 * rng.standard_normal(2 * RATE)],
        "speech": [cached_tune(30, 6.0)],
        "rooms": [0.9 * rng.standard_normal(4000) * 0.999 ** np.arange(4000)],
    }
    for name, waveforms in recordings.items():
        (root / name).mkdir()
        for i, waveform in enumerate(waveforms):
            write_wav(root / name / f"{i}.wav", np.clip(waveform, -1, 1), RATE)
    return Sources(*(root / name for name in RECORDED))


def be_brief(patch: pytest.MonkeyPatch) -> None:
    """Validate and calibrate with few and short queries."""
    patch.setattr("training.validate.DURATIONS_S", (1.0,))
    patch.setattr("training.validate.N_QUERIES", 4)
    patch.setattr("training.calibrate.DURATIONS_S", (1.0, 2.0))
    patch.setattr("training.calibrate.N_QUERIES", 2)


def only(**changes: Any) -> AugmentConfig:
    """Config of a single degradation."""
    return dataclasses.replace(AugmentConfig.disabled(), **changes)


def pool_of(*waveforms: NDArray[np.floating]) -> AudioPool:
    """Make a pool in memory."""
    samples = np.concatenate([(one * 32767).astype(np.int16) for one in waveforms])
    starts = np.cumsum([0, *map(len, waveforms)], dtype=np.int64)
    return AudioPool(torch.from_numpy(samples), starts)


def sampler_of(music: AudioPool, config: AugmentConfig, **changes: Any) -> PairSampler:
    """Sampler of all recordings of a pool, which also serve as noise and voices."""
    every = np.arange(len(music))
    whole = PairSampler(music, every, NoiseMixer(music, music, music), NO_ROOMS, config)
    return dataclasses.replace(whole, **changes)


def tone(hz: float, duration_s: float = 2.0) -> Waveform:
    at = np.arange(round(duration_s * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * hz * at)).astype(np.float32)


def tones(*all_hz: float, duration_s: float = 2.0) -> Tensor:
    return torch.from_numpy(np.stack([tone(hz, duration_s) for hz in all_hz]))


def music(n: int = 6, duration_s: float = 1.0) -> Tensor:
    return torch.from_numpy(np.stack([cached_tune(seed, duration_s) for seed in range(n)]))


def white(n: int, n_samples: int) -> Tensor:
    return 0.1 * Rng((99,)).normal(n, n_samples)


def rms(waveforms: Tensor) -> Tensor:
    return waveforms.square().mean(dim=-1).sqrt()


def decibels(ratio: Tensor) -> Tensor:
    return 20 * torch.log10(ratio)


def pitch_hz(waveform: Tensor) -> float:
    """Frequency of a single tone, between the bins by a parabola."""
    log = torch.fft.rfft(waveform * torch.hann_window(len(waveform))).abs().log()
    peak = int(log.argmax())
    left, top, right = log[peak - 1 : peak + 2].tolist()
    return float((peak + 0.5 * (left - right) / (left - 2 * top + right)) * RATE / len(waveform))


def semitones(ratio: float) -> float:
    return 12 * math.log2(ratio)


def lag(first: Tensor, second: Tensor) -> int:
    """Samples by which the second comes later than the first."""
    n_fft = 2 * len(first)
    spectrum = torch.fft.rfft(first, n_fft).conj() * torch.fft.rfft(second, n_fft)
    best = int(torch.fft.irfft(spectrum, n_fft).argmax())
    return best if best < len(first) else best - n_fft


def nearest_correlation(view: Tensor, recording: Tensor) -> float:
    """Highest correlation of a view with any part of a recording."""
    n_fft = 2 ** (len(view) + len(recording)).bit_length()
    spectra = (torch.fft.rfft(one, n_fft) for one in (recording, view))
    first, second = spectra
    sums = torch.fft.irfft(first * second.conj(), n_fft)[: len(recording) - len(view)]
    power = torch.nn.functional.pad(recording.square().cumsum(0), (1, 0))
    local = power[len(view) :] - power[: -len(view)]
    return float((sums / (local[: len(sums)] * view.square().sum()).sqrt()).max())
