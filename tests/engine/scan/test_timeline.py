from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.config import ScanConfig
from engine.scan.records import HISTORY_S, WINDOW_S, Line, TrackSpan, WindowMatch
from engine.scan.timeline import TrackFollowers

CONFIG = ScanConfig()
HOP_S = 0.25
REFERENCE_S = 1000.0  # length of every track

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Play:
    """The truth: a track that sounds in the recording, and its cosine."""

    track_id: int
    start_s: float
    end_s: float
    reference_s: float = 100.0
    speed: float = 1.0
    cosine: float = 0.9

    @property
    def line(self) -> Line:
        return Line(
            track_id=self.track_id,
            time_s=self.start_s,
            reference_s=self.reference_s,
            speed=self.speed,
        )


@dataclass
class World:
    """A tracer of a recording that is known."""

    plays: list[Play]
    copies: set[frozenset[int]] = field(default_factory=set)
    silences: list[tuple[float, float]] = field(default_factory=list)
    talks: list[tuple[float, float]] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    window_speed: float = 1.0  # that of all window matches
    position_s: float = 0.0
    hop_s: float = HOP_S

    def trace(self, line: Line, start_s: float, end_s: float) -> tuple[Floats, Floats]:
        first_s = max(start_s, self.position_s - HISTORY_S, 0.0)
        last = np.ceil(min(end_s, self.position_s) / HOP_S)
        middles_s = np.arange(np.ceil(first_s / HOP_S), last, dtype=np.float64) * HOP_S
        return middles_s, np.array([self._cosine(line, float(t)) for t in middles_s])

    def _cosine(self, line: Line, time_s: float) -> float:
        if any(start_s <= time_s < end_s for start_s, end_s in self.silences):
            return float("nan")
        if not 0 <= line.at(time_s) < REFERENCE_S:
            return -1.0
        agreeing = [
            play.cosine
            for play in self.plays
            if self.alike(play.track_id, line.track_id)
            and play.start_s <= time_s < play.end_s
            and abs(play.line.at(time_s) - line.at(time_s)) < 0.4
        ]
        noise = float(self.rng.normal(0, 0.1))
        return max(agreeing, default=0.2) + min(noise, 0.05)

    def alike(self, one: int, other: int) -> bool:
        return one == other or frozenset((one, other)) in self.copies

    def track_similarity(self, line: Line, other: Line, start_s: float, end_s: float) -> float:
        return 0.95 if self.alike(line.track_id, other.track_id) else 0.1

    def matches(self, start_s: float) -> list[WindowMatch]:
        """Match a window with the tracks, and their copies, that fill most of it."""
        middle_s = start_s + WINDOW_S / 2
        if any(begin_s < middle_s < end_s for begin_s, end_s in self.talks):
            return []
        ids = {play.track_id for play in self.plays} | set().union(*self.copies)
        return [
            WindowMatch(
                line=replace(
                    play.line,
                    track_id=track_id,
                    time_s=middle_s,
                    reference_s=play.line.at(middle_s) + float(self.rng.uniform(-0.1, 0.1)),
                    speed=self.window_speed,
                ),
                confidence=0.998,
            )
            for play in self.plays
            for track_id in sorted(ids)
            if self.alike(play.track_id, track_id)
            and min(play.end_s, start_s + WINDOW_S) - max(play.start_s, start_s) > 0.7 * WINDOW_S
        ]


def follow(
    world: World,
    duration_s: float,
    more: Callable[[float], list[WindowMatch]] = lambda start_s: [],
    config: ScanConfig = CONFIG,
) -> list[TrackSpan]:
    followers = TrackFollowers(world, config)
    reported: list[TrackSpan] = []
    for start_s in np.arange(0, duration_s - WINDOW_S + 1, WINDOW_S / 2):
        world.position_s = start_s + WINDOW_S
        matches = [*world.matches(start_s), *more(start_s)]
        reported += followers.update(matches, world.position_s)
    return sorted([*reported, *followers.finish()], key=lambda one: one.start_s)


def check(found: TrackSpan, play: Play, within_s: float = 0.5) -> None:
    assert found.track_id == play.track_id
    assert found.start_s == pytest.approx(play.start_s, abs=within_s)
    assert found.end_s == pytest.approx(play.end_s, abs=within_s)
    assert found.reference_start_s == pytest.approx(play.line.at(found.start_s), abs=0.4)
    assert found.reference_end_s == pytest.approx(play.line.at(found.end_s), abs=0.4)


