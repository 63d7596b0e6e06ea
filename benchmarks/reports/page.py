"""A run of retrieval as one page of HTML that needs nothing else: tables, plots and the recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.reports import plots, report
from benchmarks.reports.grids import Entry, Grid, grids

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --faint: #6a737d; --line: #d8dee4;
  --good: 46, 139, 87; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181c; --faint: #9aa4af; --line: #363b42;
    --good: 70, 180, 120; }
}
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin-bottom: .3rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem }
p { margin: .3rem 0 .8rem; max-width: 48rem } .note { color: var(--faint) }
.wide { overflow-x: auto } svg { max-width: 100%; height: auto; display: block }
.pair { display: flex; flex-wrap: wrap; gap: 1.5rem } .pair > div { flex: 0 1 auto; min-width: 0 }
.pair > div:first-child { flex: 1 1 20rem; max-width: 32rem }
.many { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 0 2rem }
.many section { min-width: 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .4rem 0 }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap }
th:first-child, td:first-child { text-align: left }
th { font-weight: 600; white-space: normal }
small { display: block; color: var(--faint); font-size: .72rem; line-height: 1.2 }
.recipe td { text-align: left; white-space: normal; overflow-wrap: anywhere }
code { font: .85em ui-monospace, monospace }
"""


def html(results: Mapping[str, Any]) -> str:
    """Write a run of retrieval as a page.

    Parameters
    ----------
    results : mapping
        What results.json holds.
    """
    body = "\n".join(_sections(results))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Retrieval</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _sections(results: Mapping[str, Any]) -> Iterable[str]:
    yield f"<h1>Retrieval</h1>\n<p>{escape(report.summary(results))}</p>"
    if results["all"]["present"]:
        yield f"<h2>Right track by length of the query</h2>{_wide(plots.hit_rates(results))}"
        yield f"<h2>Right time</h2>{_wide(plots.offset_errors(results))}"
    laid_out = (
        f"<section>{_headed(grid.title, grid.note, _wide(_grid(grid)))}</section>"
        for grid in grids(results["cells"])
    )
    yield f'<div class="many">{"".join(laid_out)}</div>'
    if results["open_set"]:
        rows = _table(*report.thresholds(results["open_set"]))
        pair = _pair(plots.thresholds(results), rows)
        yield _headed("Known or unknown", report.OPEN_SET_NOTE, pair)
    pair = _pair(plots.reliability(results), _table(*report.reliability(results["calibration"])))
    yield _headed("Calibration", report.CALIBRATION_NOTE, pair)
    yield f"<h2>How it was measured</h2>{_recipe(results)}"


def _headed(title: str, note: str, content: str) -> str:
    return f'<h2>{escape(title)}</h2><p class="note">{escape(note)}</p>{content}'


def _wide(content: str) -> str:
    return f'<div class="wide">{content}</div>'


def _pair(left: str, right: str) -> str:
    return f'<div class="pair"><div>{left}</div><div class="wide">{right}</div></div>'


def _grid(grid: Grid) -> str:
    head = "".join(f"<th>{duration_s:g} s</th>" for duration_s in grid.durations_s)
    rows = "".join(
        f"<tr><td>{escape(label)}</td>{''.join(map(_entry, row))}</tr>"
        for label, row in grid.rows.items()
    )
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _entry(entry: Entry | None) -> str:
    if entry is None:
        return "<td>–</td>"
    shade = ""
    if entry.goodness is not None:
        shade = f' style="background: rgba(var(--good), {entry.goodness**3 * 0.45:.2f})"'
    return f"<td{shade}>{escape(entry.value)}<small>{escape(entry.interval)}</small></td>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(one)}</th>" for one in head)
    lines = ("".join(f"<td>{escape(one)}</td>" for one in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _recipe(results: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{escape(what)}</th><td><code>{escape(value.strip('`'))}</code></td></tr>"
        for what, value in report.recipe(results)
    )
    return f'<table class="recipe"><tbody>{rows}</tbody></table>'
