"""Plots of `bench scale`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, cast

Results = Mapping[str, Any]

COST_PLOT = "scale-cost.svg"
RECALL_PLOT = "scale-recall.svg"

_MIB = 2**20


def plot(results: Results, folder: Path) -> None:
    """Draw costs and recall over the size of the catalog, as two small SVG files."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # No dates and no random names: the same results give the same file.
    with mpl.rc_context({"svg.hashsalt": "scale", "svg.fonttype": "none", "font.size": 9}):
        for name, draw in ((COST_PLOT, _draw_costs), (RECALL_PLOT, _draw_recall)):
            figure = Figure(figsize=(9, 3), layout="constrained")
            draw(results, figure)
            figure.savefig(folder / name, metadata={"Date": None})


def _draw_costs(results: Results, figure: Any) -> None:
    latency, memory, space = figure.subplots(1, 3)
    for kind in ("clean", "noise0"):
        for value, style in (("median_ms", "o-"), ("p95_ms", "o:")):
            label = f"{kind}, {value.removesuffix('_ms')}"
            _curve(latency, results, _of("latency", kind, value), style, label)
    for kind in ("anonymous", "file"):
        _curve(memory, results, _of("memory_bytes", "asked", kind, unit=_MIB), "o-", kind)
    _curve(space, results, _bytes_per_segment, "o-", "all files")
    latency.set(title="5-s query, ms", yscale="log")
    memory.set(title="resident memory, MiB", ylim=(0, None))
    space.set(title="bytes per segment", ylim=(0, None))
    latency.legend()
    memory.legend()


def _draw_recall(results: Results, figure: Any) -> None:
    cells = list(enumerate(results["sizes"][0]["cells"]))
    labels = dict.fromkeys(cell["label"] for _, cell in cells)
    (panels,) = figure.subplots(1, len(labels), sharey=True, squeeze=False)
    for axes, label in zip(panels, labels, strict=True):
        for i, cell in cells:
            if cell["label"] == label:
                share = _of("cells", i, "present", "hit_rate", "value")
                name = f"{cell['duration_s']:g} s"
                _curve(axes, results, share, "o-", name)
        axes.set(title=f"{label}, right track", ylim=(0, 1.02))
        axes.legend(loc="lower left")


def _of(*keys: str | int, unit: int = 1) -> Callable[[Results], float]:
    """Return a function that reads a value of a catalog's results, in a unit."""

    def value(catalog: Results) -> float:
        found: Any = reduce(getitem, keys, cast(Any, catalog))
        return float(found) / unit

    return value


def _bytes_per_segment(catalog: Results) -> float:
    return float(sum(catalog["n_bytes"].values()) / catalog["n_segments"])


def _curve(
    axes: Any, results: Results, value: Callable[[Results], float], style: str, label: str
) -> None:
    """Draw padded catalogs as a line, and the catalog of real music as a cross."""
    padded = [catalog for catalog in results["sizes"] if catalog["name"] != "real"]
    sizes = [catalog["n_segments"] for catalog in padded]
    (line,) = axes.plot(sizes, list(map(value, padded)), style, label=label, markersize=3)
    for catalog in results["sizes"]:
        if catalog["name"] == "real":
            axes.plot(catalog["n_segments"], value(catalog), "x", color=line.get_color())
    axes.set(xscale="log", xlabel="segments")
