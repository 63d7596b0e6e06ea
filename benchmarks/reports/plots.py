"""Plots of a retrieval run, as SVG text in the colour of the surrounding text."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Results = Mapping[str, Any]

# Placeholder for the text colour; not used otherwise.
_INK = "#010203"
_WIDE, _SQUARE = (8.4, 3.8), (5.2, 4.2)
_N_LABELLED = 12
_SHIFT = 0.008


def hit_rates(results: Results) -> str:
    """Draw hit rate over query length with 95 % intervals, a line for each distortion."""
    rows = _present(results)

    def draw(axes: Axes) -> None:
        for i, (label, cells) in enumerate(rows.items()):
            shares = [cell["present"]["hit_rate"] for cell in cells]
            # Shifted, as intervals would hide each other.
            seconds = [cell["duration_s"] * (1 + _SHIFT * i) for cell in cells]
            values = [100 * share["value"] for share in shares]
            lows = [100 * (share["value"] - share["low"]) for share in shares]
            highs = [100 * (share["high"] - share["value"]) for share in shares]
            style = ("-", "--", ":")[i // 10 % 3]
            axes.errorbar(
                seconds, values, (_non_negative(lows), _non_negative(highs)), label=label,
                marker="o", markersize=4, linestyle=style, color=f"C{i % 10}", capsize=2,
                elinewidth=0.8,
            )  # fmt: skip
        every = sorted({cell["duration_s"] for cells in rows.values() for cell in cells})
        axes.set_xscale("log")
        axes.set_xticks(every, [f"{seconds:g}" for seconds in every])
        axes.minorticks_off()
        axes.set(xlabel="length of the query, s", ylabel="right track, %", ylim=(-2, 103))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)

    return svg(draw, _WIDE, "hits")


def offset_errors(results: Results) -> str:
    """Draw the shares of queries with an offset error within 0.25 and 0.5 s."""
    rows = _present(results)

    def draw(axes: Axes) -> None:
        cells = [cell for cells in rows.values() for cell in cells][:60]
        places = list(range(len(cells)))
        for key, name, alpha in (("near", "0.5 s", 0.45), ("exact", "0.25 s", 1.0)):
            values = [100 * cell["present"][key]["value"] for cell in cells]
            axes.bar(places, values, color="C0", alpha=alpha, label=f"within {name}")
        hits = [100 * cell["present"]["hit_rate"]["value"] for cell in cells]
        axes.plot(places, hits, "_", color=_INK, markersize=9, label="right track at any time")
        names = [cell["cell"] for cell in cells]
        axes.set_xticks(places, names, rotation=90, fontsize=8 if len(cells) <= _N_LABELLED else 6)
        axes.set(ylabel="queries, %", ylim=(0, 103), xlim=(-0.7, len(cells) - 0.3))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)

    return svg(draw, _WIDE, "times")


def thresholds(results: Results) -> str:
    """Draw false accepts against false rejects over all thresholds."""
    found = results["open_set"]

    def draw(axes: Axes) -> None:
        accepts = [100 * accept for _, accept, _ in found["curve"]]
        rejects = [100 * reject for _, _, reject in found["curve"]]
        axes.plot(accepts, rejects, drawstyle="steps-post", color="C0")
        for key, name, marker in (("default", "default", "o"), ("one_percent", "1 %", "D")):
            point = found[key]
            axes.plot(
                100 * point["false_accept_rate"]["value"],
                100 * point["false_reject_rate"]["value"],
                marker, color="C1" if key == "default" else "C2",
                label=f"{name}: confidence {point['threshold']:.2f}", linestyle="none",
            )  # fmt: skip
        # Linear up to 1 %, as the rates of interest may be 0.
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
        axes.minorticks_off()
        axes.set(xlabel="false accepts, %", ylabel="false rejects, %", xlim=(-0.1, 105))
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)

    return svg(draw, _SQUARE, "thresholds")


def reliability(results: Results) -> str:
    """Draw the reliability diagram."""
    bins = [one for one in results["calibration"]["bins"] if one["n"]]

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], "--", color=_INK, linewidth=0.8, label="calibrated")
        middles = [(one["low"] + one["high"]) / 2 for one in bins]
        rights = [one["share_right"] for one in bins]
        axes.bar(middles, rights, 0.09, color="C0", alpha=0.5, label="share right")
        means = [one["mean_confidence"] for one in bins]
        axes.plot(means, rights, "o", color="C0", markersize=4, label="at the mean confidence")
        for one, middle in zip(bins, middles, strict=True):
            axes.annotate(str(one["n"]), (middle, 0.015), ha="center", fontsize=7, color=_INK)
        axes.set(xlabel="confidence", ylabel="right answers, share", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="upper left", frameon=False)

    return svg(draw, _SQUARE, "reliability")


def _present(results: Results) -> dict[str, list[Any]]:
    """Return the cells with queries of present music, by label."""
    rows: dict[str, list[Any]] = {}
    for cell in sorted(results["cells"], key=lambda cell: cell["duration_s"]):
        if cell["present"]:
            rows.setdefault(cell["label"], []).append(cell)
    return rows


def _non_negative(lengths: list[float]) -> list[float]:
    """Replace negative rounding errors by 0."""
    return [max(length, 0.0) for length in lengths]


def svg(draw: Any, size: tuple[float, float], name: str, n_panels: int = 1) -> str:
    """Draw on axes and return the <svg> element.

    Parameters
    ----------
    draw : callable
        Called with `n_panels` axes, which stand side by side.
    size : (float, float)
        Width and height in inches.
    name : str
        Unique in a page.
    n_panels : int
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {
        "svg.hashsalt": name, "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif",
        "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    with mpl.rc_context(style | dict.fromkeys(ink, _INK)):
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, n_panels, squeeze=False)[0]
        for axes in panels:
            axes.grid(axis="y", color=_INK, alpha=0.15, linewidth=0.5)
            axes.set_axisbelow(True)
        draw(*panels)
        memory = io.StringIO()
        # No date and no random names: the same results give the same picture.
        figure.savefig(memory, format="svg", transparent=True, metadata={"Date": None})
    text = memory.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")
