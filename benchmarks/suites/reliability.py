"""Damaged inputs: each is refused with a sentence or used, and none breaks the run.

A clip of known music is written in many formats and mutated, and each file is queried. The files
of a catalog and the rows of its database are mutated one at a time, and the catalog is opened,
checked and queried. Files of weights are mutated and read. Commands are killed, and run on full
disks, then repeated. Everything is synthetic and follows from the seed.
"""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from astound.catalog import Catalog
from astound.demo import composer
from benchmarks.queries.datasets import RATE, generator
from benchmarks.queries.mutations import FORMATS, MUTATIONS, PAGED, VALUES, encode
from benchmarks.reports import report
from benchmarks.runs.disks import small_disk
from benchmarks.runs.interruptions import HANG_S, HANG_WALL_S, Interruptions
from benchmarks.runs.journal import Journal
from benchmarks.runs.mutated_weights import MutatedWeights
from benchmarks.runs.progress import track
from benchmarks.runs.provenance import code_id, provenance
from engine.errors import AstoundError
from engine.records import QueryResult
from engine.store.tables import Base

_N_TUNES, _TUNE_S = 8, 20.0
_CLIP_START_S, _CLIP_S = 6.0, 5.0
# A place further from the right one is wrong, unless the mutation moves sound.
_MAX_DISTANCE_S = 0.5
_DISK_BYTES = 4_000_000
_CODE = (
    *("suites/reliability", "queries/mutations"),
    *("runs/interruptions", "runs/kills", "runs/disks", "runs/mutated_weights"),
)


@dataclass(frozen=True, kw_only=True)
class ReliabilityConfig:
    """Settings of the campaign.

    Parameters
    ----------
    out : Path
        Folder for the results; an interrupted run resumes there.
    n_audio, n_storage, n_rows, n_weights : int
        Number of mutated audio files, catalogs with a mutated file, catalogs with a mutated value
        in the database, and mutated files of weights.
    n_kills, n_disks : int
        Number of commands that are killed, and that run on a full disk. Full disks are mounted,
        which needs the right to do so.
    seed : int
    model : Path or None
        Weights; the shipped ones by default.
    """

    out: Path
    # Inputs are tried in this order: the most come last.
    n_disks: int = 150
    n_kills: int = 350
    n_weights: int = 500
    n_rows: int = 500
    n_storage: int = 1500
    n_audio: int = 7000
    seed: int = 0
    model: Path | None = None


def run(config: ReliabilityConfig) -> dict[str, Any]:
    """Run the campaign, and write ``reliability.md`` into its folder.

    Returns
    -------
    dict
        "table": a Markdown table of counts by kind and outcome; "n_faults": number of exceptions,
        hangs, wrong answers and losses.
    """
    counts = {key: value for key, value in vars(config).items() if key.startswith("n_")}
    with tempfile.TemporaryDirectory(prefix="astound-") as folder, ExitStack() as stack:
        campaign = _Campaign(config, Path(folder), stack)
        settings = {
            "seed": config.seed,
            "recipe_id": campaign.catalog.recipe_id,
            "code": code_id(_CODE),
            **counts,
        }
        journal = Journal(config.out / "inputs.jsonl", settings)
        tries = [campaign.tries[key] for key, n in counts.items() for _ in range(n)]
        numbers = range(journal.n_groups, len(tries))
        records = (campaign.try_input(number, tries[number]) for number in numbers)
        for record in track(records, "inputs", len(tries), numbers.start):
            journal.append(record)
    return _report(journal.records, config.out)


Result = tuple[str, str, str]
"""Kind of the input, outcome, and detail."""


