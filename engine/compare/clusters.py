"""Groups of full duplicates, and which track of each to keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from engine.records import CUT_OFF_KEY, SOUND_KEY, Cluster, Duplicate, NewTrack, Sound
from engine.validation import parse_json, to_record

# Copies with at least this share of the most that is audible are as long: one that runs slower is
# longer, and no better. The second holds for copies that run at one speed.
_SAME_LENGTH, _SAME_LENGTH_AT_ONE_SPEED = 0.95, 0.98
_SAME_SPEED = 0.01
_SAME_BIT_RATE = 0.9  # of one setting of an encoder


@dataclass(frozen=True, kw_only=True)
class Copy:
    """What decides which of several copies to keep.

    Parameters
    ----------
    audible_s : float
        Seconds that are audible.
    duration_s : float
    is_cut_off : bool
        The file ends before its header says.
    sound : Sound or None
        None if unknown, as in older catalogs.
    """

    audible_s: float
    duration_s: float
    is_cut_off: bool = False
    sound: Sound | None = None

    @classmethod
    def of(cls, track: NewTrack, audible_s: float) -> Copy:
        """Read what is known of a track."""
        try:
            sound = to_record(Sound, parse_json(track.metadata[SOUND_KEY]))
        except (KeyError, ValueError):
            sound = None
        return cls(
            audible_s=audible_s,
            duration_s=track.duration_s,
            is_cut_off=CUT_OFF_KEY in track.metadata,
            sound=sound,
        )

    @property
    def encoding(self) -> Sound:
        """The sound, which must be known."""
        assert self.sound is not None
        return self.sound

    @property
    def bit_rate(self) -> float:
        """Bits per second of a lossy codec; 0 of a lossless one, where it says nothing."""
        if self.encoding.is_lossless:
            return 0.0
        return 8 * self.encoding.n_bytes / max(self.duration_s, 1e-3)


def clusters(duplicates: Iterable[Duplicate], copies: Mapping[int, Copy]) -> list[Cluster]:
    """Join full duplicates, and choose the track to keep of each cluster.

    It has most that is audible, within 5 %, and of these it is, in this order: not cut off,
    lossless, of the highest bit rate, of the highest sample rate, the longest if all run at one
    speed, the first that was added.

    Parameters
    ----------
    duplicates : iterable of Duplicate
        Of any kind.
    copies : mapping
        The copy of each track by its id.

    Returns
    -------
    list of Cluster
        By the earliest id in each.
    """
    full = [duplicate for duplicate in duplicates if duplicate.kind == "full"]
    members: dict[int, set[int]] = {}
    for duplicate in full:
        pair = duplicate.first_id, duplicate.second_id
        together = set(pair).union(*(members.get(track_id, ()) for track_id in pair))
        members |= dict.fromkeys(together, together)
    changed = {
        pair.first_id
        for pair in full
        if any(abs(passage.speed - 1) > _SAME_SPEED for passage in pair.passages)
    }
    distinct = {min(together): together for together in members.values()}
    return [
        _cluster({i: copies[i] for i in sorted(together)}, changed.isdisjoint(together))
        for _, together in sorted(distinct.items())
    ]


def _cluster(copies: Mapping[int, Copy], is_one_speed: bool) -> Cluster:
    best, reasons = dict(copies), []
    for rule in _rules(copies.values(), is_one_speed):
        least = rule.tolerance * max(map(rule.score, best.values()))
        kept = {i: one for i, one in best.items() if rule.score(one) >= least}
        if len(kept) < len(best):
            reasons.append(rule.describe(kept[min(kept)]))
        best = kept
    if len(best) > 1:
        reasons.append("added first")
    keeper_id = min(best)
    others = tuple(track_id for track_id in copies if track_id != keeper_id)
    return Cluster(keeper_id=keeper_id, other_ids=others, reason=", ".join(reasons))


class _Rule(NamedTuple):
    """Keeps copies whose score is at least a share of the highest, and says what they have."""

    score: Callable[[Copy], float]
    tolerance: float
    describe: Callable[[Copy], str]


def _rules(copies: Iterable[Copy], is_one_speed: bool) -> Iterator[_Rule]:
    yield _Rule(lambda one: one.audible_s, _SAME_LENGTH, _describe_length)
    yield _Rule(lambda one: not one.is_cut_off, 1.0, lambda one: "not cut off")
    if all(one.sound for one in copies):
        yield from _SOUND_RULES
    if is_one_speed:
        yield _Rule(lambda one: one.audible_s, _SAME_LENGTH_AT_ONE_SPEED, _describe_length)


def _describe_length(copy: Copy) -> str:
    return f"{copy.audible_s:.1f} s of sound"


_SOUND_RULES = (
    _Rule(
        lambda one: one.encoding.is_lossless, 1.0, lambda one: f"lossless ({one.encoding.codec})"
    ),
    _Rule(
        lambda one: one.bit_rate, _SAME_BIT_RATE, lambda one: f"{one.bit_rate / 1000:.0f} kbit/s"
    ),
    _Rule(lambda one: one.encoding.sample_rate, 1.0, lambda one: f"{one.encoding.sample_rate} Hz"),
)
