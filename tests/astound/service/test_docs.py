"""The examples of docs/service.md, run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import astound
from astound.catalog import Catalog
from astound.service.app import create_app
from engine.config import ServiceConfig
from tests.astound.service.conftest import serving

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "service.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def make_command(folder: Path) -> Path:
    """Make a command `astound` of this source, whichever is installed."""
    command = folder / "astound"
    code = "from astound.commands.main import main; main()"
    command.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n")
    command.chmod(0o755)
    return command


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_examples_do_what_they_show(
    catalog: Catalog, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = make_command(tmp_path_factory.mktemp("commands")).parent
    (home / "media" / "new").mkdir(parents=True)
    for copy in (
        "clip.wav",
        "song.flac",
        "another.mp3",
        "mix.mp3",
        "media/mix.mp3",
        "media/new/1.wav",
    ):
        shutil.copy(home / "known.wav", home / copy)
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    examples = blocks("sh")
    assert len(examples) > 4
    examples.sort(key=lambda example: "key create" in example)  # then all others need a key
    with serving(create_app(catalog, ServiceConfig(media=home / "media"))) as address:
        host = address.removeprefix("http://").rstrip("/")
        for example in examples:
            script = re.sub(r"(localhost|127\.0\.0\.1):8765", host, example)
            done = subprocess.run(
                ["bash", "-euc", f'curl() {{ command curl -fsS "$@"; }}\n{script}'],
                cwd=home,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stdout != "") == (0, True), (example, done.stderr)


def test_python_example_does_what_it_shows(catalog: Catalog, home: Path) -> None:
    shutil.copy(home / "known.wav", home / "clip.wav")
    (example,) = blocks("python")
    with serving(create_app(catalog)) as address:
        exec(example.replace("http://127.0.0.1:8765", address), {"astound": astound})


def test_every_code_of_a_refusal_is_documented() -> None:
    source = "".join(path.read_text() for path in (ROOT / "astound" / "service").glob("*.py"))
    codes = set(re.findall(r"RefusedError\(\s*\d+, \"(\w+)\"", source))
    assert len(codes) > 8
    documented = set(re.findall(r"`(\w+)`", PAGE.partition("| status | codes |")[2]))
    assert codes <= documented
