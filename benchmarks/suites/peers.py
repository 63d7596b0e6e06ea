"""astound and its peers side by side: the same recordings, the same queries, the same machine."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from astound.catalog import Device
from benchmarks.metrics.outcomes import summarise
from benchmarks.peers import query_files
from benchmarks.peers.astound_peer import Astound
from benchmarks.peers.audfprint import Audfprint
from benchmarks.peers.chromaprint import Chromaprint
from benchmarks.peers.olaf import Olaf
from benchmarks.peers.peer import Answer, Peer
from benchmarks.peers.query_files import QueryFile
from benchmarks.queries import cells, conditions, datasets
from benchmarks.reports import peer_tables, report
from benchmarks.runs.process import measured
from benchmarks.runs.provenance import digest, provenance
from engine.audio import decode
from engine.errors import AstoundError, AudioError, ConfigError

log = logging.getLogger(__name__)

PROGRAMS: dict[str, Callable[[], Any]] = {
    "chromaprint": Chromaprint,
    "audfprint": Audfprint,
    "audfprint-mirex": Audfprint.mirex,
    "olaf": Olaf,
}
"""Systems that are programs of their own."""

NAMES = ("astound", *PROGRAMS)

PLACES: tuple[cells.Place, ...] = (
    ("clean", 5.0), ("noise5", 5.0), ("noise0", 5.0), ("noise0", 2.0), ("room5", 5.0),
    ("speed+3", 5.0), ("opus-12k", 5.0),
)  # fmt: skip
"""What is asked; what needs noises or rooms is left out where there are none."""


def _program_names() -> list[str]:
    return list(dict.fromkeys(make().program.name for make in PROGRAMS.values()))


@dataclass(frozen=True, kw_only=True)
class PeersConfig:
    """What to compare.

    Parameters
    ----------
    references : sequence of Path
        Folders of music.
    out : Path
        Folder for the queries, the indexes and peers.json; a run that was cut short goes on there
        with the next system.
    noise, rooms : Path or None
        Folders of noises and of room responses.
    peers : sequence of str
        Of NAMES. One that is not installed is told of and left out.
    commands : mapping of str
        How to call a program, by its name; what is on the PATH by default.
    n_queries : int
        Excerpts of present music, and as many of absent music; each is asked in all cells.
    hold_out : float
        Share of the references that no index gets, and that absent queries are cut from.
    seed : int
    jobs : int or None
        Processes that ingest; as many as there are processors by default.
    model : Path or None
        Weights for astound.
    device : {"auto", "cpu", "cuda"}
        What astound encodes with.
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

    def peer(self, name: str) -> Peer:
        """Make one of the systems."""
        if name == "astound":
            return Astound(model=self.model, device=self.device)
        made = PROGRAMS[name]()
        program = replace(made.program, command=self.commands.get(made.program.name))
        found: Peer = replace(made, program=program)
        return found


def run(config: PeersConfig) -> dict[str, Any]:
    """Compare, write peers.json and return what it holds.

    Returns
    -------
    dict
        With "table", the Markdown tables; "systems" by name; and "left_out", the reason why a
        system was not measured, by name.

    Raises
    ------
    AstoundError
        There is nothing to ask for, or the folder holds queries of other settings.
    """
    known, absent = datasets.hold_out(
        datasets.audio_files(config.references), config.hold_out, config.seed
    )
    audio_s, references = _heard(known)
    queries = _queries(config, references, absent)
    systems: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name in config.peers:
        try:
            systems[name] = _system(config, name, references, queries)
        except AstoundError as error:
            _say(f"left out: {error}")
            left_out[name] = str(error).removeprefix(f"{name}: ")
    results = {
        **provenance(),
        "seed": config.seed,
        "n_references": len(references),
        "n_absent": len(absent),
        "audio_s": audio_s,
        "n_jobs": _n_jobs(config),
        "systems": {name: _summary(one, queries, audio_s) for name, one in systems.items()},
        "left_out": left_out,
    }
    if "astound" in systems:
        ours = Astound(model=config.model, device=config.device)
        results["recipe_id"] = ours.recipe_id(_index(config, "astound"))
    results["table"] = peer_tables.tables(results)
    report.write(config.out / "peers.json", results)
    return results


def _n_jobs(config: PeersConfig) -> int:
    return config.jobs or os.cpu_count() or 1


