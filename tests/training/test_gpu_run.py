"""The script's own logic; a stub takes the place of Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

import training

SCRIPT = Path(training.__path__[0]) / "gpu_run.sh"
_STUB = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$*" in
    *'-m pytest'*) exit 1 ;;
    *--pack*)
        mkdir -p "$WORK/run"
        [ -n "$FAILS" ] && exit 1
        echo weights > "$WORK/run/weights.safetensors"
        while [ "$1" != --pack ]; do shift; done
        echo packed > "$2"
        exec sleep 60 ;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    (tmp_path / "0.ogg").write_bytes(b"music")
    (tmp_path / "pieces").mkdir()
    for i in range(2):
        with tarfile.open(tmp_path / "pieces" / f"audio-{i:02}.tar", "w") as piece:
            piece.add(tmp_path / "0.ogg", f"music/00000{i}.ogg")
    return tmp_path / "pieces"


def run(
    tmp_path: Path, *options: object, fails: str = ""
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    stub, calls = tmp_path / "python", tmp_path / "calls"
    stub.write_text(_STUB)
    stub.chmod(0o755)
    variables = {"PYTHON": str(stub), "CALLS": str(calls), "WORK": str(tmp_path / "work")}
    variables["FAILS"] = fails
    done = subprocess.run(
        [str(SCRIPT), *map(str, options)],
        cwd=SCRIPT.parents[1],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done, calls.read_text().splitlines() if calls.exists() else []


def test_a_phase_that_fails_or_takes_too_long_does_not_stop_the_next(
    audio: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--audio", audio, "--out", out, "--minutes", 0.1, "--phases", "tests,bench,train")
    done, calls = run(tmp_path, *options, "--device", "cpu", "--pairs", 64)
    assert done.returncode == 0, done.stderr
    assert "tests: exit code 1" in done.stdout
    assert "train: exit code 124" in done.stdout
    begins = ["-m pytest", "-m astound", "-m benchmarks gpu", "-m astound"]
    assert [call.startswith(begin) for call, begin in zip(calls, begins, strict=True)] == [True] * 4
    assert (out / "run.pack").read_text() == "packed\n"
    assert (out / "weights.safetensors").read_text() == "weights\n"
    assert sorted(path.name for path in (tmp_path / "work/audio/music").iterdir()) == [
        "000000.ogg",
        "000001.ogg",
    ]


@pytest.mark.parametrize("kinds", [(), ("tunes",), ("tunes", "voices")])
def test_training_uses_tunes_and_voices_if_the_pieces_have_them(
    audio: Path, tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    with tarfile.open(audio / "audio-00.tar", "a") as piece:
        for kind in kinds:
            piece.add(tmp_path / "0.ogg", f"{kind}/000000.ogg")
    options = ("--minutes", 0.1, "--device", "cpu")
    _, (call,) = run(tmp_path, "--audio", audio, "--out", tmp_path / "out", *options)
    given = [f"--{kind} {tmp_path / 'work/audio' / kind}" for kind in kinds]
    assert re.findall(r"--(?:tunes|voices) \S+", call) == given


def test_only_the_phases_asked_for_run(audio: Path, tmp_path: Path) -> None:
    done, calls = run(tmp_path, "--audio", audio, "--out", tmp_path / "out", "--phases", "tests")
    assert done.returncode == 0, done.stderr
    assert [call.split()[:2] for call in calls] == [["-m", "pytest"]]


def test_phases_share_the_minutes(audio: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--audio", audio, "--out", out, "--minutes", 9)
    done, calls = run(tmp_path, *options, fails="yes")
    limits = [int(one) for one in re.findall(r"at most (\d+) s", done.stdout)]
    assert 520 < limits[0] <= 535
    (training_minutes,) = re.findall(r"--minutes (\S+)", calls[0])
    assert float(training_minutes) == pytest.approx(0.7 * limits[0] / 60, rel=1e-3)
    done, _ = run(tmp_path, *options, "--phases", "tests,bench,train", fails="yes")
    limits = [int(one) for one in re.findall(r"at most (\d+) s", done.stdout)]
    assert len(limits) == 4
    assert limits[0] < 80  # what it leaves goes to the others
    assert 500 < limits[-1] <= 535


def test_training_without_weights_fails(audio: Path, tmp_path: Path) -> None:
    earlier = tmp_path / "work/run"
    earlier.mkdir(parents=True)
    for name in ("run.pack", "weights.safetensors"):
        (earlier / name).write_text("of an earlier run")
    done, _ = run(tmp_path, "--audio", audio, "--out", tmp_path / "out", fails="yes")
    assert done.returncode == 1
    assert "train: exit code 1" in done.stdout


@pytest.mark.parametrize(
    "options",
    [("--color", "red"), ("--out", "out"), ("--audio", "a", "--out", "o", "--phases", "rest")],
)
def test_wrong_options_are_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    done, calls = run(tmp_path, *options)
    assert done.returncode != 0
    assert not calls
