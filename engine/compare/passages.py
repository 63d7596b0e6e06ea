"""Compare two fingerprints without a catalog: their similarity, and the passages they share.

Windows of one recording are compared with all places of the other. Where they agree best are seeds,
which are extended as those of a query are (:mod:`engine.search.extension`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from engine.errors import ConfigError, RecipeMismatchError
from engine.records import Fingerprint, Passage, TrackReader, Vectors
from engine.search.extension import Alignment, Extender
from engine.search.line import Floats, Line

Span = tuple[float, float]
"""Start and end of a stretch of a recording, in seconds."""

MIN_MATCH_LENGTH = 10
"""Segments in the shortest passage, by default."""

# Mean cosine along the best diagonal that 95 % of pairs of unrelated recordings stay below if both
# are equally long, and its growth for each factor of e that one is longer;
# docs/measurements.md#compared-recordings.
_CHANCE = 0.38
_CHANCE_GROWTH = 0.07
_MAX_CHANCE = 0.9
# Mean cosine from which a passage is the same audio, without doubt.
_SAME_AUDIO = 0.9

# Windows that seeds are searched with: their length, their places that are tried, and the least
# mean cosine of these except for the best ones of all.
_WINDOW_S, _N_PLACES, _MIN_SEED, _N_BEST_SEEDS = 4.0, 4, 0.6, 3
# Least mean cosine of a passage by its length in seconds; docs/measurements.md#compared-recordings.
_LENGTHS_S = (10.0, 40.0)
_MIN_LEVELS = (0.85, 0.74)
# A passage of most of a recording needs to exceed chance by this only.
_MOST, _MIN_LEAD = 0.8, 0.03
# A passage is covered by a better one that shares more than this much of it.
_MIN_COVERED = 0.5
_BLOCK_DIMS = 16


def similarity(first: Fingerprint, second: Fingerprint) -> float:
    """Measure how much of the shorter recording is in the longer one, and how clearly.

    It is the share of the shorter recording's audible segments in passages, each by how far its
    mean cosine exceeds chance. Without passages, it is the mean cosine along the best diagonal,
    scaled so that unrelated music is at 0; docs/measurements.md#compared-recordings.

    Parameters
    ----------
    first, second : Fingerprint
        In any order.

    Returns
    -------
    float
        In [0, 1]: 1 for the same audio and for an edit of it, 0 for unrelated music.

    Raises
    ------
    RecipeMismatchError
        They were made under different recipes.
    """
    _require_comparable(first, second)
    shorter, longer = sorted((first, second), key=_order)
    chance = _chance(shorter, longer)
    middles_s = shorter.starts_s + shorter.segment_s / 2
    clarity = np.zeros(len(shorter.embeddings))
    for one in _shared(shorter, longer, shorter.segment_hop_s):
        clear = (one.score - chance) / (_SAME_AUDIO - chance)
        inside = (middles_s >= one.query_start_s) & (middles_s <= one.query_end_s)
        clarity[inside] = np.maximum(clarity[inside], np.clip(clear, 0, 1))
    audible = shorter.audible
    by_passages = float(clarity[audible].mean()) if audible.any() else 0.0
    return round(max(by_passages, _diagonal_similarity(shorter, longer)), 6) + 0.0


def passages(
    query: Fingerprint, reference: Fingerprint, min_match_length: int = MIN_MATCH_LENGTH
) -> list[Passage]:
    """Find the passages that two recordings share, at the same speed or nearly so.

    What occurs twice, in either recording, is two passages, except where better passages cover both
    of its places. Exchanging query and reference exchanges their places in the passages, and
    changes nothing else.

    Parameters
    ----------
    query, reference : Fingerprint
    min_match_length : int
        Segments of the query in the shortest passage. Shorter ones agree by chance more often.

    Returns
    -------
    list of Passage
        By their start in the query.

    Raises
    ------
    RecipeMismatchError
        They were made under different recipes.
    ConfigError
        `min_match_length` is not positive.
    """
    return drop_covered(all_passages(query, reference, min_match_length))


def all_passages(
    query: Fingerprint, reference: Fingerprint, min_match_length: int = MIN_MATCH_LENGTH
) -> list[Passage]:
    """Find passages as :func:`passages` does, also where better ones cover both places."""
    _require_comparable(query, reference)
    shorter, longer = sorted((query, reference), key=_order)
    found = _shared(shorter, longer, _checked(min_match_length) * query.segment_hop_s)
    if shorter is not query:
        found = [swapped(one) for one in found]
    return sorted(found, key=_starts_s)


def repetitions(
    fingerprint: Fingerprint, min_match_length: int = MIN_MATCH_LENGTH
) -> list[Passage]:
    """Find the passages of a recording that occur in it again.

    Parameters
    ----------
    fingerprint : Fingerprint
    min_match_length : int
        Segments in the shortest passage. The two starts are at least as far apart, and no segment
        overlaps its own repetition.

    Returns
    -------
    list of Passage
        Each pair once, the earlier occurrence as the query; by their start. The two overlap if
        something is repeated at once, such as a loop.

    Raises
    ------
    ConfigError
        `min_match_length` is not positive.
    """
    apart = math.ceil(fingerprint.segment_s / fingerprint.segment_hop_s - 1e-6)
    min_lag = max(_checked(min_match_length), apart)
    min_length_s = min_match_length * fingerprint.segment_hop_s
    return sorted(_shared(fingerprint, fingerprint, min_length_s, min_lag), key=_starts_s)


def _starts_s(passage: Passage) -> tuple[float, float]:
    return passage.query_start_s, passage.reference_start_s


def _checked(min_match_length: int) -> int:
    if min_match_length < 1:
        raise ConfigError.invalid("min_match_length", min_match_length, "must be at least 1")
    return min_match_length


def _require_comparable(first: Fingerprint, second: Fingerprint) -> None:
    if first.recipe_id != second.recipe_id:
        raise RecipeMismatchError(first.recipe_id, second.recipe_id, "the other fingerprint")
    finer_s, hop_s = sorted((first.segment_hop_s, second.segment_hop_s))
    if abs(round(hop_s / finer_s) * finer_s - hop_s) > 1e-6:
        reason = f"must be a multiple of the other hop ({finer_s:g} s)"
        raise ConfigError.invalid("segment_hop_s", hop_s, reason)


def _order(fingerprint: Fingerprint) -> tuple[float, bytes]:
    """Sort recordings by length, and those of one length in an order of their own."""
    return fingerprint.duration_s, fingerprint.embeddings.tobytes()


def _reader(fingerprint: Fingerprint) -> TrackReader:
    """Read a recording as if it were a track."""
    embeddings = fingerprint.embeddings
    return TrackReader(
        fingerprint.segment_hop_s,
        lambda _: len(embeddings),
        lambda _, first, last: embeddings[first:last],
    )


# -- similarity ------------------------------------------------------------------------------


def _chance(shorter: Fingerprint, longer: Fingerprint) -> float:
    """Mean cosine along the best diagonal of unrelated recordings of these lengths."""
    lengths_s = [max(one.audible_s, 1e-3) for one in (shorter, longer)]
    growth = _CHANCE_GROWTH * math.log(max(lengths_s) / min(lengths_s))
    return min(_CHANCE + growth, _MAX_CHANCE)


def _diagonal_similarity(shorter: Fingerprint, longer: Fingerprint) -> float:
    """Compare along diagonals; the one with the finer hop is thinned from each first segment."""
    hop_s = max(shorter.segment_hop_s, longer.segment_hop_s)
    thinned = [
        [one.embeddings[first :: round(hop_s / one.segment_hop_s)] for first in range(n)]
        for one in (shorter, longer)
        for n in [round(hop_s / one.segment_hop_s)]
    ]
    chance, best = _chance(shorter, longer), 0.0
    for pair in product(*thinned):
        n_audible = min(int(one.any(axis=1).sum()) for one in pair)
        if n_audible:
            best = max(best, _best_sum(*pair) / n_audible)
    return float(np.clip((best - chance) / (1 - chance), 0, 1))


def _best_sum(first: Vectors, second: Vectors) -> float:
    """Greatest sum of the cosines along any diagonal, found by correlation."""
    size = 1 << (len(first) + len(second)).bit_length()
    spectrum = np.zeros(size // 2 + 1, np.complex128)
    for dim in range(0, first.shape[1], _BLOCK_DIMS):
        dims = slice(dim, dim + _BLOCK_DIMS)
        spectra = [np.fft.rfft(vectors[:, dims], size, axis=0) for vectors in (first, second)]
        spectrum += (spectra[0].conj() * spectra[1]).sum(axis=1)
    return float(np.fft.irfft(spectrum, size).max())


# -- passages --------------------------------------------------------------------------------


def _shared(
    query: Fingerprint, reference: Fingerprint, min_length_s: float, min_lag: int | None = None
) -> list[Passage]:
    """Find the passages that are long and clear enough."""
    extender, alignments = Extender(query, _reader(reference)), list[Alignment]()
    for line, window in _seeds(query, reference, min_lag):
        extender.add(alignments, line, window)
    found: list[Passage] = []
    for one in extender.decode_all(alignments):
        passage = _passage(extender, one, reference)
        length_s = passage.query_end_s - passage.query_start_s
        least = _min_level(length_s, query, reference)
        if length_s >= min_length_s and one.level >= least and _is_apart(passage, query, min_lag):
            found.append(passage)
    return found


def _is_apart(passage: Passage, query: Fingerprint, min_lag: int | None) -> bool:
    """Whether a recording's passage is not compared with itself."""
    if min_lag is None:
        return True
    lags_s = (
        passage.reference_start_s - passage.query_start_s,
        passage.reference_end_s - passage.query_end_s,
    )
    return min(lags_s) >= (min_lag - 1) * query.segment_hop_s


