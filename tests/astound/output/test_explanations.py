from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest

from astound.output.explanations import write_explanation
from engine.search.explanation import REASONS, Cost, Explanation, Rule

WITHOUT_COSTS = ("accepted", "silent", "no_neighbours")


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


@pytest.mark.parametrize("rule", [rule for rule in REASONS if rule not in WITHOUT_COSTS])
def test_text_has_the_cost_of_every_term(explanation: Explanation, rule: Rule) -> None:
    assert explanation.examined
    cost = Cost(rule=rule, found=0.25, plain=0.5, logit=1.5)
    decision = replace(explanation.examined.decision, accepted=False, rule=rule, costs=(cost,))
    examined = replace(explanation.examined, decision=decision)
    out = io.StringIO()
    write_explanation(replace(explanation, examined=examined), "text", out)
    assert re.search(r"0\.25 +0\.5 +-1\.5", out.getvalue())
