"""Comparison of audio files with each other or with themselves, without a catalog."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from engine.audio import child
from engine.audio.source import open_source
from engine.compare.passages import passages, similarity
from engine.compare.repeats import repeats
from engine.config import MIN_REPEAT_S, MIN_SHARED_S
from engine.errors import AudioError
from engine.model.fingerprinter import Fingerprinter
from engine.records import Fingerprint, Passage, Repeat

# Of 27 excerpts of 10 s, over a phone in 0 dB of noise, 15 were found; with 0.5 s only 3.
_HOP_S = 0.25


class Comparison(NamedTuple):
    """Similarity of two recordings, in [0, 1], and the passages they share."""

    similarity: float
    passages: Sequence[Passage]


class FileRepeats(NamedTuple):
    """The files that were read, and the passages repeated in them; occurrences index the files."""

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
        In the passages the first is the query, the second the reference.
    min_length_s : float
        Minimum length of a passage in seconds.
    device : {"auto", "cpu", "cuda"}
    model : Path, optional
        Weights; the shipped ones by default.

    Returns
    -------
    Comparison
        See :func:`engine.compare.passages.similarity` and
        :func:`engine.compare.passages.passages`.

    Raises
    ------
    AudioError
        A file cannot be read, is silent, or is shorter than a segment.
    """
    child.prepare()
    fingerprinter = Fingerprinter.load(model, device)
    query, reference = (_fingerprint(fingerprinter, path) for path in (first, second))
    min_segments = _n_segments(min_length_s, query.segment_s)
    shared = passages(query, reference, min_segments)
    return Comparison(similarity(query, reference), shared)


def find_repeats(
    paths: Iterable[str | os.PathLike[str]],
    *,
    min_length_s: float = MIN_REPEAT_S,
    device: str = "auto",
    model: Path | None = None,
    on_error: Callable[[AudioError], None] | None = None,
    on_progress: Callable[[int, int], None] = lambda n_done, n_all: None,
) -> FileRepeats:
    """Find passages that occur more than once, in one file or across several.

    Parameters
    ----------
    paths : iterable of path-like
        A file that is listed twice is read once.
    min_length_s : float
        Minimum length of a passage in seconds. In an hour of 29 unrelated tracks no passage of 5 s
        occurred twice by chance.
    device : {"auto", "cpu", "cuda"}
    model : Path, optional
        Weights; the shipped ones by default.
    on_error : callable, optional
        Called with the error of each bad file, which is then skipped; raised by default.
    on_progress : callable, optional
        Called with the number of items done and in total; an item is a file or a pair of files.

    Returns
    -------
    FileRepeats

    Raises
    ------
    AudioError
        A file cannot be read, is silent, or is shorter than a segment, and there is no `on_error`.
    """
    child.prepare()
    fingerprinter = Fingerprinter.load(model, device)
    files = list(dict.fromkeys(os.fspath(path) for path in paths))
    n_pairs = len(files) * (len(files) + 1) // 2
    fingerprints: dict[str, Fingerprint] = {}
    for n_done, path in enumerate(files, 1):
        try:
            fingerprints[path] = _fingerprint(fingerprinter, path)
        except AudioError as error:
            if on_error is None:
                raise
            on_error(error)
        on_progress(n_done, len(files) + n_pairs)
    repeated = repeats(
        list(fingerprints.values()),
        _n_segments(min_length_s, fingerprinter.segment_s),
        lambda n_done, n_all: on_progress(len(files) + n_done, len(files) + n_all),
    )
    return FileRepeats(list(fingerprints), repeated)


def _fingerprint(fingerprinter: Fingerprinter, path: str | os.PathLike[str]) -> Fingerprint:
    recording = open_source(path, fingerprinter.sample_rate)
    with recording.explaining_silence():
        return fingerprinter.fingerprint(recording, _HOP_S, recording.name)


def _n_segments(length_s: float, segment_s: float) -> int:
    return max(math.ceil((length_s - segment_s) / _HOP_S - 1e-6) + 1, 1)
