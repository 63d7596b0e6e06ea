"""Whether a catalog's shards are whole, and whether its tracks lie where the database says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from engine.errors import AstoundError, ShardError, printable
from engine.records import Placement
from engine.store.store import Store, StoredShard
from engine.vectors.shard import Shard
from engine.vectors.storage import ShardStorage


@dataclass
class Findings:
    """What is wrong with a catalog.

    Parameters
    ----------
    problems : list of str
        One line for each thing that is wrong.
    bad_shards : list of str
        Shards that are missing, damaged, or of another recipe.
    bad_tracks : set of int
        Tracks whose vectors are not to be relied on: all in bad shards, and all that lie astray.
    miscounted : list of StoredShard
        Shards that are whole, with the counts that the database should have.
    """

    problems: list[str] = field(default_factory=list)
    bad_shards: list[str] = field(default_factory=list)
    bad_tracks: set[int] = field(default_factory=set)
    miscounted: list[StoredShard] = field(default_factory=list)


def examine(
    store: Store, shards: ShardStorage, recipe_id: str, on_progress: Callable[[int, int], None]
) -> Findings:
    """Check every shard against its own hashes, and the database against every shard.

    What a crash left behind without a row in the database is no fault: the next write sweeps it.

    Parameters
    ----------
    store : Store
    shards : ShardStorage
    recipe_id : str
    on_progress : callable
        Told after every shard how many are done, and how many there are.

    Returns
    -------
    Findings
    """
    findings = Findings()
    by_shard: dict[str, list[Placement]] = defaultdict(list)
    for placement in store.placements():
        by_shard[placement.shard].append(placement)
    all_shards = store.shards()
    for n_done, stored in enumerate(all_shards, 1):
        placements = by_shard[stored.name]
        try:
            _check(shards.path(stored.name), stored, recipe_id, placements, findings)
        except (AstoundError, OSError) as error:
            if stored.name in store.shard_names():  # else another process has just compacted it
                _condemn(findings, stored.name, placements, [printable(error)])
        on_progress(n_done, len(all_shards))
    return findings


def _check(
    path: Path,
    stored: StoredShard,
    recipe_id: str,
    placements: Sequence[Placement],
    findings: Findings,
) -> None:
    shard = Shard(path)
    shard.require_recipe(recipe_id)
    if damage := shard.damage():
        _condemn(findings, stored.name, placements, damage)
        return
    true = replace(stored, n_segments=shard.n_segments, n_clips=shard.n_clips)
    if true != stored:
        counts = f"{stored.n_segments} segments and {stored.n_clips} clips"
        found = f"it has {true.n_segments} and {true.n_clips}"
        findings.problems.append(str(ShardError(path, f"the database says {counts}, {found}")))
        findings.miscounted.append(true)
    for problem, track_ids in (
        *_astray([_Span(p.track_id, p.first_row, p.n_segments) for p in placements],
                 true.n_segments, "segments"),
        *_astray([_Span(p.track_id, p.first_clip, p.n_clips) for p in placements],
                 true.n_clips, "clips"),
    ):  # fmt: skip
        findings.problems.append(str(ShardError(path, problem)))
        findings.bad_tracks.update(track_ids)


def _condemn(
    findings: Findings, shard: str, placements: Sequence[Placement], problems: Sequence[str]
) -> None:
    findings.problems += problems
    findings.bad_shards.append(shard)
    findings.bad_tracks.update(one.track_id for one in placements)


class _Span(NamedTuple):
    """The rows of a track among vectors of one kind."""

    track_id: int
    first: int
    n_rows: int

    @property
    def end(self) -> int:
        return self.first + self.n_rows


def _astray(spans: Sequence[_Span], n_all: int, what: str) -> Iterator[tuple[str, list[int]]]:
    """Yield what is wrong with tracks that lie outside of their shard or on each other."""
    inside: list[_Span] = []
    for span in spans:
        if span.first < 0 or span.n_rows < 0 or span.end > n_all:
            place = f"{span.first} to {span.end} of {n_all}"
            yield f"track {span.track_id} has the {what} {place}", [span.track_id]
        elif span.n_rows:
            inside.append(span)
    furthest = _Span(0, 0, 0)
    for span in sorted(inside, key=lambda one: one.first):
        if span.first < furthest.end:
            both = [furthest.track_id, span.track_id]
            yield f"tracks {both[0]} and {both[1]} have the same {what}", both
        furthest = max(furthest, span, key=lambda one: one.end)
