from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from astound.catalog import Catalog
from astound.evaluation.statistics import Reliability, reliability
from astound.output import plots
from astound.output.plots import draw_explanation, draw_reliability
from engine.errors import AstoundError, ConfigError
from engine.figure import save_figure
from engine.search.explanation import Explanation
from tests.astound.output.conftest import RATE
from tests.audio_files import cached_tune

pytest.importorskip("matplotlib")

from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text


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


# -- what an explanation shows -----------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Explanation], Figure]:
    """Draw an explanation and return the figure."""
    figures: list[Figure] = []

    def keep(figure: Figure, path: Path) -> None:
        figures.append(figure)
        save_figure(figure, path)

    def draw(explanation: Explanation) -> Figure:
        plots.draw_explanation(explanation, tmp_path / "why.png")
        return figures[-1]

    monkeypatch.setattr(plots, "save_figure", keep)
    return draw


def ranks_in(axes: Axes) -> list[int]:
    return sorted(int(text.get_text()) for text in axes.texts)


def test_every_passage_is_drawn_twice_with_its_ends(
    explained_pieces: Explanation, drawn: Callable[[Explanation], Figure]
) -> None:
    """Its evidence above, and its line on the plane of its track."""
    evidence, *planes = drawn(explained_pieces).axes[: 1 + len(explained_pieces.planes)]
    assert ranks_in(evidence) == [1, 2, 3]
    assert sorted(rank for axes in planes for rank in ranks_in(axes)) == [1, 2, 3]
    for axes, plane in zip(planes, explained_pieces.planes, strict=True):
        captions = axes.get_title(loc="left").splitlines()
        assert len(captions) == 1 + len(plane.passages)
        lines = [(np.asarray(line.get_data()).T.tolist(), line) for line in axes.lines]
        marks = {(points[0][0], line.get_marker()) for points, line in lines if len(points) == 1}
        drawn_lines = [points for points, _ in lines]
        for passage, caption in zip(plane.passages, captions[1:], strict=True):
            match = passage.candidate.match
            start = [match.query_start_s, match.reference_start_s]
            end = [match.query_end_s, match.reference_end_s]
            assert caption.startswith(f"{match.rank}:")
            assert f"begins: {passage.start.text};  ends: {passage.end.text}" in caption
            assert (start[0], plots._MARKS[passage.start.reason][0]) in marks
            assert (end[0], plots._MARKS[passage.end.reason][0]) in marks
            assert [start, end] in drawn_lines


def test_evidence_of_passages_without_a_plane_is_drawn(
    explained_pieces: Explanation, drawn: Callable[[Explanation], Figure]
) -> None:
    figure = drawn(replace(explained_pieces, planes=explained_pieces.planes[:1]))
    assert ranks_in(figure.axes[0]) == [1, 2, 3]


def test_axes_are_those_of_the_whole_clip(
    explained_pieces: Explanation, drawn: Callable[[Explanation], Figure]
) -> None:
    evidence, *planes = drawn(explained_pieces).axes[:3]
    for axes in (evidence, *planes):
        assert axes.get_xlim() == pytest.approx((0.0, explained_pieces.duration_s))
    for axes in planes:
        (image,) = (one for one in axes.collections if isinstance(one, QuadMesh))
        edges_s = np.asarray(image.get_coordinates())[0, [0, -1], 0]
        assert edges_s == pytest.approx(axes.get_xlim(), abs=0.2)


def test_texts_of_a_picture_do_not_overlap(
    explained_pieces: Explanation, drawn: Callable[[Explanation], Figure]
) -> None:
    """Titles and captions stay in the picture and clear of the panels and of each other."""
    figure = drawn(explained_pieces)
    inside, texts = figure.bbox, texts_of(figure)
    titles = [text.get_window_extent() for text in texts if text.get_text()]
    assert len(titles) == 4  # of the picture and three panels
    panels = [axes.get_window_extent() for axes in figure.axes[:3]]
    for number, title in enumerate(titles):
        assert inside.x0 <= title.x0 < title.x1 <= inside.x1
        assert not any(title.overlaps(other) for other in (*panels, *titles[number + 1 :]))


def texts_of(figure: Figure) -> list[Text]:
    """Title of the picture, and all titles of its panels."""
    panels = [one for axes in figure.axes[:3] for one in axes.get_children()]
    numbers = {text for axes in figure.axes for text in axes.texts}
    return [*figure.texts, *(one for one in panels if isinstance(one, Text) and one not in numbers)]


def test_unknown_clip_is_drawn_with_the_nearest_tracks(
    tunes: Catalog, drawn: Callable[[Explanation], Figure]
) -> None:
    figure = drawn(tunes.explain(cached_tune(98, 4.0), RATE))
    assert "not in the catalog" in figure.get_suptitle()
    assert ranks_in(figure.axes[0]) == [1, 2]
    assert all(axes.get_title(loc="left").endswith("no match") for axes in figure.axes[1:3])


def test_explanation_without_candidates_is_not_drawn(tunes: Catalog, tmp_path: Path) -> None:
    silent = tunes.explain(np.zeros(3 * RATE, np.float32), RATE)
    with pytest.raises(ConfigError, match="no track resembles the clip"):
        draw_explanation(silent, tmp_path / "why.png")
