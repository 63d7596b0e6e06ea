from __future__ import annotations

import numpy as np
import pytest

from astound.evaluation.statistics import share
from benchmarks.metrics.bootstrap import Bootstrap


def test_interval_contains_the_share_and_depends_on_the_seed() -> None:
    rng = np.random.default_rng(0)
    flags = (rng.random(200) < 0.7).tolist()
    tracks = [str(i // 2) for i in range(200)]
    found = Bootstrap(tracks, 1).share(flags)
    assert found.value == sum(flags) / 200
    assert found.low is not None
    assert found.high is not None
    assert found.value is not None
    assert found.low < found.value < found.high
    assert found == Bootstrap(tracks, 1).share(flags)
    assert found != Bootstrap(tracks, 2).share(flags)


def test_independent_queries_have_nearly_wilsons_interval() -> None:
    flags = [i % 4 > 0 for i in range(400)]
    found, wilson = Bootstrap([str(i) for i in range(400)]).share(flags), share(flags)
    assert found.low == pytest.approx(wilson.low, abs=0.01)
    assert found.high == pytest.approx(wilson.high, abs=0.01)


def test_correlated_excerpts_widen_the_interval() -> None:
    flags = [i % 40 < 20 for i in range(400)]
    apart = Bootstrap([str(i) for i in range(400)]).share(flags)
    together = Bootstrap([str(i // 20) for i in range(400)]).share(flags)
    assert together.low is not None
    assert apart.low is not None
    assert together.low < apart.low - 0.1


def test_queries_that_all_agree_count_one_per_track() -> None:
    found = Bootstrap([str(i // 10) for i in range(100)]).share([True] * 100)
    wilson = share([True] * 10)
    assert (found.n, found.value, found.low, found.high) == (100, 1.0, wilson.low, wilson.high)


def test_share_counts_only_queries_among() -> None:
    flags, among = [True, True, False, True], [True, False, True, False]
    found = Bootstrap(["a", "b", "c", "d"]).share(flags, among)
    assert (found.n_yes, found.n) == (1, 2)
    assert Bootstrap(["a"]).share([True], [False]).value is None


def test_median_and_mean_intervals_resample_tracks() -> None:
    values = [0.1] * 30 + [0.5] * 30
    drawn = Bootstrap([str(i) for i in range(60)])
    assert drawn.median([*values[:-1], None]) == (0.1, 0.5)
    low, high = drawn.mean(values, np.ones(60)) or (0.0, 0.0)
    assert 0.2 < low < 0.3 < high < 0.4
    assert Bootstrap(["a"]).median([None]) is None
    assert Bootstrap(["a"]).mean([1.0], [False]) is None
