from __future__ import annotations

import pytest

from benchmarks.reports import plots
from tests.benchmarks.reports.test_retrieval_pages import outcomes, results


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hit_rates", "length of the query, s"),
        ("offset_errors", "within 0.25 s"),
        ("thresholds", "false accepts, %"),
        ("reliability", "confidence"),
    ],
)
def test_plot_has_the_colour_of_the_text_and_is_reproducible(name: str, text: str) -> None:
    draw, measured = getattr(plots, name), results(outcomes())
    svg = draw(measured)
    assert svg == draw(measured)
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert text in svg
