from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from astound.evaluation.statistics import Reliability, reliability
from astound.output.plots import draw_explanation, draw_reliability
from engine.errors import AstoundError, ConfigError
from engine.search.explanation import Explanation

pytest.importorskip("matplotlib")


@pytest.fixture
def measured(rng: np.random.Generator) -> Reliability:
    confidences = rng.uniform(0.0, 0.7, 500)  # some bins are empty
    return reliability(confidences, rng.random(500) < confidences)


@pytest.mark.parametrize(
    ("name", "magic"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("A.PDF", b"%PDF")]
)
def test_diagram_is_drawn_as_its_ending_says(
    tmp_path: Path, measured: Reliability, name: str, magic: bytes
) -> None:
    draw_reliability(measured, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_diagram_of_nothing_can_be_drawn(tmp_path: Path) -> None:
    draw_reliability(reliability(np.zeros(0), np.zeros(0, bool)), tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_other_endings_are_refused(tmp_path: Path, measured: Reliability) -> None:
    with pytest.raises(ConfigError, match=r"'a.txt': must end in one of \.png"):
        draw_reliability(measured, tmp_path / "a.txt")


def test_diagram_in_a_missing_folder_is_an_error(tmp_path: Path, measured: Reliability) -> None:
    with pytest.raises(AstoundError, match="No such file"):
        draw_reliability(measured, tmp_path / "missing" / "a.png")


def test_without_matplotlib_says_what_to_install(
    tmp_path: Path, measured: Reliability, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(AstoundError, match=r"pip install 'astound\[plot\]'"):
        draw_reliability(measured, tmp_path / "a.png")


def test_explanation_in_a_missing_folder_is_an_error(
    explanation: Explanation, tmp_path: Path
) -> None:
    with pytest.raises(AstoundError, match="nowhere"):
        draw_explanation(explanation, tmp_path / "nowhere" / "x.png")


def test_explanation_takes_names_of_any_length_and_script(
    explanation: Explanation, tmp_path: Path
) -> None:
    named = replace(explanation, query="$x_" + "a very long name 音楽 " * 20 + ".wav")
    draw_explanation(named, tmp_path / "why.png")
    assert (tmp_path / "why.png").stat().st_size > 0
