from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from benchmarks.metrics.outcomes import Outcome
from benchmarks.peers.peer import Answer
from benchmarks.peers.query_files import JOURNAL, QueryFile, write_queries
from benchmarks.queries.conditions import make_cells
from benchmarks.queries.datasets import RATE
from engine.errors import ConfigError


def _query(*, present: bool = True) -> QueryFile:
    unanswered = Outcome(
        query_id="a", cell="c", present=present, true_track="x.ogg", true_start_s=10.0
    )
    return QueryFile(path=Path("/q.wav"), source=Path("/m/x.ogg"), unanswered=unanswered)


def test_outcome_right_answer_is_a_hit_with_its_error() -> None:
    outcome = _query().outcome(Answer(reference=Path("/m/x.ogg"), offset_s=10.2))
    assert (outcome.hit, outcome.accepted) == (True, True)
    assert outcome.offset_error_s == pytest.approx(0.2)


def test_outcome_wrong_answer_is_accepted_and_no_hit() -> None:
    outcome = _query().outcome(Answer(reference=Path("/other/x.ogg"), offset_s=10.0))
    assert (outcome.hit, outcome.accepted, outcome.offset_error_s) == (False, True, None)


def test_outcome_no_answer_is_not_accepted() -> None:
    outcome = _query().outcome(Answer(error="too short"))
    assert (outcome.hit, outcome.accepted, outcome.error) == (False, False, "too short")


def test_outcome_any_answer_to_absent_music_is_wrong() -> None:
    outcome = _query(present=False).outcome(Answer(reference=Path("/m/x.ogg"), offset_s=10.0))
    assert (outcome.hit, outcome.accepted) == (False, True)


def test_outcome_answer_without_offset_is_a_hit_but_not_near() -> None:
    outcome = _query().outcome(Answer(reference=Path("/m/x.ogg")))
    assert outcome.hit
    assert not outcome.within(0.5)


def test_interrupted_write_resumes_with_the_next_question(sounds: Path, tmp_path: Path) -> None:
    paths = {kind: sorted((sounds / folder).iterdir()) for kind, folder in
             (("present", "music"), ("absent", "absent"))}  # fmt: skip
    cells = make_cells([("clean", 2.0), ("gain-6", 2.0)], {})
    arguments = paths, {"present": 3, "absent": 1}, cells, 1
    whole = write_queries(tmp_path / "whole", *arguments, {"seed": 1})
    assert [query.unanswered.query_id for query in whole[::2]] == [
        "present-00000", "present-00001", "present-00002", "absent-00000",
    ]  # fmt: skip
    lines = (tmp_path / "whole" / JOURNAL).read_text().splitlines(keepends=True)
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / JOURNAL).write_text("".join(lines[:4]))  # one and a half questions
    part = write_queries(tmp_path / "part", *arguments, {"seed": 1})
    assert [query.unanswered for query in part] == [query.unanswered for query in whole]
    for mine, theirs in zip(part[2:], whole[2:], strict=True):
        assert soundfile.info(mine.path).samplerate == RATE
        assert mine.path.read_bytes() == theirs.path.read_bytes()
    with pytest.raises(ConfigError, match="other settings"):
        write_queries(tmp_path / "part", *arguments, {"seed": 2})
