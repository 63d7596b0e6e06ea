from __future__ import annotations

import jinja2
import pytest

from benchmarks.reports.templates import render


def test_missing_variable_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="results"):
        render("scale.md.j2")
