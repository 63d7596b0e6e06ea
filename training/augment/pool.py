"""Decoded audio of a folder, cached on disk, mapped into memory or copied to a GPU."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
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

_ROWS_PER_GATHER = 512  # the indices take four times the memory of the samples


def audio_paths(folder: Path) -> list[Path]:
    """List the audio files of a folder, sorted.

    Raises
    ------
    ConfigError
        There are none.
    """
    paths = sorted(map(Path, audio_files(folder)))
    if not paths:
        raise ConfigError("folder", f"{folder} has no audio files")
    return paths


class AudioPool:
    """Recordings as 16-bit samples in one tensor.

    Parameters
    ----------
    samples : int16 tensor of shape (n_samples,)
        All recordings, concatenated.
    starts : int64 array of shape (n_recordings + 1,)
        Index of the first sample of each recording, and of the end.
    """

    def __init__(self, samples: Tensor, starts: NDArray[np.int64]) -> None:
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
        paths = audio_paths(folder)
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
        # Copied on write, because torch refuses memory that is read-only.
        return cls(torch.from_numpy(np.memmap(joined, np.int16, "c")), starts)

    @classmethod
    def from_waveforms(cls, waveforms: Sequence[NDArray[np.float32]]) -> AudioPool:
        """Build a pool of waveforms in memory."""
        starts = np.cumsum([0, *map(len, waveforms)], dtype=np.int64)
        return cls(torch.from_numpy(_to_int(np.concatenate(waveforms))), starts)

    def to(self, device: torch.device | str) -> AudioPool:
        """Build a pool with its samples on a device, from which excerpts need no copy."""
        return AudioPool(self.samples.to(device), self.starts)

    def concatenate(self, other: AudioPool) -> AudioPool:
        """Build a pool of these recordings and those of another pool, in memory."""
        starts = np.concatenate([self.starts, other.starts[1:] + self.starts[-1]])
        return AudioPool(torch.cat([self.samples, other.samples]), starts)

    def __len__(self) -> int:
        return len(self.lengths)

    def recording(self, index: int) -> NDArray[np.float32]:
        """Return one recording, float32 array of shape (n_samples,)."""
        samples = self.samples[self.starts[index] : self.starts[index + 1]]
        return _to_float(samples).cpu().numpy()

    def excerpts(
        self, recordings: NDArray[np.int64], starts: NDArray[np.int64], n_samples: int
    ) -> Tensor:
        """Cut an excerpt from each of some recordings, which repeat beyond their ends.

        Parameters
        ----------
        recordings, starts : int64 arrays of shape (n,)
            Indices of the recordings, and first samples of the excerpts in them.
        n_samples : int

        Returns
        -------
        float32 tensor of shape (n, n_samples)
            On the device of the samples.
        """
        cut = self._slice if self.samples.device.type == "cpu" else self._gather
        return _to_float(cut(recordings, starts, n_samples))

    def _slice(
        self, recordings: NDArray[np.int64], starts: NDArray[np.int64], n_samples: int
    ) -> Tensor:
        """Cut excerpts one by one, which reads memory in order."""
        rows = torch.empty(len(starts), n_samples, dtype=torch.int16)
        for row, index, start in zip(rows, recordings, starts, strict=True):
            first, length = int(self.starts[index]), int(self.lengths[index])
            if 0 <= start <= length - n_samples:
                row[:] = self.samples[first + start : first + start + n_samples]
            else:
                row[:] = self.samples[first + torch.arange(start, start + n_samples) % length]
        return rows

    def _gather(
        self, recordings: NDArray[np.int64], starts: NDArray[np.int64], n_samples: int
    ) -> Tensor:
        """Cut all excerpts at once, in some launches of a GPU."""
        firsts, lengths = self.starts[recordings], self.lengths[recordings]
        columns = (
            torch.as_tensor(one[:, None], device=self.samples.device)
            for one in (firsts, lengths, starts)
        )
        offsets = torch.arange(n_samples, device=self.samples.device)
        rows = zip(*(one.split(_ROWS_PER_GATHER) for one in columns), strict=True)
        return torch.cat(
            [self.samples[first + (start + offsets) % length] for first, length, start in rows]
        )

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
        starts = generator.integers(self.lengths[recordings])
        return self.excerpts(recordings, starts, n_samples)


def _decode_all(paths: Sequence[Path], joined: Path, sample_rate: int) -> list[int]:
    """Decode files, in parallel, into one file; returns the length of each, 0 if unreadable."""
    lengths = []
    with (
        atomic_write(joined) as partial,
        partial.open("wb") as out,
        ThreadPoolExecutor(os.cpu_count()) as threads,
    ):
        for samples in threads.map(_decode, paths, repeat(sample_rate)):
            out.write(samples.tobytes())
            lengths.append(len(samples))
            if len(lengths) % 100 == 0:
                log.info("decoded %d of %d files", len(lengths), len(paths))
    return lengths


def _decode(path: Path, sample_rate: int) -> NDArray[np.int16]:
    try:
        blocks = [_to_int(block) for block in decode.blocks(path, sample_rate)]
    except AudioError as error:
        log.warning("%s", error)
        blocks = []
    return np.concatenate([np.zeros(0, np.int16), *blocks])


def _to_float(samples: Tensor) -> Tensor:
    return samples.float() / 32768


def _to_int(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.asarray(samples.clip(-1, 1) * 32767, np.int16)
