"""Stretches of time that lie over each other, and passages that say what others say already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from engine.records import Passage

Span = tuple[float, float]
"""Where a stretch begins and ends, in seconds."""

_MOSTLY = 0.5


def query_span(passage: Passage) -> Span:
    """Where a passage lies in the query."""
    return passage.query_start_s, passage.query_end_s


def reference_span(passage: Passage) -> Span:
    """Where a passage lies in the reference."""
    return passage.reference_start_s, passage.reference_end_s


_SIDES: tuple[Callable[[Passage], Span], ...] = (query_span, reference_span)


def shared_s(one: Span, other: Span) -> float:
    """Seconds that two stretches have in common."""
    return max(min(one[1], other[1]) - max(one[0], other[0]), 0.0)


def joined(spans: Iterable[Span]) -> list[Span]:
    """Join the stretches that overlap or touch.

    Returns
    -------
    list of (float, float)
        By where they begin; none overlaps another.
    """
    out: list[Span] = []
    for start_s, end_s in sorted(spans):
        if out and start_s <= out[-1][1]:
            out[-1] = out[-1][0], max(out[-1][1], end_s)
        else:
            out.append((start_s, end_s))
    return out


def told(found: Sequence[Passage]) -> list[Passage]:
    """Leave out passages whose both sides are told of by better ones.

    Music that repeats itself agrees with its own repetitions, often dozens of times.

    Parameters
    ----------
    found : sequence of Passage

    Returns
    -------
    list of Passage
        In the order given.
    """
    kept: list[Passage] = []
    for one in sorted(found, key=lambda one: -one.score * (one.query_end_s - one.query_start_s)):
        if not all(any(_covers(side(one), side(other)) for other in kept) for side in _SIDES):
            kept.append(one)
    return [one for one in found if one in kept]


def _covers(one: Span, better: Span) -> bool:
    return shared_s(one, better) > _MOSTLY * (one[1] - one[0])
