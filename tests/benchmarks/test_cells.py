from __future__ import annotations

import numpy as np
import pytest

from benchmarks import distort
from benchmarks.cells import DURATIONS_S, Cell, choose

CHAINS = distort.chains(lambda rng: np.ones(1, np.float32), lambda rng: np.ones(1, np.float32))


def encoder_cell(name: str) -> Cell:
    return {cell.name: cell for cell in choose("encoder", CHAINS)}[name]


@pytest.mark.parametrize(
    ("which", "n_cells"),
    [("quick", 3), ("issue", 5), ("full", 5 * len(CHAINS)), ("encoder", 80), ("clips", 9)],
)
def test_cells_have_names_of_their_own(which: str, n_cells: int) -> None:
    cells = choose(which, CHAINS)
    assert len({cell.name for cell in cells}) == n_cells


def test_encoder_cells_ask_for_all_distortions() -> None:
    asked = {one.name for cell in choose("encoder", CHAINS) for one in cell.distortions}
    assert asked == set(CHAINS)


def test_span_of_a_cell_is_what_its_query_covers() -> None:
    fast = [cell for cell in choose("full", CHAINS) if cell.name == "tempo+20 5 s"]
    assert fast[0].spans_s == [pytest.approx(6.0)]
    assert encoder_cell("tempo±20 5 s").spans_s == [pytest.approx(6.0), pytest.approx(4.0)]


@pytest.mark.parametrize("label", ["speed±3", "speed±8", "tempo±8", "tempo±20", "pitch±1"])
def test_queries_take_turns_with_the_signs_alike_at_every_length(label: str) -> None:
    for duration_s in DURATIONS_S:
        cell = encoder_cell(f"{label} {duration_s:g} s")
        names = [cell.distortion(number).name for number in range(4)]
        assert names == [label.replace("±", sign) for sign in "+-+-"]


def test_one_distortion_is_that_of_every_query() -> None:
    assert {encoder_cell("room5 1 s").distortion(number).name for number in range(4)} == {"room5"}
