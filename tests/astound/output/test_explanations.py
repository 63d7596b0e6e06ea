from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from astound.catalog import Catalog
from astound.output.explanations import write_explanation
from astound.output.terminal import span
from engine.search.explanation import REASONS, Cost, Explanation, Rule
from tests.astound.output.conftest import RATE, SEEDS
from tests.audio_files import cached_tune

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


def written(explanation: Explanation, width: int | None = None) -> str:
    """The text, on a terminal of some width if it is given."""
    out = io.StringIO() if width is None else Terminal()
    write_explanation(explanation, "text", out)
    return re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())


def rows_of(text: str, header: str) -> list[list[str]]:
    """Cells of the first table that has a column."""
    lines = text.splitlines()
    first = next(n for n, line in enumerate(lines) if header in re.split("  +", line.strip()))
    rows = []
    for line in lines[first + 2 :]:
        if not line.strip():
            break
        rows.append(re.split("  +", line.strip()))
    return rows


def test_every_passage_is_a_row_in_the_order_of_ranks(explained_pieces: Explanation) -> None:
    rows = rows_of(written(explained_pieces), "begins")
    assert len(rows) == len(explained_pieces.passages) == 3
    for row, passage in zip(rows, explained_pieces.passages, strict=True):
        match = passage.candidate.match
        assert row == [
            str(match.rank),
            Path(match.path).name,
            span(match.query_start_s, match.query_end_s),
            span(match.reference_start_s, match.reference_end_s),
            f"{match.speed:.3f}",
            f"{match.confidence:.3f}",
            passage.start.text,
            passage.end.text,
        ]


def test_nearest_are_in_the_order_of_ranks(explained_pieces: Explanation) -> None:
    rows = rows_of(written(explained_pieces), "evidence")
    ranks = [int(row[0]) for row in rows]
    assert len(ranks) > 3
    assert ranks == list(range(1, len(ranks) + 1))


def test_narrow_terminal_gets_all_passages_and_ends(
    explained_pieces: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = written(explained_pieces, 80)
    lines = [line for line in text.splitlines() if line.startswith(" ") and "|" not in line]
    assert max(map(len, lines)) <= 80
    ends = rows_of(text, "begins")
    assert [row[1:] for row in ends] == [
        [one.start.text, one.end.text] for one in explained_pieces.passages
    ]
    assert "neighbours" not in text
    starts = [row[0] for row in rows_of(text, "agreeing")]
    assert all(re.fullmatch(r"\d:\d\d\.\d\d", start) for start in starts)  # no row is wrapped


def test_first_line_counts_the_other_passages(
    explained_pieces: Explanation, explanation: Explanation
) -> None:
    assert written(explained_pieces).splitlines()[0].endswith(" and 2 more passages")
    assert "more passage" not in written(explanation)


def test_seconds_are_those_of_the_passage_that_covers_them(explained_pieces: Explanation) -> None:
    assert explained_pieces.examined
    rows = rows_of(written(explained_pieces), "agreeing")
    ranks = {row[-1] for row in rows}
    assert ranks == {str(one.candidate.match.rank) for one in explained_pieces.examined.passages}
    for passage in explained_pieces.examined.passages:
        rank, trace = passage.candidate.match.rank, passage.trace
        inside = [
            row
            for row in rows
            if trace.start_s + 0.5 <= float(row[0].removeprefix("0:")) <= trace.end_s - 1.5
        ]
        assert inside
        assert {row[-1] for row in inside} == {str(rank)}
        assert all(float(row[2]) > passage.trace.min_similarity for row in inside)


def test_requested_track_that_is_no_match_has_its_ends(tunes: Catalog) -> None:
    clip = cached_tune(SEEDS[1], 8.0)[2 * RATE : 6 * RATE]
    explanation = tunes.explain(clip, RATE, track=1)
    assert explanation.examined
    passage = explanation.examined.passages[0]
    assert not passage.decision.accepted
    below = written(explanation).partition("\n1: ")[2]
    assert rows_of(below, "begins")[0][-2:] == [passage.start.text, passage.end.text]


def test_json_has_all_passages_with_their_ends_and_segments(
    explained_pieces: Explanation,
) -> None:
    out = io.StringIO()
    write_explanation(explained_pieces, "json", out)
    made = json.loads(out.getvalue())
    assert [one["rank"] for one in made["passages"]] == [1, 2, 3]
    for one, passage in zip(made["passages"], explained_pieces.passages, strict=True):
        assert one["start"]["reason"] == passage.start.reason
        assert one["end"] == {
            "reason": passage.end.reason,
            "similarity": passage.end.similarity and round(passage.end.similarity, 4),
            "rank": passage.end.rank,
        }
        assert one["verdict"]["accepted"]
        assert len(one["segments"]) == len(passage.trace.query_s)
        assert set(one["segments"][0]) == {"query_s", "reference_s", "similarity"}
        assert one["query_start_s"] == passage.candidate.match.query_start_s


@pytest.mark.parametrize("rule", [rule for rule in REASONS if rule not in WITHOUT_COSTS])
def test_text_has_the_cost_of_every_term(explanation: Explanation, rule: Rule) -> None:
    assert explanation.examined
    cost = Cost(rule=rule, found=0.25, plain=0.5, logit=1.5)
    decision = replace(explanation.examined.decision, accepted=False, rule=rule, costs=(cost,))
    passage = replace(explanation.examined.passages[0], decision=decision)
    examined = replace(explanation.examined, passages=(passage,))
    out = io.StringIO()
    write_explanation(replace(explanation, examined=examined), "text", out)
    assert re.search(r"0\.25 +0\.5 +-1\.5", out.getvalue())
