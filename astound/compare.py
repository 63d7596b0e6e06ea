"""Audio files compared with each other or themselves: decoded, fingerprinted, passages chosen."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from engine.audio.source import open_source
from engine.compare.passages import drop_covered, passages, similarity
from engine.compare.repeats import repeats
from engine.config import MIN_REPEAT_S, MIN_SHARED_S
from engine.errors import AudioError
from engine.model.fingerprinter import Fingerprinter
from engine.records import Fingerprint, Passage, Repeat

# With astound-v1, of 27 excerpts of 10 s over a phone in a room with 0 dB of noise 15 are found,
# with 0.5 s but 3.
_HOP_S = 0.25


class Comparison(NamedTuple):
    """How alike two recordings are, in [0, 1], and the passages they share."""

    similarity: float
    passages: Sequence[Passage]


class Recurrence(NamedTuple):
    """The files that were read, which occurrences are numbered by, and what is repeated in them."""

    paths: Sequence[str]
    repeats: Sequence[Repeat]


def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    min_length_s: float = MIN_SHARED_S,
    device: str = "auto",
    model: Path | None = None,
) -> Comparison:
    """Compare two files.

    Parameters
    ----------
    first, second : path-like
        The first is the query of the passages, the second their reference.
    min_length_s : float
        Length of the shortest passage.
    device : {"auto", "cpu", "cuda"}
    model : Path, optional
        Weights to encode with; those astound ships by default.

    Returns
    -------
    Comparison
        Its passages are those of :func:`engine.compare.passages.passages`, less those that
        :func:`engine.compare.passages.drop_covered` leaves out.

    Raises
    ------
    AudioError
        A file cannot be read, is silent or too short.
    """
    fingerprinter = Fingerprinter.load(model, device)
    one, other = (_fingerprint(fingerprinter, path) for path in (first, second))
    n_least = _n_segments(min_length_s, one.segment_s)
    return Comparison(similarity(one, other), drop_covered(passages(one, other, n_least)))


def recurrence(
    paths: Iterable[str | os.PathLike[str]],
    *,
    min_length_s: float = MIN_REPEAT_S,
    device: str = "auto",
    model: Path | None = None,
    on_error: Callable[[AudioError], None] | None = None,
    on_progress: Callable[[int, int], None] = lambda n_done, n_all: None,
) -> Recurrence:
    """Find the passages that are heard more than once, in one file or across several.

    Parameters
    ----------
    paths : iterable of path-like
        A file named twice is read once.
    min_length_s : float
        Length of the shortest passage. Among 29 tracks of different music, an hour together, none
        of 5 s is heard in two of them by chance.
    device : {"auto", "cpu", "cuda"}
    model : Path, optional
        Weights to encode with; those astound ships by default.
    on_error : callable, optional
        Told what is wrong with a file; the others are gone on with. Raised by default.
    on_progress : callable, optional
        Told how many files are read and pairs of them compared, and how many there are.

    Returns
    -------
    Recurrence

    Raises
    ------
    AudioError
        A file cannot be read, is silent or too short, and there is no `on_error`.
    """
    fingerprinter = Fingerprinter.load(model, device)
    asked = list(dict.fromkeys(os.fspath(path) for path in paths))
    n_pairs = len(asked) * (len(asked) + 1) // 2
    read: dict[str, Fingerprint] = {}
    for n_done, path in enumerate(asked, 1):
        try:
            read[path] = _fingerprint(fingerprinter, path)
        except AudioError as error:
            if on_error is None:
                raise
            on_error(error)
        on_progress(n_done, len(asked) + n_pairs)
    found = repeats(
        list(read.values()),
        _n_segments(min_length_s, fingerprinter.segment_s),
        lambda n_done, n_all: on_progress(len(asked) + n_done, len(asked) + n_all),
    )
    return Recurrence(list(read), found)


def _fingerprint(fingerprinter: Fingerprinter, path: str | os.PathLike[str]) -> Fingerprint:
    recording = open_source(path, fingerprinter.sample_rate)
    return fingerprinter.fingerprint(recording, _HOP_S, recording.name)


def _n_segments(length_s: float, segment_s: float) -> int:
    return max(math.ceil((length_s - segment_s) / _HOP_S - 1e-6) + 1, 1)
