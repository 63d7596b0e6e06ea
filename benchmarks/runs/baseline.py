"""What was reached once, for every query, and whether as much is reached now."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.metrics.outcomes import Outcome
from benchmarks.runs.provenance import digest
from engine.errors import ConfigError
from engine.files import atomic_write

SIGNIFICANT, SIGNIFICANT_IN_ALL = 0.001, 0.01
"""How rarely chance alone may turn so many more right answers wrong than wrong ones right: in one
of the many cells, and in all of them together."""

COSTLIER, COSTLIER_QUERY = 0.2, 0.75
"""Share by which a cost may rise, and that of a query, which depends on what else uses the memory;
runs of the same code differ by less (docs/benchmarks.md)."""

_ALL = "all"

_MEASURES: Mapping[str, tuple[bool, Callable[[Outcome], bool]]] = {
    "right track": (True, lambda o: o.hit),
    "right track within 0.25 s": (True, lambda o: o.within(0.25)),
    "right track accepted": (True, lambda o: o.hit and o.accepted),
    "absent music rejected": (False, lambda o: not o.accepted),
}


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Right or wrong for every query, and what pieces of work cost.

    Parameters
    ----------
    questions : str
        Stands for all that was asked; only the same questions can be compared.
    right : mapping
        By measure and cell, a text of one 0 or 1 for each query.
    costs : mapping of float
        By work, in yardsticks.
    about : mapping
        Where it comes from.
    """

    questions: str
    right: Mapping[str, Mapping[str, str]]
    costs: Mapping[str, float]
    about: Mapping[str, Any]


def baseline(
    outcomes: Sequence[Outcome], costs: Mapping[str, float], about: Mapping[str, Any]
) -> Baseline:
    """Sum up a run."""
    right = {
        measure: _by_cell([o for o in outcomes if o.present == of_present], is_right)
        for measure, (of_present, is_right) in _MEASURES.items()
    }
    asked = digest(f"{o.query_id} {o.cell} {o.true_track} {o.true_start_s:.4f}" for o in outcomes)
    return Baseline(questions=asked, right=right, costs=dict(costs), about=dict(about))


def _by_cell(outcomes: Sequence[Outcome], is_right: Callable[[Outcome], bool]) -> dict[str, str]:
    names = dict.fromkeys(o.cell for o in outcomes)
    return {
        name: "".join(str(int(is_right(o))) for o in outcomes if o.cell == name) for name in names
    }


def read(path: Path) -> Baseline:
    """Read a baseline.

    Raises
    ------
    ConfigError
        There is none.
    """
    try:
        return Baseline(**json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise ConfigError(
            "baseline", f"there is no {path.name}; write one with --update"
        ) from error
    except (TypeError, ValueError) as error:
        raise ConfigError("baseline", f"{path.name} is none; write one with --update") from error


def write(path: Path, one: Baseline) -> None:
    """Write a baseline as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(asdict(one), indent=1, allow_nan=False) + "\n")


def losses(former: Baseline, now: Baseline) -> list[str]:
    """Say what is lost, a line each.

    The same questions are asked each time, so what counts is how many answers changed: a sign test
    (exact McNemar) on those that were right before or are right now, but not both.

    Raises
    ------
    ConfigError
        The two do not ask the same questions or time the same work.
    """
    if (former.questions, former.costs.keys()) != (now.questions, now.costs.keys()):
        reason = "it holds answers to other questions; write a new one with --update"
        raise ConfigError("baseline", reason)
    return [*_wronger(former, now), *_costlier(former, now)]


def _wronger(former: Baseline, now: Baseline) -> Iterator[str]:
    from scipy.stats import binomtest

    for measure in former.right:
        before, after = _with_all(former.right[measure]), _with_all(now.right[measure])
        for cell, was in before.items():
            pairs = list(zip(was, after[cell], strict=True))
            n_lost, n_won = pairs.count(("1", "0")), pairs.count(("0", "1"))
            if not n_lost:
                continue
            chance = binomtest(n_lost, n_lost + n_won, alternative="greater").pvalue
            if chance < (SIGNIFICANT_IN_ALL if cell == _ALL else SIGNIFICANT):
                yield (
                    f"{cell}: {measure} fell from {was.count('1')} to {after[cell].count('1')} "
                    f"of {len(was)}"
                )


def _costlier(former: Baseline, now: Baseline) -> Iterator[str]:
    for name, was in former.costs.items():
        noise = COSTLIER_QUERY if name.startswith("query") else COSTLIER
        if now.costs[name] > was * (1 + noise):
            yield f"{name}: costs {now.costs[name]:.2f} yardsticks instead of {was:.2f}"


def _with_all(right: Mapping[str, str]) -> dict[str, str]:
    return {**right, _ALL: "".join(right.values())}


def rows(former: Baseline | None, now: Baseline) -> list[list[str]]:
    """Show both side by side: the measure, the cell, before, now."""
    shown = []
    for measure, right in now.right.items():
        before = _with_all(former.right.get(measure, {})) if former else {}
        for cell, flags in _with_all(right).items():
            shown.append([f"{measure}, {cell}", _count(before.get(cell)), _count(flags)])
    for name, cost in now.costs.items():
        was = former.costs.get(name) if former else None
        shown.append([f"{name}, yardsticks", "-" if was is None else f"{was:.2f}", f"{cost:.2f}"])
    return shown


def _count(flags: str | None) -> str:
    return f"{flags.count('1')} of {len(flags)}" if flags else "-"
