from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import soundfile

from benchmarks.peers.audfprint import Audfprint, matches
from benchmarks.peers.peer import Answer
from benchmarks.runs.program import Program
from tests.audio_files import cached_tune

installed = shutil.which("audfprint.py")

REPORT = """\
Mon Nov 23 03:48:45 2026 Reading hash table x.pklz
Read fprints for 2 files ( 8813 hashes) from x.pklz (0.00% dropped)
Mon Nov 23 03:48:48 2026 Analyzed #0 a b.wav of 4.899 s to 1714 hashes
Matched a b.wav 4.9 sec 1714 raw hashes as /m/one at two.ogg at   30.0 s with   402 of   600 \
common hashes at rank  0
Matched c.wav 2.0 sec 20 raw hashes as /m/three.ogg at   -1.5 s with     6 of     9 common \
hashes at rank  0
NOMATCH d.wav 4.9 sec 1714 raw hashes
Processed 3 files (11.8 s total dur) in 1.9 s sec = 0.373 x RT
"""


def test_matches_parses_the_report() -> None:
    assert matches(REPORT) == {
        "a b.wav": Answer(reference=Path("/m/one at two.ogg"), offset_s=30.0),
        "c.wav": Answer(reference=Path("/m/three.ogg"), offset_s=-1.5),
    }


def test_given_command_is_called(tmp_path: Path) -> None:
    """A program that always reports the same match."""
    script = tmp_path / "stand in.sh"
    script.write_text(
        '#!/bin/sh\ncase "$1" in --version) echo 7;; new) touch "$4";;\n'
        'match) while read -r q; do echo "Matched $q 5.0 sec 9 raw hashes '
        'as /m/x.ogg at 2.0 s with 9 of 9 common hashes at rank 0"; done < "$2" '
        f'> "{tmp_path}/matches.txt";;\nesac\n'
    )
    peer = Audfprint(program=Program(name="audfprint", names=(), command=f"sh '{script}'"))
    assert peer.about().version == "7"
    peer.build([tmp_path / "x.ogg"], tmp_path, 1)
    (answer,) = peer.query([tmp_path / "query one.wav"], tmp_path)
    assert answer == Answer(reference=Path("/m/x.ogg"), offset_s=2.0)


def test_mirex_adds_to_the_options() -> None:
    plain, contest = Audfprint(), Audfprint.mirex()
    assert contest.options[: len(plain.options)] == plain.options
    assert "2000" in contest.query_options


@pytest.mark.skipif(installed is None, reason="audfprint is not installed")
def test_audfprint_finds_a_clip_and_its_offset(tmp_path: Path) -> None:
    peer, rate = Audfprint(), 16_000
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