class _Campaign:
    """The catalog, the intact files, and what happens to mutated ones."""

    def __init__(self, config: ReliabilityConfig, home: Path, stack: ExitStack) -> None:
        self.config, self.home = config, home
        self.music = composer.write_library(home / "music", _N_TUNES, 0, _TUNE_S)
        self.catalog = stack.enter_context(
            Catalog(home / "catalog", create=True, device="cpu", model=config.model)
        )
        noted = {str(path): {"mood": "calm"} for path in self.music}
        self.catalog.add(home / "music", metadata=noted)
        self.catalog.export(home / "exported.astound")
        tune = composer.compose(0, _TUNE_S, RATE)
        first = round(_CLIP_START_S * RATE)
        self.clip = np.asarray(tune[first : first + round(_CLIP_S * RATE)], np.float32)
        self.audio = {name: encode(self.clip, *form) for name, form in FORMATS.items()}
        self.tries: dict[str, Callable[[np.random.Generator], Result]] = {
            "n_audio": self._try_audio,
            "n_storage": self._try_storage,
            "n_rows": self._try_row,
        }
        if config.n_weights:
            self.tries["n_weights"] = MutatedWeights(home / "weights").try_one
        if config.n_kills or config.n_disks:
            commands = Interruptions(home / "commands", home / "catalog", config.model)
            self.tries["n_kills"] = commands.kill
        if config.n_disks:
            disk = stack.enter_context(small_disk(home / "disk", _DISK_BYTES))
            self.tries["n_disks"] = lambda rng: commands.fill(rng, disk)

    def try_input(
        self, number: int, try_one: Callable[[np.random.Generator], Result]
    ) -> dict[str, Any]:
        """Make and try one input; the same number gives the same input."""
        rng = generator(self.config.seed, f"input {number}")
        began_s, used_before_s = time.monotonic(), _processor_s()
        try:
            kind, outcome, detail = try_one(rng)
        except TimeoutError as error:
            kind, outcome, detail = try_one.__name__, "hang", str(error)
        except Exception as error:  # noqa: BLE001 - counted, whatever it is
            kind, outcome, detail = (
                try_one.__name__,
                "exception",
                f"{type(error).__name__}: {error}",
            )
        elapsed_s, processor_s = time.monotonic() - began_s, _processor_s() - used_before_s
        if processor_s > HANG_S or elapsed_s > HANG_WALL_S:
            outcome = "hang"
        used = [resource.getrusage(who).ru_maxrss * 1024 for who in
                (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]  # fmt: skip
        return {"number": number, "kind": kind, "outcome": outcome, "detail": detail,
                "elapsed_s": round(elapsed_s, 3), "processor_s": round(processor_s, 3),
                "memory_bytes": max(used)}  # fmt: skip

    def _try_audio(self, rng: np.random.Generator) -> Result:
        form = str(rng.choice(list(FORMATS)))
        name = str(rng.choice(list(MUTATIONS)))
        mutation = MUTATIONS[name]
        path = self.home / "mutated.bin"
        path.write_bytes(mutation.apply(bytearray(self.audio[form]), rng))
        try:
            result = self.catalog.query(path)
        except AstoundError as error:
            return f"audio: {name}", "refused", error.code
        except Exception as error:  # noqa: BLE001 - counted, whatever it is
            return f"audio: {name}", "exception", f"{form}: {type(error).__name__}: {error}"
        return f"audio: {name}", self._judge(result, mutation.moves or form in PAGED), form

    def _judge(self, result: QueryResult, moves: bool) -> str:
        if result.best is None:
            return "refused" if result.status == "error" else "used, no match"
        is_right = result.best.path == str(self.music[0])
        distance_s = abs(result.best.offset_s - _CLIP_START_S)
        is_near = moves or distance_s <= _MAX_DISTANCE_S
        return "used, right" if is_right and is_near else "wrong answer"

    def _try_storage(self, rng: np.random.Generator) -> Result:
        folder = self._copy()
        exported = shutil.copy(self.home / "exported.astound", folder / "exported.astound")
        files = sorted(one for one in folder.rglob("*") if one.is_file() and one.stat().st_size)
        path = files[int(rng.integers(len(files)))]
        name = str(rng.choice(list(MUTATIONS)))
        path.write_bytes(MUTATIONS[name].apply(bytearray(path.read_bytes()), rng))
        kind = f"catalog: {_kind(path)}"
        if path != exported:
            return self._use_catalog(kind, folder, name)
        try:
            with Catalog(folder / "new", create=True, model=self.config.model) as new:
                new.import_(path)
        except AstoundError as error:
            return kind, "refused", error.code
        return kind, "used", name

    def _try_row(self, rng: np.random.Generator) -> Result:
        """Put a value into one row; the track that is queried keeps its own."""
        folder = self._copy()
        columns = [column for table in Base.metadata.sorted_tables for column in table.columns]
        column = columns[int(rng.integers(len(columns)))]
        values = [one for one in VALUES if not isinstance(one, (list, dict))]
        value = values[int(rng.integers(len(values)))]
        with closing(sqlite3.connect(folder / "catalog.db")) as database, database:
            put_without_constraints(database, column.table.name, column.name, value)
        detail = f"{column.name}: {value!r}"[:60]
        return self._use_catalog(f"rows of {column.table.name}", folder, detail)

    def _copy(self) -> Path:
        """Copy the catalog with its log, for it is open."""
        folder = self.home / "mutated"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.home / "catalog", folder)
        return folder

    def _use_catalog(self, kind: str, folder: Path, detail: str) -> Result:
        """Open a catalog, check it, read all rows, and query its first track."""
        path = self.music[1]
        try:
            with Catalog(folder, create=False, model=self.config.model) as catalog:
                problems = catalog.verify()
                catalog.tracks(), catalog.stats()
                matches = catalog.query(path).matches
        except AstoundError as error:
            return kind, "refused", error.code
        except Exception as error:  # noqa: BLE001
            return kind, "exception", f"{detail}: {type(error).__name__}: {error}"
        is_right = bool(matches) and matches[0].path == str(path)
        if is_right or problems:
            return kind, "used" if is_right else "refused", detail
        return kind, "wrong answer", detail


