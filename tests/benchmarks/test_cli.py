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
def test_command_is_documented_with_an_example(name: str) -> None:
    command = bench.commands[name]
    assert command.help
    assert (command.epilog or "").startswith(f"Example: astound bench {name}")
    assert f"\n    astound bench {name}" in section(name)


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=lambda x: getattr(x, "name", x))
def test_option_is_documented(name: str, option: click.Option) -> None:
    assert option.help
    described = [row.split(" | ")[0] for row in section(name).splitlines() if row[:3] == "| `"]
    for spelling in option.opts:
        assert any(re.search(rf"`{spelling}[` ]", cell) for cell in described), spelling


def test_documented_commands_exist() -> None:
    assert set(re.findall(r"^### bench (.*)$", PAGE, re.MULTILINE)) == set(bench.commands)


def test_help_loads_only_the_command_line_of_bench() -> None:
    code = "import sys; from astound.commands.main import cli\n"
    code += "cli(['--help'], standalone_mode=False)\n"
    code += "print(*sorted(name for name in sys.modules if name.startswith('benchmarks.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.search(r"^ +bench ", done.stdout, re.MULTILINE)
    assert done.stdout.splitlines()[-1] == "benchmarks.cli"


def test_missing_extra_names_the_packages(tmp_path: Path) -> None:
    options = ["bench", "retrieval", "--references", str(tmp_path), "--out", str(tmp_path / "out")]
    code = "import sys; sys.modules['scipy'] = None; from astound.commands.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "astound: scipy is not installed; benchmarks need jinja2, matplotlib, psutil, scipy, "
        "soundfile, tabulate: pip install 'astound[bench]'\n"
    )


def test_unknown_distortion_lists_the_forms(tmp_path: Path) -> None:
    options = ["--references", str(tmp_path), "--out", str(tmp_path), "--distortions", "nose5"]
    result = CliRunner().invoke(cli, ["bench", "retrieval", *options])
    assert result.exit_code == 1
    assert "invalid distortions='nose5': must be one of clean, noise<SNR dB>" in result.stderr


def test_invalid_list_of_numbers_is_a_usage_error(tmp_path: Path) -> None:
    options = ["--references", str(tmp_path), "--out", str(tmp_path), "--durations", "2,x"]
    result = CliRunner().invoke(cli, ["bench", "retrieval", *options])
    assert result.exit_code == 2
    assert "is not a list of numbers such as 2,5" in result.stderr


def test_tables_check_without_differences_exits_with_0() -> None:
    result = CliRunner().invoke(cli, ["bench", "tables", "--check"])
    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.slow
def test_module_is_the_command() -> None:
    module = [sys.executable, "-m", "benchmarks", "--help"]
    done = subprocess.run(module, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: astound bench ")
