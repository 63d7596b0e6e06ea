from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.protocols.pex import PexConfig, run
from engine.errors import AudioError
from tests.audio_files import cached_tune

RATE = 16_000
HEAD = "reference_id,query_id,reference_begin,reference_end,query_begin,query_end,tempo,pitch"


@pytest.fixture
def toolkit(tmp_path: Path) -> Path:
    """A data set as the toolkit makes them: a query of two pieces, and one that is no audio."""
    for name in ("references", "queries"):
        (tmp_path / name).mkdir()
    tunes = {f"{seed:06}": cached_tune(seed, 30.0, RATE) for seed in range(3)}
    for name, tune in tunes.items():
        soundfile.write(tmp_path / "references" / f"{name}.flac", tune, RATE)
    pieces = tunes["000000"][5 * RATE : 17 * RATE], tunes["000002"][10 * RATE : 24 * RATE]
    soundfile.write(tmp_path / "queries" / "query0000.flac", np.concatenate(pieces), RATE)
    (tmp_path / "queries" / "query0001.mp3").write_text("no sound")
    (tmp_path / "annotations.csv").write_text(
        f"{HEAD}\n000000,query0000,5,17,0,12,100,0\n000002,query0000,10,24,12,26,,\n"
    )
    return tmp_path


def _config(folder: Path, model: Path, queries: str = "queries") -> PexConfig:
    return PexConfig(
        annotations=folder / "annotations.csv",
        references=folder / "references",
        queries=folder / queries,
        out=folder / "out",
        model=model,
        device="cpu",
        jobs=1,
    )


def test_run_finds_and_scores_pieces(toolkit: Path, tiny_model: Path) -> None:
    results = run(_config(toolkit, tiny_model))
    levels = results["levels"]
    assert levels["files"]["n_true"] == 2
    assert levels["files"]["n_missed"] == 0
    assert levels["segments, lengths"]["recall"] > 0.7
    assert levels["segments, bounding boxes"]["precision"] > 0.5
    assert results["failed"] == ["query0001.mp3"]
    assert json.loads((toolkit / "out" / "pex.json").read_text()) == results
    lines = (toolkit / "out" / "matches.csv").read_text().splitlines()
    assert lines[0] == ",".join(HEAD.split(",")[:6])
    assert lines[1].startswith("000000,query0000,")


def test_folder_without_queries_is_refused(toolkit: Path, tiny_model: Path) -> None:
    (toolkit / "empty").mkdir()
    with pytest.raises(AudioError, match="contains no audio files"):
        run(_config(toolkit, tiny_model, "empty"))
