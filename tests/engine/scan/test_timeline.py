"""Timelines of passages that are known: a clip has the part of each play that lies in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.records import Candidate, Vectors
from engine.scan.timeline import TimelineBuilder
from engine.search.clips import CLIP_S, OVERLAP_S
from tests.engine.search.synthetic import HOP_S, normalised, reader, unit

MAX_GAP_S = 20.0
STEP_S = CLIP_S - OVERLAP_S
N_STORED = 2000  # of every track
ERROR_S = 0.06  # of the borders and lines that a clip gives


@dataclass(frozen=True)
class Play:
    """A track that sounds in the recording."""

    track_id: int
    start_s: float
    end_s: float
    reference_s: float = 100.0
    speed: float = 1.0

    def at(self, query_s: float) -> float:
        return self.reference_s + self.speed * (query_s - self.start_s)

    def passage(
        self, from_s: float = 0.0, to_s: float = np.inf, rng: np.random.Generator | None = None
    ) -> Candidate:
        """What is found of it in a stretch, with errors if there is a generator."""
        start_s, end_s = max(self.start_s, from_s), min(self.end_s, to_s)
        errors_s = np.zeros(3) if rng is None else rng.uniform(-ERROR_S, ERROR_S, 3)
        # The line is right in the middle of what is found; its slope is nearly.
        middle_s, length_s = (start_s + end_s) / 2, end_s - start_s
        speed = self.speed + (0.0 if rng is None else float(rng.uniform(-1, 1)) * 0.05 / length_s)
        return Candidate(
            track_id=self.track_id,
            offset_s=self.at(middle_s) + errors_s[0] - speed * middle_s,
            votes=10,
            evidence=1.0,
            score=0.8,
            coverage=1.0,
            query_start_s=start_s + abs(errors_s[1]),
            query_end_s=end_s - abs(errors_s[2]),
            speed=speed,
            confidence=0.9,
            audible_s=length_s,
        )


Tracks = Mapping[int, Vectors]


@cache
def music() -> Tracks:
    rng = np.random.default_rng(3)
    return {track_id: unit(rng, N_STORED) for track_id in range(12)}


def with_copy(track_id: int, copy: int, later_s: float = 0.0) -> Tracks:
    """Let a track store nearly the same as another one, which begins later in it."""
    moved = np.roll(music()[track_id], round(later_s / HOP_S), axis=0)
    noise = unit(np.random.default_rng(4), N_STORED)
    return {**music(), copy: normalised(moved + 0.5 * noise)}


def builder(
    max_gap_s: float = MAX_GAP_S, tracks: Tracks | None = None, *, best_only: bool = True
) -> TimelineBuilder:
    return TimelineBuilder(reader(tracks or music()), max_gap_s, best_only=best_only)


def passages_of_clips(
    plays: Iterable[Play], duration_s: float, rng: np.random.Generator | None = None
) -> Iterable[tuple[float, list[Candidate]]]:
    """Yield the end of each clip with the passages of a second or more in it."""
    plays = list(plays)
    for start_s in np.arange(0.0, max(duration_s - OVERLAP_S, 1.0), STEP_S).tolist():
        end_s = min(start_s + CLIP_S, duration_s)
        yield (
            end_s,
            [
                play.passage(start_s, end_s, rng)
                for play in plays
                if min(play.end_s, end_s) - max(play.start_s, start_s) >= 1.0
            ],
        )


def run(
    timeline: TimelineBuilder,
    plays: Iterable[Play],
    duration_s: float,
    rng: np.random.Generator | None = None,
) -> list[Candidate]:
    found = []
    for end_s, passages in passages_of_clips(plays, duration_s, rng):
        found += timeline.add(passages, end_s)
    return sorted([*found, *timeline.finish()], key=lambda one: one.query_start_s)


def check(found: Candidate, play: Play, within_s: float = 1e-6) -> None:
    assert found.track_id == play.track_id
    assert found.query_start_s == pytest.approx(play.start_s, abs=within_s)
    assert found.query_end_s == pytest.approx(play.end_s, abs=within_s)
    for time_s in (found.query_start_s, found.query_end_s):
        at_s = found.offset_s + found.speed * time_s
        assert at_s == pytest.approx(play.at(time_s), abs=2 * within_s)


# -- clips -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start_s", "end_s"),
    [(10.0, 60.0), (100.0, 126.0), (114.0, 130.0), (120.0, 300.0), (5.0, 640.0), (111.5, 113.5)],
)
@pytest.mark.parametrize("speed", [1.0, 0.96, 1.2])
def test_play_is_one_passage_whatever_clips_it_lies_in(
    start_s: float, end_s: float, speed: float
) -> None:
    play = Play(1, start_s, end_s, speed=speed)
    (found,) = run(builder(), [play], 650.0)
    check(found, play)
    assert [found.speed, found.score] == pytest.approx([speed, 0.8])


@pytest.mark.parametrize("seed", range(8))
def test_errors_of_clips_do_not_add_up(seed: int) -> None:
    play = Play(1, 7.0, 890.0, reference_s=3.0, speed=1.01)
    (found,) = run(builder(), [play], 900.0, np.random.default_rng(seed))
    check(found, play, within_s=2 * ERROR_S)
    assert found.speed == pytest.approx(1.01, abs=5e-4)


def test_what_two_clips_share_counts_once() -> None:
    """It is as sure as in either of them; a part that is new makes it surer."""
    (shared,) = run(builder(), [Play(1, 113.0, 127.0)], 300.0)
    assert shared.confidence == pytest.approx(0.9)
    (longer,) = run(builder(), [Play(1, 20.0, 220.0)], 300.0)
    assert longer.confidence == pytest.approx(0.99)


def test_score_is_the_mean_over_its_length() -> None:
    timeline = builder()
    play = Play(1, 0.0, 200.0)
    timeline.add([play.passage(0.0, 50.0)], 50.0)
    timeline.add([replace(play.passage(50.0, 200.0), score=0.4)], 200.0)
    (found,) = timeline.finish()
    assert found.score == pytest.approx((50 * 0.8 + 150 * 0.4) / 200)


def test_loop_that_continues_along_another_line_begins_where_the_first_ended() -> None:
    """The overlap of two clips belongs to one passage of a track."""
    timeline = builder()
    first, second = Play(1, 40.0, 128.0), Play(1, 112.0, 170.0, reference_s=500.0)
    found = timeline.add([first.passage()], 128.0) + timeline.add([second.passage()], 240.0)
    assert len(found) == 2
    check(found[0], first)
    check(found[1], Play(1, 128.0, 170.0, reference_s=516.0))


def test_loop_along_another_line_in_the_overlap_only_is_left_out() -> None:
    timeline = builder()
    first, second = Play(1, 40.0, 128.0), Play(1, 112.0, 128.5, reference_s=500.0)
    timeline.add([first.passage()], 128.0)
    (found,) = timeline.add([second.passage()], 240.0)
    check(found, first)


@pytest.mark.parametrize("start_s", [125.8, 126.6])
def test_short_end_of_a_clip_along_another_line_is_left_out(start_s: float) -> None:
    """The next clip contains the music from there on, and knows its line."""
    timeline = builder()
    before, second = Play(1, 40.0, 126.0), Play(1, 126.2, 170.0, reference_s=500.0)
    short = Play(1, start_s, 128.0, reference_s=300.0)
    timeline.add([before.passage(), short.passage()], 128.0)
    found = [*timeline.add([second.passage()], 240.0), *timeline.finish()]
    for one, play in zip(found, [before, second], strict=True):
        check(one, play)


def test_two_lines_of_one_clip_stay_two_passages() -> None:
    plays = [Play(1, 10.0, 60.0), Play(1, 60.0, 90.0, reference_s=20.0)]
    for found, play in zip(run(builder(), plays, 100.0), plays, strict=True):
        check(found, play)


def test_short_part_whose_slope_is_wrong_is_joined_where_both_are() -> None:
    """A second in the first clip says little about where the track is half a minute later."""
    whole = Play(1, 239.0, 264.0)
    start = replace(Play(1, 239.0, 240.0).passage(), speed=1.05)
    start = replace(start, offset_s=100.5 - 1.05 * 239.5)
    timeline = builder()
    assert timeline.add([start], 240.0) == []
    timeline.add([whole.passage()], 264.0)
    (found,) = timeline.finish()
    assert (found.query_start_s, found.query_end_s) == (239.0, 264.0)


# -- gaps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_gap_s", [0.0, 2.0, 20.0])
@pytest.mark.parametrize(("more_s", "n_found"), [(-0.01, 1), (0.01, 2)])
@pytest.mark.parametrize("again_s", [60.0, 120.0, 240.0])
def test_gap_of_a_play_is_bridged_up_to_the_longest(
    max_gap_s: float, more_s: float, n_found: int, again_s: float
) -> None:
    """In one clip or across clips."""
    absent_s = max(max_gap_s + more_s, 0.0)
    parts = [
        Play(1, again_s - absent_s - 30.0, again_s - absent_s),
        Play(1, again_s, again_s + 20.0, reference_s=130.0 + absent_s),
    ]
    found = run(builder(max_gap_s), parts, 400.0)
    assert len(found) == n_found
    check(replace(found[0], query_end_s=found[-1].query_end_s),
          replace(parts[0], end_s=parts[1].end_s))  # fmt: skip


@pytest.mark.parametrize("cut_s", [-30.0, -1.2, 1.2, 30.0])
@pytest.mark.parametrize("at_s", [60.0, 120.0, 128.0, 200.0])
def test_edit_is_not_joined(cut_s: float, at_s: float) -> None:
    """A part of the track is cut out, or repeated, at a time of the recording."""
    plays = [
        Play(1, 20.0, at_s),
        Play(1, at_s, at_s + 50.0, reference_s=100.0 + at_s - 20.0 + cut_s),
    ]
    for found, play in zip(run(builder(), plays, 400.0), plays, strict=True):
        check(found, play)


@pytest.mark.parametrize("again_s", [90.0, 300.0])
def test_track_that_is_played_again_is_a_second_passage(again_s: float) -> None:
    plays = [Play(1, 10.0, 60.0), Play(1, again_s, again_s + 50.0)]
    for found, play in zip(run(builder(), plays, 500.0), plays, strict=True):
        check(found, play)


def test_other_track_is_never_joined() -> None:
    plays = [Play(1, 10.0, 60.0), Play(2, 60.0, 90.0, reference_s=150.0)]
    for found, play in zip(run(builder(), plays, 100.0), plays, strict=True):
        check(found, play)


# -- copies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("later_s", [0.0, 30.0])
@pytest.mark.parametrize("copy", [1, 9])
def test_copy_that_explains_less_is_left_out(copy: int, later_s: float) -> None:
    play, same = Play(5, 10.0, 150.0), Play(copy, 10.0, 140.0, reference_s=100.0 + later_s)
    both = with_copy(5, copy, later_s)
    (found,) = run(builder(tracks=both), [same, play], 400.0)
    check(found, play)
    everything = run(builder(tracks=both, best_only=False), [same, play], 400.0)
    assert sorted(one.track_id for one in everything) == sorted((5, copy))


def test_other_music_of_less_gain_is_reported() -> None:
    """Two tracks may sound at once."""
    plays = [Play(5, 10.0, 150.0), Play(9, 40.0, 100.0)]
    for found, play in zip(run(builder(), plays, 400.0), plays, strict=True):
        check(found, play)


def test_copy_that_explains_something_else_as_well_is_reported() -> None:
    plays = [Play(5, 10.0, 100.0), Play(9, 60.0, 145.0, reference_s=150.0)]
    for found, play in zip(run(builder(tracks=with_copy(5, 9)), plays, 400.0), plays, strict=True):
        check(found, play)


def test_copies_are_compared_along_their_lines() -> None:
    """The same track twice is the same music at the same place only."""
    both = with_copy(5, 9)
    plays = [Play(5, 10.0, 100.0), Play(9, 12.0, 99.0, reference_s=400.0)]
    for found, play in zip(run(builder(tracks=both), plays, 400.0), plays, strict=True):
        check(found, play)


@pytest.mark.parametrize("ends_s", [90.0, 104.0, 127.0])
def test_copy_that_ends_in_the_next_clip_is_left_out(ends_s: float) -> None:
    """The better passage has been returned by then."""
    play, same = Play(5, 10.0, 100.0), Play(9, 40.0, ends_s, reference_s=130.0)
    (found,) = run(builder(tracks=with_copy(5, 9)), [play, same], 400.0)
    check(found, play)


# -- the order of answers ------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    lengths_s=st.lists(st.floats(3.0, 200.0), min_size=1, max_size=10),
    pauses_s=st.lists(st.floats(0.0, 60.0), min_size=10, max_size=10),
    seed=st.integers(0, 10**6),
)
def test_each_play_is_returned_once_and_after_its_end(
    lengths_s: list[float], pauses_s: list[float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    plays, now_s = [], 0.0
    for i, (length_s, pause_s) in enumerate(zip(lengths_s, pauses_s, strict=False)):
        now_s += pause_s
        plays.append(
            Play(i, now_s, now_s + length_s, float(rng.uniform(0, 300)), rng.uniform(0.8, 1.2))
        )
        now_s += length_s
    timeline, found = builder(), []
    for end_s, passages in passages_of_clips(plays, now_s, rng):
        ended = timeline.add(passages, end_s)
        assert all(one.query_end_s < end_s - MAX_GAP_S for one in ended)
        assert [one.query_start_s for one in ended] == sorted(one.query_start_s for one in ended)
        found += ended
        n_ended = sum(play.end_s < end_s - MAX_GAP_S for play in plays)
        assert n_ended <= len(found) <= n_ended + 1
    found += timeline.finish()
    assert timeline.n_held == 0
    for one, play in zip(found, plays, strict=True):
        check(one, play, within_s=4 * ERROR_S)


def test_memory_is_bounded_by_what_may_continue() -> None:
    """A day of plays of half a minute, one after the other."""
    plays = [Play(i % 12, 30.0 * i, 30.0 * i + 29.0) for i in range(2880)]
    timeline, n_found, held = builder(), 0, []
    for end_s, passages in passages_of_clips(plays, 86400.0):
        n_found += len(timeline.add(passages, end_s))
        held.append(timeline.n_held)
    assert n_found >= 2875
    assert max(held) <= 2


def test_passage_that_never_ends_is_one_in_memory() -> None:
    timeline = builder()
    play = Play(1, 0.0, 1e6, speed=1.0)
    for end_s in np.arange(CLIP_S, 20_000.0, STEP_S).tolist():
        assert timeline.add([play.passage(end_s - CLIP_S, end_s)], end_s) == []
        assert timeline.n_held == 1


# -- joined lines --------------------------------------------------------------------------------


@settings(max_examples=100)
@given(
    speed=st.floats(0.7, 1.4),
    cuts_s=st.lists(st.floats(20.0, 480.0), min_size=1, max_size=6),
    shared_s=st.floats(0.0, 16.0),
    order=st.randoms(use_true_random=False),
)
def test_parts_of_one_line_are_joined_to_it_in_any_order(
    speed: float,
    cuts_s: list[float],
    shared_s: float,
    order: Callable[..., None],
) -> None:
    play = Play(1, 10.0, 490.0, speed=speed)
    borders_s = [10.0, *sorted(cuts_s), 490.0]
    parts = [play.passage(one, min(other + shared_s, 490.0)) for one, other in pairwise(borders_s)]
    order.shuffle(parts)  # type: ignore[attr-defined]
    timeline = builder()
    timeline.add(parts, 500.0)
    (found,) = timeline.finish()
    check(found, play, within_s=1e-3)


def test_line_of_parts_that_share_most_is_that_of_the_longer_one() -> None:
    """Their middles are 2 s apart: an error of a tenth of a second would tilt a line by 5 %."""
    play = Play(1, 220.0, 240.0, reference_s=12.0, speed=0.8)
    whole, rest = play.passage(), play.passage(224.0)
    rest = replace(rest, offset_s=rest.offset_s + 0.1 - 0.002 * 232.0, speed=0.802)
    timeline = builder()
    timeline.add([whole], 240.0)
    timeline.add([rest], 250.0)
    (found,) = timeline.finish()
    assert found.speed == play.speed
    check(found, play, within_s=0.1)
