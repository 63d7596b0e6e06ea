from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.compare.passages import merge_spans, passages, repetitions, shared_s
from engine.compare.repeats import repeats
from engine.errors import ConfigError
from engine.records import Fingerprint, Repeat, Vectors
from tests.engine.compare.synthetic import fingerprint, sound

DIM = 64
HOP_S = 0.5
SEGMENT_S = 1.0
MIN_MATCH_LENGTH = 8
BORDER_S = 0.6

Spans = list[tuple[int, float, float]]


def _music(seed: int, n: int) -> Vectors:
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _made(*parts: Vectors) -> Fingerprint:
    embeddings = np.concatenate(parts)
    return Fingerprint(
        embeddings=embeddings,
        clip_embeddings=embeddings[:1],
        segment_hop_s=HOP_S,
        segment_s=SEGMENT_S,
        duration_s=(len(embeddings) - 1) * HOP_S + SEGMENT_S,
        recipe_id="r",
    )


def _found(*recordings: Fingerprint) -> list[Repeat]:
    return repeats(recordings, MIN_MATCH_LENGTH, lambda n_done, n_all: None)


def _rows(repeat: Repeat) -> Spans:
    """Occurrences with their first segment and the one after their last."""
    return [
        (at.recording, at.start_s / HOP_S, (at.end_s - SEGMENT_S) / HOP_S + 1)
        for at in repeat.occurrences
    ]


def _near(*rows: tuple[int, float, float]) -> list[object]:
    """Occurrences whose borders are near to these segments, in the recordings they name."""
    return [(recording, *_approx(first, last)) for recording, first, last in rows]


def _approx(*segments: float) -> list[object]:
    return [pytest.approx(segment, abs=BORDER_S / HOP_S) for segment in segments]


def test_chorus_is_one_repeat_with_all_its_occurrences() -> None:
    chorus = _music(1, 20)
    song = _made(
        _music(2, 15), chorus, _music(3, 30), chorus, _music(4, 12), chorus, _music(5, 9)
    )  # fmt: skip
    (found,) = _found(song)
    assert _rows(found) == _near((0, 15, 35), (0, 65, 85), (0, 97, 117))
    assert found.score == pytest.approx(1.0, abs=1e-3)


def test_jingle_is_found_across_files_and_in_the_order_of_files() -> None:
    jingle, other = _music(1, 12), _music(2, 14)
    first = _made(_music(3, 20), jingle, _music(4, 20), other)
    second = _made(other, _music(5, 30), jingle, _music(6, 5), jingle)
    found = [_rows(one) for one in _found(first, second, _made(_music(7, 60)))]
    assert found == [
        _near((0, 20, 32), (1, 44, 56), (1, 61, 73)),
        _near((0, 52, 66), (1, 0, 14)),
    ]


def test_longer_repeat_does_not_hide_a_passage_that_occurs_once_more() -> None:
    verse, chorus = _music(1, 20), _music(2, 20)
    song = _made(verse, chorus, _music(3, 10), verse, chorus, _music(4, 10), chorus)
    found = [_rows(one) for one in _found(song)]
    assert len(found) == 2
    assert _near((0, 0, 40), (0, 50, 90)) in found
    assert _near((0, 20, 40), (0, 70, 90), (0, 100, 120)) in found


def test_repeats_are_sorted_by_their_first_occurrence() -> None:
    short, long = _music(1, 12), _music(2, 30)
    song = _made(short, _music(3, 9), long, _music(4, 9), short, _music(5, 9), long)
    assert [_rows(one)[0] for one in _found(song)] == _near((0, 0, 12), (0, 21, 51))


@settings(max_examples=40)
@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=9), st.integers(0, 1000))
def test_occurrences_of_a_repeat_have_one_length_and_never_overlap(
    song: list[str], seed: int
) -> None:
    parts = {name: _music(seed + n, 9 + 2 * n) for n, name in enumerate("abc")}
    for one in _found(_made(*(parts[name] for name in song))):
        spans = [(at.start_s, at.end_s) for at in one.occurrences]
        assert np.ptp([end_s - start_s for start_s, end_s in spans]) < 1e-6
        for first, second in pairwise(spans):
            shorter_s = min(first[1] - first[0], second[1] - second[0])
            assert shared_s(first, second) <= max(0.2 * shorter_s, SEGMENT_S - HOP_S)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("length_s", [5.0, 9.0, 20.0])
def test_intro_of_several_files_is_the_only_repeat(length_s: float, noise: float) -> None:
    """Between unrelated sound, at places that lie anywhere between two segments."""
    intro, befores_s = sound(1, length_s), (0.0, 7.375, 12.125, 30.25)
    files = [
        fingerprint(sound(10 + i, s), intro, sound(20 + i, 25.0 + i), noise=noise, seed=i)
        for i, s in enumerate(befores_s)
    ]
    (found,) = _found(*files, fingerprint(sound(40, 50.0)))
    spans = [(at.recording, at.start_s, at.end_s) for at in found.occurrences]
    assert [recording for recording, _, _ in spans] == [0, 1, 2, 3]
    for (_, start_s, end_s), before_s in zip(spans, befores_s, strict=True):
        assert (start_s, end_s) == pytest.approx((before_s, before_s + length_s), abs=0.75)
    assert np.ptp([end_s - start_s for _, start_s, end_s in spans]) < 1e-6


