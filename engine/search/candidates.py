"""From the fingerprint of a query to candidates: search, vote, rescore, rank by evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from engine.protocol import VectorIndex
from engine.records import Candidate, Fingerprint, TrackReader
from engine.search.alignment import remove_mean, rescore, rescore_seeds
from engine.search.context import SearchContext
from engine.search.voting import vote

MIN_SAME_AUDIO = 0.9
"""Mean cosine from which two recordings hold the same audio.

Clean excerpts agree with their tracks by 0.92 at least, other music of 5 s by 0.87 at most.
"""

# Pairs of a query segment and a stored one that vote in an exhaustive search, to bound memory.
_MAX_PAIRS = 10_000_000
_N_OTHERS = 10
# Diagonals that are rescored for seeds, and how many of the best ones are tilted.
_N_SEED_DIAGONALS, _N_TILTED_SEEDS = 60, 3


def find_candidates(
    query: Fingerprint, context: SearchContext, within: VectorIndex | None = None
) -> list[Candidate]:
    """Find the tracks a query may come from.

    Parameters
    ----------
    query : Fingerprint
        The hop of the catalog must be a multiple of its hop.
    context : SearchContext
        Its stopwatch measures the steps "search" and "align".
    within : VectorIndex, optional
        `context.index`, narrowed to the tracks that may be found. All their segments vote, not
        only the nearest ones; the background is still that of the whole catalog.

    Returns
    -------
    list of Candidate
        One for each track, most evidence first.
    """
    candidates = _found(query, context, within)
    if len(candidates) == 1 and within is None:
        candidates += _rivals(candidates[0], query, context)
    with context.stopwatch.step("align"):
        return with_margins(candidates, query.duration_s, context.tracks)


def _rivals(only: Candidate, query: Fingerprint, context: SearchContext) -> list[Candidate]:
    """Find candidates among the other tracks, where one track has all nearest neighbours."""
    others = set(context.index.track_ids) - {only.track_id}
    narrowed = replace(context, index=context.index.among(others))
    return _found(query, narrowed, None) if others else []


def _found(
    query: Fingerprint, context: SearchContext, within: VectorIndex | None
) -> list[Candidate]:
    """Search, vote and rescore; candidates have no margins yet."""
    search, alignment, searched = context.search, context.alignment, context.index
    centred = remove_mean(query)
    with context.stopwatch.step("search"):
        voters = context.index.search(
            centred,
            max(search.k, context.n_voting_neighbours),
            n_rescored=search.n_rescored,
            nprobe=search.nprobe,
        )
        hits = voters.first(search.k)
        if within is not None:
            searched = within
            n_all = min(within.n_segments, max(_MAX_PAIRS // len(centred), search.k))
            voters = within.search(centred, n_all)
    with context.stopwatch.step("align"):
        ticks_per_hop = round(context.reference_hop_s / query.segment_hop_s)
        diagonals = vote(voters, ticks_per_hop, alignment.max_candidates)
        reader = replace(context, index=searched).tracks
        return rescore(diagonals, query, centred, hits, reader, alignment)


def find_seeds(query: Fingerprint, context: SearchContext, n_seeds: int) -> list[Candidate]:
    """Find lines that a stretch of a recording may lie on, with less effort.

    Tilted lines are tried as well unless a diagonal is clearly right.

    Parameters
    ----------
    query : Fingerprint
    context : SearchContext
    n_seeds : int

    Returns
    -------
    list of Candidate
        The diagonals with most evidence, then tilted lines.
    """
    search = context.search
    alignment = replace(context.alignment, max_tracks=n_seeds + 1, n_tilted=_N_TILTED_SEEDS)
    centred = remove_mean(query)
    with context.stopwatch.step("search"):
        hits = context.index.search(
            centred, search.k, n_rescored=search.n_rescored, nprobe=search.nprobe
        )
    with context.stopwatch.step("align"):
        ticks_per_hop = round(context.reference_hop_s / query.segment_hop_s)
        diagonals = vote(hits, ticks_per_hop, _N_SEED_DIAGONALS)
        return rescore_seeds(diagonals, query, centred, hits, context.tracks, alignment)


def with_margins(
    candidates: Iterable[Candidate], duration_s: float, tracks: TrackReader
) -> list[Candidate]:
    """Sort candidates by their evidence, and measure each one's lead over the other tracks.

    Tracks that hold the same audio are no rivals: a single and an album, or a file and its
    re-encoding, must not lower each other's confidence.

    Parameters
    ----------
    candidates : iterable of Candidate
        One for each track.
    duration_s : float
        Length of the query.
    tracks : TrackReader

    Returns
    -------
    list of Candidate
        Most evidence first.
    """
    ranked = sorted(candidates, key=lambda one: -one.evidence)
    return [_with_margin(candidate, ranked, duration_s, tracks) for candidate in ranked]


def _with_margin(
    candidate: Candidate, ranked: Sequence[Candidate], duration_s: float, tracks: TrackReader
) -> Candidate:
    rival_evidence = next(
        (
            rival.evidence
            for rival in ranked
            if rival.track_id != candidate.track_id
            and not _same_audio(candidate, rival, duration_s, tracks)
        ),
        0.0,
    )
    others = [one.evidence for one in ranked[: _N_OTHERS + 1] if one is not candidate]
    return replace(
        candidate,
        margin=candidate.evidence - rival_evidence,
        others=float(np.mean(others[:_N_OTHERS])) if others else 0.0,
    )


def _same_audio(
    candidate: Candidate, rival: Candidate, duration_s: float, tracks: TrackReader
) -> bool:
    """Whether two tracks store the same vectors where the query lies in them."""
    pair = candidate, rival
    # Two speeds that differ by chance agree best in the middle of the query.
    starts = [
        round((one.offset_s + (one.speed - 1) * duration_s / 2) / tracks.hop_s) for one in pair
    ]
    ends = [
        tracks.n_positions(one.track_id) - start for one, start in zip(pair, starts, strict=True)
    ]
    first = max(0, -min(starts))
    last = min(max(int(duration_s / tracks.hop_s), 1), *ends)
    if last <= first:
        return False
    stored = [
        tracks.vectors(one.track_id, start + first, start + last)
        for one, start in zip(pair, starts, strict=True)
    ]
    return float((stored[0] * stored[1]).sum(axis=1).mean()) >= MIN_SAME_AUDIO
