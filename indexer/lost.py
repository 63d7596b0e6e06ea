"""Shards that the database does not name: set aside, never deleted unless all tracks are known.

They are left by a crash, or the database was emptied or is an older one from a backup. A shard
contains its tracks, so a repair restores them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from engine.errors import AstoundError, ShardError, StoreError, printable
from engine.records import NewTrack, StoredVectors
from engine.store.store import Store
from engine.vectors.shard import Shard
from engine.vectors.storage import PARTIAL_PREFIX, ShardStorage
from indexer.sources import MAX_SEGMENTS, Batch


def set_aside(store: Store, shards: ShardStorage) -> list[str]:
    """Move shards that the database does not name aside, and delete what it has superseded.

    Every writer calls it first, with the write lock.

    Returns
    -------
    list of str
        Names of the shards moved or deleted.

    Raises
    ------
    StoreError
        The folder of shards is missing.
    """
    require_folder(store, shards)
    superseded = store.superseded_shards()
    swept = shards.sweep(store.shard_names(), superseded)
    store.remove_superseded(superseded)
    return swept


def require_folder(store: Store, shards: ShardStorage) -> None:
    """Raise StoreError if the folder of shards is missing, which a writer would create empty."""
    if not shards.exists() and store.shard_names():
        raise StoreError(
            f"{printable(shards.folder)}: folder of shards is missing; restore it from a backup, "
            "or create an empty folder to fingerprint all files again"
        )


@dataclass(frozen=True)
class LostShard:
    """A shard that the database does not name.

    Parameters
    ----------
    path : Path
    n_tracks : int
        Tracks in it.
    n_unknown : int
        Those whose content is not in the catalog.
    reason : str
        Why it cannot be restored; empty if it can.
    has_deleted : bool
        Whether the unknown tracks were deleted after it was written: the database is intact and
        contains its other tracks.
    """

    path: Path
    n_tracks: int = 0
    n_unknown: int = 0
    reason: str = ""
    has_deleted: bool = False

    @property
    def is_partly_known(self) -> bool:
        """Whether some, but not all, of its tracks are in the catalog."""
        return 0 < self.n_unknown < self.n_tracks

    def __str__(self) -> str:
        """Describe it in one line."""
        path = printable(self.path)
        if self.reason:
            return (
                f"shard unknown to the database, cannot be restored: {self.reason}; "
                "delete it if it is not needed"
            )
        if not self.n_unknown:
            return (
                f"{path}: shard unknown to the database, its {self.n_tracks} tracks are all in "
                "the catalog; `astound verify --repair` removes it"
            )
        fix = (
            " and were deleted since it was written; delete it if it is not needed"
            if self.has_deleted
            else "; `astound verify --repair` restores them"
        )
        return (
            f"{path}: shard unknown to the database, {self.n_unknown} of its {self.n_tracks} "
            f"tracks are not in the catalog{fix}"
        )


def has_all_shards(store: Store, shards: ShardStorage) -> bool:
    """Return whether the database names shards and none is missing.

    An older database from a backup may name shards that a compaction has replaced since.
    """
    named = store.shard_names()
    return bool(named) and set(named) <= set(shards.names())


def find_lost(store: Store, shards: ShardStorage) -> list[LostShard]:
    """Describe every complete shard that the database does not name.

    Returns
    -------
    list of LostShard
        Those set aside, and those that the next writer would set aside.
    """
    unknown = [name for name in shards.names() if not name.startswith(PARTIAL_PREFIX)]
    known = {*store.shard_names(), *store.superseded_shards()}
    lost = [describe_lost(store, path) for path in shards.lost()]
    for name in unknown:
        if name not in known:
            try:
                lost.append(describe_lost(store, shards.path(name)))
            except ShardError as error:
                lost.append(LostShard(Path(name), reason=str(error)))
    is_intact = has_all_shards(store, shards)
    return [replace(one, has_deleted=is_intact and one.is_partly_known) for one in lost]


def describe_lost(store: Store, path: Path) -> LostShard:
    """Compare the tracks in a shard that the database does not name with the catalog."""
    settings = store.settings()
    try:
        shard = Shard(path)
        shard.require_recipe(settings.get("recipe_id", shard.header["recipe_id"]))
        hop_s = float(settings.get("segment_hop_s", shard.segment_hop_s))
        if hop_s != shard.segment_hop_s:
            raise ShardError(path, f"has a hop of {shard.segment_hop_s} s, the catalog {hop_s} s")
        _require_intact(shard)
        tracks = shard.tracks()
    except (AstoundError, OSError) as error:
        return LostShard(path, reason=str(error))
    known = store.known_hashes([track.content_hash for track in tracks])
    return LostShard(path, len(tracks), sum(one.content_hash not in known for one in tracks))


def _require_intact(shard: Shard) -> None:
    if damage := shard.damage():
        raise ShardError(shard.path, damage[0])


class LostSource:
    """The tracks of one shard, as a source to merge.

    Parameters
    ----------
    path : Path
        Folder of the shard.
    recipe : str
        JSON of the recipe it was made with.

    Raises
    ------
    ShardError
        The shard is damaged, or has no tracks.
    """

    def __init__(self, path: Path, recipe: str) -> None:
        self._shard = Shard(path)
        _require_intact(self._shard)
        self.path, self.name, self.tracks = path, printable(path), self._shard.tracks()
        self.n_tracks = len(self.tracks)
        self.recipe_id = str(self._shard.header["recipe_id"])
        self.segment_hop_s = self._shard.segment_hop_s
        self.settings: Mapping[str, str] = {
            "recipe_id": self.recipe_id,
            "recipe": recipe,
            "segment_hop_s": str(self.segment_hop_s),
        }
        self._first_rows = list(accumulate((t.n_segments for t in self.tracks), initial=0))
        self._first_clips = list(accumulate((t.n_clips for t in self.tracks), initial=0))

    def batches(self) -> Iterator[Batch]:
        """Yield all tracks in batches of bounded size."""
        first = 0
        for last in range(1, self.n_tracks + 1):
            n_segments = self._first_rows[last] - self._first_rows[first]
            if n_segments >= MAX_SEGMENTS or last == self.n_tracks:
                yield _LostBatch(self, first, self.tracks[first:last])
                first = last

    def read(self, number: int) -> StoredVectors:
        """Read the vectors of ``tracks[number]``."""
        track = self.tracks[number]
        return StoredVectors(
            embeddings=self._shard.vectors(self._first_rows[number], track.n_segments),
            clip_embeddings=self._shard.clips(self._first_clips[number], track.n_clips),
            segment_hop_s=self.segment_hop_s,
            recipe_id=self.recipe_id,
        )


class _LostBatch:
    def __init__(self, source: LostSource, first: int, tracks: Sequence[NewTrack]) -> None:
        self._source, self._first, self.tracks = source, first, tracks

    def read(self, number: int) -> StoredVectors:
        return self._source.read(self._first + number)
