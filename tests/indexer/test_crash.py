"""Kill -9 at any moment, then go on: the catalog is that of a run nobody disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

import astound
from astound.catalog import Catalog
from engine.config import IngestConfig
from tests.audio_files import cached_tune, write_wav

RATE = 8000
N_FILES = 12
CONFIG = "IngestConfig(n_jobs=2, max_segments=1)"  # a shard for every file

INGEST = """
import os, sys, time
import astound
from engine.config import IngestConfig
from engine.store.store import Store

catalog = astound.open(sys.argv[1], model=sys.argv[2], device="cpu")
catalog.fingerprinter

{fault}

print("begins", flush=True)
catalog.add(sys.argv[3], config={config}, on_progress=lambda report: print(".", flush=True))
time.sleep(60)
"""

DIES = """
add_shard, n_left = Store.add_shard, [3]

def dying(*args, **options):
    n_left[0] -= 1
    if {after} and not n_left[0]:
        add_shard(*args, **options)
    if not n_left[0]:
        os._exit(9)
    return add_shard(*args, **options)

Store.add_shard = dying
"""

Contents = tuple[list[tuple[str, str, int]], list[tuple[str, float] | None]]


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    for seed in range(N_FILES):
        write_wav(folder / f"{seed:02}.wav", cached_tune(seed, 4.0 + seed / 2), RATE)
    return folder


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, music: Path
) -> Contents:
    with astound.open(tmp_path_factory.mktemp("whole"), model=tiny_model, device="cpu") as catalog:
        catalog.add(music, config=IngestConfig(n_jobs=2, max_segments=1))
        return contents(catalog)


@pytest.fixture
def start(
    tmp_path: Path, tiny_model: Path, music: Path
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give start(fault=""): an ingest in a process of its own, about to begin."""
    processes = []

    def begin(fault: str = "") -> subprocess.Popen[str]:
        code = INGEST.format(fault=fault, config=CONFIG)
        process = subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "catalog", tiny_model, music],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(astound.__file__).parents[1])},
        )
        processes.append(process)
        assert process.stdout
        assert process.stdout.readline() == "begins\n"
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def no_decoders_are_left(tmp_path: Path) -> Iterator[None]:
    yield
    deadline = time.monotonic() + 10
    while left := decoders(tmp_path):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.05)


def decoders(folder: Path) -> list[psutil.Process]:
    """Decoders at work in a folder, orphans among them."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if "engine.audio.worker" in (process.info["cmdline"] or ())
        and process.info["cwd"] == str(folder)
    ]


def contents(catalog: Catalog) -> Contents:
    """What a catalog knows and what it answers; ids may differ."""
    tracks = [(Path(t.path).name, t.content_hash, t.n_segments) for t in catalog.tracks()]
    answers: list[tuple[str, float] | None] = []
    for seed in range(0, N_FILES + 2, 2):
        clip = cached_tune(seed, 4.0 + seed / 2)[RATE // 2 : 3 * RATE + RATE // 2]
        best = catalog.query(clip, RATE, min_confidence=0.0).best
        answers.append((Path(best.path).name, best.score) if best else None)
    return sorted(tracks), answers


def finish(folder: Path, model: Path, music: Path) -> tuple[int, Contents]:
    """Run to the end, and say how many files were known already and what is known then."""
    with astound.open(folder, model=model, device="cpu") as catalog:
        report = catalog.add(music, config=IngestConfig(n_jobs=2, max_segments=1))
        assert (len(report.added) + len(report.skipped), report.failed) == (N_FILES, [])
        assert catalog.verify() == []
        catalog.repair()  # removes a shard that was renamed but not committed
        shards = {entry.name for entry in (folder / "shards").iterdir()} - {"lost+found"}
        assert catalog._shards.lost() == []
        assert shards == set(catalog._store.shard_names())
        assert catalog.stats().n_segments == catalog.stats().n_stored_segments
        return len(report.skipped), contents(catalog)


SEEDS = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(6)]


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_ingest_run_again_equals_an_undisturbed_one(
    seed: int,
    start: Callable[..., subprocess.Popen[str]],
    undisturbed: Contents,
    tmp_path: Path,
    tiny_model: Path,
    music: Path,
) -> None:
    rng = np.random.default_rng(seed)
    for n_files in rng.integers(0, 5, size=2):
        process = start()
        assert process.stdout
        for _ in range(n_files):
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    _, contents_after = finish(tmp_path / "catalog", tiny_model, music)
    assert contents_after == undisturbed


@pytest.mark.parametrize("after", [False, True])
def test_kill_before_or_after_the_transaction_loses_and_repeats_nothing(
    after: bool,
    start: Callable[..., subprocess.Popen[str]],
    undisturbed: Contents,
    tmp_path: Path,
    tiny_model: Path,
    music: Path,
) -> None:
    process = start(DIES.format(after=after))
    assert process.wait() == 9
    n_shards = len(list((tmp_path / "catalog" / "shards").iterdir()))
    assert n_shards == 3
    n_known, contents_after = finish(tmp_path / "catalog", tiny_model, music)
    assert n_known == (3 if after else 2)
    assert contents_after == undisturbed
