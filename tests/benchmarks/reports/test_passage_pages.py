from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from benchmarks.metrics.passages import ALL, MEASURES, Answer, CaseResult, Figure
from benchmarks.queries.passages import SUITES
from benchmarks.queries.timeline import Piece
from benchmarks.reports import passage_pages
from benchmarks.reports.passage_pages import GOALS, goal, goals_table, html, markdown
from tests.benchmarks.markdown import rows

FOUND = Figure(
    suite="joins", row=ALL, command="query", measure="pieces found", unit="%", n=61, value=0.98,
    low=0.91, high=1.0,
)  # fmt: skip
BORDER = replace(FOUND, measure="border error, 90 %", unit="s", value=0.7311, low=0.5, high=0.9)
OF_A_ROW = replace(FOUND, row="clean")
SINGLE = replace(FOUND, suite="repeats", row="3 files", command="repeats")


def results(*figures: Figure, before: Any = None) -> dict[str, Any]:
    machine = {"cpu": "<one>", "n_cpus": 2, "system": "Linux", "python": "3", "torch": "2",
               "faiss": "1"}  # fmt: skip
    return {
        "command": "measure <it>", "commit": "abc", "machine": machine, "recipe_id": "0123",
        "seed": 7, "n": 20, "catalog": {"n_tracks": 3, "duration_s": 7200.0}, "n_absent": 2,
        "suites": ["joins", "repeats"], "figures": [asdict(figure) for figure in figures],
        "before": before,
    }  # fmt: skip


def test_goals_table_has_the_figures_with_a_goal() -> None:
    head, *lines = rows(goals_table(results(FOUND, BORDER, OF_A_ROW, SINGLE)))
    assert head == ["suite", "row", "command", "figure", "goal", "measured", "reached"]
    assert lines == [
        ["joins", "all", "query", "pieces found", "≥ 97 %", "98 % (91-100)", "yes"],
        ["joins", "all", "query", "border error, 90 %", "≤ 0.5 s", "0.731 s (0.5-0.9)", "no"],
        ["repeats", "3 files", "repeats", "pieces found", "≥ 100 %", "98 % (91-100)", "no"],
    ]


def test_earlier_run_stands_beside_the_figures() -> None:
    before = {"figures": [asdict(replace(FOUND, value=0.07, low=0.02, high=0.2))]}
    head, *lines = rows(goals_table(results(FOUND, BORDER, before=before)))
    assert head[5:] == ["before", "now", "reached"]
    assert [line[5:] for line in lines] == [
        ["7 % (2-20)", "98 % (91-100)", "yes"],
        ["-", "0.731 s (0.5-0.9)", "no"],
    ]


def test_time_and_memory_are_shown_without_a_goal() -> None:
    memory = replace(
        FOUND, suite="long", row="40 min", measure="peak memory", unit="MiB", value=1353.6,
        low=1353.6, high=1353.6,
    )  # fmt: skip
    lines = rows(goals_table(results(memory, OF_A_ROW, FOUND)))[1:]
    assert [line[0] for line in lines] == ["joins", "long"]
    assert lines[1][3:] == ["peak memory", "-", "1,354 MiB", "-"]


def test_goals_name_suites_rows_and_measures_that_exist() -> None:
    assert GOALS.keys() == SUITES.keys()
    for suite, of_rows in GOALS.items():
        assert of_rows.keys() <= {ALL, *SUITES[suite].rows}
        assert all(measures.keys() <= MEASURES.keys() for measures in of_rows.values())
    assert goal(replace(FOUND, measure="contradictory answers")) == passage_pages.Goal(
        0, at_least=False
    )


def test_pages_have_a_table_and_a_picture_of_each_suite() -> None:
    piece = Piece(track="a", query_start_s=0, query_end_s=9, reference_start_s=30)
    right = Answer(
        track="a", query_start_s=0, query_end_s=9, reference_start_s=30, reference_end_s=39
    )
    other = replace(right, track="b")
    answered = {
        ("joins", "clean", "query"): [
            CaseResult(case=str(i), pieces=[piece], answers=answers, status="match", extra={})
            for i, answers in enumerate([[right], [right, other]])
        ]
    }
    made = results(FOUND, BORDER, SINGLE)
    page, text = html(made, answered), markdown(made)
    assert page.count("<svg") == 1
    assert "clean: query" in page
    assert "measure &lt;it&gt;" in page
    assert page.count("<h2>joins</h2>") == page.count("<h2>repeats</h2>") == 1
    assert ["pieces found", "98 % (91-100)"] in rows(text.split("## joins")[1])


@pytest.mark.parametrize("n_false", [0, 1])
def test_picture_shows_the_worst_case(n_false: int) -> None:
    piece = Piece(track="a", query_start_s=0, query_end_s=9, reference_start_s=30)
    right = Answer(
        track="a", query_start_s=0, query_end_s=9, reference_start_s=30, reference_end_s=39
    )
    answers = [right, *[replace(right, track="b")] * n_false]
    results_of = [
        CaseResult(case="a", pieces=[piece], answers=found, status="match", extra={})
        for found in ([right], answers)
    ]
    worst = min(results_of, key=passage_pages._quality)
    assert worst is results_of[1 if n_false else 0]
