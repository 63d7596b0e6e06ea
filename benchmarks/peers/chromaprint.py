"""Chromaprint: codes by its own `fpcalc`, searched by an inverted index and bit errors.

Chromaprint has no index for clips. Like its own matcher of two files, the search here aligns clip
and recording where the upper twelve bits of their codes agree, and accepts an alignment with at
most ten differing bits of 32.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.peer import About, Answer
from benchmarks.runs.program import Program, ProgramError

Codes = NDArray[np.uint32]

ITEM_S = 1365 / 11025
"""Seconds between codes: a third of a frame of 4096 samples at 11025 Hz."""

_KEY_SHIFT = np.uint32(20)
_N_ALIGNMENTS = 200
_MAX_BITS = 10.0
_SHIFT = 2**31
_INDEX = "codes.npz"
_FPCALC = Program(
    name="chromaprint",
    names=("fpcalc",),
    hint="install libchromaprint-tools (Debian), or give --command chromaprint=...",
)
# fpcalc exits with 3 if the last frame of a file is truncated, after writing all codes.
_SUCCESS_CODES = (0, 3)


class Alignment(NamedTuple):
    """The best alignment of a clip: track index, offset in codes, mean number of differing bits."""

    track: int
    offset: int
    n_bits: float


class CodeIndex:
    """Inverted index of the codes of several tracks by their upper bits.

    Parameters
    ----------
    codes : uint32 array of shape (n_codes,)
        Codes of all tracks, concatenated.
    starts : int64 array of shape (n_tracks + 1,)
        Start of each track in `codes`; the last is n_codes.
    """

    def __init__(self, codes: Codes, starts: NDArray[np.int64]) -> None:
        self.codes, self.starts = codes, starts
        keys = codes >> _KEY_SHIFT
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def find(self, clip: Codes) -> Alignment | None:
        """Find the best alignment of a clip.

        Parameters
        ----------
        clip : uint32 array of shape (n_codes,)

        Returns
        -------
        Alignment or None
            Of the alignments at which most keys agree, the one with the fewest bit errors. None if
            no key agrees, or if half of the clip would lie outside of the track.
        """
        found = [
            alignment
            for track, offset in self._candidates(clip)
            if (alignment := self._compare(clip, track, offset)) is not None
        ]
        return min(found, key=lambda alignment: alignment.n_bits, default=None)

    def _candidates(self, clip: Codes) -> list[tuple[int, int]]:
        """Return the (track, offset) pairs at which most keys agree."""
        keys = clip >> _KEY_SHIFT
        first = np.searchsorted(self._keys, keys, side="left")
        last = np.searchsorted(self._keys, keys, side="right")
        at = [self._order[low:high] for low, high in zip(first, last, strict=True)]
        positions = np.concatenate([*at, np.zeros(0, np.int64)])
        items = np.repeat(np.arange(len(clip)), last - first)
        tracks = np.searchsorted(self.starts, positions, side="right") - 1
        offsets = positions - self.starts[tracks] - items
        pairs, counts = np.unique(tracks * 2 * _SHIFT + offsets + _SHIFT, return_counts=True)
        best = pairs[np.argsort(-counts, kind="stable")[:_N_ALIGNMENTS]]
        return [(int(pair) // (2 * _SHIFT), int(pair) % (2 * _SHIFT) - _SHIFT) for pair in best]

    def _compare(self, clip: Codes, track: int, offset: int) -> Alignment | None:
        codes = self.codes[self.starts[track] : self.starts[track + 1]]
        first, last = max(0, -offset), min(len(clip), len(codes) - offset)
        if last - first < max(len(clip) / 2, 1):
            return None
        differing = clip[first:last] ^ codes[first + offset : last + offset]
        return Alignment(track, offset, float(np.bitwise_count(differing).mean()))


@dataclass(frozen=True, kw_only=True)
class Chromaprint:
    """Chromaprint.

    Parameters
    ----------
    program : Program
        `fpcalc`.
    """

    program: Program = _FPCALC

    def about(self) -> About:
        """Describe it."""
        return About(
            version=self.program.run(["-version"]).split("(")[0].strip(),
            options="fpcalc -raw -length 0; 12-bit keys, at most 10 of 32 bits differ",
            asked="a command per query, then in-process",
        )

    def build(self, references: Sequence[Path], folder: Path, n_jobs: int) -> None:
        """Write the codes of all references into one file."""
        with ThreadPoolExecutor(n_jobs) as pool:
            codes = list(pool.map(self.codes, references))
        starts = np.cumsum([0, *map(len, codes)])
        np.savez(
            folder / _INDEX,
            codes=np.concatenate([*codes, np.zeros(0, np.uint32)]),
            starts=starts,
            paths=np.array([str(path) for path in references]),
        )

    def query(self, queries: Sequence[Path], folder: Path) -> Iterator[Answer]:
        """Return the alignment with the fewest bit errors, if they are few."""
        index, paths = _load(folder)
        for query in queries:
            start = time.perf_counter()
            found = index.find(self.codes(query))
            taken_s = time.perf_counter() - start
            if found is None or found.n_bits > _MAX_BITS:
                yield Answer(taken_s=taken_s)
            else:
                offset_s = found.offset * ITEM_S
                yield Answer(reference=paths[found.track], offset_s=offset_s, taken_s=taken_s)

    def answer_batch(self, queries: Sequence[Path], folder: Path, n_jobs: int) -> None:
        """Search for all files in `n_jobs` threads."""
        index, _ = _load(folder)
        with ThreadPoolExecutor(n_jobs) as pool:
            list(pool.map(lambda query: index.find(self.codes(query)), queries))

    def codes(self, path: Path) -> Codes:
        """Run `fpcalc` on a file.

        Returns
        -------
        uint32 array of shape (n_codes,)
            Empty for less than about three seconds of audio.

        Raises
        ------
        ProgramError
            The file cannot be read.
        """
        try:
            output = self.program.run(["-raw", "-length", "0", path], success_codes=_SUCCESS_CODES)
        except ProgramError as error:
            if "Empty fingerprint" in error.reason:
                return np.zeros(0, np.uint32)
            raise
        lines = dict(line.partition("=")[::2] for line in output.splitlines())
        numbers = lines.get("FINGERPRINT", "").split(",")
        return np.array([int(number) for number in numbers if number], dtype=np.uint32)


def _load(folder: Path) -> tuple[CodeIndex, list[Path]]:
    """Return the codes of an index and the paths of its references."""
    with np.load(folder / _INDEX) as loaded:
        index = CodeIndex(loaded["codes"], loaded["starts"])
        return index, [Path(str(path)) for path in loaded["paths"]]
