"""Decoded audio of a folder, cached on disk and mapped into memory."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from engine.audio import decode
from engine.audio.walk import audio_files
from engine.errors import AudioError, ConfigError
from engine.files import atomic_write

log = logging.getLogger(__name__)


class AudioPool:
    """Recordings as 16-bit samples in one array.

    Parameters
    ----------
    samples : int16 array of shape (n_samples,)
        All recordings, concatenated.
    starts : int64 array of shape (n_recordings + 1,)
        Index of the first sample of each recording, and of the end.
    """

    def __init__(self, samples: NDArray[np.int16], starts: NDArray[np.int64]) -> None:
        self.samples, self.starts = samples, starts
        self.lengths = np.diff(starts)

    @classmethod
    def from_folder(cls, folder: Path, cache: Path, sample_rate: int) -> AudioPool:
        """Map the decoded audio of a folder into memory; decode it first if the folder changed.

        Several processes may open the same folder: one decodes, the others wait.

        Raises
        ------
        ConfigError
            The folder has no audio that can be decoded.
        """
        place = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:8]
        folder_cache = cache / f"{folder.name}-{place}-{sample_rate}"
        paths = sorted(map(Path, audio_files(folder)))
        if not paths:
            raise ConfigError("folder", f"{folder} has no audio files")
        folder_cache.mkdir(parents=True, exist_ok=True)
        listing, joined = folder_cache / "recordings.json", folder_cache / "samples.i16"
        names = [
            f"{p.relative_to(folder)} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in paths
        ]
        with FileLock(folder_cache / "lock"):
            if not listing.exists() or json.loads(listing.read_text())["names"] != names:
                lengths = _decode_all(paths, joined, sample_rate)
                with atomic_write(listing) as partial:
                    partial.write_text(json.dumps({"names": names, "lengths": lengths}))
            lengths = json.loads(listing.read_text())["lengths"]
        if not any(lengths):
            raise ConfigError("folder", f"{folder} has no audio that can be decoded")
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return cls(np.memmap(joined, np.int16, "r"), starts)

    @classmethod
    def from_waveforms(cls, waveforms: Sequence[NDArray[np.float32]]) -> AudioPool:
        """Build a pool of waveforms in memory."""
        starts = np.cumsum([0, *map(len, waveforms)], dtype=np.int64)
        return cls(_to_int(np.concatenate(waveforms)), starts)

    def concatenate(self, other: AudioPool) -> AudioPool:
        """Build a pool of these recordings and those of another pool, in memory."""
        starts = np.concatenate([self.starts, other.starts[1:] + self.starts[-1]])
        return AudioPool(np.concatenate([self.samples, other.samples]), starts)

    def __len__(self) -> int:
        return len(self.lengths)

    def recording(self, index: int) -> NDArray[np.float32]:
        """Return one recording, float32 array of shape (n_samples,)."""
        return _to_float(self.samples[self.starts[index] : self.starts[index + 1]])

    def excerpt(self, index: int, start: int, n_samples: int) -> NDArray[np.float32]:
        """Cut an excerpt from one recording, which repeats beyond its ends.

        Returns
        -------
        float32 array of shape (n_samples,)
        """
        length = int(self.lengths[index])
        if start >= 0 and start + n_samples <= length:
            begin = self.starts[index] + start
            return _to_float(self.samples[begin : begin + n_samples])
        wrapped = np.arange(start, start + n_samples) % length
        return _to_float(self.samples[self.starts[index] + wrapped])

    def subset(self, recordings: Sequence[int]) -> AudioPool:
        """Build a pool with the same indices in which other recordings have length 0."""
        pool = AudioPool(self.samples, self.starts)
        pool.lengths = np.where(np.isin(np.arange(len(self)), recordings), self.lengths, 0)
        return pool

    def truncate(self, n_samples: int) -> AudioPool:
        """Build a pool of the first `n_samples` of each recording."""
        pool = AudioPool(self.samples, self.starts)
        pool.lengths = np.minimum(self.lengths, n_samples)
        return pool

    def draw(self, generator: np.random.Generator, n: int, n_samples: int) -> Tensor:
        """Draw excerpts at random; each second of audio is equally likely.

        Returns
        -------
        float32 tensor of shape (n, n_samples)
        """
        probs = self.lengths / self.lengths.sum()
        recordings = generator.choice(len(self), size=n, p=probs)
        starts = [int(generator.integers(self.lengths[index])) for index in recordings]
        places = zip(recordings, starts, strict=True)
        return torch.from_numpy(np.stack([self.excerpt(i, at, n_samples) for i, at in places]))


def _decode_all(paths: Sequence[Path], joined: Path, sample_rate: int) -> list[int]:
    lengths = []
    with atomic_write(joined) as partial, partial.open("wb") as out:
        for n, path in enumerate(paths, 1):
            length = 0
            try:
                for block in decode.blocks(path, sample_rate):
                    out.write(_to_int(block).tobytes())
                    length += len(block)
            except AudioError as error:
                log.warning("%s", error)
            lengths.append(length)
            if n % 100 == 0:
                log.info("decoded %d of %d files", n, len(paths))
    return lengths


def _to_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    return samples.astype(np.float32) / np.float32(32768)


def _to_int(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.asarray(samples.clip(-1, 1) * 32767, np.int16)
