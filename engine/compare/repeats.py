"""Find the passages that occur more than once, in one recording or in several.

:mod:`engine.compare.passages` finds them in pairs. A chorus that occurs four times is in six pairs,
which are grouped to one repeat with four occurrences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, product
from statistics import median

from engine.compare.passages import (
    Span,
    all_passages,
    length_s,
    merge_spans,
    query_span,
    reference_span,
    repetitions,
    shared_s,
)
from engine.records import Fingerprint, Occurrence, Passage, Repeat

# Two spans are the same occurrence if they share this much of the longer one, and distinct if they
# share no more than this of the shorter one.
_MIN_SAME = 0.7
_MAX_DISTINCT = 0.1
# A repeat is covered if this much of each of its occurrences lies in those of longer repeats.
_MIN_COVERED = 0.8

_Place = tuple[int, Span]
"""Number of a recording, and a span in it."""


def repeats(
    recordings: Sequence[Fingerprint],
    min_match_length: int,
    on_progress: Callable[[int, int], None],
) -> list[Repeat]:
    """Find the passages that occur more than once.

    Parameters
    ----------
    recordings : sequence of Fingerprint
        All of one recipe and hop.
    min_match_length : int
        Segments in the shortest passage.
    on_progress : callable
        Called after each pair of recordings with the number of pairs done and in total.

    Returns
    -------
    list of Repeat
        By their first occurrence. A loop is split into turns, each at least as long as the
        shortest passage.

    Raises
    ------
    RecipeMismatchError, ConfigError
        The recordings do not fit together, or `min_match_length` is not positive.
    """
    numbered = list(enumerate(recordings))
    pairs = [(one, one) for one in numbered] + list(combinations(numbered, 2))
    found: list[tuple[Passage, list[_Place]]] = []
    for n_done, ((i, first), (j, second)) in enumerate(pairs, 1):
        if i == j:
            shared = repetitions(first, min_match_length)
            found += [(one, [(i, turn) for turn in _turns(one)]) for one in shared]
        else:
            shared = all_passages(first, second, min_match_length)
            places = ([(i, query_span(one)), (j, reference_span(one))] for one in shared)
            found += zip(shared, places, strict=True)
        on_progress(n_done, len(pairs))
    durations_s = [recording.duration_s for recording in recordings]
    return _without_covered(_grouped(found, durations_s))


def _turns(passage: Passage) -> list[Span]:
    """Both spans of a passage; if they overlap it is a loop, and these are all its turns."""
    start_s, end_s = query_span(passage)
    again_s, last_s = reference_span(passage)
    lag_s = again_s - start_s
    if lag_s >= end_s - start_s:
        return [(start_s, end_s), (again_s, last_s)]
    n_turns = max(int((last_s - start_s) / lag_s + 0.1), 2)
    starts_s = [start_s + turn * lag_s for turn in range(n_turns)]
    return [(turn_s, min(turn_s + lag_s, last_s)) for turn_s in starts_s]


def _grouped(
    found: Iterable[tuple[Passage, list[_Place]]], durations_s: Sequence[float]
) -> list[Repeat]:
    """Group the pairs that share an occurrence, the longest and clearest first."""
    groups: list[_Group] = []
    for passage, places in sorted(found, key=lambda pair: (-_weight(pair[0]), pair[1])):
        group = next((group for group in groups if group.accepts(places)), None)
        if group is None:
            groups.append(group := _Group(passage.score))
        group.add(places)
    return [group.repeat(durations_s) for group in groups]


class _Group:
    """Places that do not overlap, which become one repeat.

    Each place has an origin, a time that is the same moment of the music in all of them. Pairs of
    places give starts and ends relative to it, whose medians are those of all occurrences.
    """

    def __init__(self, score: float) -> None:
        self.score = score
        self.places: list[_Place] = []
        self.origins_s: list[float] = []
        self.spans_s: list[Span] = []

    def accepts(self, places: list[_Place]) -> bool:
        """Whether it contains one of the places, and the others overlap none of its own."""
        contained = [self._contains(place) for place in places]
        others = (place for place, inside in zip(places, contained, strict=True) if not inside)
        return any(contained) and not any(_shared(*pair) for pair in product(others, self.places))

    def add(self, places: list[_Place]) -> None:
        """Add the places that it does not contain."""
        start_s = self._relative_start_s(places)
        for place in places:
            self.spans_s.append((start_s, start_s + length_s(place[1])))
            if not self._contains(place):
                self.places.append(place)
                self.origins_s.append(place[1][0] - start_s)

    def repeat(self, durations_s: Sequence[float]) -> Repeat:
        """Return the repeat, all of whose occurrences have one length, within the recordings."""
        start_s, end_s = (float(median(times_s)) for times_s in zip(*self.spans_s, strict=True))
        placed = sorted(zip(self.places, self.origins_s, strict=True))
        start_s = max(start_s, *(-origin_s for _, origin_s in placed))
        end_s = min(end_s, *(durations_s[place[0]] - origin_s for place, origin_s in placed))
        occurrences = (
            Occurrence(recording=recording, start_s=origin_s + start_s, end_s=origin_s + end_s)
            for (recording, _), origin_s in placed
        )
        return Repeat(occurrences=tuple(occurrences), score=self.score)

    def _relative_start_s(self, places: list[_Place]) -> float:
        """Start of the music in some places relative to the origins of those it contains."""
        starts_s = [
            place[1][0] - origin_s
            for place in places
            for own, origin_s in zip(self.places, self.origins_s, strict=True)
            if _shared(place, own) >= _MIN_SAME
        ]
        return median(starts_s) if starts_s else 0.0

    def _contains(self, place: _Place) -> bool:
        return any(_shared(place, own) >= _MIN_SAME for own in self.places)


def _weight(passage: Passage) -> float:
    return passage.score * length_s(query_span(passage))


def _shared(first: _Place, second: _Place) -> float:
    """Share of the longer of two places that lies in both; 0 if the places are distinct."""
    lengths_s = length_s(first[1]), length_s(second[1])
    both_s = shared_s(first[1], second[1]) if first[0] == second[0] else 0.0
    return both_s / max(lengths_s) if both_s > _MAX_DISTINCT * min(lengths_s) else 0.0


def _without_covered(found: Iterable[Repeat]) -> list[Repeat]:
    """Drop the repeats that longer ones cover everywhere, and sort the others."""
    kept: list[Repeat] = []
    covered: dict[int, list[Span]] = {}
    for repeat in sorted(found, key=_covered_s, reverse=True):
        if not all(_is_covered(occurrence, covered) for occurrence in repeat.occurrences):
            kept.append(repeat)
            for recording, spans in _spans(repeat).items():
                covered[recording] = merge_spans([*covered.get(recording, ()), *spans])
    return sorted(kept, key=lambda one: [(at.recording, at.start_s) for at in one.occurrences])


def _covered_s(repeat: Repeat) -> float:
    """Seconds of all recordings that a repeat covers."""
    return sum(length_s(span) for spans in _spans(repeat).values() for span in spans)


def _spans(repeat: Repeat) -> dict[int, list[Span]]:
    """Spans of each recording that a repeat covers."""
    places: dict[int, list[Span]] = {}
    for at in repeat.occurrences:
        places.setdefault(at.recording, []).append((at.start_s, at.end_s))
    return {recording: merge_spans(spans) for recording, spans in places.items()}


def _is_covered(occurrence: Occurrence, covered: dict[int, list[Span]]) -> bool:
    span = occurrence.start_s, occurrence.end_s
    covered_s = sum(shared_s(span, other) for other in covered.get(occurrence.recording, ()))
    return covered_s >= _MIN_COVERED * length_s(span)
