"""Kill -9 at seeded moments of every command that changes a catalog, then repeat the command.

A moment is whenever the process touches a file of the catalog or has just let go of its database.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import astound
from astound.catalog import Catalog
from tests.catalogs import (
    ONE_A_SHARD,
    Contents,
    add,
    contents,
    database_rows,
    flip_a_byte,
    open_catalog,
    replace_rows,
    shard_of,
    shards_on_disk,
)

CHANGES = """
import sys
from pathlib import Path
from benchmarks.runs.kills import count_moments
from indexer.lost import set_aside
from tests.catalogs import ONE_A_SHARD, open_catalog

folder, other, exported = sys.argv[1:4]
with open_catalog(folder) as catalog:
    n_moments = count_moments(Path(folder), int(sys.argv[4]))
    {change}
    print(n_moments())
"""


def damage(catalog: Catalog) -> None:
    """Lose one shard, spoil another, and leave an orphan."""
    lost, spoiled, whole, *_ = (shard_of(catalog, track.id) for track in catalog.tracks())
    shutil.rmtree(lost)
    flip_a_byte(spoiled / "segments.faiss")
    shutil.copytree(whole, catalog.folder / "shards" / "orphan")


def go_back(catalog: Catalog) -> None:
    """Compact, then bring back the rows from before, as a backup of the database does."""
    rows = database_rows(catalog)
    catalog.compact()
    replace_rows(catalog, rows)


@dataclass(frozen=True)
class Command:
    """What changes a catalog of tunes 0 to 5, of which 4 is deleted.

    Parameters
    ----------
    change : str
        Code; knows `catalog`, `other` (folder of a catalog of tunes 5 to 8), `exported` (file with
        the same) and ONE_A_SHARD. Repeated, it completes what it began.
    prepare : callable
        What happens to the catalog first.
    """

    change: str
    prepare: Callable[[Catalog], None] = lambda catalog: None


COMMANDS = {
    "merge": Command("catalog.merge(other, config=ONE_A_SHARD)"),
    "import": Command("catalog.import_(exported, config=ONE_A_SHARD)"),
    "delete": Command(
        "catalog.delete([one.id for one in catalog.tracks() if one.title < 'Tune 2'])"
    ),
    "compact": Command("catalog.compact()"),
    "repair": Command("catalog.repair(config=ONE_A_SHARD)", damage),
    "repair of an empty database": Command("catalog.repair(config=ONE_A_SHARD)", replace_rows),
    "repair of an older database": Command("catalog.repair(config=ONE_A_SHARD)", go_back),
    "sweep": Command("set_aside(catalog._store, catalog._shards); catalog.repair()", replace_rows),
}
N_SEEDS = 4


@pytest.fixture(scope="module")
def two_catalogs(tmp_path_factory: pytest.TempPathFactory, tunes: Path) -> Path:
    """Folder with two catalogs and an export of the second; not to be changed."""
    folder = tmp_path_factory.mktemp("two_catalogs")
    with open_catalog(folder / "catalog") as catalog:
        add(catalog, tunes, range(6))
        catalog.delete([str(tunes / "4.wav")])
    with open_catalog(folder / "other") as catalog:
        add(catalog, tunes, range(5, 9))
        catalog.export(folder / "exported")
    return folder


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def start(
    request: pytest.FixtureRequest, two_catalogs: Path, tmp_path: Path
) -> Callable[[Command], None]:
    """Give start(command): a catalog as it is before the command, in each kind of database."""
    if request.param == "sqlite":

        def begin(command: Command) -> None:
            shutil.rmtree(tmp_path / "catalog", ignore_errors=True)
            shutil.copytree(two_catalogs / "catalog", tmp_path / "catalog")
            with open_catalog(tmp_path / "catalog") as catalog:
                command.prepare(catalog)

    else:
        url = request.getfixturevalue("postgres")

        def begin(command: Command) -> None:
            with open_catalog(tmp_path / "catalog", url) as catalog:
                catalog.delete([track.id for track in catalog.tracks()])
                catalog._store.delete_shards(catalog._store.shard_names())
                catalog.merge(two_catalogs / "catalog", config=ONE_A_SHARD)
                command.prepare(catalog)

    return begin


def run(command: Command, folder: Path, two_catalogs: Path, n: int) -> int | None:
    """Run a command until its n-th moment, then None; to its end, then how many it had."""
    code = CHANGES.format(change=command.change)
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            folder,
            *(two_catalogs / "other", two_catalogs / "exported"),
            f"{n}",
        ],
        env=os.environ | {"PYTHONPATH": str(Path(astound.__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if process.returncode == -signal.SIGKILL:
        return None
    assert process.returncode == 0
    return int(process.stdout)


def seen(folder: Path) -> tuple[Contents, list[str], bool]:
    """What a catalog holds, what is wrong with it, and whether anything was left behind."""
    with open_catalog(folder) as catalog:
        orphans = shards_on_disk(catalog) - set(catalog._store.shard_names())
        problems = catalog.verify()
        return {} if problems else contents(catalog), problems, bool(orphans)


CASES = [
    pytest.param(name, seed, marks=[pytest.mark.slow] if name != "merge" or seed else [])
    for name in COMMANDS
    for seed in range(N_SEEDS)
]


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_command_killed_twice_and_repeated_equals_an_undisturbed_one(
    name: str, seed: int, start: Callable[[Command], None], two_catalogs: Path, tmp_path: Path
) -> None:
    command, folder = COMMANDS[name], tmp_path / "catalog"
    start(command)
    before, problems_before, _ = seen(folder)
    n_moments = run(command, folder, two_catalogs, 0)
    undisturbed, problems, _ = seen(folder)
    assert n_moments
    assert problems == []
    start(command)
    rng = np.random.default_rng(seed)
    for moment in (rng.integers(n_moments // 2, n_moments), rng.integers(0, n_moments)):
        run(command, folder, two_catalogs, 1 + int(moment))
        now, problems, _ = seen(folder)
        assert len(problems) <= len(problems_before)
        between = before.keys() | undisturbed.keys()
        assert problems or before.keys() & undisturbed.keys() <= now.keys() <= between
        assert all(now[path] == (undisturbed | before)[path] for path in now)
    run(command, folder, two_catalogs, 0)
    assert seen(folder) == (undisturbed, [], False)


def test_moments_cover_the_transaction_and_the_files(
    start: Callable[[Command], None], two_catalogs: Path, tmp_path: Path
) -> None:
    start(COMMANDS["merge"])
    n_moments = run(COMMANDS["merge"], tmp_path / "catalog", two_catalogs, 0)
    assert n_moments
    assert n_moments > 30
