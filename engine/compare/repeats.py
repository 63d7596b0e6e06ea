"""Passages that are heard more than once, in one recording or in several, without any catalog.

What two stretches share comes from :mod:`engine.compare.passages`, as pairs. A chorus that is heard
four times makes six of them; here they become one repeat with four occurrences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, product

from engine.compare.passages import (
    Span,
    joined,
    passages,
    query_span,
    reference_span,
    repetitions,
    shared_s,
)
from engine.records import Fingerprint, Occurrence, Passage, Repeat

# Two stretches are the same occurrence if they share this much of the longer one, and apart if they
# share no more than this of the shorter one.
_SAME = 0.7
_BRUSHES = 0.1
# A repeat tells nothing new if so much of each of its occurrences lies in those of longer ones.
_INSIDE = 0.8

_Place = tuple[int, Span]
"""A recording, and a stretch of it."""


def repeats(
    recordings: Sequence[Fingerprint],
    min_match_length: int,
    on_progress: Callable[[int, int], None],
) -> list[Repeat]:
    """Find what is heard more than once.

    Parameters
    ----------
    recordings : sequence of Fingerprint
        All of one recipe and hop.
    min_match_length : int
        Segments that the shortest passage spans.
    on_progress : callable
        Told the number of pairs of recordings compared and of all pairs, after each.

    Returns
    -------
    list of Repeat
        By their first occurrence. A loop is told in turns, each as long as the shortest passage at
        least.

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
            agreeing = repetitions(first, min_match_length)
            found += [(one, [(i, turn) for turn in _turns(one)]) for one in agreeing]
        else:
            agreeing = passages(first, second, min_match_length)
            places = ([(i, query_span(one)), (j, reference_span(one))] for one in agreeing)
            found += zip(agreeing, places, strict=True)
        on_progress(n_done, len(pairs))
    return _told(_grouped(found))


def _turns(passage: Passage) -> list[Span]:
    """Give both places of a passage; where they overlap it is a loop, and all its turns follow."""
    start_s, end_s = query_span(passage)
    again_s, last_s = reference_span(passage)
    lag_s = again_s - start_s
    if lag_s >= end_s - start_s:
        return [(start_s, end_s), (again_s, last_s)]
    n_turns = max(int((last_s - start_s) / lag_s + 0.1), 2)
    starts_s = [start_s + turn * lag_s for turn in range(n_turns)]
    return [(one, min(one + lag_s, last_s)) for one in starts_s]


def _grouped(found: Iterable[tuple[Passage, list[_Place]]]) -> list[Repeat]:
    """Join the pairs that have an occurrence in common, the longest and clearest first."""
    groups: list[_Group] = []
    for passage, places in sorted(found, key=lambda one: (-_weight(one[0]), one[1])):
        group = next((group for group in groups if group.takes(places)), None)
        if group is None:
            groups.append(group := _Group(passage.score))
        group.add(places)
    return [group.repeat() for group in groups]


class _Group:
    """What will be one repeat: places that do not overlap."""

    def __init__(self, score: float) -> None:
        self.score = score
        self.places: list[_Place] = []

    def takes(self, places: list[_Place]) -> bool:
        """Say whether a place is among its own, and no other one is across them."""
        known = [self._has(place) for place in places]
        others = (place for place, is_known in zip(places, known, strict=True) if not is_known)
        return any(known) and not any(_shared(*pair) for pair in product(others, self.places))

    def add(self, places: list[_Place]) -> None:
        """Add the places that are new."""
        self.places += [place for place in places if not self._has(place)]

    def repeat(self) -> Repeat:
        """Make the repeat."""
        occurrences = (
            Occurrence(recording=recording, start_s=start_s, end_s=end_s)
            for recording, (start_s, end_s) in sorted(self.places)
        )
        return Repeat(occurrences=tuple(occurrences), score=self.score)

    def _has(self, place: _Place) -> bool:
        return any(_shared(place, known) >= _SAME for known in self.places)


def _weight(passage: Passage) -> float:
    return passage.score * _length_s(query_span(passage))


def _shared(one: _Place, other: _Place) -> float:
    """Share of the longer of two places that lies in both; 0 if it is next to nothing."""
    lengths_s = _length_s(one[1]), _length_s(other[1])
    both_s = shared_s(one[1], other[1]) if one[0] == other[0] else 0.0
    return both_s / max(lengths_s) if both_s > _BRUSHES * min(lengths_s) else 0.0


def _told(found: Iterable[Repeat]) -> list[Repeat]:
    """Leave out what lies in longer repeats wherever it is heard, and put the others in order."""
    kept: list[Repeat] = []
    told: dict[int, list[Span]] = {}
    for one in sorted(found, key=_heard_s, reverse=True):
        if not all(_inside(at, told) for at in one.occurrences):
            kept.append(one)
            for recording, spans in _spans(one).items():
                told[recording] = joined([*told.get(recording, ()), *spans])
    return sorted(kept, key=lambda one: [(at.recording, at.start_s) for at in one.occurrences])


def _heard_s(repeat: Repeat) -> float:
    return sum(_length_s(span) for spans in _spans(repeat).values() for span in spans)


def _spans(repeat: Repeat) -> dict[int, list[Span]]:
    """Stretches of each recording that a repeat is heard in."""
    places: dict[int, list[Span]] = {}
    for at in repeat.occurrences:
        places.setdefault(at.recording, []).append((at.start_s, at.end_s))
    return {recording: joined(spans) for recording, spans in places.items()}


def _inside(at: Occurrence, told: dict[int, list[Span]]) -> bool:
    span = at.start_s, at.end_s
    told_s = sum(shared_s(span, other) for other in told.get(at.recording, ()))
    return told_s >= _INSIDE * _length_s(span)


def _length_s(span: Span) -> float:
    return span[1] - span[0]
