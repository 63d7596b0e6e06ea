"""Pictures of explanations, and reliability diagrams of calibrations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from astound.evaluation.statistics import Reliability
from astound.output.terminal import label
from engine.errors import ConfigError, printable
from engine.figure import new_figure, save_figure
from engine.search.alignment_detail import AlignmentDetail, VoteHistogram
from engine.search.explanation import ExaminedTrack, Explanation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE = "tab:red"
_MAX_NAME_LENGTH = 48


# -- explanations ----------------------------------------------------------------------------


def draw_explanation(explanation: Explanation, path: Path) -> None:
    """Draw votes by offset, similarity over the clip, and cosines around the line.

    Parameters
    ----------
    explanation : Explanation
    path : Path
        Output file; its suffix is one of engine.figure.FIGURE_SUFFIXES.

    Raises
    ------
    ConfigError
        The suffix is unknown, or the explanation examines no track.
    AstoundError
        matplotlib is not installed, or the picture cannot be written.
    """
    figure = new_figure(path)
    if explanation.examined is None:
        raise ConfigError("path", "nothing to draw: no track resembles the clip")
    figure.suptitle(_title(explanation, explanation.examined), parse_math=False, fontsize="medium")
    panels = figure.subplot_mosaic([["near", "whole"], ["similarity"] * 2, ["cosines"] * 2],
        height_ratios=[2, 2, 3],
    )  # fmt: skip
    detail, offset_s = explanation.examined.detail, explanation.examined.candidate.match.offset_s
    _draw_votes(panels["near"], detail.votes_near, offset_s, "around the line")
    _draw_votes(panels["whole"], detail.votes_in_track, offset_s, "over the whole track")
    panels["near"].set_ylabel("segments voting")
    _draw_similarity(panels["similarity"], detail)
    _draw_cosines(panels["cosines"], detail)
    save_figure(figure, path)


def _title(explanation: Explanation, examined: ExaminedTrack) -> str:
    clip, track = _shorten(explanation.query), _shorten(label(examined.candidate.match))
    return f"{clip}  in  {track}\n{examined.decision.reason}"


def _shorten(name: str) -> str:
    """Cut the middle out of a long name."""
    name = printable(name)
    if len(name) <= _MAX_NAME_LENGTH:
        return name
    half = _MAX_NAME_LENGTH // 2
    return f"{name[: half - 1]}…{name[-half:]}"


def _draw_votes(axes: Axes, votes: VoteHistogram, offset_s: float, where: str) -> None:
    axes.bar(votes.offsets_s, votes.counts, width=votes.bin_s, color="tab:blue")
    axes.axvline(offset_s, color=_LINE, linewidth=0.8, linestyle="--")
    axes.set_title(f"votes {where} (bars of {votes.bin_s:g} s)", fontsize="medium")
    axes.set_xlabel("offset in the track (s)")
    axes.locator_params(axis="y", integer=True)
    axes.margins(x=0)


def _draw_similarity(axes: Axes, detail: AlignmentDetail) -> None:
    axes.plot(detail.query_s, detail.similarity, color="tab:gray", linewidth=0.8)
    for segments, color, name in (
        (detail.agrees, "tab:green", "agrees"),
        (~detail.agrees, "tab:orange", "does not"),
    ):
        axes.plot(
            detail.query_s[segments],
            detail.similarity[segments],
            ".",
            color=color,
            label=name,
        )
    at_votes = np.full(int(detail.votes.sum()), -0.05)
    axes.plot(detail.query_s[detail.votes], at_votes, "|", color="tab:blue", label="votes")
    axes.set_title("similarity of each segment along the line", fontsize="medium", loc="left")
    axes.set_xlabel("time in the clip (s)")
    axes.set_ylabel("cosine")
    axes.set_ylim(min(-0.15, float(np.nanmin(detail.similarity, initial=0.0)) - 0.05), 1.05)
    beside_title = (1.0, 0.97)
    axes.legend(
        loc="lower right", bbox_to_anchor=beside_title, ncols=3, frameon=False, fontsize="small"
    )


def _draw_cosines(axes: Axes, detail: AlignmentDetail) -> None:
    cosines = detail.cosines
    image = axes.pcolormesh(
        cosines.reference_s, cosines.query_s, cosines.values,
        shading="nearest", cmap="magma", vmin=0.0, vmax=1.0, rasterized=True,
    )  # fmt: skip
    axes.figure.colorbar(image, ax=axes, label="cosine")
    inside = (detail.reference_s >= cosines.reference_s[0]) & (
        detail.reference_s <= cosines.reference_s[-1]
    )
    line_s = detail.reference_s[inside], detail.query_s[inside]
    axes.plot(*line_s, color="tab:cyan", linewidth=1.0, linestyle=(0, (6, 6)))
    axes.set_title("cosines of all pairs around the line (dashed)", fontsize="medium")
    axes.set_xlabel("time in the track (s)")
    axes.set_ylabel("time in the clip (s)")


# -- reliability diagrams --------------------------------------------------------------------


def draw_reliability(reliability: Reliability, path: Path) -> None:
    """Draw a reliability diagram with the number of answers in each bin below it.

    Parameters
    ----------
    reliability : Reliability
    path : Path
        Output file; its suffix is one of engine.figure.FIGURE_SUFFIXES.

    Raises
    ------
    ConfigError
        The suffix is unknown.
    AstoundError
        matplotlib is not installed, or the picture cannot be written.
    """
    figure = new_figure(path, width=6.0, height=7.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    _draw_shares(above, reliability)
    middles = [(one.low + one.high) / 2 for one in reliability.bins]
    width = 0.9 / len(middles)
    below.bar(middles, [one.n for one in reliability.bins], width, color="tab:gray")
    below.set_ylabel("answers")
    below.set_xlabel("confidence")
    save_figure(figure, path)


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
    axes.plot([0, 1], [0, 1], color="tab:gray", linestyle="--", label="perfectly calibrated")
    error = reliability.expected_error
    if error is not None:
        axes.set_title(f"expected calibration error {error:.3f}", fontsize="medium")
    axes.set_ylabel("share of right answers")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.legend(loc="upper left", frameon=False)
