from __future__ import annotations

from dataclasses import asdict

from benchmarks.metrics.outcomes import CellMetrics, Outcome, Share, summarise
from benchmarks.reports import report
from tests.benchmarks.markdown import rows


def cell(*outcomes: Outcome) -> CellMetrics:
    return summarise("cell", outcomes)


def present(rank: int | None, offset_error_s: float | None, accepted: bool) -> Outcome:
    return Outcome(
        query_id="q", cell="cell", present=True, true_track="a", true_start_s=0.0,
        rank=rank, offset_error_s=offset_error_s, accepted=accepted,
    )  # fmt: skip


def absent(accepted: bool) -> Outcome:
    return Outcome(
        query_id="q", cell="cell", present=False, true_track="b", true_start_s=0.0,
        accepted=accepted,
    )  # fmt: skip


KNOWN = [
    present(1, 0.1, accepted=True),
    present(1, 0.1, accepted=False),
    present(1, 0.4, accepted=False),
    present(None, None, accepted=True),
]
CELLS = {
    ("noise0", 10.0): cell(*KNOWN, absent(True), absent(False), absent(False), absent(False)),
    ("noise0", 2.0): cell(present(None, None, accepted=True), absent(False)),
    ("clean", 2.0): cell(present(1, 0.0, accepted=True), absent(False)),
}


def test_hits_table_is_by_distortion_and_duration() -> None:
    assert rows(report.hits_table(CELLS)) == [
        ["hit rate / exact of hits, %", "2 s", "10 s"],
        ["noise0", "0.0 / -", "75.0 / 66.7"],
        ["clean", "100.0 / 100.0", "-"],
    ]


def test_acceptance_table_shows_kept_hits_and_false_accepts() -> None:
    assert rows(report.acceptance_table(CELLS)) == [
        ["kept / false accepts, %", "2 s", "10 s"],
        ["noise0", "- / 0.0", "33.3 / 25.0"],
        ["clean", "100.0 / 0.0", "-"],
    ]


def test_acceptance_table_without_absent_music_has_no_false_accepts() -> None:
    assert rows(report.acceptance_table({("noise0", 10.0): cell(*KNOWN)})) == [
        ["kept, %", "10 s"],
        ["noise0", "33.3"],
    ]


def test_table_is_markdown_with_numbers_aligned_right() -> None:
    assert report.table(["a", "b"], [["0.10", "1"]]).splitlines()[1:] == [
        "|:-----|----:|", "| 0.10 |   1 |",
    ]  # fmt: skip


def test_percent_of_a_share_and_of_its_json_are_the_same() -> None:
    share = Share(n_yes=2, n=4, value=0.5, low=0.25, high=0.75)
    assert report.percent(share) == report.percent(asdict(share)) == "50.0 (25.0-75.0)"
    assert report.percent(share, digits=0, interval=False) == "50"
    assert report.percent(asdict(share) | {"value": None}) == "-"
