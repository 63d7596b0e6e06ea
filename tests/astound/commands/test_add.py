from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from astound.commands.add import read_metadata
from tests.astound.commands.conftest import N_TUNES, RATE, Run, start_process
from tests.audio_files import cached_tune, write_wav


def test_add_counts_what_it_did_and_is_idempotent(library: Path, home: Path, run: Run) -> None:
    first = run("--catalog", "new", "add", library / "music")
    again = run("--catalog", "new", "add", library / "music")
    assert first.stdout.startswith("added 4, skipped 0, failed 0 (48.0 s of audio in ")
    assert "× real time" in first.stdout
    assert again.stdout == "added 0, skipped 4, failed 0\n"
    assert (first.exit_code, again.exit_code, first.stderr) == (0, 0, "")


def test_add_goes_on_past_bad_files_and_exits_1(library: Path, home: Path, run: Run) -> None:
    result = run(
        "--catalog", "new", "add", "broken.wav", "missing.wav", library / "music" / "0.wav"
    )
    assert result.exit_code == 1
    assert result.stdout.startswith("added 1, skipped 0, failed 2")
    lines = sorted(result.stderr.splitlines())
    assert len(lines) == 2
    assert lines[0].startswith(f"{home}/broken.wav: ")
    assert lines[1] == f"{home}/missing.wav: No such file or directory"


def test_add_marks_a_file_that_is_cut_off(home: Path, run: Run) -> None:
    whole = write_wav(home / "tune.wav", cached_tune(5, 12.0), RATE).read_bytes()
    (home / "tune.wav").write_bytes(whole[:100_000])
    result = run("--catalog", "new", "add", "tune.wav")
    warning = "cut off: 99956 of 192000 bytes of sound are there"
    assert (result.exit_code, result.stderr) == (0, f"{home}/tune.wav: {warning}\n")
    shown = run("--catalog", "new", "show", "1").stdout
    assert ["cut_off", warning] in [line.strip().split(maxsplit=1) for line in shown.splitlines()]
    (home / "tune.wav").write_bytes(whole)
    result = run("--catalog", "new", "add", "tune.wav")
    assert (result.exit_code, result.stderr) == (0, "")
    (track,) = json.loads(run("--catalog", "new", "list", "--format", "json").stdout)
    assert (track["metadata"], track["duration_s"]) == ({}, 12.0)


@pytest.mark.parametrize("how", ["file", "stdin"])
def test_add_takes_a_list(library: Path, home: Path, run: Run, how: str) -> None:
    listed = f"{library}/music/0.wav\n\n{library}/music/1.wav\n"
    Path("list.txt").write_text(listed)
    given = ["--list", "list.txt"] if how == "file" else ["-"]
    result = run("--catalog", "new", "add", *given, stdin=listed)
    assert result.stdout.startswith("added 2,")


def test_paths_of_a_list_are_relative_to_the_current_folder(
    home: Path, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "list.txt"
    elsewhere.write_text("known.wav\n")
    assert run("--catalog", "new", "add", "--list", elsewhere).stdout.startswith("added 1,")


def test_add_stores_metadata(library: Path, home: Path, run: Run) -> None:
    Path("metadata.csv").write_text(
        "path,title,artist,mood\nknown.wav,Quiet Rain,Ada Trio,calm\nother.wav,Loud,,\n"
    )
    added = run("--catalog", "new", "add", "known.wav", "--metadata", "metadata.csv")
    (track,) = json.loads(run("--catalog", "new", "list", "--format", "json").stdout)
    assert (track["title"], track["artist"]) == ("Quiet Rain", "Ada Trio")
    assert track["metadata"] == {"mood": "calm"}
    assert added.stderr == "astound: metadata.csv: 1 metadata rows match no added file\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        (b"", "column path"),
        (b"title,artist\nx,y\n", "column path"),
        (b"path,title\na.wav\n", "line 2"),
        (b"path,title\na.wav,b,c\n", "line 2"),
        (b"path,title\n,b\n", "line 2"),
        (b"path,title\na.wav,b\xe9\n", "line 2: not valid UTF-8"),
        (b"path,t\xe9\na.wav,b\n", "line 2: not valid UTF-8"),
        (b'path,title\n"a.wav,b\n', "cannot be read"),
    ],
)
def test_bad_metadata_is_one_line(home: Path, run: Run, content: bytes | None, reason: str) -> None:
    if content is not None:
        Path("metadata.csv").write_bytes(content)
    result = run("--catalog", "new", "add", "known.wav", "--metadata", "metadata.csv")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("astound: metadata.csv")
    assert reason in line
    assert not Path("new").exists()


def test_metadata_leaves_out_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_text('\ufeffpath,title,mood\na.wav,"Rain, again",\n', encoding="utf-8")
    assert read_metadata(path) == {"a.wav": {"title": "Rain, again"}}


@pytest.mark.slow
def test_interrupted_add_says_how_to_go_on(home: Path) -> None:
    for seed in range(40):
        write_wav(home / f"long{seed}.wav", cached_tune(seed % N_TUNES, 60.0), RATE)
    with start_process(home, "--catalog", "new", "add", ".") as process:
        while not Path("new/shards").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == (
        "astound: interrupted; committed files are kept, repeat the command to resume"
    )
