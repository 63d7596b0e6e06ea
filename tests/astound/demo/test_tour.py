from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from astound.demo import tour as tours
from astound.demo.tour import Clip, tour
from engine.records import Match, QueryResult


def _rights(out: str) -> dict[str, tuple[int, int]]:
    rows = re.findall(r"^\s*(\S.*?)\s+(\d+)\s+(\d+)\s*$", out, re.MULTILINE)
    return {kind: (int(n_right), int(n)) for kind, n_right, n in rows}


def test_tour_prints_results_and_counts(
    tmp_path: Path,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("N_CLIPS", "N_ABSENT_CLIPS"):
        monkeypatch.setattr(tours, name, 4)
    monkeypatch.setattr(tours, "N_ABSENT_TUNES", 1)
    tour(tmp_path / "tour", 2, model=tiny_model)
    out = capsys.readouterr().out
    rights = _rights(out)
    assert "added 2, skipped 0, failed 0" in out
    assert {kind: n for kind, (_, n) in rights.items()} == {
        **dict.fromkeys(("clean", "noise 5 dB", "noise 0 dB", "room, phone"), 1),
        "not in the library": 4,
    }
    assert out.count("✓") == sum(n_right for n_right, _ in rights.values())
    assert out.count("✓") + out.count("✗") == 8
    assert len(list((tmp_path / "tour" / "music").glob("*.wav"))) == 2
    assert str(tmp_path / "tour" / "catalog") in out


@pytest.mark.parametrize(
    ("known", "path", "offset_s", "is_right"),
    [
        (True, "a.wav", 10.4, True),
        (True, "a.wav", 10.6, False),
        (True, "b.wav", 10.0, False),
        (True, None, 0.0, False),
        (False, None, 0.0, True),
        (False, "a.wav", 10.0, False),
    ],
)
def test_right_tune_at_the_right_offset_is_identified(
    known: bool, path: str | None, offset_s: float, is_right: bool
) -> None:
    clip = Clip(np.zeros(100, np.float32), "clean", Path("a.wav"), 10.0, known)
    matches = () if path is None else (_match(path, offset_s),)
    result = QueryResult(query="array", status="match" if matches else "no_match", matches=matches)
    assert clip.is_identified_by(result) is is_right


def _match(path: str, offset_s: float) -> Match:
    return Match(
        rank=1,
        track_id=1,
        path=path,
        title=None,
        artist=None,
        query_start_s=0.0,
        query_end_s=3.0,
        reference_start_s=offset_s,
        reference_end_s=offset_s + 3.0,
        offset_s=offset_s,
        score=0.9,
        confidence=0.9,
        votes=9,
        coverage=1.0,
        speed=1.0,
        margin=0.5,
    )
