from __future__ import annotations

import pytest

from engine.audio.clock import MAX_GAP_S, Timed, place

FRAME_S = 0.02


def frames(*times_s: float | None) -> list[Timed[int]]:
    """Make frames with these time stamps, each as long as FRAME_S."""
    return [Timed(i, time_s, FRAME_S) for i, time_s in enumerate(times_s)]


def regular(n: int, start_s: float = 0.0) -> list[float]:
    return [start_s + i * FRAME_S for i in range(n)]


def jumps(timed: list[Timed[int]], start_s: float | None = 0.0) -> dict[int, float]:
    """Place frames; the jumps before those that have one."""
    placed = list(place(timed, start_s))
    assert [one.frame for one in placed] == list(range(len(timed)))
    assert [one.run for one in placed] == sorted(one.run for one in placed)
    return {one.frame: round(one.jump_s, 3) for one in placed if one.jump_s}


def test_place_regular_frames_have_no_jumps() -> None:
    assert jumps(frames(*regular(50))) == {}
    assert jumps(frames(*[None] * 50), None) == {}
    assert jumps([], None) == {}


@pytest.mark.parametrize("start_s", [0.5, 2.5, 20.0])
def test_place_stream_that_begins_later_has_silence_before_it(start_s: float) -> None:
    assert jumps(frames(*regular(50, start_s)), start_s) == {0: start_s}


def test_place_first_frame_is_where_the_header_says() -> None:
    # Decoders that need one packet to begin give the first frame the time stamp of the second.
    assert jumps(frames(*regular(50, 2.546)), 2.5) == {0: 2.5}
    assert jumps(frames(*regular(50, 0.046)), 0.0) == {}
    assert jumps(frames(*regular(50, 3.0)), 0.0) == {0: 3.0}


def test_place_header_alone_places_frames_without_time_stamps() -> None:
    assert jumps(frames(*[None] * 50), 2.5) == {0: 2.5}


@pytest.mark.parametrize("gap_s", [0.2, 1.5, 20.0, 600.0])
def test_place_gap_is_found(gap_s: float) -> None:
    times_s = [*regular(20), *regular(50, 20 * FRAME_S + gap_s)]
    assert jumps(frames(*times_s)) == {20: gap_s}


def test_place_gaps_add_up() -> None:
    times_s = [*regular(50), *regular(50, 2.0), *regular(50, 5.0)]
    assert jumps(frames(*times_s)) == {50: 1.0, 100: 2.0}


def test_place_gaps_close_to_each_other_are_made_up_for_together() -> None:
    times_s = [*regular(50), *regular(5, 2.0), *regular(5, 3.0), *regular(50, 5.0)]
    assert jumps(frames(*times_s)) == {60: 3.8}


def test_place_small_overlap_is_dropped() -> None:
    times_s = [*regular(20), *regular(20, 20 * FRAME_S - 0.3)]
    assert jumps(frames(*times_s)) == {20: -0.3}


@pytest.mark.parametrize("jump_s", [-5.0, -0.4 - 30, MAX_GAP_S + 1, 1e9])
def test_place_change_of_the_clock_is_no_jump(jump_s: float) -> None:
    first = regular(50, 40.0)
    second = regular(50, 40.0 + 50 * FRAME_S + jump_s)
    third = [time_s + 2.0 for time_s in regular(50, second[-1] + FRAME_S)]
    # The gap after it is found all the same.
    assert jumps(frames(*first, *second, *third), 40.0) == {0: 40.0, 100: 2.0}


def test_place_jitter_is_ignored() -> None:
    times_s = [time_s + (-1) ** i * 0.04 for i, time_s in enumerate(regular(100, 0.04))]
    assert jumps(frames(*times_s)) == {}


def test_place_drift_is_made_up_for_now_and_then() -> None:
    """A sound card whose clock runs one percent slow."""
    found = jumps(frames(*(1.01 * time_s for time_s in regular(5000))))
    assert sum(found.values()) == pytest.approx(1.0, abs=0.11)
    assert all(jump_s == pytest.approx(0.1, abs=0.01) for jump_s in found.values())


@pytest.mark.parametrize("wrong_s", [500.0, -3.0, 1e12])
def test_place_single_wrong_time_stamp_is_ignored(wrong_s: float) -> None:
    times_s: list[float | None] = [*regular(50)]
    times_s[20] = wrong_s
    assert jumps(frames(*times_s)) == {}
    times_s[0] = wrong_s
    assert jumps(frames(*times_s)) == {}


def test_place_missing_time_stamps_are_counted() -> None:
    times_s: list[float | None] = [*regular(20), *regular(40, 2.0)]
    for i in (1, 2, 5, 25, 39):
        times_s[i] = None
    assert jumps(frames(*times_s)) == {20: 1.6}


def test_place_packet_with_a_wrong_time_stamp_is_ignored() -> None:
    """Its frames are counted from there, and agree with each other."""
    times_s = [*regular(20), *regular(10, 3000.0), *regular(50, 30 * FRAME_S)]
    assert jumps(frames(*times_s)) == {}
    assert jumps(frames(*times_s[:30])) == {}


@pytest.mark.parametrize("gap_s", [1.5, 9.0])
def test_place_gap_shortly_before_the_end_is_found(gap_s: float) -> None:
    times_s = [*regular(20), *regular(10, 20 * FRAME_S + gap_s)]
    assert jumps(frames(*times_s)) == {20: gap_s}
