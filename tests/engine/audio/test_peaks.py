from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audio.peaks import coarser, peaks


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=12),
    st.integers(1, 50),
    st.integers(-20, 20),
)
def test_each_part_has_its_largest_absolute_sample(
    lengths: list[int], n_bins: int, n_unknown: int
) -> None:
    rng = np.random.default_rng(sum(lengths))
    waveform = rng.uniform(-1, 1, sum(lengths)).astype(np.float32)
    n_samples = max(len(waveform) - n_unknown, n_bins)
    blocks = np.split(waveform, np.cumsum(lengths)[:-1])
    found = peaks(iter(blocks), n_samples, n_bins)
    part = np.minimum(np.arange(len(waveform)) * n_bins // n_samples, n_bins - 1)
    expected = [np.abs(waveform[part == i]).max(initial=0.0) for i in range(n_bins)]
    assert found.tolist() == pytest.approx(expected, abs=0)


@pytest.mark.parametrize("n_bins", [1, 3, 7, 8])
def test_coarser_parts_cover_the_fine_ones(n_bins: int) -> None:
    fine = np.arange(8, dtype=np.float32)
    found = coarser(fine, n_bins)
    assert (len(found), found[-1]) == (n_bins, 7.0)
    assert found.tolist() == sorted(found.tolist())
    assert coarser(fine[::-1], n_bins)[0] == 7.0
