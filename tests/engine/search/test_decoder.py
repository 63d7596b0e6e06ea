"""The decoder against all stretches and all paths, one by one."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.search import decoder
from engine.search.decoder import (
    NO_LINE,
    Stretch,
    best_stretch,
    decode,
    least_path,
    log_likelihoods,
    stretches,
)
from engine.search.line import CHANCE, Floats

SCORES = st.floats(-6.0, 6.0, width=32)


def value_of_stretch(scores: Floats, first: int, last: int) -> float:
    """Sum of some segments without the cost of their borders, one border at a time."""
    if last <= first:
        return 0.0
    borders = (first > 0) + (last < len(scores))
    return float(scores[first:last].sum()) - borders * decoder._BORDER_COST


def value_of_path(scores: Floats, path: tuple[int, ...]) -> float:
    """Sum of what each segment scores on its line without the cost of each change."""
    value = sum(float(scores[line, i]) for i, line in enumerate(path) if line != NO_LINE)
    for one, other in pairwise(path):
        if one != other:
            is_border = NO_LINE in (one, other)
            value -= decoder._BORDER_COST if is_border else decoder._CHANGE_COST
    return value


# -- the least path ----------------------------------------------------------------------------


@settings(max_examples=200)
@given(
    costs=arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 5)), elements=SCORES),
    n_cuts=st.integers(0, 3),
)
def test_least_path_is_the_least_of_all_with_so_many_cuts(costs: Floats, n_cuts: int) -> None:
    n_lines, n_segments = costs.shape
    totals = [
        sum(float(costs[line, i]) for i, line in enumerate(path))
        for path in product(range(n_lines), repeat=n_segments)
        if sum(one != other for one, other in pairwise(path)) <= n_cuts
    ]
    total, path = least_path(costs, n_cuts)
    assert total == pytest.approx(min(totals))
    assert sum(costs[one.line, one.first : one.last].sum() for one in path) == pytest.approx(total)
    assert len(path) <= n_cuts + 1
    borders = [0, *(one.last for one in path)]
    assert borders == [*(one.first for one in path), n_segments]


# -- the best stretch --------------------------------------------------------------------------


@settings(max_examples=300)
@given(scores=arrays(np.float64, st.integers(1, 24), elements=SCORES))
def test_best_stretch_is_the_best_of_all(scores: Floats) -> None:
    first, last, gain = best_stretch(scores)
    n = len(scores)
    values = [value_of_stretch(scores, i, j) for i in range(n + 1) for j in range(i, n + 1)]
    assert gain == pytest.approx(max(values), abs=1e-6)
    assert 0 <= first <= last <= n
    if gain > 1e-6:
        assert value_of_stretch(scores, first, last) == pytest.approx(gain, abs=1e-6)


def test_stretch_that_is_not_worth_its_borders_is_empty() -> None:
    scores = np.full(40, -1.0)
    scores[10:17] = 1.0
    first, last, gain = best_stretch(scores)
    assert (last - first, gain) == (0, 0.0)
    scores[17:19] = 1.0
    assert best_stretch(scores) == (10, 19, 1.0)


def test_ends_of_the_recording_are_no_borders() -> None:
    assert best_stretch(np.full(5, 0.5)) == (0, 5, 2.5)
    assert best_stretch(np.full(5, -0.5)) == (0, 0, 0.0)


# -- lines -------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(
    scores=st.tuples(st.integers(1, 3), st.integers(1, 6)).flatmap(
        lambda shape: arrays(np.float64, shape, elements=SCORES)
    )
)
def test_decoded_lines_are_the_best_of_all_paths(scores: Floats) -> None:
    n_lines, n_segments = scores.shape
    found = [NO_LINE] * n_segments
    for line, first, last in decode(scores):
        assert found[first:last] == [NO_LINE] * (last - first)
        found[first:last] = [line] * (last - first)
    best = max(
        value_of_path(scores, path) for path in product(range(NO_LINE, n_lines), repeat=n_segments)
    )
    assert value_of_path(scores, tuple(found)) == pytest.approx(best, abs=1e-6)


def test_line_is_changed_without_a_gap_where_another_one_agrees() -> None:
    scores = np.full((2, 60), -1.0)
    scores[0, 5:30] = scores[1, 30:50] = 1.0
    assert decode(scores) == [Stretch(0, 5, 30), Stretch(1, 30, 50)]


def test_short_agreement_with_another_line_is_no_change() -> None:
    scores = np.full((2, 60), -1.0)
    scores[0] = 1.0
    scores[1, 30:36] = 2.0
    assert decode(scores) == [Stretch(0, 0, 60)]


def test_line_that_agrees_again_is_two_stretches() -> None:
    scores = np.full((1, 90), 1.0)
    scores[0, 30:60] = -1.0
    assert decode(scores) == [Stretch(0, 0, 30), Stretch(0, 60, 90)]


def test_nothing_that_agrees_has_no_stretch() -> None:
    assert decode(np.full((3, 20), -0.5)) == []


@given(path=st.lists(st.integers(NO_LINE, 2), max_size=20))
def test_stretches_are_the_runs_of_a_path(path: list[int]) -> None:
    found = stretches(np.array(path, np.int64))
    again = [NO_LINE] * len(path)
    for line, first, last in found:
        again[first:last] = [line] * (last - first)
    assert again == path
    assert all(a.last < b.first or a.line != b.line for a, b in pairwise(found))
    assert all(one.last > one.first for one in found)


# -- likelihoods -------------------------------------------------------------------------------


@given(
    cosines=arrays(np.float64, st.integers(1, 20), elements=st.floats(-1.0, 1.0, width=32)),
    level=st.floats(0.3, 1.0),
)
def test_likelihoods_are_those_of_two_normal_distributions(cosines: Floats, level: float) -> None:
    def log_density(mean: float) -> Floats:
        return -0.5 * ((cosines - mean) / decoder._DEVIATION) ** 2

    expected = log_density(level) - log_density(CHANCE)
    for hop_s, n_independent in ((0.5, 1.0), (0.225, 0.5), (0.045, 0.1)):
        found = log_likelihoods(cosines, level, hop_s)
        assert found == pytest.approx(n_independent * expected, rel=1e-4, abs=1e-6)


def test_silence_counts_nothing() -> None:
    """A stretch neither ends in it nor is longer for it."""
    cosines = np.full(80, 0.1)
    cosines[20:60] = 0.8
    cosines[30:40] = cosines[60:65] = np.nan
    scores = log_likelihoods(cosines, 0.8, 0.25)
    assert (scores[np.isnan(cosines)] == 0).all()
    first, last, gain = best_stretch(scores)
    assert first == 20
    assert 60 <= last <= 65
    without = np.delete(scores, np.flatnonzero(np.isnan(cosines)))
    assert gain == pytest.approx(best_stretch(without)[2])
    assert [one.first for one in decode(scores[None])] == [20]
