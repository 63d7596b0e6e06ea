from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from benchmarks.metrics.outcomes import Outcome
from benchmarks.reports.retrieval_pages import grids, html, markdown
from benchmarks.suites.retrieval import measure

CELLS = [("clean", 2.0), ("clean", 5.0), ("noise0", 2.0), ("noise0", 5.0)]
VOID = {"meta", "br", "path", "use"}


def outcomes() -> list[Outcome]:
    rng = np.random.default_rng(0)
    found = []
    for label, duration_s in CELLS:
        for i in range(20):
            hit = bool(rng.random() < (0.9 if label == "clean" else 0.5))
            confidence = float(rng.uniform(0.6, 1.0) if hit else rng.uniform(0.0, 0.6))
            present = Outcome(
                query_id=f"present-{i}", cell=f"{label} {duration_s:g} s", present=True,
                true_track=f"<{i % 7}>", true_start_s=0.0, rank=1 if hit else 2, answer="a",
                offset_error_s=0.1 if hit else None, confidence=confidence,
                accepted=confidence >= 0.7,
            )  # fmt: skip
            absent_confidence = float(rng.uniform(0, 0.8))
            found += [present, replace(present, query_id=f"absent-{i}", present=False, rank=None,
                                     offset_error_s=None, confidence=absent_confidence,
                                     accepted=absent_confidence >= 0.7)]  # fmt: skip
    return found


def results(of: list[Outcome]) -> dict[str, Any]:
    machine = {"cpu": "<one>", "n_cpus": 2, "system": "Linux", "python": "3", "torch": "2",
               "faiss": "1"}  # fmt: skip
    about = {
        "command": "measure <it>", "commit": None, "machine": machine, "recipe_id": "0123",
        "seed": 7, "catalog": {"n_tracks": 3, "duration_s": 7200.0},
        "n_tracks_asked_for": {"present": 3},
        "rooms": None, "left_out": {"room5": ["noise", "rooms"]},
    }  # fmt: skip
    found: dict[str, Any] = json.loads(json.dumps(about | measure(CELLS, of, 0.7, 1)))
    return found


@pytest.fixture(scope="module")
def both() -> dict[str, Any]:
    return results(outcomes())


class Balance(HTMLParser):
    """Collects elements that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)


def test_html_is_well_formed_and_self_contained(both: dict[str, Any]) -> None:
    text = html(both)
    balance = Balance()
    balance.feed(text)
    assert not balance.wrong
    assert not balance.open
    assert text.count("<svg") == 4
    assert not re.search(r'(src|href)="(?!#)(?!http://www\.w3)', text)
    assert "<script" not in text
    assert "measure &lt;it&gt;" in text
    assert "Left out without --noise and --rooms: room5." in text


def test_grids_are_by_distortion_and_duration(both: dict[str, Any]) -> None:
    assert len(grids(both["cells"])) == 7
    for grid in grids(both["cells"]):
        assert grid.durations_s == (2.0, 5.0)
        assert list(grid.rows) == ["clean", "noise0"]
    text = markdown(both)
    assert text.count("\n## ") == 7 + 3
    assert "\n## Exact hit rate, %\n\nHits with an offset error" in text
    assert "| 1 % of false accepts |" in text


def test_pages_without_absent_music_have_no_open_set() -> None:
    found = results([outcome for outcome in outcomes() if outcome.present])
    assert found["open_set"] is None
    assert "Known or unknown" not in markdown(found) + html(found)


def test_pages_without_present_music_show_false_accepts_only() -> None:
    found = results([outcome for outcome in outcomes() if not outcome.present])
    assert [grid.measure for grid in grids(found["cells"])] == ["false_accept_rate"]
    assert html(found).count("<svg") == 1
