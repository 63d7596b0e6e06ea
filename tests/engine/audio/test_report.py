from __future__ import annotations

from engine.audio.report import ReadReport


def test_warn_adds_each_sentence_once() -> None:
    report = ReadReport()
    for sentence in ("one", "two", "one"):
        report.warn(sentence)
    assert report.warnings == ["one", "two"]
    assert report.cut_off is None
