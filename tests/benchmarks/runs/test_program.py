from __future__ import annotations

import sys

import pytest

from benchmarks.runs.program import Program, ProgramError


def test_missing_program_says_how_to_install_it() -> None:
    program = Program(name="loaf", names=("loaf", "loaf.py"), hint="bake it")
    with pytest.raises(ProgramError, match=r"^loaf: program loaf or loaf\.py not found; bake it$"):
        program.run([])


def test_missing_command_is_named() -> None:
    program = Program(name="loaf", names=("sh",), command="/nowhere/loaf -x", hint="bake it")
    with pytest.raises(ProgramError, match="program /nowhere/loaf -x not found; bake it"):
        program.run([])


def test_first_name_on_the_path_is_run() -> None:
    assert Program(name="loaf", names=("no-such-loaf", "echo")).run(["a b"]) == "a b\n"


def test_command_precedes_the_arguments() -> None:
    program = Program(name="loaf", names=(), command=f"'{sys.executable}' -c 'print(6 * 7)'")
    assert program.run([]) == "42\n"


def test_failure_shows_the_last_line() -> None:
    program = Program(name="loaf", names=("sh",))
    with pytest.raises(ProgramError, match=r"^loaf: ended with exit code 5: burnt$"):
        program.run(["-c", "echo hot >&2; echo burnt >&2; exit 5"])


def test_success_codes_are_no_failure() -> None:
    program = Program(name="loaf", names=("sh",))
    assert program.run(["-c", "echo done; exit 3"], success_codes=(0, 3)) == "done\n"


def test_environment_is_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "1")
    program = Program(name="loaf", names=("sh",))
    assert program.run(["-c", "echo $KEPT$HOME"], environment={"HOME": "2"}) == "12\n"
