"""Excerpts of tracks that become queries, and the noises and room responses added to them."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from benchmarks.queries.conditions import NOISE, ROOMS, SoundSources
from engine.audio import decode, walk
from engine.errors import AudioError

Waveform = NDArray[np.float32]

log = logging.getLogger(__name__)

RATE = 16_000
"""Sample rate of all queries in Hz: wide enough for codecs to remove something."""

CONTEXT_S = 1.0
"""Seconds of an excerpt before its cut, so that earlier music reverberates into it."""

TAIL_S = 0.5
"""Seconds of an excerpt after its cut, for distortions with look-ahead."""

_SILENCE_DBFS = -60.0
_STRETCH_S = 2.0
_SOFTEST_DB = 25.0
_RMS = 0.1
_N_TRIES = 20
_RECORDING_S = 60.0
_N_CACHED_RECORDINGS = 64


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A stretch of a track: the ground truth of a query."""

    path: Path
    start_s: float
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """A cut with its audio.

    Parameters
    ----------
    cut : Cut
    waveform : float32 array of shape (n_samples,)
        At RATE, from CONTEXT_S before the cut to TAIL_S after it; zeros outside of the track.
    """

    cut: Cut
    waveform: Waveform


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return an independent random generator for a seed and names."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def audio_files(folders: Iterable[Path]) -> list[Path]:
    """List the audio files below folders, resolved, sorted and without repeats."""
    files = (
        Path(file)
        for folder in folders
        for file in (walk.audio_files(folder) if folder.is_dir() else [folder])
    )
    return sorted({file.resolve() for file in files if file.is_file() and walk.has_extension(file)})