def put_without_constraints(
    database: sqlite3.Connection, table: str, column: str, value: object
) -> None:
    """Put a value into the last row of a table, whatever the table allows."""
    database.execute(f"CREATE TABLE copied AS SELECT * FROM {table}")
    database.execute(f"DROP TABLE {table}")
    database.execute(f"ALTER TABLE copied RENAME TO {table}")
    last = f"SELECT max(rowid) FROM {table}"
    database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ({last})", (value,))


def _processor_s() -> float:
    """Return the processor time of this process and its ended children."""
    return sum(os.times()[:4])


def _kind(path: Path) -> str:
    return f"shard, {path.name}" if path.parent.parent.name == "shards" else path.name


# -- report ----------------------------------------------------------------------------------

_FAULTS = ("exception", "hang", "wrong answer")
_OUTCOMES = ("refused", "used", "used, right", "used, no match", *_FAULTS)


def _report(records: Sequence[Mapping[str, Any]], out: Path) -> dict[str, Any]:
    counts = Counter((one["kind"], one["outcome"]) for one in records)
    kinds = sorted({one["kind"] for one in records})
    rows = [[kind, *(str(counts[kind, outcome]) for outcome in _OUTCOMES)] for kind in kinds]
    totals = [str(sum(counts[kind, outcome] for kind in kinds)) for outcome in _OUTCOMES]
    made = report.table(["input", *_OUTCOMES], [*rows, ["all", *totals]])
    faults = [one for one in records if one["outcome"] in _FAULTS]
    lines = [*_summary(records), "", made, "", *map(_fault, faults)]
    out.mkdir(parents=True, exist_ok=True)
    (out / "reliability.md").write_text("\n".join(lines) + "\n")
    return {"table": made, "n_faults": len(faults)}


def _summary(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    about = provenance()
    longest_s = max(one["processor_s"] for one in records)
    memory_mb = max(one["memory_bytes"] for one in records) / 1e6
    yield (
        f"{len(records)} inputs; `{about['command']}`; commit {about['commit']}. The longest took "
        f"{longest_s:.1f} s of processor time, and the largest process {memory_mb:.0f} MB."
    )


def _fault(record: Mapping[str, Any]) -> str:
    return f"- input {record['number']}, {record['kind']}: {record['outcome']}, {record['detail']}"
