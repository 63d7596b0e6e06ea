from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import soundfile

from benchmarks.peers.olaf import Olaf, parse_answer
from benchmarks.peers.peer import Answer
from benchmarks.runs.program import ProgramError
from tests.audio_files import cached_tune


def _output(*matches: tuple[int, str, float, float]) -> str:
    keys = "match_count", "path", "query_start", "reference_start"
    return json.dumps({"matches": [dict(zip(keys, match, strict=True)) for match in matches]})


def test_parse_answer_takes_the_match_with_most_fingerprints() -> None:
    output = _output((7, "/m/a.ogg", 0.5, 3.0), (20, "/m/b.ogg", 1.0, 31.5), (9, "/m/c.ogg", 0, 1))
    assert parse_answer(output, 0.25) == Answer(
        reference=Path("/m/b.ogg"), offset_s=30.5, taken_s=0.25
    )


def test_parse_answer_without_matches_has_no_reference() -> None:
    assert parse_answer(_output(), 0.25) == Answer(taken_s=0.25)


@pytest.mark.parametrize("output", ["", "query_index, total_queries", "{}"])
def test_parse_answer_invalid_output_raises(output: str) -> None:
    with pytest.raises(ProgramError, match="invalid output"):
        parse_answer(output)


@pytest.mark.skipif(shutil.which("olaf") is None, reason="olaf is not installed")
def test_olaf_finds_a_clip_and_its_offset(tmp_path: Path) -> None:
    peer, rate = Olaf(), 16_000
    references = [tmp_path / f"{seed}.wav" for seed in range(2)]
    for seed, path in enumerate(references):
        soundfile.write(path, cached_tune(seed, 20.0, rate), rate)
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, cached_tune(1, 20.0, rate)[7 * rate : 14 * rate], rate)
    (tmp_path / "index").mkdir()
    peer.build(references, tmp_path / "index", 1)
    (found,) = peer.query([clip], tmp_path / "index")
    assert found.reference == references[1]
    assert found.offset_s == pytest.approx(7.0, abs=0.1)
    peer.answer_batch([clip, clip], tmp_path / "index", 2)