def lone(
    confidence: float, at_s: float = 40.0, track_id: int = 7
) -> Callable[..., list[WindowMatch]]:
    """Match one window by chance."""
    line = Line(track_id=track_id, time_s=at_s + WINDOW_S / 2, reference_s=300.0)
    return lambda start_s: (
        [WindowMatch(line=line, confidence=confidence)] if start_s == at_s else []
    )


def test_one_track_has_its_boundaries() -> None:
    play = Play(1, 33.0, 97.5)
    (found,) = follow(World([play]), 140)
    check(found, play)
    assert found.score == pytest.approx(0.88, abs=0.05)
    assert found.confidence > 0.9999


@pytest.mark.parametrize("speed", [0.92, 0.96, 1.04, 1.08])
def test_other_speed_is_found_from_windows_of_speed_1(speed: float) -> None:
    play = Play(1, 20.0, 120.0, speed=speed)
    (found,) = follow(World([play]), 150)
    check(found, play)
    assert found.speed == pytest.approx(speed, abs=0.005)


def test_tracks_that_fade_into_each_other_overlap() -> None:
    plays = [Play(1, 10.0, 70.0), Play(2, 63.0, 130.0, reference_s=5.0)]
    for found, play in zip(follow(World(plays), 150), plays, strict=True):
        check(found, play)


def test_tracks_that_sound_at_once_are_both_found() -> None:
    plays = [Play(1, 10.0, 110.0), Play(2, 40.0, 80.0)]
    for found, play in zip(follow(World(plays), 150), plays, strict=True):
        check(found, play)


@pytest.mark.parametrize("again_s", [100.0, 300.0])
def test_track_that_occurs_again_is_a_second_span(again_s: float) -> None:
    plays = [Play(1, 10.0, 60.0), Play(1, again_s, again_s + 50.0)]
    for found, play in zip(follow(World(plays), again_s + 90), plays, strict=True):
        check(found, play)


def test_track_under_speech_stays_one_entry() -> None:
    quiet = Play(1, 40.0, 60.0, reference_s=130.0, cosine=0.5)
    world = World([Play(1, 10.0, 40.0), quiet, Play(1, 60.0, 100.0, reference_s=150.0)])
    world.talks = [(38.0, 62.0)]
    (found,) = follow(world, 130)
    check(found, Play(1, 10.0, 100.0))


@pytest.mark.parametrize(("absent_s", "n_entries"), [(15.0, 1), (40.0, 2)])
def test_track_that_goes_on_after_a_while_is_one_entry(absent_s: float, n_entries: int) -> None:
    again_s = 50.0 + absent_s
    plays = [Play(1, 10.0, 50.0), Play(1, again_s, again_s + 50, reference_s=140.0 + absent_s)]
    found = follow(World(plays), again_s + 80)
    assert len(found) == n_entries
    assert found[0].start_s == pytest.approx(10.0, abs=0.5)
    assert found[-1].end_s == pytest.approx(again_s + 50, abs=0.5)


def test_silence_ends_a_track() -> None:
    world = World([Play(1, 10.0, 200.0)], silences=[(50.0, 200.0)])
    world.talks = world.silences
    followers = TrackFollowers(world, CONFIG)
    reported: list[TrackSpan] = []
    for start_s in np.arange(0.0, 100.0, WINDOW_S / 2):
        world.position_s = start_s + WINDOW_S
        reported += followers.update(world.matches(start_s), world.position_s)
    assert followers.active() == []
    assert [one.end_s for one in reported] == [pytest.approx(50.0, abs=0.5)]


@pytest.mark.parametrize(("start_s", "end_s"), [(10.0, 65.0), (25.0, 80.0)])
def test_edge_that_agrees_only_a_little_is_left_out(start_s: float, end_s: float) -> None:
    whole = Play(1, 10.0, 80.0, cosine=0.55)  # what sounds like it but is not
    clear = Play(1, start_s, end_s, reference_s=whole.line.at(start_s))
    world = World([whole, clear], talks=[(0.0, start_s), (end_s, 100.0)])
    (found,) = follow(world, 120)
    check(found, clear)


@pytest.mark.parametrize(("confidence", "n_entries"), [(0.5, 0), (0.99, 0), (0.9999, 1)])
def test_lone_window_counts_only_if_it_is_sure(confidence: float, n_entries: int) -> None:
    world = World([Play(7, 40.0, 48.0, reference_s=296.0)])
    world.talks = [(0.0, 90.0)]
    assert len(follow(world, 90, lone(confidence))) == n_entries


