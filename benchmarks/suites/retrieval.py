"""Accuracy: distorted queries of known music, and queries of unknown music."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import astound
from astound.catalog import Catalog
from benchmarks.metrics.open_set import open_set
from benchmarks.metrics.outcomes import Outcome, by_cell, calibration, summarise
from benchmarks.metrics.recall import answer
from benchmarks.queries import datasets
from benchmarks.queries.conditions import (
    CellKey,
    SoundSources,
    cell_name,
    make_cells,
    parse_cells,
    required_sounds,
)
from benchmarks.queries.datasets import Sounds
from benchmarks.queries.questions import Question, remaining_questions
from benchmarks.reports import report, retrieval_pages
from benchmarks.runs import catalogs
from benchmarks.runs.journal import Journal, collect_outcomes
from benchmarks.runs.provenance import code_id, digest, provenance
from benchmarks.runs.workers import map_in_order
from engine.config import SearchConfig
from engine.errors import ConfigError

RESULTS, JOURNAL = "results.json", "queries.jsonl"

_MODULES = (
    "queries/conditions", "queries/datasets", "queries/degrade", "queries/questions",
    "metrics/outcomes", "metrics/recall", "suites/retrieval",
)  # fmt: skip
"""Modules of the benchmarks that outcomes depend on."""


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """Settings of the benchmark.

    Parameters
    ----------
    references, distractors : sequence of Path
        Folders that the catalog gets. Queries are cut from references only.
    out : Path
        Folder for results.json, report.md, report.html, and queries.jsonl with all outcomes, from
        which an interrupted run resumes.
    absent : sequence of Path
        Folders of music that the catalog must not contain.
    hold_out : float
        Fraction of the references to keep out of the catalog, and to use as absent music.
    noise, rooms : Path or None
        Folders of noises and of room responses. Without them, cells that need them are left out.
    catalog : Path or None
        Folder to open or create the catalog in; inside `out` by default.
    distortions : str
    durations_s : sequence of float
        See :func:`benchmarks.queries.conditions.parse_cells`.
    n_queries : int
        Queries of present music per cell.
    n_absent : int or None
        Queries of absent music per cell; `n_queries` by default.
    seed : int
    query_hop_s : float
        Seconds between the segments of a query.
    model : Path or None
        Weights to encode with; the shipped ones by default.
    device : str
    jobs : int or None
        Number of decoder processes.
    processes : int
        Number of processes that run queries. Answers do not depend on it.
    """

    references: Sequence[Path]
    out: Path
    absent: Sequence[Path] = ()
    hold_out: float = 0.0
    distractors: Sequence[Path] = ()
    noise: Path | None = None
    rooms: Path | None = None
    catalog: Path | None = None
    distortions: str = "issue"
    durations_s: Sequence[float] = ()
    n_queries: int = 100
    n_absent: int | None = None
    seed: int = 1
    query_hop_s: float = SearchConfig.query_hop_s
    model: Path | None = None
    device: str = "auto"
    jobs: int | None = None
    processes: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.hold_out < 1:
            raise ConfigError.invalid("hold_out", self.hold_out, "must be in [0, 1)")
        for key in ("n_queries", "processes"):
            if (value := getattr(self, key)) < 1:
                raise ConfigError.invalid(key, value, "must be at least 1")
        if self.n_absent is not None and self.n_absent < 0:
            raise ConfigError.invalid("n_absent", self.n_absent, "must be 0 or more")
        self.search, self.cells  # noqa: B018 - validate them

    @property
    def n_questions(self) -> dict[str, int]:
        """Number of excerpts of present and of absent music."""
        n_absent = self.n_queries if self.n_absent is None else self.n_absent
        return {"present": self.n_queries, "absent": n_absent}

    @property
    def search(self) -> SearchConfig:
        """Search settings of the queries."""
        return SearchConfig(query_hop_s=self.query_hop_s)

    @property
    def cells(self) -> list[CellKey]:
        """Cells to measure, without those that need missing sounds."""
        keys = parse_cells(self.distortions, self.durations_s)
        found = [key for key in keys if not self.missing(key[0])]
        if not found:
            needed = " and ".join(f"--{option}" for option in self.missing(keys[0][0]))
            raise ConfigError.invalid("distortions", self.distortions, f"needs {needed}")
        return found

    @property
    def left_out(self) -> dict[str, list[str]]:
        """Labels that cannot be made, with the options they need."""
        keys = parse_cells(self.distortions, self.durations_s)
        return {label: options for label, _ in keys if (options := self.missing(label))}

    def missing(self, label: str) -> list[str]:
        """Return the options that a label needs and that are not given."""
        return [option for option in required_sounds(label) if getattr(self, option) is None]

    def open(self, *, create: bool) -> Catalog:
        """Open the catalog."""
        folder = self.catalog or self.out / "catalog"
        return astound.open(folder, create=create, model=self.model, device=self.device)


def run(config: RetrievalConfig) -> dict[str, Any]:
    """Run the benchmark and write its results.

    Returns
    -------
    dict
        Content of results.json.

    Raises
    ------
    AstoundError
        The catalog contains music that should be absent, a folder has no usable audio, or an
        earlier run in `config.out` had other settings.
    """
    results, outcomes = collect(config)
    results |= measure(config.cells, outcomes, results["min_confidence"], config.seed)
    report.write(config.out / RESULTS, results)
    (config.out / "report.md").write_text(retrieval_pages.markdown(results))
    (config.out / "report.html").write_text(retrieval_pages.html(results))
    return results


def collect(config: RetrievalConfig) -> tuple[dict[str, Any], list[Outcome]]:
    """Run all queries that an earlier run has not finished.

    Returns
    -------
    about : dict
        Provenance of the outcomes, for JSON.
    outcomes : list of Outcome
    """
    known, held_out = datasets.hold_out(
        datasets.audio_files(config.references), config.hold_out, config.seed
    )
    absent = [*held_out, *datasets.audio_files(config.absent)]
    sounds = Sounds(config.noise, config.rooms)
    with config.open(create=True) as catalog:
        catalogs.fill(catalog, [*known, *datasets.audio_files(config.distractors)], config.jobs)
        track_ids = catalogs.track_ids(catalog)
        _require_absent(absent, track_ids)
        paths = {"present": [path for path in known if path in track_ids], "absent": absent}
        about = _about(config, catalog, paths, sounds)
        settings = _settings(config, catalog, paths, sounds)
    cells = make_cells(config.cells, sounds.sources)
    journal = Journal(config.out / JOURNAL, settings, len(cells))
    n_done = Counter(
        "present" if record["present"] else "absent" for record in journal.records[:: len(cells)]
    )
    questions = remaining_questions(paths, config.n_questions, cells, config.seed, n_done)
    arguments = config, sounds.sources, track_ids
    answers = map_in_order(_Worker, arguments, questions, config.processes)
    n_all = sum(n for kind, n in config.n_questions.items() if paths[kind])
    return about, collect_outcomes(journal, answers, "questions", n_all)


def _require_absent(absent: Iterable[Path], track_ids: Mapping[Path, int]) -> None:
    known = [path.name for path in absent if path in track_ids]
    if known:
        raise ConfigError(
            "absent",
            f"the catalog contains {len(known)} of these, such as {known[0]}; use another catalog",
        )


class _Worker:
    """Queries the catalog with a question in all cells."""

    def __init__(
        self, config: RetrievalConfig, sources: SoundSources, track_ids: Mapping[Path, int]
    ) -> None:
        self.config, self.track_ids = config, track_ids
        self.cells = make_cells(config.cells, sources)
        self.catalog = config.open(create=False)

    def __call__(self, question: Question) -> list[Outcome]:
        true_id = self.track_ids.get(question.excerpt.cut.path)
        seed, search = self.config.seed, self.config.search
        return [answer(self.catalog, question, cell, seed, true_id, search) for cell in self.cells]


# -- provenance ------------------------------------------------------------------------------


def _settings(
    config: RetrievalConfig,
    catalog: Catalog,
    paths: Mapping[str, Sequence[Path]],
    sounds: Sounds,
) -> dict[str, Any]:
    """Return everything that outcomes depend on; lists and code as hashes."""
    calibration = catalog.calibration
    tracks = [f"{track.id} {track.path} {track.content_hash}" for track in catalog.tracks()]
    return {
        "seed": config.seed,
        "n_questions": config.n_questions,
        "cells": config.cells,
        "query_hop_s": config.query_hop_s,
        "device": config.device,
        "recipe_id": catalog.recipe_id,
        "calibration": [*calibration.weights, calibration.min_confidence],
        "tracks": digest(tracks),
        "asked_for": digest(str(path) for files in paths.values() for path in files),
        "sounds": digest(map(str, sounds.paths)),
        "code": code_id(_MODULES),
    }


def _about(
    config: RetrievalConfig,
    catalog: Catalog,
    paths: Mapping[str, Sequence[Path]],
    sounds: Sounds,
) -> dict[str, Any]:
    rooms = sounds.rooms
    return {
        **provenance(),
        "seed": config.seed,
        "query_hop_s": config.query_hop_s,
        "min_confidence": catalog.min_confidence,
        **catalogs.describe(catalog),
        "n_tracks_asked_for": {kind: len(files) for kind, files in paths.items()},
        "rooms": rooms
        and {"n_used": len(rooms.responses), "refused": [p.name for p in rooms.refused]},
        "left_out": config.left_out,
    }


# -- results ---------------------------------------------------------------------------------


def measure(
    keys: Sequence[CellKey], outcomes: Sequence[Outcome], min_confidence: float, seed: int = 0
) -> dict[str, Any]:
    """Compute the metrics of every cell and of all cells together, as plain values for JSON.

    Parameters
    ----------
    keys : sequence of CellKey
        The cells, in the order of the tables.
    outcomes : sequence of Outcome
    min_confidence : float
        The default threshold.
    seed : int
        Seed of the bootstrap.
    """
    groups = by_cell(outcomes)
    cells = {key: summarise(name := cell_name(key), groups.get(name, []), seed) for key in keys}
    thresholds = open_set(outcomes, min_confidence, seed)
    return {
        "cells": [
            {"label": label, "duration_s": duration_s, **asdict(cell)}
            for (label, duration_s), cell in cells.items()
        ],
        "all": asdict(summarise("all", outcomes, seed)),
        "open_set": thresholds and asdict(thresholds),
        "calibration": asdict(calibration(outcomes)),
        "table": report.accuracy_table(list(cells.values())),
        "tables": {
            "hits": report.hits_table(cells),
            "acceptance": report.acceptance_table(cells),
        },
    }
