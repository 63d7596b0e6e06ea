"""Recordings to cut clips from, and the tracks of a catalog that contain a clip."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np

from engine.audio import decode
from engine.errors import StoreError
from engine.protocol import AudioFingerprinter, VectorIndex
from engine.records import Track, Waveform
from engine.search.candidates import MIN_SAME_AUDIO, find_candidates
from engine.search.context import SearchContext, Stopwatch

T = TypeVar("T")

MIN_EXCERPT_S = 5.0
"""Seconds of clean music that reliably identify the tracks that contain it."""

# Longer recordings are read up to here.
_MAX_LENGTH_S = 600.0


class Source(NamedTuple):
    """A file to cut clips from, with the id of its track, or None if it is not a track."""

    path: str
    track_id: int | None


class Task(NamedTuple):
    """A source with the numbers of the clips to cut from it; a number seeds all of a clip."""

    source: Source
    numbers: range


def select_tracks(tracks: Sequence[Track], n: int, seed: int) -> list[Source]:
    """Select at most `n` tracks whose files still exist.

    Raises
    ------
    StoreError
        There is none.
    """
    selected = select([Source(track.path, track.id) for track in tracks], n, seed)
    if not tracks:
        raise StoreError("catalog has no tracks to cut clips from; add some with `astound add`")
    if not selected:
        raise StoreError(
            f"files of all {len(tracks)} tracks are missing; "
            "set their new locations with `astound update ID --path`"
        )
    return selected


def select(sources: Sequence[Source], n: int, seed: int) -> list[Source]:
    """Select at most `n` of the sources at random, without missing files."""
    order = np.random.default_rng(seed).permutation(len(sources))
    return list(islice((sources[i] for i in order if os.path.isfile(sources[i].path)), n))


def split_clips(sources: Sequence[Source], n_clips: int) -> list[Task]:
    """Divide clips among the sources as evenly as possible."""
    step = max(len(sources), 1)
    return [Task(source, range(i, n_clips, step)) for i, source in enumerate(sources)]


def read_source(source: Source, sample_rate: int) -> Waveform:
    """Decode the first ten minutes of a source; AudioError if it cannot be read.

    Returns
    -------
    float32 array of shape (n_samples,)
    """
    return decode.read(source.path, sample_rate, end_s=_MAX_LENGTH_S)


def tracks_containing(
    clean: Waveform, fingerprinter: AudioFingerprinter, context: SearchContext
) -> dict[int, float]:
    """Find all tracks that contain the same audio, such as single, album and re-encoded file.

    Parameters
    ----------
    clean : float32 array of shape (n_samples,)
        At least `MIN_EXCERPT_S` seconds.
    fingerprinter : AudioFingerprinter
    context : SearchContext

    Returns
    -------
    dict
        Track ids, and the offset of the excerpt in each track in seconds.

    Raises
    ------
    AudioError
        The excerpt is silent or shorter than a segment.
    """
    hop_s = fingerprinter.hop_within(context.search.query_hop_s, context.reference_hop_s)
    fingerprint = fingerprinter.fingerprint([clean], hop_s)
    candidates = find_candidates(fingerprint, replace(context, stopwatch=Stopwatch()))
    return {c.track_id: c.offset_s for c in candidates if c.score >= MIN_SAME_AUDIO}


def without_tracks(index: VectorIndex, track_ids: Iterable[int]) -> VectorIndex:
    """Restrict an index to all other tracks."""
    return index.among(set(index.track_ids).difference(track_ids))


def run_tasks(
    run: Callable[[Task], Iterable[T]],
    tasks: Sequence[Task],
    on_progress: Callable[[int, int], None],
) -> Iterator[T]:
    """Run tasks in several threads.

    Parameters
    ----------
    run : callable
        Returns the results of one task.
    tasks : sequence of Task
    on_progress : callable
        Called with the number of tasks done and in total.

    Yields
    ------
    object
        The results, in the order of the tasks.
    """
    on_progress(0, len(tasks))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for n_done, results in enumerate(threads.map(lambda task: list(run(task)), tasks), 1):
            yield from results
            on_progress(n_done, len(tasks))
