"""Which excerpts of which tracks become queries, and the sounds that are laid over them."""

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

from engine.audio import decode
from engine.errors import AudioError

Waveform = NDArray[np.float32]

log = logging.getLogger(__name__)

RATE = 16_000
"""Hz of all queries: wide enough for codecs to have something to remove."""

CONTEXT_S = 1.0
"""What an excerpt holds before its cut, so that the music before it reverberates into it."""

TAIL_S = 0.5
"""What an excerpt holds after its cut, for distortions that look ahead."""

_SILENCE_DBFS = -60.0
_N_TRIES = 20
_RECORDING_S = 60.0
_N_CACHED_RECORDINGS = 64


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A stretch of a track: the truth about a query."""

    path: Path
    start_s: float
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """A cut with its sound.

    Parameters
    ----------
    cut : Cut
    waveform : float32 array of shape (n_samples,)
        At RATE, from CONTEXT_S before the cut to TAIL_S after it, zeros where the track has ended.
    """

    cut: Cut
    waveform: Waveform


def generator(seed: int, *names: str) -> np.random.Generator:
    """Random numbers of their own for every combination of a seed and names."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def audio_files(folders: Iterable[Path]) -> list[Path]:
    """List the audio files below folders, resolved, sorted and without repeats."""
    files = (
        file for folder in folders for file in (folder.rglob("*") if folder.is_dir() else [folder])
    )
    return sorted(
        {f.resolve() for f in files if f.is_file() and f.suffix[1:].lower() in decode.EXTENSIONS}
    )


def hold_out(paths: Sequence[Path], share: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Split tracks into those a catalog gets and those it must not know.

    Parameters
    ----------
    paths : sequence of Path
    share : float
        The part to hold out, in [0, 1].
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

    No track is used again before all others were. Every file is decoded once, and one decoded file
    is held at a time; what cannot be decoded is left out with a warning.

    Parameters
    ----------
    paths : sequence of Path
    n_excerpts : int
    duration_s : float
        Length of each cut in seconds.
    seed : int
    audible_s : float
        The first seconds of a cut that must not be silent: the length of the shortest query.

    Yields
    ------
    Excerpt
        Ordered by path.
    """
    rng = generator(seed, "cuts")
    chosen = sorted(islice(_rounds(paths, duration_s, rng), n_excerpts))
    if not chosen and n_excerpts:
        raise AudioError("audio", f"no track of at least {duration_s:g} s to cut queries from")
    for path, group in groupby(chosen):
        try:
            waveform = decode.read(path, RATE)
        except AudioError as error:
            log.warning("left out: %s", error)
            continue
        for _ in group:
            if (excerpt := _cut(path, waveform, duration_s, audible_s, rng)) is not None:
                yield excerpt


def _rounds(paths: Sequence[Path], minimum_s: float, rng: np.random.Generator) -> Iterator[Path]:
    """Give every long enough track once, then all again in another order, without end."""
    pool = list(paths)
    while pool:
        long_enough = []
        for i in rng.permutation(len(pool)):
            if _declared_s(pool[i]) >= minimum_s:
                long_enough.append(pool[i])
                yield pool[i]
        pool = sorted(long_enough)


def _declared_s(path: Path) -> float:
    """Duration the file's header promises, 0 if it is not audio."""
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
            return Excerpt(cut=cut, waveform=_with_surroundings(waveform, start, duration_s))
    log.warning("left out: %s is too short or silent", path.name)
    return None


def _with_surroundings(waveform: Waveform, start: int, duration_s: float) -> Waveform:
    first = start - round(CONTEXT_S * RATE)
    last = start + round((duration_s + TAIL_S) * RATE)
    inside = waveform[max(first, 0) : last]
    n_before = max(-first, 0)
    return np.pad(inside, (n_before, last - first - n_before - len(inside)))


def level_dbfs(waveform: Waveform) -> float:
    """Root mean square of a waveform in dB re full scale, -inf for digital silence."""
    power = float(np.mean(np.square(waveform, dtype=np.float64))) if len(waveform) else 0.0
    return 10 * np.log10(power) if power > 0 else -np.inf


class Recordings:
    """Noises to draw from: the first minute of every file of a folder, read when needed.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.paths = audio_files([folder])
        if not self.paths:
            raise AudioError(folder, "no audio files in it")

    def draw(self, rng: np.random.Generator) -> Waveform:
        """Choose one recording, float32 array of shape (n_samples,) at RATE."""
        return _recording(self.paths[int(rng.integers(len(self.paths)))])


@lru_cache(maxsize=_N_CACHED_RECORDINGS)
def _recording(path: Path) -> Waveform:
    return decode.read(path, RATE, end_s=_RECORDING_S)


class Rooms:
    """Room responses to draw from, cut at their direct sound.

    Parameters
    ----------
    folder : Path
        Collections hold convolved music beside the responses it was convolved with; what does not
        decay like a room is refused and listed in `refused`.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = audio_files([folder])
        read = {path: from_onset(decode.read(path, RATE)) for path in self.paths}
        self.responses = [response for response in read.values() if decays(response)]
        self.refused = [path for path, response in read.items() if not decays(response)]
        if not self.responses:
            raise AudioError(folder, "no room responses in it")

    def draw(self, rng: np.random.Generator) -> Waveform:
        """Choose one response, float32 array of shape (n_samples,) at RATE."""
        return self.responses[int(rng.integers(len(self.responses)))]


def from_onset(response: Waveform) -> Waveform:
    """Cut at the direct sound: the first sample within 20 dB of the peak (ISO 3382)."""
    magnitude = np.abs(response)
    return response[int(np.argmax(magnitude >= 0.1 * magnitude.max())) :]


def decays(response: Waveform) -> bool:
    """Whether a response, cut at its onset, loses 10 dB of energy in its first second.

    Rooms with less than six seconds of reverberation do; music and speech do not.
    """
    energy = np.square(response, dtype=np.float64)
    return bool(energy.sum() > 0 and energy[RATE:].sum() < 0.1 * energy.sum())
