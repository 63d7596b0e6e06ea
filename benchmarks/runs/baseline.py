"""Baseline of the regression gate: former answers and costs, compared with those of now."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.metrics.outcomes import EXACT_S, Outcome, by_cell
from benchmarks.runs.provenance import digest
from engine.errors import ConfigError
from engine.files import atomic_write

SIGNIFICANT, SIGNIFICANT_IN_ALL = 0.001, 0.01
"""Significance levels of the sign test: in a single cell, and in all cells together."""

MAX_RISE, MAX_RISE_QUERY = 0.2, 0.75
"""Fractions by which costs may rise, and those of queries, which also depend on what else uses the
memory. Runs of the same code differ by less (docs/benchmarks.md#the-gate)."""

_ALL = "all"

_MEASURES: Mapping[str, tuple[bool, Callable[[Outcome], bool]]] = {
    "right track": (True, lambda o: o.hit),
    "right track within 0.25 s": (True, lambda o: o.within(EXACT_S)),
    "right track accepted": (True, lambda o: o.hit and o.accepted),
    "absent music rejected": (False, lambda o: not o.accepted),
}


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Right or wrong for every query, and the costs of pieces of work.

    Parameters
    ----------
    questions : str
        Hash of all queries. Only baselines of the same queries can be compared.
    right : mapping
        By measure and cell, a string of one 0 or 1 for each query.
    costs : mapping of float
        By piece of work, as multiples of the reference work.
    about : mapping
        Provenance.
    """

    questions: str
    right: Mapping[str, Mapping[str, str]]
    costs: Mapping[str, float]
    about: Mapping[str, Any]


def baseline(
    outcomes: Sequence[Outcome], costs: Mapping[str, float], about: Mapping[str, Any]
) -> Baseline:
    """Make the baseline of a run."""
    right = {
        measure: _flags([o for o in outcomes if o.present == of_present], is_right)
        for measure, (of_present, is_right) in _MEASURES.items()
    }
    questions = digest(
        f"{o.query_id} {o.cell} {o.true_track} {o.true_start_s:.4f}" for o in outcomes
    )
    return Baseline(questions=questions, right=right, costs=dict(costs), about=dict(about))


def _flags(outcomes: Sequence[Outcome], is_right: Callable[[Outcome], bool]) -> dict[str, str]:
    cells = by_cell(outcomes)
    return {name: "".join(str(int(is_right(o))) for o in cell) for name, cell in cells.items()}


def read(path: Path) -> Baseline:
    """Read a baseline.

    Raises
    ------
    ConfigError
        The file does not exist or is not a baseline.
    """
    try:
        return Baseline(**json.loads(path.read_text()))
    except FileNotFoundError as error:
        reason = f"{path.name} does not exist; write one with --update"
        raise ConfigError("baseline", reason) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "baseline", f"{path.name} is not a baseline; write one with --update"
        ) from error


def write(path: Path, baseline: Baseline) -> None:
    """Write a baseline as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(asdict(baseline), indent=1, allow_nan=False) + "\n")


def losses(former: Baseline, now: Baseline) -> list[str]:
    """Describe each loss in a line.

    The queries are the same, so the answers that changed decide: a sign test (exact McNemar) on
    those that were right before or are right now, but not both.

    Raises
    ------
    ConfigError
        The two are of different queries or of different work.
    """
    if (former.questions, former.costs.keys()) != (now.questions, now.costs.keys()):
        reason = "it is of other queries; write a new one with --update"
        raise ConfigError("baseline", reason)
    return [*_lost_answers(former, now), *_risen_costs(former, now)]


def _lost_answers(former: Baseline, now: Baseline) -> Iterator[str]:
    from scipy.stats import binomtest

    for measure in former.right:
        before, after = _with_all(former.right[measure]), _with_all(now.right[measure])
        for cell, was in before.items():
            pairs = list(zip(was, after[cell], strict=True))
            n_lost, n_gained = pairs.count(("1", "0")), pairs.count(("0", "1"))
            if not n_lost:
                continue
            chance = binomtest(n_lost, n_lost + n_gained, alternative="greater").pvalue
            if chance < (SIGNIFICANT_IN_ALL if cell == _ALL else SIGNIFICANT):
                yield (
                    f"{cell}: {measure} fell from {was.count('1')} to {after[cell].count('1')} "
                    f"of {len(was)}"
                )


def _risen_costs(former: Baseline, now: Baseline) -> Iterator[str]:
    for name, was in former.costs.items():
        max_rise = MAX_RISE_QUERY if name.startswith("query") else MAX_RISE
        if now.costs[name] > was * (1 + max_rise):
            yield f"{name}: costs rose from {was:.2f} to {now.costs[name]:.2f} reference units"


def _with_all(right: Mapping[str, str]) -> dict[str, str]:
    return {**right, _ALL: "".join(right.values())}


def rows(former: Baseline | None, now: Baseline) -> list[list[str]]:
    """Return the rows of a table: measure and cell, before, now."""
    shown = []
    for measure, right in now.right.items():
        before = _with_all(former.right.get(measure, {})) if former else {}
        for cell, flags in _with_all(right).items():
            shown.append([f"{measure}, {cell}", _count(before.get(cell)), _count(flags)])
    for name, cost in now.costs.items():
        was = former.costs.get(name) if former else None
        shown.append(
            [f"{name}, reference units", "-" if was is None else f"{was:.2f}", f"{cost:.2f}"]
        )
    return shown


def _count(flags: str | None) -> str:
    return f"{flags.count('1')} of {len(flags)}" if flags else "-"
