from __future__ import annotations

from dataclasses import replace

import pytest

from astound.output.terminal import clock, label, span
from engine.records import Match


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0:00.00"), (61.52, "1:01.52"), (59.996, "1:00.00"), (3600.0, "60:00.00")],
)
def test_clock_carries_over(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_label_is_the_title_or_the_file_name() -> None:
    match = Match(
        rank=1, track_id=12, path="/music/a.ogg", title="Rain, [bold]:cat:", artist="Ada",
        query_start_s=0.0, query_end_s=5.0, reference_start_s=2.0, reference_end_s=7.0,
        offset_s=2.0, score=0.8, confidence=0.99, votes=20, coverage=1.0, speed=1.0, margin=0.5,
    )  # fmt: skip
    assert label(match) == "Rain, [bold]:cat: — Ada"
    assert label(replace(match, artist=None)) == "Rain, [bold]:cat:"
    assert label(replace(match, title=None)) == "a.ogg"


def test_span_has_tenths_of_a_second() -> None:
    assert span(0.04, 61.96) == "0:00.0 – 1:02.0"
