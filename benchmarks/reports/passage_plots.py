"""Plots of passages: time in the recording against time in the track."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.metrics.passages import CaseResult
from benchmarks.reports.plots import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL = (2.9, 2.7)
_TRUE, _RIGHT, _WRONG = "C0", "C1", "C3"


def planes(name: str, results: Sequence[tuple[str, CaseResult]]) -> str:
    """Draw a panel for each result: pieces in one colour, answers in another, as SVG text.

    Parameters
    ----------
    name : str
        Name of the suite.
    results : sequence of (str, CaseResult)
        Titles and results, not empty.
    """

    def draw(*panels: Axes) -> None:
        for axes, (title, result) in zip(panels, results, strict=True):
            _draw(axes, title, result)
        panels[0].set_ylabel("time in the track, s")

    width, height = _PANEL
    return svg(draw, (width * len(results), height), name, len(results))


def _draw(axes: Axes, title: str, result: CaseResult) -> None:
    tracks = {piece.track for piece in result.pieces}
    for piece in result.pieces:
        times_s = np.array([piece.query_start_s, piece.query_end_s])
        axes.plot(times_s, piece.reference_at(times_s), color=_TRUE, linewidth=5,
                  alpha=0.45, solid_capstyle="butt")  # fmt: skip
    for answer in result.answers:
        axes.plot(
            [answer.query_start_s, answer.query_end_s],
            [answer.reference_start_s, answer.reference_end_s],
            color=_RIGHT if answer.track in tracks else _WRONG,
            linewidth=1.3, marker="|", markersize=5,
        )  # fmt: skip
    axes.set(xlabel="time in the recording, s")
    axes.set_title(title, fontsize=8)
