"""What outcomes say together: the results of a retrieval run, as plain values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.metrics.open_set import open_set
from benchmarks.metrics.outcomes import Outcome, calibration, summarise
from benchmarks.queries.cells import Place
from benchmarks.reports import report


def found(
    places: Sequence[Place], outcomes: Sequence[Outcome], min_confidence: float, seed: int = 0
) -> dict[str, Any]:
    """Measure every cell, and all of them together.

    Parameters
    ----------
    places : sequence of (label, duration_s)
        The cells, in the order of the tables.
    outcomes : sequence of Outcome
    min_confidence : float
        The default threshold.
    seed : int
        Of the intervals.
    """
    rows = {place: summarise(*_cell(place, outcomes), seed) for place in places}
    thresholds = open_set(outcomes, min_confidence, seed)
    return {
        "cells": [
            {"label": label, "duration_s": duration_s, **asdict(row)}
            for (label, duration_s), row in rows.items()
        ],
        "all": asdict(summarise("all", outcomes, seed)),
        "open_set": thresholds and asdict(thresholds),
        "calibration": asdict(calibration(outcomes)),
        "table": report.accuracy_table(list(rows.values())),
        "tables": {
            "hits": report.hits_table(rows),
            "acceptance": report.acceptance_table(rows),
        },
    }


def _cell(place: Place, outcomes: Sequence[Outcome]) -> tuple[str, list[Outcome]]:
    label, duration_s = place
    name = f"{label} {duration_s:g} s"
    return name, [outcome for outcome in outcomes if outcome.cell == name]
