from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import astound
from astound.commands.main import ALIASES, cli
from tests.astound.commands.conftest import Run, start_process


@pytest.mark.parametrize("command", ["add", "query"])
def test_command_without_paths_is_a_usage_error(home: Path, run: Run, command: str) -> None:
    assert run(command).exit_code == 2


@pytest.mark.parametrize("command", ["add", "query"])
def test_folder_without_audio_is_reported(home: Path, run: Run, command: str) -> None:
    (home / "empty").mkdir()
    result = run(command, "empty")
    assert result.exit_code == 0
    assert "no audio files" in result.stderr


def test_global_option_after_the_command_is_a_usage_error(home: Path, run: Run) -> None:
    result = run("query", "known.wav", "--catalog", "catalog")
    assert result.exit_code == 2
    assert "put it before the command: cli --catalog ... query" in " ".join(result.stderr.split())
    assert "no such option" in run("query", "known.wav", "--catalogue").stderr.lower()


def test_query_without_a_catalog_is_one_line(home: Path, run: Run) -> None:
    result = run("--catalog", "nowhere", "query", "known.wav")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"astound: {Path('nowhere').absolute()}: no catalog here; "
        "create one with `astound add`, or name another folder with --catalog\n"
    )
    assert not Path("nowhere").exists()


def test_catalog_comes_from_the_environment(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("catalog").rename("elsewhere")
    assert run("stats").exit_code == 1
    monkeypatch.setenv("ASTOUND_CATALOG", "elsewhere")
    assert run("stats").exit_code == 0


# -- the face itself -------------------------------------------------------------------------


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases_work_and_are_hidden(run: Run, alias: str) -> None:
    commands = run("--help").stdout.partition("Commands:")[2]
    assert f"\n  {alias} " not in commands
    by_alias, by_name = (run(name, "--help").stdout for name in (alias, ALIASES[alias]))
    assert by_alias.splitlines()[1:] == by_name.splitlines()[1:]


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"astound {astound.__version__}\n"


def test_unexpected_error_is_called_a_bug(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def burst(*_: object) -> None:
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr("astound.catalog.Catalog.stats", burst)
    result = run("stats")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("astound: a bug in astound (ZeroDivisionError: one two)")
    assert "Traceback" in CliRunner().invoke(cli, ["-v", "stats"]).stderr


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "astound: Too many open files"),
        (OSError(errno.ENOSPC, "No space left"), "astound: cannot write: No space left"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            "astound: /x: Permission denied",
        ),
    ],
)
def test_refusal_of_the_system_is_no_bug(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: OSError, line: str
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("astound.catalog.Catalog.stats", refuse)
    result = run("stats")
    assert (result.exit_code, result.stderr) == (1, f"{line}\n")


@pytest.mark.slow
def test_closed_pipe_is_quiet(home: Path) -> None:
    with start_process(home, "query", *["known.wav"] * 50, "--format", "jsonl") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


def test_module_is_the_command_line_too() -> None:
    command = [sys.executable, "-m", "astound", "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout == f"astound {astound.__version__}\n"
