"""Two audio files compared with each other: decoded, fingerprinted, and their passages chosen."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from engine import audio
from engine.encoder import SHIPPED_WEIGHTS, load_encoder
from engine.fingerprint import Fingerprinter
from engine.records import Passage
from engine.similarity import passages, similarity

# With astound-v1, of 27 excerpts of 10 s over a phone in a room with 0 dB of noise 15 are found,
# with 0.5 s but 3.
_HOP_S = 0.25
_MOSTLY = 0.5

_Span = Callable[[Passage], tuple[float, float]]


class Comparison(NamedTuple):
    """How alike two recordings are, in [0, 1], and the passages they share."""

    similarity: float
    passages: Sequence[Passage]


def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    min_length_s: float = 4.0,
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
        Its passages are those of :func:`engine.similarity.passages`, less those that :func:`told`
        leaves out.

    Raises
    ------
    AudioError
        A file cannot be read, is silent or too short.
    """
    fingerprinter = Fingerprinter(load_encoder(model or SHIPPED_WEIGHTS, device))
    one, other = (
        fingerprinter.fingerprint(
            audio.blocks(path, fingerprinter.sample_rate), _HOP_S, os.fspath(path)
        )
        for path in (first, second)
    )
    n_least = max(math.ceil((min_length_s - one.segment_s) / _HOP_S - 1e-6) + 1, 1)
    return Comparison(similarity(one, other), told(passages(one, other, n_least)))


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
        if not all(any(_covers(one, other, side) for other in kept) for side in _SIDES):
            kept.append(one)
    return [one for one in found if one in kept]


_SIDES: tuple[_Span, _Span] = (
    lambda one: (one.query_start_s, one.query_end_s),
    lambda one: (one.reference_start_s, one.reference_end_s),
)


def _covers(one: Passage, better: Passage, side: _Span) -> bool:
    (start_s, end_s), (first_s, last_s) = side(one), side(better)
    return min(end_s, last_s) - max(start_s, first_s) > _MOSTLY * (end_s - start_s)