def test_intro_and_advertisement_are_two_repeats_with_all_places() -> None:
    intro, advert = sound(1, 8.0), sound(2, 12.0)
    one = fingerprint(intro, sound(3, 20.125), advert, sound(4, 15.0), advert, sound(5, 9.25))
    other = fingerprint(sound(6, 4.25), intro, sound(7, 18.375), advert, sound(8, 11.0))
    expected: list[list[tuple[int, object]]] = [
        [(recording, pytest.approx(start_s, abs=0.75)) for recording, start_s in places]
        for places in ([(0, 0.0), (1, 4.25)], [(0, 28.125), (0, 55.125), (1, 30.625)])
    ]
    found = _found(one, other)
    assert [
        [(at.recording, at.start_s) for at in repeat.occurrences] for repeat in found
    ] == expected


def test_loop_is_one_repeat_split_into_turns() -> None:
    loop = _music(1, 10)
    (found,) = _found(_made(_music(2, 20), *[loop] * 6, _music(3, 20)))
    starts = [first for _, first, _ in _rows(found)]
    assert starts == pytest.approx([20, 30, 40, 50, 60, 70], abs=BORDER_S / HOP_S)
    # Turns meet, but for rounding.
    spans = [(at.start_s - 0.01, at.end_s + 0.01) for at in found.occurrences]
    assert merge_spans(spans) == [pytest.approx((10.0, 40.5), abs=BORDER_S)]


def test_turns_of_a_short_loop_have_min_match_length() -> None:
    (found,) = _found(_made(*[_music(1, 3)] * 20))
    lengths = [(at.end_s - at.start_s) / HOP_S for at in found.occurrences]
    assert min(lengths) >= MIN_MATCH_LENGTH - 0.01
    n_turns = round(lengths[0] / 3)
    assert lengths == pytest.approx([3 * n_turns] * len(lengths), abs=0.01)


@pytest.mark.parametrize("n", [1, 5, 60])
def test_other_music_and_silence_repeat_nothing(n: int) -> None:
    assert _found(_made(_music(1, n))) == []
    assert _found(_made(np.zeros((n, DIM), np.float32))) == []
    assert _found() == []


def test_passage_shorter_than_min_match_length_is_left_out() -> None:
    short = _music(1, MIN_MATCH_LENGTH - 2)
    assert _found(_made(short, _music(2, 30), short)) == []


def test_progress_counts_pairs() -> None:
    calls: list[tuple[int, int]] = []
    recordings = [_made(_music(seed, 5)) for seed in range(3)]
    repeats(recordings, MIN_MATCH_LENGTH, lambda n_done, n_all: calls.append((n_done, n_all)))
    assert calls == [(n, 6) for n in range(1, 7)]


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(10, 25), st.integers(10, 40))
def test_repetitions_are_those_between_two_halves(seed: int, n: int, between: int) -> None:
    part = _music(seed, n)
    before, after = (part, _music(seed + 1, between)), (part, _music(seed + 2, 7))
    lag_s = (n + between) * HOP_S
    expected = passages(_made(*before), _made(*after), MIN_MATCH_LENGTH)
    found = repetitions(_made(*before, *after), MIN_MATCH_LENGTH)
    assert len(found) == len(expected) == 1
    starts_s = found[0].query_start_s, found[0].reference_start_s
    expected_s = expected[0].query_start_s, expected[0].reference_start_s + lag_s
    assert starts_s == pytest.approx(expected_s, abs=BORDER_S)


def test_repetitions_are_sorted_by_their_start() -> None:
    short, long = _music(1, 16), _music(2, 40)
    parts = [short, _music(3, 9), long, _music(4, 9), long, short, _music(5, 9), long]
    starts_s = [
        (one.query_start_s, one.reference_start_s)
        for one in repetitions(_made(*parts), MIN_MATCH_LENGTH)
    ]
    assert len(starts_s) == 4
    assert starts_s == sorted(starts_s)


def test_repetitions_beside_the_diagonal_are_none() -> None:
    steady = _made(np.repeat(_music(1, 1), 40, axis=0))
    for found in repetitions(steady, 1), repetitions(steady, MIN_MATCH_LENGTH):
        assert found
        assert min(one.reference_start_s - one.query_start_s for one in found) >= SEGMENT_S
    assert all(
        one.reference_start_s - one.query_start_s >= MIN_MATCH_LENGTH * HOP_S
        for one in repetitions(steady, MIN_MATCH_LENGTH)
    )
    with pytest.raises(ConfigError):
        repetitions(steady, 0)
