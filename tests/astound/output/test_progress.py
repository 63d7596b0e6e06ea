from __future__ import annotations

import io

import pytest
from rich.console import Console

from astound.output import progress
from astound.output.progress import progress_bar


@pytest.mark.parametrize("is_terminal", [False, True])
def test_progress_is_shown(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    out = io.StringIO()
    with progress_bar("merging", Console(file=out, force_terminal=is_terminal, width=80)) as show:
        show(3, 12)
    assert "merging" in out.getvalue()
    assert "3/12" in out.getvalue()


def test_short_task_prints_nothing() -> None:
    out = io.StringIO()
    with progress_bar("merging", Console(file=out)) as show:
        show(3, 12)
    assert out.getvalue() == ""
