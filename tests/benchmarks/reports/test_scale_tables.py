from __future__ import annotations

from benchmarks.reports import scale_tables
from tests.benchmarks.markdown import rows
from tests.benchmarks.reports.test_extrapolation import scale_results


def test_tables_show_estimates_and_limits() -> None:
    results = scale_results()
    estimates = rows(scale_tables.estimate_table(results))
    assert ["own memory of one process", "4.0 GB", "31.0 GB", "301.0 GB"] in estimates
    assert ["machines of 64 GB needed", "1", "1", "7"] in estimates
    assert ["machines of 256 GB needed", "1", "1", "2"] in estimates
    limits = rows(scale_tables.limits_table(results))
    assert ["memory of one machine with 64 GB", "1.6 · 10^9"] in limits


def test_limits_table_of_constant_quantities_says_never() -> None:
    results = scale_results()
    results["sizes"][2] |= {key: results["sizes"][1][key] for key in ("open_s", "latency")}
    assert ["opening takes 10 s", "never"] in rows(scale_tables.limits_table(results))
