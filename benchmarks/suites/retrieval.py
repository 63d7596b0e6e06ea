"""How often the answer is right: known music, distorted and asked for; unknown music, asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import astound
from astound.catalog import Catalog
from benchmarks.metrics.open_set import open_set
from benchmarks.metrics.outcomes import Outcome, calibration, outcome, summarise
from benchmarks.queries import cells, conditions, datasets
from benchmarks.queries.cells import Cell, Place
from benchmarks.queries.questions import Question, questions
from benchmarks.reports import page, report
from benchmarks.runs import library, progress
from benchmarks.runs.journal import Journal
from benchmarks.runs.provenance import code_id, digest, provenance
from benchmarks.runs.workers import in_order
from engine.config import SearchConfig
from engine.errors import AudioError, ConfigError

RESULTS, JOURNAL = "results.json", "queries.jsonl"

_MAX_MATCHES = 5
_MODULES = (
    "queries/cells", "queries/conditions", "queries/datasets", "queries/degrade",
    "queries/questions", "metrics/outcomes", "suites/retrieval",
)  # fmt: skip
"""Modules of the benchmarks that outcomes depend on."""


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """What to measure.

    Parameters
    ----------
    references, distractors : sequence of Path
        Folders the catalog gets; queries are cut from references only.
    out : Path
        Folder for results.json, report.md, report.html and queries.jsonl, the line of every query,
        from which a run that was cut short goes on.
    absent : sequence of Path
        Folders of music the catalog must not know.
    hold_out : float
        Share of the references that is left out of the catalog and asked for as absent music.
    noise, rooms : Path or None
        Folders of noises and of room responses; what needs them is left out without.
    catalog : Path or None
        Where to open or create the catalog; inside of `out` by default.
    distortions : str
    durations_s : sequence of float
        As :func:`benchmarks.queries.cells.places` takes them.
    n_queries : int
        Of present music, per cell.
    n_absent : int or None
        Of absent music, per cell; as many by default.
    seed : int
    query_hop_s : float
        Distance of a query's segments.
    model : Path or None
        Weights to encode with; those astound ships by default.
    device : str
    jobs : int or None
        Processes that decode what the catalog gets.
    processes : int
        Processes that ask. The answers do not depend on their number.
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
        self.search, self.places  # noqa: B018 - they refuse what cannot work

    @property
    def n_questions(self) -> dict[str, int]:
        """How many excerpts are asked for, of present and of absent music."""
        n_absent = self.n_queries if self.n_absent is None else self.n_absent
        return {"present": self.n_queries, "absent": n_absent}

    @property
    def search(self) -> SearchConfig:
        """How queries are searched."""
        return SearchConfig(query_hop_s=self.query_hop_s)

    @property
    def places(self) -> list[Place]:
        """What is asked for, at which lengths, where there are sounds to make it with."""
        asked = cells.places(self.distortions, self.durations_s)
        found = [place for place in asked if not self.missing(place[0])]
        if not found:
            options = " and ".join(f"--{one}" for one in self.missing(asked[0][0]))
            raise ConfigError.invalid("distortions", self.distortions, f"needs {options}")
        return found

    @property
    def left_out(self) -> dict[str, list[str]]:
        """Labels that are asked for and cannot be made, with the options they lack."""
        asked = cells.places(self.distortions, self.durations_s)
        return {label: lacks for label, _ in asked if (lacks := self.missing(label))}

    def missing(self, label: str) -> list[str]:
        """Name the sounds that a cell needs and that are not there."""
        return [one for one in cells.needs(label) if getattr(self, one) is None]

    def open(self, *, create: bool) -> Catalog:
        """Open the catalog."""
        folder = self.catalog or self.out / "catalog"
        return astound.open(folder, create=create, model=self.model, device=self.device)


def run(config: RetrievalConfig) -> dict[str, Any]:
    """Measure, write the results and return them.

    Returns
    -------
    dict
        What results.json holds.

    Raises
    ------
    AstoundError
        The catalog knows music that should be absent, a folder has no audio to work with, or what
        a former run has left in `config.out` was measured with other settings.
    """
    results, outcomes = asked(config)
    results |= measured(config.places, outcomes, results["min_confidence"], config.seed)
    report.write(config.out / RESULTS, results)
    (config.out / "report.md").write_text(report.markdown(results))
    (config.out / "report.html").write_text(page.html(results))
    return results


def asked(config: RetrievalConfig) -> tuple[dict[str, Any], list[Outcome]]:
    """Ask everything that a former run has not, and describe what was asked.

    Returns
    -------
    about : dict
        Where the outcomes come from, for JSON.
    outcomes : list of Outcome
    """
    known, held_out = datasets.hold_out(
        datasets.audio_files(config.references), config.hold_out, config.seed
    )
    absent = [*held_out, *datasets.audio_files(config.absent)]
    sounds = _Sounds(config)
    wanted = cells.make(config.places, sounds.draws)
    with config.open(create=True) as catalog:
        library.fill(catalog, [*known, *datasets.audio_files(config.distractors)], config.jobs)
        track_ids = library.track_ids(catalog)
        _refuse_known(absent, track_ids)
        asked_for = {"present": [path for path in known if path in track_ids], "absent": absent}
        about = _about(config, catalog, asked_for, sounds)
        settings = _settings(config, catalog, asked_for, sounds)
    journal = Journal(config.out / JOURNAL, settings, len(wanted))
    rest = _questions(config, asked_for, wanted, journal.outcomes)
    answers = in_order(_Asker, (config, sounds.draws, track_ids), rest, config.processes)
    n_all = sum(n for kind, n in config.n_questions.items() if asked_for[kind])
    n_before = len(journal.outcomes) // len(wanted)
    for _ in progress.followed(journal.note(answers), "questions", n_all, n_before):
        pass
    return about, journal.outcomes


