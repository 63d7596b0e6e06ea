"""astound and other systems: the same recordings, the same queries, the same machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from astound.catalog import Device
from benchmarks.metrics.outcomes import by_cell, summarise
from benchmarks.peers.astound_peer import Astound
from benchmarks.peers.audfprint import Audfprint
from benchmarks.peers.chromaprint import Chromaprint
from benchmarks.peers.olaf import Olaf
from benchmarks.peers.peer import Answer, Peer
from benchmarks.peers.query_files import QueryFile, write_queries
from benchmarks.queries import datasets
from benchmarks.queries.conditions import CellKey, make_cells, required_sounds
from benchmarks.queries.datasets import Sounds
from benchmarks.reports import peer_tables, report
from benchmarks.runs.journal import Journal
from benchmarks.runs.process import run_in_process
from benchmarks.runs.progress import log
from benchmarks.runs.provenance import digest, provenance
from engine.audio import decode
from engine.errors import AstoundError, AudioError, ConfigError

JOURNAL = "systems.jsonl"

PROGRAMS: dict[str, Callable[[], Any]] = {
    "chromaprint": Chromaprint,
    "audfprint": Audfprint,
    "audfprint-mirex": Audfprint.mirex,
    "olaf": Olaf,
}
"""Systems that are external programs."""

NAMES = ("astound", *PROGRAMS)

CELLS: tuple[CellKey, ...] = (
    ("clean", 5.0), ("noise5", 5.0), ("noise0", 5.0), ("noise0", 2.0), ("room5", 5.0),
    ("speed+3", 5.0), ("opus-12k", 5.0),
)  # fmt: skip
"""Cells to measure, if there are the noises and rooms they need."""

BATCHES = (("clean 5 s", True), ("noise0 5 s", True), ("clean 5 s", False))
"""Queries to answer as one batch: the cell, and whether their music is in the index."""


def _program_names() -> list[str]:
    return list(dict.fromkeys(make().program.name for make in PROGRAMS.values()))


@dataclass(frozen=True, kw_only=True)
class PeersConfig:
    """Settings of the benchmark.

    Parameters
    ----------
    references : sequence of Path
        Folders of music.
    out : Path
        Folder for the queries, the indexes and peers.json. An interrupted run resumes with the next
        system.
    noise, rooms : Path or None
        Folders of noises and of room responses.
    peers : sequence of str
        Of NAMES. Systems that are not installed are reported and left out.
    commands : mapping of str
        Command of a program by its name; by default it is looked for on the PATH.
    n_queries : int
        Number of excerpts of present music, and of absent music; each is a query in all cells.
    hold_out : float
        Fraction of the references that no index gets, and that absent queries are cut from.
    seed : int
    jobs : int or None
        Number of ingest processes; the number of processors by default.
    model : Path or None
        Weights for astound.
    device : {"auto", "cpu", "cuda"}
        Device for astound's encoder.
    """

    references: Sequence[Path]
    out: Path
    noise: Path | None = None
    rooms: Path | None = None
    peers: Sequence[str] = NAMES
    commands: Mapping[str, str] = field(default_factory=dict)
    n_queries: int = 100
    hold_out: float = 0.2
    seed: int = 1
    jobs: int | None = None
    model: Path | None = None
    device: Device = "auto"

    def __post_init__(self) -> None:
        for name in self.peers:
            if name not in NAMES:
                raise ConfigError.invalid("peers", name, f"must be one of {', '.join(NAMES)}")
        for name in self.commands:
            if name not in (known := _program_names()):
                raise ConfigError.invalid("command", name, f"must be one of {', '.join(known)}")
        if not 0 <= self.hold_out < 1:
            raise ConfigError.invalid("hold_out", self.hold_out, "must be in [0, 1)")
        if self.n_queries < 1:
            raise ConfigError.invalid("n_queries", self.n_queries, "must be at least 1")

    @property
    def n_jobs(self) -> int:
        """Number of ingest processes."""
        return self.jobs or os.cpu_count() or 1

    @property
    def cells(self) -> list[CellKey]:
        """Cells that can be made with the sounds given."""
        return [
            key
            for key in CELLS
            if all(getattr(self, option) is not None for option in required_sounds(key[0]))
        ]

    def peer(self, name: str) -> Peer:
        """Make one of the systems."""
        if name == "astound":
            return Astound(model=self.model, device=self.device)
        peer = PROGRAMS[name]()
        program = replace(peer.program, command=self.commands.get(peer.program.name))
        with_command: Peer = replace(peer, program=program)
        return with_command


def run(config: PeersConfig) -> dict[str, Any]:
    """Run the comparison and write peers.json.

    Returns
    -------
    dict
        Content of peers.json, with "table", the Markdown tables; "systems" by name; and "left_out",
        the reason why a system was not measured, by name.

    Raises
    ------
    AstoundError
        There are no queries, or the folder contains queries of other settings.
    """
    known, absent = datasets.hold_out(
        datasets.audio_files(config.references), config.hold_out, config.seed
    )
    audio_s, references = _decodable(known)
    settings = _settings(config, references, absent)
    queries = _write_queries(config, references, absent, settings)
    journal = Journal(config.out / JOURNAL, settings)
    systems: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name in config.peers:
        try:
            systems[name] = _measure(config, name, references, queries, journal)
        except AstoundError as error:
            log(f"skipped: {error}")
            left_out[name] = str(error).removeprefix(f"{name}: ")
    results = {
        **provenance(),
        "seed": config.seed,
        "n_references": len(references),
        "n_absent": len(absent),
        "audio_s": audio_s,
        "n_jobs": config.n_jobs,
        "systems": {name: _summary(system, queries, audio_s) for name, system in systems.items()},
        "left_out": left_out,
    }
    if "astound" in systems:
        ours = Astound(model=config.model, device=config.device)
        results["recipe_id"] = ours.recipe_id(_index(config, "astound"))
    results["table"] = peer_tables.tables(results)
    report.write(config.out / "peers.json", results)
    return results


def _decodable(paths: Sequence[Path]) -> tuple[float, list[Path]]:
    """Return the seconds of audio, and the files that can be decoded; no system gets others."""
    durations_s = {}
    for path in paths:
        try:
            durations_s[path] = len(decode.read(path, datasets.RATE)) / datasets.RATE
        except AudioError as error:
            log(f"skipped: {error}")
    return sum(durations_s.values()), list(durations_s)


# -- queries ---------------------------------------------------------------------------------


def _settings(
    config: PeersConfig, present: Sequence[Path], absent: Sequence[Path]
) -> dict[str, Any]:
    """Return everything that queries and measurements depend on; lists as hashes."""
    folders = [folder for folder in (config.noise, config.rooms) if folder]
    return {
        "seed": config.seed,
        "n_queries": config.n_queries,
        "cells": config.cells,
        "batches": BATCHES,
        "present": digest(map(str, present)),
        "absent": digest(map(str, absent)),
        "sounds": digest(map(str, datasets.audio_files(folders))),
    }


def _write_queries(
    config: PeersConfig,
    present: Sequence[Path],
    absent: Sequence[Path],
    settings: Mapping[str, Any],
) -> list[QueryFile]:
    cells = make_cells(config.cells, Sounds(config.noise, config.rooms).sources)
    paths = {"present": present, "absent": absent}
    n_questions = dict.fromkeys(paths, config.n_queries)
    folder = config.out / "queries"
    return write_queries(folder, paths, n_questions, cells, config.seed, settings)


# -- one system ------------------------------------------------------------------------------


def _measure(
    config: PeersConfig,
    name: str,
    references: Sequence[Path],
    queries: Sequence[QueryFile],
    journal: Journal,
) -> dict[str, Any]:
    """Measure a system, or return what an earlier run measured of the same version."""
    peer = config.peer(name)
    version = {"about": asdict(peer.about()), "n_jobs": config.n_jobs}
    for record in journal.records:
        if record["name"] == name and record["version"] == version:
            return record
    log(f"{name}: ingest of {len(references)} recordings")
    index = _index(config, name)
    shutil.rmtree(index, ignore_errors=True)
    index.mkdir(parents=True)
    _, ingest = run_in_process(_build, peer, references, index, config.n_jobs)
    n_bytes = sum(file.stat().st_size for file in index.rglob("*") if file.is_file())
    log(f"{name}: {len(queries)} queries")
    answers, asking = run_in_process(_query, peer, [query.path for query in queries], index)
    record = {
        "name": name,
        "version": version,
        "ingest": asdict(ingest),
        "ask": asdict(asking),
        "batches": _measure_batches(config, peer, queries, index),
        "n_bytes": n_bytes,
        "answers": [_to_json(answer) for answer in answers],
    }
    journal.append(record)
    return record


def _measure_batches(
    config: PeersConfig, peer: Peer, queries: Sequence[QueryFile], index: Path
) -> list[float | None]:
    """Return the wall time of a query in each of BATCHES; None for a batch without queries."""
    means_s: list[float | None] = []
    for cell, present in BATCHES:
        batch = [
            query.path
            for query in queries
            if (query.unanswered.cell, query.unanswered.present) == (cell, present)
        ]
        if batch:
            _, cost = run_in_process(_answer_batch, peer, batch, index, config.n_jobs)
        means_s.append(cost.wall_s / len(batch) if batch else None)
    return means_s


def _index(config: PeersConfig, name: str) -> Path:
    return config.out / name / "index"


def _build(peer: Peer, references: Sequence[Path], folder: Path, n_jobs: int) -> None:
    peer.build(references, folder, n_jobs)


def _query(peer: Peer, queries: Sequence[Path], folder: Path) -> list[Answer]:
    return list(peer.query(queries, folder))


def _answer_batch(peer: Peer, queries: Sequence[Path], folder: Path, n_jobs: int) -> None:
    peer.answer_batch(queries, folder, n_jobs)


def _to_json(answer: Answer) -> dict[str, Any]:
    return asdict(answer) | {"reference": answer.reference and str(answer.reference)}


def _from_json(fields: Mapping[str, Any]) -> Answer:
    reference = fields["reference"]
    return Answer(**{**fields, "reference": None if reference is None else Path(reference)})


def _summary(
    system: Mapping[str, Any], queries: Sequence[QueryFile], audio_s: float
) -> dict[str, Any]:
    answers = [_from_json(fields) for fields in system["answers"]]
    outcomes = [query.outcome(answer) for query, answer in zip(queries, answers, strict=True)]
    cells = [summarise(name, of_cell) for name, of_cell in by_cell(outcomes).items()]
    return {
        **system["version"]["about"],
        "ingest_realtime_factor": audio_s / system["ingest"]["wall_s"],
        "ingest_peak_rss_bytes": system["ingest"]["peak_rss_bytes"],
        "ask_peak_rss_bytes": system["ask"]["peak_rss_bytes"],
        "batch_s": system["batches"],
        "bytes_per_audio_s": system["n_bytes"] / audio_s,
        "latency": _latency(answers, system["ask"]["wall_s"]),
        "cells": [asdict(cell) for cell in cells],
    }


def _latency(answers: Sequence[Answer], wall_s: float) -> dict[str, Any]:
    taken_ms = [1000 * one.taken_s for one in answers if one.taken_s is not None]
    if not taken_ms:
        return {"n": len(answers), "mean_ms": 1000 * wall_s / len(answers)}
    return {
        "n": len(taken_ms),
        "mean_ms": mean(taken_ms),
        "median_ms": median(taken_ms),
        "p95_ms": float(np.percentile(taken_ms, 95)),
    }
