from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

from astound.commands.serve import serve
from astound.service.server import _DRAIN_S

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CALLS = {
    "astound.service": re.search(
        r"^ExecStart=\S+ (.*)$", (DEPLOY / "astound.service").read_text(), re.M
    ),
    "Dockerfile": re.search(r"^CMD \[(.*)\]$", (DEPLOY / "Dockerfile").read_text(), re.M),
}


@pytest.mark.parametrize("file", CALLS)
def test_options_of_the_command_exist(file: str) -> None:
    call = CALLS[file]
    assert call
    name, *options = re.sub(r"[\",]", "", call[1]).split()
    assert name == "serve"
    serve.make_context(name, options, obj=None, parent=click.Context(serve))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_unit_is_valid(tmp_path: Path) -> None:
    unit = (DEPLOY / "astound.service").read_text()
    unit = unit.replace("/opt/astound/bin/astound", shutil.which("true") or "")
    copy = tmp_path / "astound-check.service"
    copy.write_text(re.sub("^User=.*\n", "", unit, flags=re.M))  # may not exist here
    command = ["systemd-analyze", "verify", "--man=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_image_contains_what_is_packaged_and_no_more() -> None:
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    included = {line[1:] for line in lines if line.startswith("!")}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert included == {
        *settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"],
        *("LICENSE", "README.md", "constraints.txt", "pyproject.toml"),
    }


def test_requests_can_end_before_a_service_is_killed() -> None:
    assert "stop_grace_period: 15s\n" in (DEPLOY / "compose.yaml").read_text()
    assert "TimeoutStopSec=15\n" in (DEPLOY / "astound.service").read_text()
    assert _DRAIN_S < 15
