from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest

from engine.compare.clusters import Copy, clusters
from engine.records import (
    CUT_OFF_KEY,
    SOUND_KEY,
    Duplicate,
    DuplicateKind,
    NewTrack,
    Passage,
    Sound,
)

FLAC = Sound(codec="flac", is_lossless=True, sample_rate=44100, n_bytes=9_000_000)
MP3 = Sound(codec="mp3", is_lossless=False, sample_rate=44100, n_bytes=1_600_000)


def pair(first: int, second: int, kind: DuplicateKind = "full", speed: float = 1.0) -> Duplicate:
    passage = Passage(
        query_start_s=0.0, query_end_s=100.0, reference_start_s=0.0, reference_end_s=100.0,
        score=0.99, speed=speed,
    )  # fmt: skip
    return Duplicate(
        kind=kind, first_id=first, second_id=second, first_share=1, second_share=1,
        passages=(passage,),
    )  # fmt: skip


def copies_of(audible_s: Mapping[int, float]) -> dict[int, Copy]:
    """Copies of which only the length is known."""
    return {i: Copy(audible_s=seconds, duration_s=seconds) for i, seconds in audible_s.items()}


def copy(audible_s: float = 100.0, **fields: Any) -> Copy:
    return replace(Copy(audible_s=audible_s, duration_s=100.0, sound=MP3), **fields)


def sound(like: Sound, **changes: Any) -> Sound:
    return Sound(**asdict(like) | changes)


def test_clusters_are_joined_in_any_order_and_keep_the_longest() -> None:
    pairs = [pair(4, 8), pair(1, 2), pair(2, 8), pair(5, 6), pair(6, 7, "part")]
    copies = copies_of(dict.fromkeys(range(1, 9), 100.0) | {2: 130.0, 8: 127.5, 6: 100.5})
    for found in (pairs, pairs[::-1]):
        made = {one.keeper_id: one for one in clusters(found, copies)}
        assert {i: one.other_ids for i, one in made.items()} == {2: (1, 4, 8), 5: (6,)}
        assert made[2].reason == "130.0 s of sound, added first"
        assert made[5].reason == "added first"  # 6 is hardly longer than 5


def test_no_duplicates_are_no_clusters() -> None:
    assert clusters([], {}) == []


@pytest.mark.parametrize(
    ("worse", "better", "reason"),
    [
        (copy(94.0, sound=FLAC), copy(), "100.0 s of sound"),
        (copy(sound=FLAC, is_cut_off=True), copy(), "not cut off"),
        (copy(), copy(96.0, sound=FLAC), "lossless (flac)"),
        (
            copy(sound=sound(MP3, sample_rate=48000, n_bytes=1_400_000)),
            copy(sound=MP3),
            "128 kbit/s",
        ),
        (copy(sound=MP3), copy(sound=sound(MP3, codec="aac", sample_rate=48000)), "48000 Hz"),
        (
            copy(sound=sound(FLAC, n_bytes=99_000_000)),
            copy(sound=sound(FLAC, codec="alac", sample_rate=96000)),
            "96000 Hz",
        ),
        (copy(97.0), copy(100.0), "100.0 s of sound"),
        (copy(97.0, sound=None), copy(100.0, sound=FLAC), "100.0 s of sound"),
    ],
)
def test_best_copy_is_kept_whichever_is_first(worse: Copy, better: Copy, reason: str) -> None:
    for keeper, other in ((1, 2), (2, 1)):
        (made,) = clusters([pair(1, 2)], {keeper: better, other: worse})
        assert (made.keeper_id, made.other_ids, made.reason) == (keeper, (other,), reason)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (copy(), copy(sound=sound(MP3, n_bytes=1_700_000))),  # bit rates of one setting
        (copy(sound=FLAC), copy(sound=sound(FLAC, codec="pcm_s16le", n_bytes=17_000_000))),
        (copy(sound=None), copy(sound=FLAC)),
        (copy(99.0), copy(100.0)),
    ],
)
def test_first_of_copies_that_are_as_good_is_kept(first: Copy, second: Copy) -> None:
    (made,) = clusters([pair(1, 2)], {1: first, 2: second})
    assert (made.keeper_id, made.reason) == (1, "added first")


def test_slower_copy_is_not_better_for_its_length() -> None:
    (made,) = clusters([pair(1, 2, speed=0.97)], {1: copy(97.0), 2: copy(100.0)})
    assert (made.keeper_id, made.reason) == (1, "added first")


def test_each_rule_that_decides_is_a_reason() -> None:
    copies = {1: copy(60.0), 2: copy(), 3: copy(sound=FLAC), 4: copy(sound=FLAC)}
    (made,) = clusters([pair(1, 2), pair(2, 3), pair(3, 4)], copies)
    assert made.keeper_id == 3
    assert made.reason == "100.0 s of sound, lossless (flac), added first"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"codec": 1}'])
def test_copy_has_what_the_metadata_say(text: str) -> None:
    def track(**metadata: str) -> NewTrack:
        return NewTrack(
            path="/a", content_hash="a", n_bytes=1, modified_ns=1, duration_s=8.0, n_segments=1,
            n_clips=0, metadata=metadata,
        )  # fmt: skip

    noted = {SOUND_KEY: json.dumps(asdict(MP3)), CUT_OFF_KEY: "yes"}
    whole = Copy.of(track(**noted), 5.0)
    assert whole == Copy(audible_s=5.0, duration_s=8.0, is_cut_off=True, sound=MP3)
    assert whole.bit_rate == 1_600_000
    assert Copy.of(track(**{SOUND_KEY: text}), 5.0) == Copy(audible_s=5.0, duration_s=8.0)
