"""Passages as pages: Markdown, and one HTML page with a picture for each suite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.metrics.passages import ALL, PROTOCOLS, CaseResult, Figure
from benchmarks.queries.passages import SUITES
from benchmarks.reports import passage_plots
from benchmarks.reports.report import provenance_rows, table
from benchmarks.reports.retrieval_pages import Rows
from benchmarks.reports.templates import render

Results = Mapping[str, Any]
Answered = Mapping[tuple[str, str, str], Sequence[CaseResult]]
"""Results by suite, row and command."""

_N_PANELS = 6


@dataclass(frozen=True)
class Goal:
    """What a figure should reach, in its unit; shares are in [0, 1].

    Parameters
    ----------
    value : float
    at_least : bool
        Whether larger figures are better.
    """

    value: float
    at_least: bool

    def is_met(self, value: float) -> bool:
        """Whether a figure reaches it."""
        return value >= self.value if self.at_least else value <= self.value

    def text(self, unit: str) -> str:
        """Format it, such as "≥ 97 %"."""
        return f"{'≥' if self.at_least else '≤'} {_number(self.value, unit)}"


def _min(value: float) -> Goal:
    return Goal(value, at_least=True)


def _max(value: float) -> Goal:
    return Goal(value, at_least=False)


_NOTHING = {"cases with an answer": _max(0)}
_JINGLE = {"pieces found": _min(1), "both ends right": _min(1), "speed right": _min(1)}

GOALS: Mapping[str, Mapping[str, Mapping[str, Goal]]] = {
    "joins": {
        ALL: {
            "pieces found": _min(0.97),
            "known time in place": _min(0.95),
            "border error, 90 %": _max(0.5),
            "speed error, 90 %": _max(0.002),
        }
    },
    "half-known": {
        ALL: {
            "pieces found": _min(1),
            "false time a case": _max(0),
            "confidence lost": _max(0.01),
        }
    },
    "edits": {
        ALL: {
            "pieces in place": _min(0.98),
            "known time in place": _min(0.97),
            "border error, median": _max(0.5),
            "border error, 90 %": _max(1),
            "answers across a cut, a case": _max(0),
        }
    },
    "short-pieces": {
        ALL: {
            "pieces in place": _min(0.95),
            "speed right": _min(0.95),
            "false time a case": _max(0),
            "answers across a cut, a case": _max(0),
        }
    },
    "jingles": {
        "2 s": dict.fromkeys(_JINGLE, _min(0.8)),
        "3 s": _JINGLE,
        "4 s": _JINGLE,
        "6 s": _JINGLE,
        ALL: {"false time a case": _max(0)},
    },
    "detuned": {ALL: {"speed right": _min(1), "both ends right": _min(1)}},
    "speeds": {
        "speed 5 s": {"speed right": _min(0.95)},
        "speed 10 s": {"speed right": _min(0.95)},
        "tempo 10 s": {"speed right": _min(0.95)},
    },
    "same": {
        ALL: {"pieces in place": _min(0.98), "mirror images": _min(1), "similarity": _min(0.995)}
    },
    "repeats": {
        ALL: {
            "pieces found": _min(1),
            "border error, 90 %": _max(0.75),
            "false repeats a case": _max(0),
            "repeats of unequal length": _max(0),
        }
    },
    "rejects": {
        "reversed": {"cases with an answer": _max(0.01), "other tracks answered": _max(0)},
        **dict.fromkeys(["tone", "sweep", "hum", "noise", "speech"], _NOTHING),
    },
    "within": {
        "2 s": {"both ends right": _min(0.93)},
        "3 s": {"both ends right": _min(0.97)},
        "5 s": {"both ends right": _min(0.98)},
        "10 s": {"both ends right": _min(0.99)},
    },
    "long": {ALL: {"pieces found": _min(1)}},
}
"""By suite, row and measure."""

_SHOWN = ("× real time", "peak memory")
"""Figures in the table of goals without a goal."""

_OF_ALL = {"contradictory answers": _max(0), "stated errors hold": _min(0.9)}


def goal(figure: Figure) -> Goal | None:
    """Return the goal of a figure; None if it has none."""
    is_single = len(SUITES[figure.suite].rows) <= 1
    row = ALL if is_single else figure.row
    goals = dict(GOALS[figure.suite].get(row, {})) | (_OF_ALL if row == ALL else {})
    return goals.get(figure.measure)


# -- tables ------------------------------------------------------------------------------------


def goals_table(results: Results) -> str:
    """Format the figures that have a goal as a Markdown table, with those of an earlier run."""
    return table(*_goal_rows(results))


def _goal_rows(results: Results) -> Rows:
    order = list(SUITES)
    shown = [f for f in _figures(results) if f.measure in _SHOWN or goal(f) is not None]
    rows = [
        [f.suite, f.row, f.command, f.measure, *_values(f, results)]
        for f in sorted(shown, key=lambda figure: order.index(figure.suite))
    ]
    columns = ["before", "now"] if results["before"] else ["measured"]
    return ["suite", "row", "command", "figure", "goal", *columns, "reached"], rows


def _values(figure: Figure, results: Results) -> list[str]:
    earlier = {one.key: one for one in _figures(results["before"] or {"figures": []})}
    before, wanted = earlier.get(figure.key), goal(figure)
    columns = [_entry(before) if before else "-"] if results["before"] else []
    if wanted is None:
        return ["-", *columns, _entry(figure), "-"]
    reached = "yes" if wanted.is_met(figure.value) else "no"
    return [wanted.text(figure.unit), *columns, _entry(figure), reached]


def _figures(results: Results) -> list[Figure]:
    return [Figure(**figure) for figure in results["figures"]]


def _entry(figure: Figure) -> str:
    """Format a figure with its interval."""
    value = _number(figure.value, figure.unit)
    if figure.low is None or figure.high is None or figure.low == figure.value == figure.high:
        return value
    low, high = (_number(end, figure.unit, name=False) for end in (figure.low, figure.high))
    return f"{value} ({low}-{high})"


def _number(value: float, unit: str, *, name: bool = True) -> str:
    scaled = 100 * value if unit == "%" else value
    digits = f"{scaled:,.0f}" if abs(scaled) >= 1000 else f"{scaled:.3g}"
    return f"{digits} {unit}".strip() if name else digits


def suite_table(suite: str, figures: Iterable[Figure]) -> Rows:
    """Make the table of a suite: a row for each measure, a column for each row and command."""
    own = {figure.key[1:]: figure for figure in figures if figure.suite == suite}
    columns = list(dict.fromkeys(key[:2] for key in own))
    measures = [m for m in PROTOCOLS[suite].measures if any(key[2] == m for key in own)]
    rows = [
        [measure, *(_entry(own[key]) if (key := (*c, measure)) in own else "-" for c in columns)]
        for measure in measures
    ]
    return ["", *(f"{row}: {command}" for row, command in columns)], rows


# -- pages -------------------------------------------------------------------------------------


def markdown(results: Results) -> str:
    """Render a run as Markdown.

    Parameters
    ----------
    results : mapping
        Content of results.json.
    """
    return render("passages.md.j2", **_page(results), table=table)


def html(results: Results, answered: Answered) -> str:
    """Render a run as an HTML page.

    Parameters
    ----------
    results : mapping
        Content of results.json.
    answered : mapping
        All answers, of which some are drawn.
    """
    pictures = {suite: _picture(suite, answered) for suite in results["suites"]}
    return render("passages.html.j2", **_page(results), pictures=pictures)


def _page(results: Results) -> dict[str, Any]:
    figures = _figures(results)
    return {
        "results": results,
        "suites": {suite: suite_table(suite, figures) for suite in results["suites"]},
        "tolerances": {suite: PROTOCOLS[suite].tolerance for suite in results["suites"]},
        "goals": _goal_rows(results),
        "provenance": provenance_rows(results),
    }


def _picture(suite: str, answered: Answered) -> str:
    """Draw the worst case of some rows and commands."""
    panels = []
    for (of_suite, row, command), results in answered.items():
        if of_suite == suite and results:
            worst = min(results, key=_quality)
            panels.append((f"{row}: {command}", worst))
    return passage_plots.planes(suite, panels[:_N_PANELS]) if panels else ""


def _quality(result: CaseResult) -> float:
    return sum(one.share_placed for one in result.piece_results) - result.false_s
