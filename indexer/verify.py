"""Check that the shards of a catalog are intact and that the database agrees with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from engine.errors import AstoundError, NewerShardError, ShardError, printable
from engine.records import Placement
from engine.store.store import Store, StoredShard
from engine.vectors.shard import Shard
from engine.vectors.storage import ShardStorage
from indexer.lost import find_lost


@dataclass
class Problems:
    """What is wrong with a catalog.

    Parameters
    ----------
    messages : list of str
        One line for each problem.
    bad_shards : list of str
        Names of shards that are missing, damaged or of another recipe.
    bad_tracks : set of int
        Tracks whose vectors are unreliable: all in bad shards, and all with misplaced rows.
    miscounted : list of StoredShard
        Intact shards whose rows in the database have wrong counts, with the right counts.
    """

    messages: list[str] = field(default_factory=list)
    bad_shards: list[str] = field(default_factory=list)
    bad_tracks: set[int] = field(default_factory=set)
    miscounted: list[StoredShard] = field(default_factory=list)


def check_shards(
    store: Store, shards: ShardStorage, recipe_id: str, on_progress: Callable[[int, int], None]
) -> Problems:
    """Compare every shard with its own hashes, and the database with every shard.

    A shard without a row in the database is no problem unless the database has no shards at all:
    it is left from a crash, and the next write sets it aside.

    Parameters
    ----------
    store : Store
    shards : ShardStorage
    recipe_id : str
    on_progress : callable
        Called after every shard with the number of shards done and in total.

    Returns
    -------
    Problems
    """
    problems = Problems()
    by_shard: dict[str, list[Placement]] = defaultdict(list)
    for placement in store.placements():
        by_shard[placement.shard].append(placement)
    stored_shards = store.shards()
    hop_s = store.settings().get("segment_hop_s")
    for n_done, stored in enumerate(stored_shards, 1):
        placements = by_shard[stored.name]
        try:
            _check(shards.path(stored.name), stored, recipe_id, placements, problems, hop_s)
        except NewerShardError as error:  # intact: only a newer astound can judge it
            problems.messages.append(str(error))
        except (AstoundError, OSError) as error:
            if stored.name in store.shard_names():  # else another process has compacted it since
                _add_bad_shard(problems, stored.name, placements, [printable(error)])
        on_progress(n_done, len(stored_shards))
    if not stored_shards:
        lost = [one for one in find_lost(store, shards) if one.n_unknown or one.reason]
        problems.messages += [f"the database is empty, but there are shards; {one}" for one in lost]
    for track_id in store.dangling_tracks():
        problems.messages.append(f"track {track_id}: the shard of its row is not in the database")
        problems.bad_tracks.add(track_id)
    return problems


def _check(
    path: Path,
    stored: StoredShard,
    recipe_id: str,
    placements: Sequence[Placement],
    problems: Problems,
    hop_s: str | None,
) -> None:
    shard = Shard(path)
    shard.require_recipe(recipe_id)
    if hop_s != str(shard.segment_hop_s):
        reason = f"has a hop of {shard.segment_hop_s} s, but the database states {hop_s}"
        problems.messages.append(str(ShardError(path, reason)))
    if damage := shard.damage():
        _add_bad_shard(problems, stored.name, placements, damage)
        return
    counted = replace(stored, n_segments=shard.n_segments, n_clips=shard.n_clips)
    if counted != stored:
        reason = (
            f"has {counted.n_segments} segments and {counted.n_clips} clips, but the database "
            f"states {stored.n_segments} and {stored.n_clips}"
        )
        problems.messages.append(str(ShardError(path, reason)))
        problems.miscounted.append(counted)
    for problem, track_ids in (
        *_misplaced([_Span(p.track_id, p.first_row, p.n_segments) for p in placements],
                    counted.n_segments, "segments"),
        *_misplaced([_Span(p.track_id, p.first_clip, p.n_clips) for p in placements],
                    counted.n_clips, "clips"),
    ):  # fmt: skip
        problems.messages.append(str(ShardError(path, problem)))
        problems.bad_tracks.update(track_ids)


def _add_bad_shard(
    problems: Problems, shard: str, placements: Sequence[Placement], messages: Sequence[str]
) -> None:
    problems.messages += messages
    problems.bad_shards.append(shard)
    problems.bad_tracks.update(placement.track_id for placement in placements)


class _Span(NamedTuple):
    """Rows of a track among the vectors of one kind."""

    track_id: int
    first: int
    n_rows: int

    @property
    def end(self) -> int:
        return self.first + self.n_rows


def _misplaced(spans: Sequence[_Span], n_rows: int, what: str) -> Iterator[tuple[str, list[int]]]:
    """Yield a message and the track ids for spans that leave the shard or overlap."""
    inside: list[_Span] = []
    for span in spans:
        if span.first < 0 or span.n_rows < 0 or span.end > n_rows:
            reason = f"track {span.track_id} has {what} {span.first} to {span.end} of {n_rows}"
            yield reason, [span.track_id]
        elif span.n_rows:
            inside.append(span)
    furthest = _Span(0, 0, 0)
    for span in sorted(inside, key=lambda span: span.first):
        if span.first < furthest.end:
            ids = [furthest.track_id, span.track_id]
            yield f"tracks {ids[0]} and {ids[1]} have the same {what}", ids
        furthest = max(furthest, span, key=lambda span: span.end)
