from __future__ import annotations

import copy
from pathlib import Path

from benchmarks.reports.scale_plots import COST_PLOT, RECALL_PLOT, plot
from tests.benchmarks.reports.test_scale_page import scale_results


def test_same_results_give_the_same_small_plots(tmp_path: Path) -> None:
    results = scale_results()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        plot(copy.deepcopy(results), tmp_path / name)
    for name in (COST_PLOT, RECALL_PLOT):
        svg = (tmp_path / "a" / name).read_bytes()
        assert svg == (tmp_path / "b" / name).read_bytes()
        assert len(svg) < 60_000
