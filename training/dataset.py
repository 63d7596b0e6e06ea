"""Decoded audio on disk, and the pairs of views drawn from it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine import audio
from engine.config import SpectrogramConfig
from engine.errors import AudioError, ConfigError
from training import augment
from training.config import AugmentConfig

log = logging.getLogger(__name__)


class AudioPool:
    """All audio of a folder, decoded once to 16 bit and mapped into memory.

    Parameters
    ----------
    samples : int16 array of shape (n_samples,)
        Every recording, one behind the other.
    starts : int64 array of shape (n_recordings + 1,)
        Where each begins; the last entry is the end.
    """

    def __init__(self, samples: NDArray[np.int16], starts: NDArray[np.int64]) -> None:
        self.samples, self.starts = samples, starts
        self.lengths = np.diff(starts)

    @classmethod
    def of(cls, folder: Path, cache: Path, sample_rate: int) -> AudioPool:
        """Open the cache of a folder, decoding what is not in it yet."""
        place = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:8]
        folder_cache = cache / f"{folder.name}-{place}-{sample_rate}"
        folder_cache.mkdir(parents=True, exist_ok=True)
        paths = sorted(p for p in folder.rglob("*") if p.suffix[1:].lower() in audio.EXTENSIONS)
        if not paths:
            raise ConfigError("folder", f"{folder} has no audio files")
        listing, joined = folder_cache / "recordings.json", folder_cache / "samples.i16"
        names = [
            f"{p.relative_to(folder)} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in paths
        ]
        if not listing.exists() or json.loads(listing.read_text())["names"] != names:
            lengths = _decode_all(paths, joined, sample_rate)
            listing.write_text(json.dumps({"names": names, "lengths": lengths}))
        lengths = json.loads(listing.read_text())["lengths"]
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return cls(np.memmap(joined, np.int16, "r"), starts)

    def __len__(self) -> int:
        return len(self.lengths)

    def recording(self, index: int) -> NDArray[np.float32]:
        """Give one recording, float32 of shape (n_samples,)."""
        return _to_float(self.samples[self.starts[index] : self.starts[index + 1]])

    def excerpt(self, index: int, start: int, n_samples: int) -> NDArray[np.float32]:
        """Cut from one recording; what lies beyond its ends is its other end (it loops)."""
        length = int(self.lengths[index])
        if start >= 0 and start + n_samples <= length:
            begin = self.starts[index] + start
            return _to_float(self.samples[begin : begin + n_samples])
        wrapped = np.arange(start, start + n_samples) % length
        return _to_float(self.samples[self.starts[index] + wrapped])

    def only(self, recordings: Sequence[int]) -> AudioPool:
        """Make a pool that draws from some of the recordings; the others have no length in it."""
        pool = AudioPool(self.samples, self.starts)
        pool.lengths = np.where(np.isin(np.arange(len(self)), recordings), self.lengths, 0)
        return pool

    def draw(self, rng: np.random.Generator, n: int, n_samples: int) -> Tensor:
        """Draw excerpts from recordings chosen by their length; they may repeat.

        Returns
        -------
        float32 tensor of shape (n, n_samples)
        """
        share = self.lengths / self.lengths.sum()
        chosen = rng.choice(len(self), size=n, p=share)
        begin = [int(rng.integers(self.lengths[i])) for i in chosen]
        cuts = [self.excerpt(i, b, n_samples) for i, b in zip(chosen, begin, strict=True)]
        return torch.from_numpy(np.stack(cuts))


class Noises:
    """What else sounds: recorded noise, voices, other music, coloured noise.

    Parameters
    ----------
    noise, speech, music : AudioPool
        Where it is taken from.
    """

    SHARES = (0.65, 0.15, 0.08, 0.12)
    MAX_VOICES = 6

    def __init__(self, noise: AudioPool, speech: AudioPool, music: AudioPool) -> None:
        self.noise, self.speech, self.music = noise, speech, music

    def draw(self, rng: np.random.Generator, n: int, n_samples: int) -> Tensor:
        """Draw noises, float32 tensor of shape (n, n_samples)."""
        kinds = rng.choice(4, size=n, p=self.SHARES)
        out = torch.zeros(n, n_samples)
        draws = (self.noise.draw, self._voices, self.music.draw, _coloured)
        for kind, draw in enumerate(draws):
            rows = torch.from_numpy(np.flatnonzero(kinds == kind))
            if len(rows):
                out[rows] = draw(rng, len(rows), n_samples)
        return out

    def _voices(self, rng: np.random.Generator, n: int, n_samples: int) -> Tensor:
        n_voices = rng.integers(1, self.MAX_VOICES + 1, size=n)
        voices = self.speech.draw(rng, int(n_voices.sum()), n_samples)
        mixed = torch.zeros(n, n_samples)
        return mixed.index_add(0, torch.from_numpy(np.repeat(np.arange(n), n_voices)), voices)


class PairSampler:
    """Draws a clean and a degraded view of the same moment of music.

    Parameters
    ----------
    music : AudioPool
    tracks : sequence of int
        The recordings to draw from.
    noises : Noises
    rooms : float32 tensor of shape (n_rooms, n_samples), or None
    spectrogram : SpectrogramConfig
    config : AugmentConfig
    """

    def __init__(
        self,
        music: AudioPool,
        tracks: Sequence[int],
        noises: Noises,
        rooms: Tensor | None,
        spectrogram: SpectrogramConfig,
        config: AugmentConfig,
    ) -> None:
        self.music, self.noises, self.rooms = music, noises, rooms
        self.tracks = np.array([track for track in tracks if music.lengths[track]], dtype=int)
        self.spectrogram, self.config = spectrogram, config

    def narrowed(self, tracks: Sequence[int], config: AugmentConfig) -> PairSampler:
        """Make a sampler of some tracks, augmented otherwise."""
        return PairSampler(self.music, tracks, self.noises, self.rooms, self.spectrogram, config)

    def draw(self, rng: np.random.Generator, n_pairs: int, n_samples: int) -> tuple[Tensor, Tensor]:
        """Draw pairs, each from another track while there are enough.

        Returns
        -------
        clean, degraded : float32 tensors of shape (n_pairs, n_samples)
        """
        config, rate = self.config, self.spectrogram.sample_rate
        context = int(config.context_s * rate)
        margin = int(config.shift_s * rate)
        # A faster view begins earlier and ends later around the same middle.
        stretch = max(config.speed[1] - 1, 0) * (n_samples / 2 + context)
        before = context + margin + stretch
        reach = int((before + n_samples + margin + stretch) * config.transpose[1]) + 8
        source = self._sources(rng, n_pairs, reach)
        speed = self._speeds(rng, n_pairs, config.transpose, config.transpose_share)
        start = 2 + before * speed
        clean = augment.change_speed(source, speed, start, n_samples)
        # The speed changes around the middle of the segment, so that both views stay together.
        relative = self._speeds(rng, n_pairs, config.speed, config.speed_share)
        shift = torch.from_numpy(rng.uniform(-margin, margin, size=n_pairs))
        middle = start + speed * (n_samples / 2 + shift)
        faster = speed * relative
        begin = middle - faster * (n_samples / 2 + context)
        heard = augment.change_speed(source, faster, begin.clamp(min=2), context + n_samples)
        degraded = augment.degrade(heard, rng, config, rate, self.noises.draw, self.rooms)
        return clean, degraded[:, context:]

    def _sources(self, rng: np.random.Generator, n: int, n_samples: int) -> Tensor:
        lengths = self.music.lengths[self.tracks].astype(float)
        chosen = rng.choice(
            self.tracks, size=n, replace=n > len(lengths), p=lengths / lengths.sum()
        )
        source = torch.from_numpy(np.stack([self._audible(rng, i, n_samples) for i in chosen]))
        mixed = torch.from_numpy(np.flatnonzero(rng.random(n) < self.config.mix_share))
        if len(mixed):
            gain = 10 ** (torch.from_numpy(rng.uniform(*self.config.mix_db, size=len(mixed))) / 20)
            source[mixed] += source[mixed.roll(1)] * gain[:, None].float()
        return source

    def _audible(self, rng: np.random.Generator, track: int, n_samples: int) -> NDArray[np.float32]:
        for _ in range(8):
            cut = self.music.excerpt(track, int(rng.integers(self.music.lengths[track])), n_samples)
            if np.abs(cut[n_samples // 3 :]).mean() > 1e-3:
                break
        return cut

    @staticmethod
    def _speeds(
        rng: np.random.Generator, n: int, bounds: tuple[float, float], share: float
    ) -> Tensor:
        log_speed = rng.uniform(np.log(bounds[0]), np.log(bounds[1]), size=n)
        return torch.from_numpy(np.exp(np.where(rng.random(n) < share, log_speed, 0.0)))


def room_responses(pool: AudioPool, max_s: float, sample_rate: int) -> Tensor:
    """Cut recorded room responses at their onset and give them unit energy.

    Returns
    -------
    float32 tensor of shape (n_rooms, max_s * sample_rate)
    """
    n_samples = int(max_s * sample_rate)
    decoded = np.flatnonzero(pool.lengths)
    out = np.zeros((len(decoded), n_samples), np.float32)
    for row, index in zip(out, decoded, strict=True):
        response = pool.recording(int(index))
        onset = int(np.argmax(np.abs(response) > 0.1 * np.abs(response).max()))
        tail = response[onset : onset + n_samples]
        row[: len(tail)] = tail / max(float(np.linalg.norm(tail)), 1e-6)
    return torch.from_numpy(out)


def _coloured(rng: np.random.Generator, n: int, n_samples: int) -> Tensor:
    """Noise whose spectrum falls by 0 (white) to 6 (brown) dB per octave."""
    white = torch.from_numpy(rng.standard_normal((n, n_samples), dtype=np.float32))
    exponent = torch.from_numpy(rng.uniform(0, 1, size=(n, 1))).float()
    bins = torch.arange(1, n_samples // 2 + 2).float()
    return torch.fft.irfft(torch.fft.rfft(white) * bins**-exponent, n_samples)


def _decode_all(paths: Sequence[Path], joined: Path, sample_rate: int) -> list[int]:
    lengths = []
    partial = joined.with_suffix(".partial")
    with partial.open("wb") as out:
        for n, path in enumerate(paths, 1):
            length = 0
            try:
                for block in audio.blocks(path, sample_rate):
                    out.write((block.clip(-1, 1) * 32767).astype(np.int16).tobytes())
                    length += len(block)
            except AudioError as error:
                log.warning("%s", error)
            lengths.append(max(length, 0))
            if n % 100 == 0:
                log.info("decoded %d of %d files", n, len(paths))
    partial.replace(joined)
    return lengths


def _to_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    return samples.astype(np.float32) / np.float32(32768)
