"""Commands in ordinary surroundings: no write rights, a full output, hostile names."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import astound
from astound.commands.main import cli
from benchmarks.runs.disks import fill
from tests.astound.commands.conftest import RATE, TUNE_S, Run, start_process
from tests.audio_files import cached_tune, write_wav
from tests.catalogs import flip_a_byte
from tests.disks import mounted

HOSTILE = ("a\x1b[31mred\x07", "b\nnew\rline", "c\u202eevil", "d\x9b2J", "=1+1", "日本\u3000語")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def read_only(home: Path) -> Iterator[Path]:
    """The current folder, whose catalog is on a file system mounted read-only."""
    with mounted(home / "disk", "-t", "tmpfs", "-o", "size=16m", "tmpfs") as disk:
        shutil.move(home / "catalog", disk / "catalog")
        (home / "catalog").symlink_to(disk / "catalog")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        yield home


def test_read_only_catalog_is_read_and_not_written(read_only: Path, run: Run) -> None:
    for command in ("list", "stats", "verify", "dedup", "export out.astound"):
        assert run(*command.split()).exit_code == 0, command
    assert run("show", "1").exit_code == 0
    assert "1.wav" in run("query", "known.wav", "--format", "csv").stdout
    for command in ("delete 1", "update 1 --title x", "compact", "add known.wav"):
        result = run(*command.split())
        (line,) = result.stderr.splitlines()
        assert (result.exit_code, "cannot be written" in line) == (1, True), command


@pytest.fixture
def small_disk(home: Path, tiny_model: Path) -> Iterator[Path]:
    """The current folder; its catalog is on a disk of 2 MB, and there is another one to import."""
    with astound.open(home / "other", model=tiny_model, device="cpu") as other:
        other.add(home / "unknown.wav")
        other.export(home / "exported")
    with mounted(home / "disk", "-t", "tmpfs", "-o", "size=2m", "tmpfs") as disk:
        shutil.move(home / "catalog", disk / "catalog")
        (home / "catalog").symlink_to(disk / "catalog")
        yield disk


@pytest.mark.parametrize(
    "command",
    ["add unknown.wav", "import exported", "merge other", "update 1 --title new", "delete 1",
     "compact", "verify --repair", "export disk/fingerprints"],
)  # fmt: skip
def test_full_disk_is_one_line_and_the_command_succeeds_later(
    small_disk: Path, run: Run, command: str
) -> None:
    if command == "compact":
        assert run("add", "known.wav").exit_code == 0
    if "repair" in command:
        (index,) = small_disk.glob("catalog/shards/*/segments.faiss")
        flip_a_byte(index)
    before = run("list", "--format", "json").stdout
    filler = fill(small_disk)
    result = run(*command.split())
    *_, line = result.stderr.splitlines()
    assert result.exit_code == 1
    assert re.search("No space left on device|disk is full", line)
    assert "bug" not in result.stderr
    filler.unlink()
    assert run("list", "--format", "json").stdout == before
    assert run(*command.split()).exit_code == 0
    assert run("verify").exit_code == 0


@pytest.mark.parametrize(
    "command", ["list", "list --format json", "query known.wav --format jsonl", "--help"]
)
def test_full_output_is_one_line(home: Path, command: str) -> None:
    with (
        Path("/dev/full").open("w") as full,
        start_process(home, *command.split(), stdout=full) as process,
    ):
        assert process.stderr is not None
        (line,) = process.stderr.read().splitlines()
    assert (process.returncode, line) == (1, "astound: cannot write: No space left on device")


@pytest.fixture
def hostile(home: Path) -> Path:
    """The current folder, with files whose names have control characters."""
    (home / "clips").mkdir()
    for name in HOSTILE:
        shutil.copy(home / "known.wav", home / "clips" / f"{name}.wav")
        (home / "clips" / f"broken {name}.wav").write_bytes(b"not audio")
    return home


def test_names_cannot_control_the_terminal(hostile: Path, run: Run) -> None:
    names = [str(path) for path in sorted((hostile / "clips").iterdir())]
    title = "\x1b[2J\nevil"
    for command in (
        ["add", *names],
        ["update", "1", "--title", title, "--set", f"note={title}"],
        ["query", *names],
        ["scan", *names],
        ["explain", names[-1]],
        ["repeats", *names],
        ["similar", "1"],
        ["dedup"],
        ["list"],
        ["show", "1"],
        ["delete", names[0] + "\x1b"],
        ["export", *names[:2]],
        ["delete", "1"],
    ):
        result = run(*command)
        assert not CONTROL.search(result.stdout + result.stderr), command


ODD = os.fsdecode(b"caf\xe9")
ESCAPED = r"caf\udce9"


def test_name_that_is_not_utf8_goes_in_and_is_shown_and_found(home: Path, run: Run) -> None:
    (home / ODD).mkdir()
    odd = home / ODD / f"{ODD}.wav"
    write_wav(odd, cached_tune(4, TUNE_S), RATE)
    write_wav(home / f"clip {ODD}.wav", cached_tune(4, TUNE_S)[: 4 * RATE], RATE)
    write_wav(home / f"copy {ODD}.flac", cached_tune(4, TUNE_S) * np.float32(0.5), RATE)
    Path("metadata.csv").write_bytes(b"path,mood\n" + os.fsencode(odd) + b",calm\n")
    assert run("add", ODD, "--metadata", "metadata.csv").stdout.startswith("added 1,")
    assert run("add", odd, "--list", "-", stdin="").stdout.startswith("added 0, skipped 1,")
    assert run("add", f"copy {ODD}.flac").stdout.startswith("added 1,")
    for command in (
        ["show", odd],
        ["list"],
        ["query", f"clip {ODD}.wav"],
        ["scan", f"clip {ODD}.wav"],
        ["explain", f"clip {ODD}.wav", "--track", odd],
        ["similar", odd],
        ["dedup"],
        ["repeats", odd, f"copy {ODD}.flac"],
        ["update", odd, "--title", "Tïtle"],
        ["update", odd, "--title", ""],
        ["export", "odd.astound", odd],
        ["verify"],
        ["delete", odd],
    ):
        for form in formats(str(command[0])):
            result = run(*command, *(["--format", form] if form else []))
            assert result.exit_code == 0, command
            if form in ("json", "jsonl"):
                answers = result.stdout.replace("}\n{", "},{")
                assert repr(ESCAPED)[1:-1] in str(json.loads(f"[{answers}]")), command
    assert run("import", "odd.astound").stdout == "imported 1, skipped 0\n"
    (track,) = json.loads(f"[{run('show', odd, '--format', 'json').stdout}]")
    assert track["path"] == f"{home}/{ESCAPED}/{ESCAPED}.wav"
    assert run("compact").exit_code == run("verify", "--repair").exit_code == 0
    assert run("show", odd).exit_code == 0


def formats(command: str) -> list[str | None]:
    """Formats of a command; None for one without any."""
    choices = [one.type for one in cli.commands[command].params if one.name == "form"]
    return list(choices[0].choices) if choices else [None]  # type: ignore[attr-defined]


def test_safe_csv_neutralises_formulas(hostile: Path, run: Run) -> None:
    run("update", "1", "--title", "=1+1", "--artist", "@x", "--album", "-b", "--isrc", "plain")
    tags = ("title", "artist", "album", "isrc")
    for options, expected in (([], ["=1+1", "@x", "-b", "plain"]),
                              (["--safe-csv"], ["'=1+1", "'@x", "'-b", "plain"])):  # fmt: skip
        rows = list(csv.DictReader(io.StringIO(run("list", "--format", "csv", *options).stdout)))
        assert [rows[0][tag] for tag in tags] == expected
    entry = run("scan", "known.wav", "--format", "csv", "--safe-csv").stdout
    assert "'-" not in entry  # numbers stay numbers
