from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from benchmarks.protocols.mirex import MirexConfig, read_list, run
from engine.errors import ConfigError
from tests.audio_files import cached_tune

RATE = 16_000


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> MirexConfig:
    for name in ("database", "query"):
        (tmp_path / name).mkdir()
    for seed in range(3):
        tune = cached_tune(seed, 20.0, RATE)
        soundfile.write(tmp_path / "database" / f"{seed:05}.flac", tune, RATE)
        soundfile.write(tmp_path / "query" / f"q{seed:04}.wav", tune[4 * RATE : 14 * RATE], RATE)
    truth = tmp_path / "truth.txt"
    truth.write_text("q0000 00000\n\n./AFP/query/q0001.wav\t00001.flac\nq0002 00001\n")
    return MirexConfig(
        references=tmp_path / "database",
        queries=tmp_path / "query",
        list=truth,
        out=tmp_path / "out",
        model=tiny_model,
        device="cpu",
        jobs=1,
    )


def test_run_answers_all_clips(config: MirexConfig) -> None:
    results = run(config)
    hits = results["cells"][0]["present"]["hit_rate"]
    assert (hits["n_yes"], hits["n"]) == (2, 3)  # the list is wrong about the third
    answers = (config.out / "results.txt").read_text()
    assert answers == "q0000 00000\nq0001 00001\nq0002 00002\n"
    assert run(config)["cells"] == results["cells"]


def test_missing_clip_is_refused(config: MirexConfig) -> None:
    (config.queries / "q0001.wav").unlink()
    with pytest.raises(ConfigError, match="1 files of the list are missing, such as 'q0001'"):
        run(config)


@pytest.mark.parametrize(
    ("text", "reason"), [("q1\n", "line 1 names 1 files"), ("", "names no queries")]
)
def test_invalid_list_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "list.txt"
    file.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_list(file)


def test_read_list_with_tabs_keeps_spaces(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("a clip.wav\tdir/some song.v2.mp3\n")
    assert read_list(file) == {"a clip": "some song.v2"}