def hold_out(paths: Sequence[Path], share: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Split tracks into those for the catalog and those to keep out of it.

    Parameters
    ----------
    paths : sequence of Path
    share : float
        Fraction to hold out, in [0, 1].
    seed : int

    Returns
    -------
    kept, held_out : list of Path
        Both in the order of `paths`.
    """
    chosen = generator(seed, "hold out").permutation(len(paths))[: round(share * len(paths))]
    held = {int(i) for i in chosen}
    kept = [path for i, path in enumerate(paths) if i not in held]
    return kept, [path for i, path in enumerate(paths) if i in held]


def excerpts(
    paths: Sequence[Path], n_excerpts: int, duration_s: float, seed: int, audible_s: float = 1.0
) -> Iterator[Excerpt]:
    """Cut excerpts at random: uniform over the tracks that are long enough, then over time.

    No track is used twice before all others were used once. Every file is decoded once, and only
    one decoded file is in memory. Files that cannot be decoded are skipped with a warning.

    Parameters
    ----------
    paths : sequence of Path
    n_excerpts : int
    duration_s : float
        Length of each cut in seconds.
    seed : int
    audible_s : float
        Seconds at the start of a cut that must not be silent: the length of the shortest query.

    Yields
    ------
    Excerpt
        Ordered by path.
    """
    rng = generator(seed, "cuts")
    chosen = sorted(islice(_rounds(paths, duration_s, rng), n_excerpts))
    if not chosen and n_excerpts:
        raise AudioError("audio", f"no track is at least {duration_s:g} s long; queries need it")
    for path, group in groupby(chosen):
        try:
            waveform = decode.read(path, RATE)
        except AudioError as error:
            log.warning("skipped: %s", error)
            continue
        for _ in group:
            if (excerpt := _cut(path, waveform, duration_s, audible_s, rng)) is not None:
                yield excerpt


def _rounds(paths: Sequence[Path], minimum_s: float, rng: np.random.Generator) -> Iterator[Path]:
    """Yield every track that is long enough once, then all again in another order, endlessly."""
    pool = list(paths)
    while pool:
        long_enough = []
        for i in rng.permutation(len(pool)):
            if declared_s(pool[i]) >= minimum_s:
                long_enough.append(pool[i])
                yield pool[i]
        pool = sorted(long_enough)


def declared_s(path: Path) -> float:
    """Return the duration in the file's header, 0 if it is not audio."""
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            return float((container.duration or 0) / av.time_base)
    except (av.error.FFmpegError, OSError):
        return 0.0


def _cut(
    path: Path, waveform: Waveform, duration_s: float, audible_s: float, rng: np.random.Generator
) -> Excerpt | None:
    n_starts = len(waveform) - round(duration_s * RATE) + 1
    for _ in range(_N_TRIES if n_starts > 0 else 0):
        start = int(rng.integers(n_starts))
        if level_dbfs(waveform[start : start + round(audible_s * RATE)]) >= _SILENCE_DBFS:
            cut = Cut(path=path, start_s=start / RATE, duration_s=duration_s)
            return Excerpt(cut=cut, waveform=_with_context(waveform, start, duration_s))
    log.warning("skipped: %s is too short or silent", path.name)
    return None


def is_audible(waveform: Waveform) -> bool:
    """Whether every two seconds are about as loud as the whole excerpt."""
    n = round(_STRETCH_S * RATE)
    stretches = [waveform[i : i + n] for i in range(0, len(waveform) - n + 1, n)] + [waveform[-n:]]
    return min(map(level_dbfs, stretches)) > level_dbfs(waveform) - _SOFTEST_DB


def normalised(waveform: Waveform) -> Waveform:
    """Scale to the loudness of all parts of a mix."""
    rms = float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
    return (waveform * np.float32(_RMS / max(rms, 1e-6))).astype(np.float32)


def _with_context(waveform: Waveform, start: int, duration_s: float) -> Waveform:
    first = start - round(CONTEXT_S * RATE)
    last = start + round((duration_s + TAIL_S) * RATE)
    inside = waveform[max(first, 0) : last]
    n_before = max(-first, 0)
    return np.pad(inside, (n_before, last - first - n_before - len(inside)))


def level_dbfs(waveform: Waveform) -> float:
    """Return the root mean square of a waveform in dB re full scale, -inf for digital silence."""
    power = float(np.mean(np.square(waveform, dtype=np.float64))) if len(waveform) else 0.0
    return 10 * np.log10(power) if power > 0 else -np.inf


class SpeechSource:
    """An endless stream of speech: recordings in random order, each again after all others.

    Parameters
    ----------
    paths : sequence of Path
        Recordings of speech. Without any, speech is silence.
    rng : Generator
    """

    def __init__(self, paths: Sequence[Path], rng: np.random.Generator) -> None:
        self.paths, self.rng = paths, rng
        self._pending = np.zeros(0, np.float32)
        self._next: list[Path] = []

    def read(self, n_samples: int) -> Waveform:
        """Read the next seconds, float32 array of shape (n_samples,) at RATE."""
        if not self.paths:
            return np.zeros(n_samples, np.float32)
        while len(self._pending) < n_samples:
            if not self._next:
                self._next = [self.paths[i] for i in self.rng.permutation(len(self.paths))]
            spoken = normalised(decode.read(self._next.pop(), RATE))
            self._pending = np.concatenate([self._pending, spoken])
        read, self._pending = self._pending[:n_samples], self._pending[n_samples:]
        return read.copy()


class Noises:
    """Noises to draw from: the first minute of every file in a folder, read on demand.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.paths = audio_files([folder])
        if not self.paths:
            raise AudioError(folder, "contains no audio files")

    def draw(self, rng: np.random.Generator) -> Waveform:
        """Draw one noise, float32 array of shape (n_samples,) at RATE."""
        return _recording(self.paths[int(rng.integers(len(self.paths)))])


@lru_cache(maxsize=_N_CACHED_RECORDINGS)
def _recording(path: Path) -> Waveform:
    return decode.read(path, RATE, end_s=_RECORDING_S)


class Rooms:
    """Room responses to draw from, cut at their direct sound.

    Parameters
    ----------
    folder : Path
        Files that do not decay like a room are rejected and listed in `refused`: collections also
        contain music convolved with the responses.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = audio_files([folder])
        decoded = {path: from_onset(decode.read(path, RATE)) for path in self.paths}
        self.responses = [response for response in decoded.values() if decays(response)]
        self.refused = [path for path, response in decoded.items() if not decays(response)]
        if not self.responses:
            raise AudioError(folder, "contains no room responses")

    def draw(self, rng: np.random.Generator) -> Waveform:
        """Draw one response, float32 array of shape (n_samples,) at RATE."""
        return self.responses[int(rng.integers(len(self.responses)))]


def from_onset(response: Waveform) -> Waveform:
    """Cut at the direct sound: the first sample within 20 dB of the peak (ISO 3382)."""
    magnitude = np.abs(response)
    return response[int(np.argmax(magnitude >= 0.1 * magnitude.max())) :]


def decays(response: Waveform) -> bool:
    """Whether a response, cut at its onset, loses 10 dB of energy in its first second.

    Rooms with a reverberation time below six seconds do; music and speech do not.
    """
    energy = np.square(response, dtype=np.float64)
    return bool(energy.sum() > 0 and energy[RATE:].sum() < 0.1 * energy.sum())


class Sounds:
    """Noises and room responses of a benchmark.

    Parameters
    ----------
    noise, rooms : Path or None
        Their folders; None if the benchmark does without.

    Attributes
    ----------
    rooms : Rooms or None
    sources : SoundSources
        Functions that draw the sounds there are.
    paths : list of Path
        Files of both folders.
    """

    def __init__(self, noise: Path | None, rooms: Path | None) -> None:
        self.rooms = None if rooms is None else Rooms(rooms)
        noises = None if noise is None else Noises(noise)
        found = {
            name: sounds
            for name, sounds in ((NOISE, noises), (ROOMS, self.rooms))
            if sounds is not None
        }
        self.sources: SoundSources = {name: sounds.draw for name, sounds in found.items()}
        self.paths = [path for sounds in found.values() for path in sounds.paths]
