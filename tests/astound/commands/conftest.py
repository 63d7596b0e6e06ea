from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import astound
from astound.commands.main import cli
from tests.audio_files import cached_tune, write_wav

RATE = 8000
N_TUNES = 4
TUNE_S = 12.0
CLIP_AT_S = 3.5  # a multiple of the catalog's hop, so that segments of clip and tune coincide

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with music/0.wav ... and a catalog of them; not to be changed."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "music").mkdir()
    for seed in range(N_TUNES):
        write_wav(folder / "music" / f"{seed}.wav", cached_tune(seed, TUNE_S), RATE)
    with astound.open(folder / "catalog", model=tiny_model) as catalog:
        catalog.add(folder / "music")
    return folder


@pytest.fixture
def home(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path
) -> Path:
    """The current folder, with a copy of the catalog and clips of tune 1 and of an unknown tune."""
    shutil.copytree(library / "catalog", tmp_path / "catalog")
    _write_clip(tmp_path / "known.wav", seed=1)
    _write_clip(tmp_path / "unknown.wav", seed=100)
    (tmp_path / "broken.wav").write_bytes(b"not audio")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write_clip(path: Path, seed: int) -> None:
    first = round(CLIP_AT_S * RATE)
    write_wav(path, cached_tune(seed, TUNE_S)[first : first + 4 * RATE], RATE)


@pytest.fixture
def run() -> Run:
    """Return run(*arguments, stdin=None), which runs the command line in this process."""

    def invoke(*arguments: object, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin)
        assert "Traceback" not in result.stderr
        return result

    return invoke


MAIN = "from astound.commands.main import main; main()"


def start_process(
    home: Path, *arguments: str, code: str = MAIN, **options: Any
) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    root = Path(astound.__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(root)},
        text=True,
        stderr=subprocess.PIPE,
        **{"stdout": subprocess.PIPE, **options},
    )