def _heard(paths: Sequence[Path]) -> tuple[float, list[Path]]:
    """Seconds of audio, and the files that can be decoded: nobody gets others."""
    durations_s = {}
    for path in paths:
        try:
            durations_s[path] = len(decode.read(path, datasets.RATE)) / datasets.RATE
        except AudioError as error:
            log.warning("left out: %s", error)
    return sum(durations_s.values()), list(durations_s)


def _queries(
    config: PeersConfig, present: Sequence[Path], absent: Sequence[Path]
) -> list[QueryFile]:
    sounds = {conditions.NOISE: config.noise, conditions.ROOMS: config.rooms}
    known = [
        place for place in PLACES if all(sounds[kind] is not None for kind in cells.needs(place[0]))
    ]
    draws: dict[str, Any] = {}
    if config.noise is not None:
        draws[conditions.NOISE] = datasets.Recordings(config.noise).draw
    if config.rooms is not None:
        draws[conditions.ROOMS] = datasets.Rooms(config.rooms).draw
    folders = [folder for folder in (config.noise, config.rooms) if folder]
    settings = {
        "seed": config.seed,
        "n_queries": config.n_queries,
        "places": known,
        "present": digest(map(str, present)),
        "absent": digest(map(str, absent)),
        "sounds": digest(map(str, datasets.audio_files(folders))),
    }
    asked_for = {"present": present, "absent": absent}
    n_questions = dict.fromkeys(asked_for, config.n_queries)
    folder = config.out / "queries"
    made = cells.make(known, draws)
    return query_files.written(folder, asked_for, n_questions, made, config.seed, settings)


# -- one system ------------------------------------------------------------------------------


def _system(
    config: PeersConfig, name: str, references: Sequence[Path], queries: Sequence[QueryFile]
) -> dict[str, Any]:
    """Measure a system, or read what an earlier run has measured of the same."""
    peer = config.peer(name)
    about = asdict(peer.about())
    asked = {
        "about": about,
        "n_jobs": _n_jobs(config),
        "references": digest(map(str, references)),
        "queries": digest(str(query.path) for query in queries),
    }
    folder = config.out / name
    former = folder / "measured.json"
    if former.exists():
        found: dict[str, Any] = json.loads(former.read_text())
        if found["asked"] == asked:
            return found
    _say(f"{name}: ingest of {len(references)} recordings")
    shutil.rmtree(folder, ignore_errors=True)
    index = _index(config, name)
    index.mkdir(parents=True)
    _, ingest = measured(_build, peer, references, index, _n_jobs(config))
    n_bytes = sum(file.stat().st_size for file in index.rglob("*") if file.is_file())
    _say(f"{name}: {len(queries)} queries")
    answers, ask = measured(_ask, peer, [query.path for query in queries], index)
    found = {
        "asked": asked,
        "ingest": asdict(ingest),
        "ask": asdict(ask),
        "n_bytes": n_bytes,
        "answers": [_plain(answer) for answer in answers],
    }
    report.write(former, found)
    return found


def _index(config: PeersConfig, name: str) -> Path:
    return config.out / name / "index"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _build(peer: Peer, references: Sequence[Path], folder: Path, n_jobs: int) -> None:
    peer.build(references, folder, n_jobs)


def _ask(peer: Peer, queries: Sequence[Path], folder: Path) -> list[Answer]:
    return list(peer.ask(queries, folder))


def _plain(answer: Answer) -> dict[str, Any]:
    return asdict(answer) | {"reference": answer.reference and str(answer.reference)}


def _read(plain: Mapping[str, Any]) -> Answer:
    reference = plain["reference"]
    return Answer(**{**plain, "reference": None if reference is None else Path(reference)})


def _summary(
    system: Mapping[str, Any], queries: Sequence[QueryFile], audio_s: float
) -> dict[str, Any]:
    answers = [_read(plain) for plain in system["answers"]]
    outcomes = [query.outcome(answer) for query, answer in zip(queries, answers, strict=True)]
    names = dict.fromkeys(one.cell for one in outcomes)
    found = [summarise(name, [o for o in outcomes if o.cell == name]) for name in names]
    return {
        **system["asked"]["about"],
        "ingest_realtime_factor": audio_s / system["ingest"]["wall_s"],
        "ingest_peak_rss_bytes": system["ingest"]["peak_rss_bytes"],
        "ask_peak_rss_bytes": system["ask"]["peak_rss_bytes"],
        "bytes_per_audio_s": system["n_bytes"] / audio_s,
        "latency": _latency(answers, system["ask"]["wall_s"]),
        "cells": [asdict(cell) for cell in found],
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
