from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.audio import decode
from engine.errors import ConfigError
from training import voices

needs_espeak = pytest.mark.skipif(not shutil.which(voices.PROGRAM), reason="needs espeak-ng")


@needs_espeak
def test_voices_are_audible_in_all_languages_and_decided_by_the_seed(tmp_path: Path) -> None:
    hours = voices.UTTERANCE_S * len(voices.LANGUAGES) / 3600
    paths = voices.write_voices(tmp_path / "a", hours)
    assert [path.name.rsplit("-", 1)[0] for path in paths] == list(voices.LANGUAGES)
    spoken = [decode.read(path, 8000) for path in paths]
    assert min(np.abs(one).max() for one in spoken) > 0.05
    assert 0.5 < sum(map(len, spoken)) / 8000 / 3600 / hours < 2
    again = voices.write_voices(tmp_path / "b", voices.UTTERANCE_S / 3600)
    assert again[0].read_bytes() == paths[0].read_bytes()


@needs_espeak
def test_voices_that_exist_are_kept(tmp_path: Path) -> None:
    kept = tmp_path / f"{voices.LANGUAGES[0]}-00000.wav"
    kept.write_bytes(b"mine")
    voices.write_voices(tmp_path, 2 * voices.UTTERANCE_S / 3600)
    assert kept.read_bytes() == b"mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_voices_without_the_program_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="apt install espeak-ng"):
        voices.write_voices(tmp_path, 1.0)


def test_failure_of_the_program_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / voices.PROGRAM
    program.write_text("#!/bin/sh\necho no such voice >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ConfigError, match="espeak-ng failed: no such voice"):
        voices.write_voices(tmp_path / "voices", 1.0)
    assert not list((tmp_path / "voices").iterdir())
