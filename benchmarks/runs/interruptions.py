"""Commands that change a catalog, killed or on a full disk, then repeated."""

from __future__ import annotations

import resource
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from astound.catalog import Catalog
from benchmarks.runs.disks import fill
from benchmarks.runs.kills import count_moments
from engine.config import IngestConfig
from engine.errors import AstoundError

_ONE_A_SHARD = IngestConfig(n_jobs=1, max_segments=1)
_MAX_FREE_BYTES = 200_000

HANG_S, HANG_WALL_S = 60, 600.0
"""Processor time and wall time, in seconds, after which a command hangs.

A busy machine prolongs the latter, and only it shows a process that sleeps forever."""

Contents = dict[str, tuple[str, int, str | None]]
"""Hash, number of segments and title of each track, by path."""


@dataclass(frozen=True)
class Command:
    """A change that can be repeated, and the folder of the catalog that it begins with."""

    change: Callable[[Catalog, Path], object]
    before: str


def _delete(catalog: Catalog, home: Path) -> object:
    return catalog.delete([one.id for one in catalog.tracks()[3:]])


COMMANDS = {
    "merge": Command(lambda c, home: c.merge(home / "many", config=_ONE_A_SHARD), "few"),
    "import": Command(lambda c, home: c.import_(home / "exported", config=_ONE_A_SHARD), "few"),
    "compact": Command(lambda c, home: c.compact(), "many"),
    "delete": Command(_delete, "many"),
    "update": Command(lambda c, home: c.update(c.tracks()[0].id, title="new"), "many"),
    "repair of an empty database": Command(lambda c, home: c.repair(), "emptied"),
    "repair of an older database": Command(lambda c, home: c.repair(), "older"),
}
"""Commands by name."""


class Interruptions:
    """Catalogs to begin with, and what each command makes of them undisturbed.

    Parameters
    ----------
    home : Path
        Folder for all catalogs.
    source : Path
        Folder of a catalog to copy tracks from.
    model : Path, optional
    """

    def __init__(self, home: Path, source: Path, model: Path | None) -> None:
        self.home, self.model = home, model
        self.work = home / "work"
        home.mkdir()
        _prepare(home, source, model)
        self.n_moments: dict[str, int] = {}
        self.expected: dict[str, Contents] = {}
        for name in COMMANDS:
            self._begin(name, self.work)
            self.n_moments[name] = self._apart(name, 0) or 0
            self.expected[name] = self._contents(self.work)

    def kill(self, rng: np.random.Generator) -> tuple[str, str, str]:
        """Kill a command at a moment, then repeat it; return kind, outcome and detail."""
        name = str(rng.choice(list(COMMANDS)))
        self._begin(name, self.work)
        fatal = 1 + int(rng.integers(self.n_moments[name]))
        self._apart(name, fatal)
        return f"killed: {name}", self._outcome(name, self.work), f"moment {fatal}"

    def fill(self, rng: np.random.Generator, disk: Path) -> tuple[str, str, str]:
        """Run a command on a nearly full disk, then again with room."""
        name = str(rng.choice(list(COMMANDS)))
        folder = disk / "work"
        self._begin(name, folder)
        n_free = int(rng.integers(_MAX_FREE_BYTES))
        filler = fill(disk, n_free)
        is_refused = False
        try:
            with self._open(folder) as catalog:
                COMMANDS[name].change(catalog, self.home)
        except (AstoundError, OSError):  # the command line converts an OSError
            is_refused = True
        finally:
            filler.unlink()
        outcome = self._outcome(name, folder)
        shutil.rmtree(folder)
        is_right = outcome == "used, right"
        return (
            f"full disk: {name}",
            "refused" if is_refused and is_right else outcome,
            f"{n_free} bytes free",
        )

    def _outcome(self, name: str, folder: Path) -> str:
        with self._open(folder) as catalog:
            COMMANDS[name].change(catalog, self.home)
        is_right = self._contents(folder) == self.expected[name]
        return "used, right" if is_right else "wrong answer"

    def _begin(self, name: str, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.home / COMMANDS[name].before, folder)

    def _open(self, folder: Path) -> Catalog:
        return Catalog(folder, create=False, device="cpu", model=self.model)

    def _contents(self, folder: Path) -> Contents:
        with self._open(folder) as catalog:
            if problems := catalog.verify():
                return {problems[0]: ("", 0, None)}
            return {
                one.path: (one.content_hash, one.n_segments, one.title) for one in catalog.tracks()
            }

    def _apart(self, name: str, fatal: int) -> int | None:
        """Run a command in a process of its own; return its number of moments.

        It is None if the command was killed.
        """
        return call_apart(_run, name, self.work, self.home, self.model, fatal)


def call_apart(
    function: Callable[..., int],
    *arguments: Any,
    processor_s: int = HANG_S,
    wall_s: float = HANG_WALL_S,
) -> int | None:
    """Call a function in a process of its own, for a limited time.

    Parameters
    ----------
    function : callable
        A function of a module. The arguments must be picklable.
    processor_s : int
        Limit of the processor time, in seconds.
    wall_s : float
        Limit of the wall time, in seconds.

    Returns
    -------
    int or None
        What the function returns, or None if the process died.

    Raises
    ------
    TimeoutError
        The process reached a limit, and was killed.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, processor_s, function, arguments))
    process.start()
    sender.close()
    process.join(wall_s)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{function.__name__} took more than {wall_s:g} s")
    if process.exitcode == -signal.SIGXCPU:
        raise TimeoutError(f"{function.__name__} took more than {processor_s} s of processor time")
    try:
        return int(receiver.recv())
    except EOFError:
        return None


def _send(
    sender: Connection, processor_s: int, function: Callable[..., int], arguments: tuple[Any, ...]
) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (processor_s, resource.RLIM_INFINITY))
    sender.send(function(*arguments))


def _run(name: str, folder: Path, home: Path, model: Path | None, fatal: int) -> int:
    with Catalog(folder, create=False, device="cpu", model=model) as catalog:
        n_moments = count_moments(folder, fatal)
        COMMANDS[name].change(catalog, home)
        return n_moments()


def _prepare(home: Path, source: Path, model: Path | None) -> None:
    with Catalog(home / "many", create=True, device="cpu", model=model) as many:
        many.merge(source, config=_ONE_A_SHARD)
        many.export(home / "exported")
        ids = [one.id for one in many.tracks()]
        many.export(home / "few exported", ids[:3])
    with Catalog(home / "few", create=True, device="cpu", model=model) as few:
        few.import_(home / "few exported", config=_ONE_A_SHARD)
    shutil.copytree(home / "many", home / "emptied")
    with closing(sqlite3.connect(home / "emptied" / "catalog.db")) as connection, connection:
        for table in ("track_metadata", "tracks", "shards"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("DELETE FROM settings WHERE key != 'n_changes'")
    shutil.copytree(home / "many", home / "older")
    with Catalog(home / "older", create=False, device="cpu", model=model) as older:
        older.compact()
    for path in home.joinpath("older").glob("catalog.db*"):
        path.unlink()
    shutil.copy(home / "many" / "catalog.db", home / "older")
