from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import soundfile

from benchmarks.peers.olaf import Olaf, answer
from benchmarks.peers.peer import Answer
from benchmarks.runs.program import ProgramError
from tests.audio_files import cached_tune


def _said(*matches: tuple[int, str, float, float]) -> str:
    keys = "match_count", "path", "query_start", "reference_start"
    return json.dumps({"matches": [dict(zip(keys, match, strict=True)) for match in matches]})


def test_match_with_most_fingerprints_is_the_answer() -> None:
    said = _said((7, "/m/a.ogg", 0.5, 3.0), (20, "/m/b.ogg", 1.0, 31.5), (9, "/m/c.ogg", 0, 1))
    assert answer(said, 0.25) == Answer(reference=Path("/m/b.ogg"), offset_s=30.5, taken_s=0.25)


def test_no_matches_are_no_answer() -> None:
    assert answer(_said(), 0.25) == Answer(taken_s=0.25)


@pytest.mark.parametrize("said", ["", "query_index, total_queries", "{}"])
def test_something_else_is_refused(said: str) -> None:
    with pytest.raises(ProgramError, match="cannot be read"):
        answer(said)


@pytest.mark.skipif(shutil.which("olaf") is None, reason="olaf is not installed")
def test_olaf_finds_a_clip_and_where_it_was_cut(tmp_path: Path) -> None:
    peer, rate = Olaf(), 16_000
    references = [tmp_path / f"{seed}.wav" for seed in range(2)]
    for seed, path in enumerate(references):
        soundfile.write(path, cached_tune(seed, 20.0, rate), rate)
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, cached_tune(1, 20.0, rate)[7 * rate : 14 * rate], rate)
    (tmp_path / "index").mkdir()
    peer.build(references, tmp_path / "index", 1)
    (found,) = peer.ask([clip], tmp_path / "index")
    assert found.reference == references[1]
    assert found.offset_s == pytest.approx(7.0, abs=0.1)
