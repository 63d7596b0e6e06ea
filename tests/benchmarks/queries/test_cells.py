from __future__ import annotations

import numpy as np
import pytest

from benchmarks.queries.cells import DURATIONS_S, SETS, Cell, make, needs, places
from benchmarks.queries.conditions import STANDARD
from benchmarks.queries.datasets import Waveform
from engine.errors import ConfigError


def draw(rng: np.random.Generator) -> Waveform:
    return np.ones(1, np.float32)


DRAWS = {"noise": draw, "rooms": draw}


def choose(which: str) -> list[Cell]:
    return make(SETS[which], DRAWS)


def encoder_cell(name: str) -> Cell:
    return {cell.name: cell for cell in choose("encoder")}[name]


@pytest.mark.parametrize(
    ("which", "n_cells"),
    [("quick", 3), ("issue", 5), ("full", 5 * len(STANDARD)), ("encoder", 80), ("clips", 9)],
)
def test_cells_have_names_of_their_own(which: str, n_cells: int) -> None:
    cells = choose(which)
    assert len({cell.name for cell in cells}) == n_cells


def test_encoder_cells_ask_for_all_distortions() -> None:
    asked = {one.name for cell in choose("encoder") for one in cell.distortions}
    assert asked == set(STANDARD)


def test_span_of_a_cell_is_what_its_query_covers() -> None:
    fast = [cell for cell in choose("full") if cell.name == "tempo+20 5 s"]
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


def test_names_and_durations_are_combined() -> None:
    assert places("noise5, speed+-3", (2.0, 5.0)) == [
        ("noise5", 2.0), ("noise5", 5.0), ("speed±3", 2.0), ("speed±3", 5.0)
    ]  # fmt: skip
    assert places("clean") == [("clean", seconds) for seconds in DURATIONS_S]


def test_sets_keep_their_durations_unless_others_are_given() -> None:
    assert places("issue") == list(SETS["issue"])
    assert places("issue", (4.0,)) == [(one, 4.0) for one in ("clean", "noise5", "noise0", "room5")]


@pytest.mark.parametrize("name", ["nois5", "speed3", "mp3-32", "", "clean,", "room", "noise5+mp3"])
def test_wrong_name_tells_what_is_possible(name: str) -> None:
    with pytest.raises(ConfigError, match=r"must be one of clean, noise<SNR dB>.* sets quick"):
        places(name)


@pytest.mark.parametrize("name", ["mp3-999k", "band3000-300", "pitch+40", "speed-80", "noise99"])
def test_number_that_cannot_work_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="must"):
        places(name)


def test_duration_that_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="durations"):
        places("clean", (0.0,))


def test_cells_need_noises_and_rooms() -> None:
    assert needs("clean") == needs("speed±3") == ()
    assert needs("noise-5") == ("noise",)
    assert needs("room5") == ("noise", "rooms")
