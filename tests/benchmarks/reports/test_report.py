from __future__ import annotations

from benchmarks.metrics.outcomes import CellMetrics, Outcome, summarise
from benchmarks.reports import report


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


def test_hits_stand_by_distortion_and_duration() -> None:
    assert report.hits_table(CELLS).splitlines() == [
        "| hit rate / exact of hits, % | 2 s | 10 s |",
        "|---|---:|---:|",
        "| noise0 | 0.0 / - | 75.0 / 66.7 |",
        "| clean | 100.0 / 100.0 | - |",
    ]


def test_acceptance_is_that_of_hits_and_of_absent_music() -> None:
    assert report.acceptance_table(CELLS).splitlines() == [
        "| kept / false accepts, % | 2 s | 10 s |",
        "|---|---:|---:|",
        "| noise0 | - / 0.0 | 33.3 / 25.0 |",
        "| clean | 100.0 / 0.0 | - |",
    ]


def test_without_absent_music_there_are_no_false_accepts() -> None:
    assert report.acceptance_table({("noise0", 10.0): cell(*KNOWN)}).splitlines() == [
        "| kept, % | 10 s |",
        "|---|---:|",
        "| noise0 | 33.3 |",
    ]