class _Sounds:
    """The noises and rooms there are."""

    def __init__(self, config: RetrievalConfig) -> None:
        noises = None if config.noise is None else datasets.Recordings(config.noise)
        self.rooms = None if config.rooms is None else datasets.Rooms(config.rooms)
        there = {conditions.NOISE: noises, conditions.ROOMS: self.rooms}
        self.draws = {name: one.draw for name, one in there.items() if one is not None}
        self.paths = [path for one in there.values() if one is not None for path in one.paths]


def _refuse_known(absent: Iterable[Path], track_ids: Mapping[Path, int]) -> None:
    known = [path.name for path in absent if path in track_ids]
    if known:
        raise ConfigError(
            "absent",
            f"the catalog knows {len(known)} of these, {known[0]} for one; use another catalog",
        )


# -- queries ---------------------------------------------------------------------------------


def _questions(
    config: RetrievalConfig,
    asked_for: Mapping[str, Sequence[Path]],
    wanted: Sequence[Cell],
    former: Sequence[Outcome],
) -> Iterator[Question]:
    """Give all questions that have no outcomes yet, present music first."""
    for kind, n_questions in config.n_questions.items():
        n_known = len({o.query_id for o in former if o.present == (kind == "present")})
        if n_known < n_questions and (kind == "present" or asked_for[kind]):
            all_of_it = questions(kind, asked_for[kind], n_questions, wanted, config.seed)
            yield from islice(all_of_it, n_known, None)


class _Asker:
    """Asks a question in all cells."""

    def __init__(
        self, config: RetrievalConfig, draws: conditions.Draws, track_ids: Mapping[Path, int]
    ) -> None:
        self.config, self.track_ids = config, track_ids
        self.cells = cells.make(config.places, draws)
        self.catalog = config.open(create=False)

    def __call__(self, question: Question) -> list[Outcome]:
        return [self._ask(question, cell) for cell in self.cells]

    def _ask(self, question: Question, cell: Cell) -> Outcome:
        cut = question.excerpt.cut
        asked = Outcome(
            query_id=question.query_id,
            cell=cell.name,
            present=question.kind == "present",
            true_track=cut.path.name,
            true_start_s=cut.start_s,
        )
        try:
            result = self.catalog.query(
                question.waveform(cell, self.config.seed),
                sample_rate=datasets.RATE,
                max_matches=_MAX_MATCHES,
                min_confidence=0.0,
                search=self.config.search,
            )
        except AudioError as error:
            return replace(asked, error=str(error))
        return outcome(asked, result, self.track_ids.get(cut.path), self.catalog.min_confidence)


# -- where the outcomes come from ------------------------------------------------------------


def _settings(
    config: RetrievalConfig,
    catalog: Catalog,
    asked_for: Mapping[str, Sequence[Path]],
    sounds: _Sounds,
) -> dict[str, Any]:
    """Collect all that outcomes depend on; lists and code as hashes."""
    calibration = catalog.calibration
    tracks = [f"{track.id} {track.path} {track.content_hash}" for track in catalog.tracks()]
    return {
        "seed": config.seed,
        "n_questions": config.n_questions,
        "cells": config.places,
        "query_hop_s": config.query_hop_s,
        "device": config.device,
        "recipe_id": catalog.recipe_id,
        "calibration": [*calibration.weights, calibration.min_confidence],
        "tracks": digest(tracks),
        "asked_for": digest(str(path) for paths in asked_for.values() for path in paths),
        "sounds": digest(map(str, sounds.paths)),
        "code": code_id(_MODULES),
    }


def _about(
    config: RetrievalConfig,
    catalog: Catalog,
    asked_for: Mapping[str, Sequence[Path]],
    sounds: _Sounds,
) -> dict[str, Any]:
    rooms = sounds.rooms
    return {
        **provenance(),
        "seed": config.seed,
        "query_hop_s": config.query_hop_s,
        "min_confidence": catalog.min_confidence,
        **library.describe(catalog),
        "n_tracks_asked_for": {kind: len(paths) for kind, paths in asked_for.items()},
        "rooms": rooms
        and {"n_used": len(rooms.responses), "refused": [p.name for p in rooms.refused]},
        "left_out": config.left_out,
    }


# -- results ---------------------------------------------------------------------------------


def measured(
    places: Sequence[Place], outcomes: Sequence[Outcome], min_confidence: float, seed: int = 0
) -> dict[str, Any]:
    """Measure every cell, and all of them together.

    Parameters
    ----------
    places : sequence of (label, duration_s)
        The cells, in the order of the tables.
    outcomes : sequence of Outcome
    min_confidence : float
        The default threshold.
    seed : int
        Of the intervals.
    """
    rows = {place: summarise(*_cell(place, outcomes), seed) for place in places}
    thresholds = open_set(outcomes, min_confidence, seed)
    return {
        "cells": [
            {"label": label, "duration_s": duration_s, **asdict(row)}
            for (label, duration_s), row in rows.items()
        ],
        "all": asdict(summarise("all", outcomes, seed)),
        "open_set": thresholds and asdict(thresholds),
        "calibration": asdict(calibration(outcomes)),
        "table": report.accuracy_table(list(rows.values())),
        "tables": {
            "hits": report.hits_table(rows),
            "acceptance": report.acceptance_table(rows),
        },
    }


def _cell(place: Place, outcomes: Sequence[Outcome]) -> tuple[str, list[Outcome]]:
    label, duration_s = place
    name = f"{label} {duration_s:g} s"
    return name, [outcome for outcome in outcomes if outcome.cell == name]
