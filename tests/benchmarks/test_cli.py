from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from astound.commands.main import cli
from benchmarks.cli import bench
from benchmarks.reports.documents import ROOT

PAGE = (ROOT / "docs" / "cli.md").read_text()
FACE = {f"benchmarks.{name}" for name in ("cli", "comparisons", "options")}
OPTIONS = [
    (name, option)
    for name, command in bench.commands.items()
    for option in command.params
    if isinstance(option, click.Option)
]


def section(name: str) -> str:
    (found,) = re.findall(rf"^### bench {name}\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.mark.parametrize("name", bench.commands)
def test_every_command_is_documented_with_an_example(name: str) -> None:
    command = bench.commands[name]
    assert command.help
    assert (command.epilog or "").startswith(f"Example: astound bench {name}")
    assert f"\n    astound bench {name}" in section(name)


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=lambda x: getattr(x, "name", x))
def test_every_option_is_documented(name: str, option: click.Option) -> None:
    assert option.help
    described = [row.split(" | ")[0] for row in section(name).splitlines() if row[:3] == "| `"]
    for spelling in option.opts:
        assert any(re.search(rf"`{spelling}[` ]", cell) for cell in described), spelling


def test_no_section_is_about_a_command_that_is_gone() -> None:
    assert set(re.findall(r"^### bench (.*)$", PAGE, re.MULTILINE)) == set(bench.commands)


def test_help_lists_bench_without_loading_what_it_measures_with() -> None:
    code = "import sys; from astound.commands.main import cli\n"
    code += "cli(['--help'], standalone_mode=False)\n"
    code += "print(*sorted(name for name in sys.modules if name.startswith('benchmarks.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.search(r"^ +bench ", done.stdout, re.MULTILINE)
    assert set(done.stdout.splitlines()[-1].split()) == FACE


def test_missing_extra_is_a_sentence(tmp_path: Path) -> None:
    options = ["bench", "retrieval", "--references", str(tmp_path), "--out", str(tmp_path / "out")]
    code = "import sys; sys.modules['scipy'] = None; from astound.commands.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "astound: benchmarks need scipy: pip install 'astound[bench]'\n"


def test_wrong_distortion_says_what_is_possible(tmp_path: Path) -> None:
    options = ["--references", str(tmp_path), "--out", str(tmp_path), "--distortions", "nose5"]
    result = CliRunner().invoke(cli, ["bench", "retrieval", *options])
    assert result.exit_code == 1
    assert "there is no 'nose5'; possible are clean, noise<SNR dB>" in result.stderr


def test_list_of_numbers_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    options = ["--references", str(tmp_path), "--out", str(tmp_path), "--durations", "2,x"]
    result = CliRunner().invoke(cli, ["bench", "retrieval", *options])
    assert result.exit_code == 2
    assert "no list of numbers such as 2,5" in result.stderr


def test_tables_that_are_as_they_should_be_exit_with_0() -> None:
    result = CliRunner().invoke(cli, ["bench", "tables", "--check"])
    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.slow
def test_module_is_the_command() -> None:
    module = [sys.executable, "-m", "benchmarks", "--help"]
    done = subprocess.run(module, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: astound bench ")
