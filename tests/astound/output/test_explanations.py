from __future__ import annotations

import io
import re

import pytest

from astound.output.explanations import write_explanation
from engine.search.explanation import Explanation


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_narrow_terminal_gets_fewer_columns(
    explanation: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = {}
    for width in ("80", "160"):
        monkeypatch.setenv("COLUMNS", width)
        out = Terminal()
        write_explanation(explanation, "text", out)
        written[width] = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())
    assert max(map(len, written["80"].splitlines()[2:8])) <= 80
    assert "coverage" in written["160"]
    assert "coverage" not in written["80"]
    assert "confidence" in written["80"]