def test_window_without_agreeing_segments_is_dropped() -> None:
    assert follow(World([]), 90, lone(0.999999)) == []


def test_chance_beside_a_track_changes_nothing() -> None:
    play = Play(1, 10.0, 80.0)
    (found,) = follow(World([play]), 100, lone(0.9, track_id=2))
    check(found, play)


def test_unlikely_speed_is_dropped() -> None:
    world = World([Play(1, 10.0, 80.0, speed=1.3)], window_speed=1.3)
    assert follow(world, 100) == []
    (found,) = follow(world, 100, config=replace(CONFIG, max_speed_change=0.4))
    assert found.speed == pytest.approx(1.3, abs=0.02)


@pytest.mark.parametrize("copy", [1, 9])
def test_copy_of_a_track_is_no_second_entry(copy: int) -> None:
    play = Play(5, 10.0, 80.0)
    (found,) = follow(World([play], copies={frozenset((5, copy))}), 110)
    assert found.track_id in (5, copy)
    check(replace(found, track_id=5), play)


def test_longer_of_two_copies_is_reported() -> None:
    short, whole = Play(1, 10.0, 40.0), Play(2, 10.0, 90.0)
    world = World([short, whole], copies={frozenset((1, 2))})
    world.alike = lambda one, other: one == other  # type: ignore[method-assign]
    world.track_similarity = lambda *_: 0.95  # type: ignore[method-assign]
    (found,) = follow(world, 150)
    check(found, whole)


def test_track_that_repeats_itself_is_one_entry() -> None:
    plays = [Play(1, 10.0, 90.0), Play(1, 30.0, 50.0, reference_s=400.0, cosine=0.85)]
    (found,) = follow(World(plays), 120)
    check(found, plays[0])


def test_span_is_reported_once_and_soon_after_its_end() -> None:
    world = World([Play(1, 10.0, 60.0), Play(2, 90.0, 400.0)])
    followers = TrackFollowers(world, CONFIG)
    reported = {}
    for start_s in np.arange(0.0, 400.0, WINDOW_S / 2):
        world.position_s = start_s + WINDOW_S
        for one in followers.update(world.matches(start_s), world.position_s):
            assert one.track_id not in reported
            reported[one.track_id] = world.position_s
        if 100 < start_s < 380:
            assert [one.track_id for one in followers.active()] == [2]
    assert reported[1] < 60 + CONFIG.max_gap_s + 2 * WINDOW_S
    assert [one.track_id for one in followers.finish()] == ([] if 2 in reported else [2])


def test_memory_does_not_grow() -> None:
    length_s, n_tracks = 30.0, 60
    plays = [Play(1 + i % 7, 40.0 * i, 40.0 * i + length_s) for i in range(n_tracks)]
    world = World(plays)
    followers = TrackFollowers(world, CONFIG)
    held, n_reported = [], 0
    for start_s in np.arange(0.0, 40.0 * n_tracks, WINDOW_S / 2):
        world.position_s = start_s + WINDOW_S
        world.plays = [play for play in plays if abs(play.start_s - start_s) < 120]
        n_reported += len(followers.update(world.matches(start_s), world.position_s))
        held.append(followers.n_held)
    assert n_reported >= n_tracks - 2
    half = len(held) // 2
    assert max(held[half:]) <= max(held[:half])


@pytest.mark.parametrize("seed", range(4))
def test_random_mix_is_taken_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    plays, now_s = [], 5.0
    for track_id in rng.permutation(8):
        length_s = float(rng.uniform(15, 50))
        plays.append(
            Play(
                int(track_id),
                now_s,
                now_s + length_s,
                reference_s=float(rng.uniform(0, 500)),
                speed=float(rng.uniform(0.96, 1.04)),
                cosine=float(rng.uniform(0.65, 0.95)),
            )
        )
        now_s += length_s + float(rng.uniform(-6, 20))
    by_chance = {
        float(at_s): lone(float(rng.uniform(0, 0.9)), float(at_s), 10 + i)
        for i, at_s in enumerate(rng.integers(0, round(now_s / 4), 20) * 4)
    }
    found = follow(
        World(plays, rng=rng),
        now_s + 60,
        lambda start_s: by_chance[start_s](start_s) if start_s in by_chance else [],
    )
    for one, play in zip(found, plays, strict=True):
        check(one, play, within_s=1.0)
