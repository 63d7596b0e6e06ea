from __future__ import annotations

import numpy as np
import pytest

from benchmarks.queries.conditions import (
    CELL_SETS,
    DURATIONS_S,
    STANDARD,
    Cell,
    make_cells,
    parse_cells,
    required_sounds,
)
from benchmarks.queries.datasets import Waveform
from engine.errors import ConfigError


def draw(rng: np.random.Generator) -> Waveform:
    return np.ones(1, np.float32)


SOURCES = {"noise": draw, "rooms": draw}


def cells_of(name: str) -> list[Cell]:
    return make_cells(CELL_SETS[name], SOURCES)


def encoder_cell(name: str) -> Cell:
    return {cell.name: cell for cell in cells_of("encoder")}[name]


@pytest.mark.parametrize(
    ("name", "n_cells"),
    [("quick", 3), ("issue", 5), ("full", 5 * len(STANDARD)), ("encoder", 80), ("clips", 9)],
)
def test_cells_of_a_set_have_distinct_names(name: str, n_cells: int) -> None:
    assert len({cell.name for cell in cells_of(name)}) == n_cells


def test_encoder_cells_cover_all_distortions() -> None:
    names = {distortion.name for cell in cells_of("encoder") for distortion in cell.distortions}
    assert names == set(STANDARD)


def test_spans_are_reference_seconds_of_the_query() -> None:
    fast = [cell for cell in cells_of("full") if cell.name == "tempo+20 5 s"]
    assert fast[0].spans_s == [pytest.approx(6.0)]
    assert encoder_cell("tempo±20 5 s").spans_s == [pytest.approx(6.0), pytest.approx(4.0)]


@pytest.mark.parametrize("label", ["speed±3", "speed±8", "tempo±8", "tempo±20", "pitch±1"])
def test_queries_alternate_signs_the_same_way_at_every_duration(label: str) -> None:
    for duration_s in DURATIONS_S:
        cell = encoder_cell(f"{label} {duration_s:g} s")
        names = [cell.distortion(number).name for number in range(4)]
        assert names == [label.replace("±", sign) for sign in "+-+-"]


def test_single_distortion_applies_to_every_query() -> None:
    assert {encoder_cell("room5 1 s").distortion(number).name for number in range(4)} == {"room5"}


def test_parse_combines_names_and_durations() -> None:
    assert parse_cells("noise5, speed+-3", (2.0, 5.0)) == [
        ("noise5", 2.0), ("noise5", 5.0), ("speed±3", 2.0), ("speed±3", 5.0)
    ]  # fmt: skip
    assert parse_cells("clean") == [("clean", seconds) for seconds in DURATIONS_S]


def test_parse_set_keeps_its_durations_unless_given() -> None:
    assert parse_cells("issue") == list(CELL_SETS["issue"])
    assert parse_cells("issue", (4.0,)) == [
        (name, 4.0) for name in ("clean", "noise5", "noise0", "room5")
    ]


@pytest.mark.parametrize("name", ["nois5", "speed3", "mp3-32", "", "clean,", "room", "noise5+mp3"])
def test_parse_unknown_name_lists_the_forms(name: str) -> None:
    with pytest.raises(ConfigError, match=r"must be one of clean, noise<SNR dB>.* sets quick"):
        parse_cells(name)


@pytest.mark.parametrize("name", ["mp3-999k", "band3000-300", "pitch+40", "speed-80", "noise99"])
def test_parse_number_out_of_range_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="must"):
        parse_cells(name)


def test_parse_duration_not_positive_is_refused() -> None:
    with pytest.raises(ConfigError, match="durations"):
        parse_cells("clean", (0.0,))


def test_required_sounds_by_label() -> None:
    assert required_sounds("clean") == required_sounds("speed±3") == ()
    assert required_sounds("noise-5") == ("noise",)
    assert required_sounds("room5") == ("noise", "rooms")