def _passage(extender: Extender, one: Alignment, reference: Fingerprint) -> Passage:
    start_s, end_s = extender.borders_s(one)
    speed, reference_start_s = one.line.speed, one.line.at(start_s)
    start_s -= min(reference_start_s, 0.0) / speed
    end_s -= max(one.line.at(end_s) - reference.duration_s, 0.0) / speed
    return Passage(
        query_start_s=start_s,
        query_end_s=end_s,
        reference_start_s=one.line.at(start_s),
        reference_end_s=one.line.at(end_s),
        score=one.level,
        speed=speed,
    )


def _min_level(length_s: float, query: Fingerprint, reference: Fingerprint) -> float:
    """Least mean cosine of a passage: short ones agree by chance more often."""
    least = float(np.interp(length_s, _LENGTHS_S, _MIN_LEVELS))
    is_most = length_s >= _MOST * min(query.audible_s, reference.audible_s)
    return min(least, _chance(query, reference) + _MIN_LEAD) if is_most else least


def _seeds(
    query: Fingerprint, reference: Fingerprint, min_lag: int | None
) -> Iterator[tuple[Line, tuple[int, int]]]:
    """Compare windows of the query with all places of the reference; the best seeds first."""
    step = max(round(reference.segment_hop_s / query.segment_hop_s), 1)
    every = max(round(query.segment_hop_s / reference.segment_hop_s), 1)
    hop_s, n_query = query.segment_hop_s * step, len(query.embeddings)
    size = max(
        min(round(_WINDOW_S / hop_s), n_query // step, len(reference.embeddings) // every), 1
    )
    found: list[tuple[float, int, float]] = []
    for first in range(0, max(n_query - size * step, 0) + 1, max(size // 2, 1) * step):
        window = query.embeddings[first : first + size * step : step]
        for phase in range(every):
            means = _diagonal_means(window, reference.embeddings[phase::every])
            if min_lag is not None:
                means[: first // step + min_lag + len(window) - 1] = -1
            phase_s = phase * reference.segment_hop_s
            found += [
                (mean, first, (at - len(window) + 1) * hop_s + phase_s)
                for at, mean in _peaks(means)
            ]
    found.sort(reverse=True)
    for number, (mean, first, start_s) in enumerate(found):
        if mean >= _MIN_SEED or number < _N_BEST_SEEDS:
            middle_s = ((size - 1) * hop_s + query.segment_s) / 2
            query_s = first * query.segment_hop_s + middle_s
            line = Line(track_id=0, query_s=query_s, reference_s=start_s + middle_s)
            yield line, (first, min(first + size * step, n_query))


def _diagonal_means(window: Vectors, stored: Vectors) -> Floats:
    """Mean cosine of a window at each place, also where it begins before the reference."""
    size = len(window)
    cosines = np.pad(window @ stored.T, ((0, 0), (size - 1, size - 1)))
    places = np.arange(len(stored) + size - 1)
    return np.asarray(cosines[np.arange(size)[:, None], places + np.arange(size)[:, None]].mean(0))


def _peaks(means: Floats) -> list[tuple[int, float]]:
    """Return the best places that are apart, with their means."""
    rest, found = means.copy(), []
    for _ in range(_N_PLACES):
        at = int(rest.argmax())
        if rest[at] <= 0:
            break
        found.append((at, float(rest[at])))
        rest[max(at - 2, 0) : at + 3] = -1
    return found


def swapped(passage: Passage) -> Passage:
    """Exchange the query and the reference of a passage."""
    return replace(
        passage,
        query_start_s=passage.reference_start_s,
        query_end_s=passage.reference_end_s,
        reference_start_s=passage.query_start_s,
        reference_end_s=passage.query_end_s,
        speed=1 / passage.speed,
    )


# -- spans -----------------------------------------------------------------------------------


def query_span(passage: Passage) -> Span:
    """Return the span of a passage in the query."""
    return passage.query_start_s, passage.query_end_s


def reference_span(passage: Passage) -> Span:
    """Return the span of a passage in the reference."""
    return passage.reference_start_s, passage.reference_end_s


_SIDES: tuple[Callable[[Passage], Span], ...] = (query_span, reference_span)


def length_s(span: Span) -> float:
    """Return the length of a span in seconds."""
    return span[1] - span[0]


def shared_s(first: Span, second: Span) -> float:
    """Return the seconds that two spans share."""
    return max(min(first[1], second[1]) - max(first[0], second[0]), 0.0)


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """Merge the spans that overlap or touch.

    Returns
    -------
    list of (float, float)
        By their start; none overlaps another.
    """
    merged: list[Span] = []
    for start_s, end_s in sorted(spans):
        if merged and start_s <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end_s)
        else:
            merged.append((start_s, end_s))
    return merged


def drop_covered(found: Sequence[Passage]) -> list[Passage]:
    """Drop the passages that better ones cover on both sides.

    Music that repeats itself agrees with its own repetitions, often dozens of times.

    Parameters
    ----------
    found : sequence of Passage

    Returns
    -------
    list of Passage
        In the same order.
    """
    kept: list[Passage] = []
    for passage in sorted(found, key=_covered_weight):
        if not all(
            any(_is_covered(side(passage), side(better)) for better in kept) for side in _SIDES
        ):
            kept.append(passage)
    return [passage for passage in found if passage in kept]


def _covered_weight(passage: Passage) -> float:
    """Sort by the mean length in both recordings, so that exchanging these changes nothing."""
    return -passage.score * sum(length_s(side(passage)) for side in _SIDES)


def _is_covered(span: Span, better: Span) -> bool:
    return shared_s(span, better) > _MIN_COVERED * length_s(span)
