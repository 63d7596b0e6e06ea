"""Pictures of explanations, and reliability diagrams of calibrations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from astound.evaluation.statistics import Reliability
from astound.output.terminal import label, span
from engine.errors import ConfigError, printable
from engine.figure import new_figure, save_figure
from engine.search.explanation import ExaminedPassage, Explanation, TrackPlane
from engine.search.line import Floats
from engine.search.plane import EndReason

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.collections import QuadMesh
    from matplotlib.lines import Line2D

_MAX_NAME_LENGTH = 48
# Captions of a plane's passages.
_MAX_CAPTIONS = 6
# Heights in inches.
_EVIDENCE_IN, _PLANE_IN, _CAPTION_IN, _MARGIN_IN = 1.6, 2.4, 0.17, 1.7
_NUMBER_AT = 1.12  # cosine
_COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink",
    "tab:olive", "tab:cyan",
)  # fmt: skip
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
_MARKS: Mapping[EndReason, tuple[str, str]] = {
    "clip": ("s", "an end of the clip"),
    "track": ("D", "an end of the track"),
    "passage": ("o", "a passage that agrees better"),
    "silence": ("P", "silence"),
    "disagreement": ("X", "the end of agreement"),
}


# -- explanations ----------------------------------------------------------------------------


def draw_explanation(explanation: Explanation, path: Path) -> None:
    """Draw the evidence of all passages over the clip, and the plane of clip and track.

    Each track has a plane: the cosines of all pairs of segments, and the lines of its passages with
    marks that show why they end.

    Parameters
    ----------
    explanation : Explanation
    path : Path
        Output file; its suffix is one of engine.figure.FIGURE_SUFFIXES.

    Raises
    ------
    ConfigError
        The suffix is unknown, or no track resembles the clip.
    AstoundError
        matplotlib is not installed, or the picture cannot be written.
    """
    planes = explanation.planes
    heights = [_EVIDENCE_IN, *(_PLANE_IN + _CAPTION_IN * _n_lines(one) for one in planes)]
    figure = new_figure(path, height=sum(heights) + _MARGIN_IN)
    if not planes:
        raise ConfigError("path", "nothing to draw: no track resembles the clip")
    figure.suptitle(_title(explanation), parse_math=False, fontsize="medium")
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    drawn = {
        one.candidate.match.rank: one
        for one in (*explanation.passages, *(one for plane in planes for one in plane.passages))
    }
    _draw_evidence(axes[0], list(drawn.values()))
    for panel, plane in zip(axes[1:], planes, strict=True):
        image = _draw_plane(panel, plane)
    start_s = planes[0].cosines.query_s[0] - planes[0].passages[0].trace.segment_s / 2
    axes[-1].set_xlim(start_s, start_s + explanation.duration_s)
    axes[-1].set_xlabel("time in the clip")
    figure.colorbar(
        image, ax=axes[-1], label="cosine", location="bottom", shrink=0.4, aspect=40, pad=0.02
    )
    figure.legend(handles=list(_marks(drawn.values())), loc="outside lower center", ncols=5,
        frameon=False, fontsize="small", title="a passage ends at", title_fontsize="small",
    )  # fmt: skip
    save_figure(figure, path)


def _title(explanation: Explanation) -> str:
    n_passages = len(explanation.passages)
    n_tracks = len({one.candidate.match.track_id for one in explanation.passages})
    found = f"{_count(n_passages, 'passage')} of {_count(n_tracks, 'track')}"
    answer = found if n_passages else "not in the catalog"
    return f"{_shorten(explanation.query)}: {answer}\n{explanation.decision.reason}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _shorten(name: str) -> str:
    """Cut the middle out of a long name."""
    name = printable(name)
    if len(name) <= _MAX_NAME_LENGTH:
        return name
    half = _MAX_NAME_LENGTH // 2
    return f"{name[: half - 1]}…{name[-half:]}"


def _draw_evidence(axes: Axes, passages: Sequence[ExaminedPassage]) -> None:
    """Draw the cosines along each line, shaded where they count for the passage."""
    for one in passages:
        trace, color = one.trace, _color(one)
        query_s, similarity = trace.query_s, trace.similarity
        within = np.where(trace.inside, similarity, np.nan)
        axes.plot(query_s, similarity, color=color, linewidth=0.6, linestyle=":")
        axes.plot(query_s, within, color=color, linewidth=1.2)
        axes.fill_between(query_s, trace.min_similarity, within,
            where=within >= trace.min_similarity, color=color, alpha=0.2, linewidth=0,
        )  # fmt: skip
        _draw_number(axes, one, (trace.start_s + trace.end_s) / 2, _NUMBER_AT)
    axes.set_title(
        "cosine along the line of each passage, shaded where it counts for the passage",
        fontsize="medium", loc="left",
    )  # fmt: skip
    lowest = min(float(np.nanmin(one.trace.similarity, initial=0.0)) for one in passages)
    axes.set_ylim(lowest - 0.05, _NUMBER_AT + 0.12)
    axes.set_yticks([0.0, 0.5, 1.0])
    axes.set_ylabel("cosine")
    axes.tick_params(labelbottom=True)


def _draw_plane(axes: Axes, plane: TrackPlane) -> QuadMesh:
    """Draw the cosines of a clip and a track, and the passages on them."""
    from matplotlib.patheffects import withStroke

    cosines, half_s = plane.cosines, plane.passages[0].trace.segment_s / 2
    columns_s, rows_s = _edges(cosines.query_s, half_s), _edges(cosines.reference_s)
    image = axes.pcolormesh(
        columns_s, rows_s, cosines.values.T, cmap="Greys", vmin=0.0, vmax=1.0, rasterized=True
    )
    axes.set_ylim(rows_s[0], rows_s[-1])
    outline = [withStroke(linewidth=2.5, foreground="white")]
    for one in plane.passages:
        match, color = one.candidate.match, _color(one)
        query_s = match.query_start_s, match.query_end_s
        reference_s = match.reference_start_s, match.reference_end_s
        style = "-" if one.decision.accepted else (0, (4, 3))
        axes.plot(
            query_s, reference_s, color=color, linewidth=1.5, linestyle=style, path_effects=outline
        )
        for end, *at_s in zip((one.start, one.end), query_s, reference_s, strict=True):
            axes.plot(*at_s, _MARKS[end.reason][0], color=color, markersize=6,
                markeredgecolor="white", markeredgewidth=0.7, clip_on=False, zorder=4,
            )  # fmt: skip
        _draw_number(axes, one, sum(query_s) / 2, sum(reference_s) / 2)
    axes.set_title(_caption(plane), fontsize="x-small", loc="left", parse_math=False)
    axes.set_ylabel("time in the track")
    _label_times(axes.yaxis, cosines.reference_s, n_most=6)
    _label_times(axes.xaxis, cosines.query_s, n_most=12)
    axes.tick_params(labelbottom=True)
    return image


def _draw_number(axes: Axes, passage: ExaminedPassage, x: float, y: float) -> None:
    """Write the rank of a passage in a disc."""
    color, is_match = _color(passage), passage.decision.accepted
    axes.annotate(
        f"{passage.candidate.match.rank}", (x, y), ha="center", va="center", fontsize="small",
        color="white" if is_match else color, zorder=5, annotation_clip=True,
        bbox={"boxstyle": "circle,pad=0.2", "facecolor": color if is_match else "white",
              "edgecolor": color if not is_match else "white"},
    )  # fmt: skip


def _caption(plane: TrackPlane) -> str:
    """Name the track, and say of some passages where they lie and why they end."""
    lines = [_shorten(label(plane.passages[0].candidate.match))]
    for one in plane.passages[:_MAX_CAPTIONS]:
        match = one.candidate.match
        in_clip = span(match.query_start_s, match.query_end_s)
        in_track = span(match.reference_start_s, match.reference_end_s)
        verdict = "" if one.decision.accepted else ", no match"
        lines.append(
            f"{match.rank}:  {in_clip}, in the track {in_track};  "
            f"begins: {one.start.text};  ends: {one.end.text};  "
            f"confidence {match.confidence:.3f}{verdict}"
        )
    n_more = len(plane.passages) - _MAX_CAPTIONS
    return "\n".join([*lines, *([f"and {_count(n_more, 'more passage')}"] if n_more > 0 else [])])


def _n_lines(plane: TrackPlane) -> int:
    return _caption(plane).count("\n") + 1


def _color(passage: ExaminedPassage) -> str:
    return _COLORS[(passage.candidate.match.rank - 1) % len(_COLORS)]


def _marks(passages: Iterable[ExaminedPassage]) -> Iterator[Line2D]:
    """Explain the marks that occur."""
    from matplotlib.lines import Line2D

    reasons = {end.reason for one in passages for end in (one.start, one.end)}
    for reason, (mark, text) in _MARKS.items():
        if reason in reasons:
            yield Line2D([], [], marker=mark, color="tab:gray", linestyle="", label=text)


def _edges(middles: Floats, outer: float | None = None) -> Floats:
    """Return the edges of cells with some middles; the outer ones are half a cell away."""
    between = (middles[1:] + middles[:-1]) / 2
    if outer is None:
        outer = float(between[0] - middles[0]) if len(between) else 0.5
    return np.concatenate([[middles[0] - outer], between, [middles[-1] + outer]])


def _label_times(axis: Axis, times_s: Floats, n_most: int) -> None:
    """Label an axis with times as m:ss."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    length_s = float(times_s[-1] - times_s[0])
    step_s = next((one for one in _STEPS_S if length_s / one <= n_most), _STEPS_S[-1])
    axis.set_major_locator(MultipleLocator(step_s))
    axis.set_major_formatter(FuncFormatter(lambda s, _: f"{s // 60:.0f}:{s % 60:02.0f}"))


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
