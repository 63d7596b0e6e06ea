"""Recordings to cut clips from, and which tracks of a catalog hold the music of one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np

from engine.audio import decode
from engine.audio.decode import Waveform
from engine.errors import StoreError
from engine.protocol import AudioFingerprinter, VectorIndex
from engine.records import Track
from engine.search.candidates import MIN_SAME_AUDIO, find_candidates
from engine.search.context import SearchContext, Stopwatch

T = TypeVar("T")

MIN_EXCERPT_S = 5.0
"""Seconds of clean music that tell for sure which tracks hold it."""

# More of a recording is not decoded.
_LONGEST_S = 600.0


class Source(NamedTuple):
    """A file to cut clips from, and the track it is, None if the catalog does not know it."""

    path: str
    track_id: int | None


class Task(NamedTuple):
    """A source with the numbers of the clips to cut from it; a number decides all about a clip."""

    source: Source
    numbers: range


def of_tracks(tracks: Sequence[Track], n: int, seed: int) -> list[Source]:
    """Choose at most `n` tracks whose files still exist.

    Raises
    ------
    StoreError
        There is none.
    """
    found = chosen([Source(one.path, one.id) for one in tracks], n, seed)
    if not tracks:
        raise StoreError("the catalog has no tracks to cut clips from; `astound add` takes some in")
    if not found:
        raise StoreError(
            f"not one of the catalog's {len(tracks)} tracks has its file where it was; "
            "`astound update ID --path` tells where one lies now"
        )
    return found


def chosen(sources: Sequence[Source], n: int, seed: int) -> list[Source]:
    """Choose at most `n` of the sources, leaving out files that are gone."""
    order = np.random.default_rng(seed).permutation(len(sources))
    return list(islice((sources[i] for i in order if os.path.isfile(sources[i].path)), n))


def tasks(sources: Sequence[Source], n_clips: int) -> list[Task]:
    """Spread clips over sources as evenly as can be."""
    step = max(len(sources), 1)
    return [Task(source, range(i, n_clips, step)) for i, source in enumerate(sources)]


def read(source: Source, sample_rate: int) -> Waveform:
    """Decode the first ten minutes of a source; AudioError if it cannot be read.

    Returns
    -------
    float32 array of shape (n_samples,)
    """
    return decode.read(source.path, sample_rate, end_s=_LONGEST_S)


def tracks_containing(
    clean: Waveform, fingerprinter: AudioFingerprinter, context: SearchContext
) -> dict[int, float]:
    """Find every track that holds the very same audio: a single, an album, a re-encoded file.

    Parameters
    ----------
    clean : float32 array of shape (n_samples,)
        `MIN_EXCERPT_S` seconds or more.
    fingerprinter : AudioFingerprinter
    context : SearchContext

    Returns
    -------
    dict
        For each track, where in it the excerpt's second 0 lies, in seconds.

    Raises
    ------
    AudioError
        The excerpt is silent or too short.
    """
    hop_s = fingerprinter.hop_within(context.search.query_hop_s, context.reference_hop_s)
    fingerprint = fingerprinter.fingerprint([clean], hop_s)
    found = find_candidates(fingerprint, replace(context, stopwatch=Stopwatch()))
    return {one.track_id: one.offset_s for one in found if one.score >= MIN_SAME_AUDIO}


def without(index: VectorIndex, held: Iterable[int]) -> VectorIndex:
    """Leave tracks out of an index."""
    return index.among(set(index.track_ids).difference(held))


def each(
    ask: Callable[[Task], Iterable[T]],
    tasks: Sequence[Task],
    on_progress: Callable[[int, int], None],
) -> Iterator[T]:
    """Carry tasks out, several at a time.

    Parameters
    ----------
    ask : callable
        Gives the answers to one task.
    tasks : sequence of Task
    on_progress : callable
        Told how many are done, and how many there are.

    Yields
    ------
    object
        The answers, in the order of the tasks.
    """
    on_progress(0, len(tasks))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for n_done, answers in enumerate(threads.map(lambda one: list(ask(one)), tasks), 1):
            yield from answers
            on_progress(n_done, len(tasks))
