"""How far each candidate leads over the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from engine.records import Candidate, Reference

# Two tracks that agree with each other this well hold the same audio; unrelated ones reach 0.8.
_SAME_AUDIO = 0.9
_N_OTHERS = 10


def with_margins(
    candidates: Iterable[Candidate], duration_s: float, reference: Reference
) -> list[Candidate]:
    """Sort candidates by their evidence, and measure each one's lead over the other tracks.

    A track that holds the very same audio is passed over: a single and an album, or a file and
    its re-encoding, must not make each other doubtful.

    Parameters
    ----------
    candidates : iterable of Candidate
        One for each track.
    duration_s : float
        Length of the query.
    reference : Reference

    Returns
    -------
    list of Candidate
        Most evidence first.
    """
    ranked = sorted(candidates, key=lambda one: -one.evidence)
    return [_with_margin(candidate, ranked, duration_s, reference) for candidate in ranked]


def _with_margin(
    candidate: Candidate, ranked: Sequence[Candidate], duration_s: float, reference: Reference
) -> Candidate:
    rival = next(
        (
            other.evidence
            for other in ranked
            if other.track_id != candidate.track_id
            and not _same_audio(candidate, other, duration_s, reference)
        ),
        0.0,
    )
    others = [one.evidence for one in ranked[: _N_OTHERS + 1] if one is not candidate]
    return replace(
        candidate,
        margin=candidate.evidence - rival,
        others=float(np.mean(others[:_N_OTHERS])) if others else 0.0,
    )


def _same_audio(one: Candidate, other: Candidate, duration_s: float, reference: Reference) -> bool:
    """Compare what two tracks store where the query lies in them."""
    # Two speeds that differ by chance agree best in the middle.
    bent_s = [(at.speed - 1) * duration_s / 2 for at in (one, other)]
    starts = [
        round((at.offset_s + bent) / reference.hop_s)
        for at, bent in zip((one, other), bent_s, strict=True)
    ]
    ends = [
        reference.n_positions(at.track_id) - start
        for at, start in zip((one, other), starts, strict=True)
    ]
    first = max(0, -min(starts))
    last = min(max(int(duration_s / reference.hop_s), 1), *ends)
    if last <= first:
        return False
    stored, compared = (
        reference.vectors(at.track_id, start + first, start + last)
        for at, start in zip((one, other), starts, strict=True)
    )
    return float((stored * compared).sum(axis=1).mean()) >= _SAME_AUDIO
