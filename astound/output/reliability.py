"""The picture of a reliability diagram: what confidences promise, and what they keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from astound.evaluation.statistics import Reliability
from engine.figure import begin, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(reliability: Reliability, path: Path) -> None:
    """Draw a reliability diagram and, below it, how many answers each bar rests on.

    Parameters
    ----------
    reliability : Reliability
    path : Path
        What to write; one of engine.figure.PICTURES by its ending.

    Raises
    ------
    ConfigError
        The ending of the path is of no picture.
    AstoundError
        matplotlib is not installed, or the picture cannot be written.
    """
    figure = begin(path, width=6.0, height=7.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    _draw_shares(above, reliability)
    middles = [(one.low + one.high) / 2 for one in reliability.bins]
    width = 0.9 / len(middles)
    below.bar(middles, [one.n for one in reliability.bins], width, color="tab:gray")
    below.set_ylabel("answers")
    below.set_xlabel("confidence")
    save(figure, path)


def _draw_shares(axes: Axes, reliability: Reliability) -> None:
    width = 0.9 / len(reliability.bins)
    filled = [
        (one, one.share_right, one.mean_confidence)
        for one in reliability.bins
        if one.share_right is not None and one.mean_confidence is not None
    ]
    middles = [(one.low + one.high) / 2 for one, _, _ in filled]
    rights, means = [right for _, right, _ in filled], [mean for _, _, mean in filled]
    axes.bar(middles, rights, width, color="tab:blue", alpha=0.6, label="right answers")
    axes.plot(means, rights, "o", color="tab:blue", label="at the mean confidence")
    axes.plot([0, 1], [0, 1], color="tab:gray", linestyle="--", label="as promised")
    error = reliability.expected_error
    if error is not None:
        axes.set_title(f"expected calibration error {error:.3f}", fontsize="medium")
    axes.set_ylabel("share of right answers")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.legend(loc="upper left", frameon=False)
