"""How often the answer is right: known music, distorted and asked for; unknown music, asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import astound
from astound.catalog import Catalog
from benchmarks import cells, datasets, distort, library, metrics, report
from benchmarks.cells import Cell
from benchmarks.journal import Journal
from benchmarks.metrics import Outcome
from benchmarks.provenance import code_id, digest, provenance
from benchmarks.questions import Question, questions
from benchmarks.workers import in_order
from engine.config import SearchConfig
from engine.errors import AudioError, ConfigError

_MAX_MATCHES = 5


@dataclass(frozen=True, kw_only=True)
class AccuracyConfig:
    """What to measure.

    Parameters
    ----------
    references, distractors : sequence of Path
        Folders the catalog gets; queries are cut from references only.
    absent : sequence of Path
        Folders of music the catalog must not know.
    hold_out : float
        Share of the references that is left out of the catalog and asked for as absent music.
    noise, rooms : Path
        Folders of noises and of room responses.
    catalog : Path
        Where to open or create the catalog.
    n_queries : int
        Of present music, per cell.
    n_absent : int or None
        Of absent music, per cell; as many by default.
    seed : int
    cells : {"quick", "issue", "full", "encoder"}
    query_hop_s : float
        Distance of a query's segments.
    out : Path
        The JSON; every query's line goes to a file beside it that ends in .jsonl, from which a
        run that was cut short goes on.
    model : Path or None
        Weights to encode with; those astound ships by default.
    device : str
    jobs : int or None
        Processes that decode what the catalog gets.
    processes : int
        Processes that ask. The answers do not depend on their number.
    """

    references: Sequence[Path]
    noise: Path
    rooms: Path
    catalog: Path
    out: Path
    distractors: Sequence[Path] = ()
    absent: Sequence[Path] = ()
    hold_out: float = 0.0
    n_queries: int = 100
    n_absent: int | None = None
    seed: int = 1
    cells: str = "issue"
    query_hop_s: float = SearchConfig.query_hop_s
    model: Path | None = None
    device: str = "auto"
    jobs: int | None = None
    processes: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.hold_out < 1:
            raise ConfigError("hold_out", f"{self.hold_out} does not work; 0 <= hold_out < 1")
        for key in ("n_queries", "processes"):
            if (value := getattr(self, key)) < 1:
                raise ConfigError(key, f"{value} does not work; at least 1 is needed")
        if self.n_absent is not None and self.n_absent < 0:
            raise ConfigError("n_absent", f"{self.n_absent} does not work; 0 or more is needed")
        self.search  # noqa: B018 - it refuses hops that cannot work

    @property
    def n_questions(self) -> dict[str, int]:
        """How many excerpts are asked for, of present and of absent music."""
        n_absent = self.n_queries if self.n_absent is None else self.n_absent
        return {"present": self.n_queries, "absent": n_absent}

    @property
    def search(self) -> SearchConfig:
        """How queries are searched."""
        return SearchConfig(query_hop_s=self.query_hop_s)

    def open(self, *, create: bool) -> Catalog:
        """Open the catalog."""
        return astound.open(self.catalog, create=create, model=self.model, device=self.device)


def run(config: AccuracyConfig) -> dict[str, Any]:
    """Measure, write the results and return them.

    Returns
    -------
    dict
        What the JSON holds.

    Raises
    ------
    AstoundError
        The catalog knows music that should be absent, a folder has no audio to work with, or what
        a former run has left beside `config.out` was measured with other settings.
    """
    known, held_out = datasets.hold_out(
        datasets.audio_files(config.references), config.hold_out, config.seed
    )
    absent = [*held_out, *datasets.audio_files(config.absent)]
    noises, rooms = datasets.Recordings(config.noise), datasets.Rooms(config.rooms)
    wanted = cells.choose(config.cells, distort.chains(noises.draw, rooms.draw))
    with config.open(create=True) as catalog:
        library.fill(catalog, [*known, *datasets.audio_files(config.distractors)], config.jobs)
        track_ids = library.track_ids(catalog)
        _refuse_known(absent, track_ids)
        asked_for = {"present": [path for path in known if path in track_ids], "absent": absent}
        about = _about(config, catalog, asked_for, rooms)
        settings = _settings(config, catalog, asked_for, [*noises.paths, *rooms.paths])
    journal = Journal(config.out.with_suffix(".jsonl"), settings, len(wanted))
    asked = _asked(config, asked_for, wanted, journal.outcomes)
    make = config, noises, rooms, track_ids
    for answered in journal.note(in_order(_Asker, make, asked, config.processes)):
        print(f"\r{answered[0].query_id}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    results = about | _measured(wanted, journal.outcomes)
    report.write(config.out, results)
    return results


def _refuse_known(absent: Iterable[Path], track_ids: Mapping[Path, int]) -> None:
    known = [path.name for path in absent if path in track_ids]
    if known:
        raise ConfigError(
            "absent",
            f"the catalog knows {len(known)} of these, {known[0]} for one; use another catalog",
        )


# -- queries ---------------------------------------------------------------------------------


def _asked(
    config: AccuracyConfig,
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
        self,
        config: AccuracyConfig,
        noises: datasets.Recordings,
        rooms: datasets.Rooms,
        track_ids: Mapping[Path, int],
    ) -> None:
        self.config, self.track_ids = config, track_ids
        self.cells = cells.choose(config.cells, distort.chains(noises.draw, rooms.draw))
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
        return metrics.outcome(
            asked, result, self.track_ids.get(cut.path), self.catalog.min_confidence
        )


# -- results ---------------------------------------------------------------------------------


def _settings(
    config: AccuracyConfig,
    catalog: Catalog,
    asked_for: Mapping[str, Sequence[Path]],
    sounds: Sequence[Path],
) -> dict[str, Any]:
    """Collect all that outcomes depend on; lists and code as hashes."""
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
        "asked_for": digest(str(path) for paths in asked_for.values() for path in paths),
        "sounds": digest(map(str, sounds)),
        "code": code_id(),
    }


def _about(
    config: AccuracyConfig,
    catalog: Catalog,
    asked_for: Mapping[str, Sequence[Path]],
    rooms: datasets.Rooms,
) -> dict[str, Any]:
    return {
        **provenance(),
        "seed": config.seed,
        "query_hop_s": config.query_hop_s,
        "min_confidence": catalog.min_confidence,
        **library.describe(catalog),
        "n_tracks_asked_for": {kind: len(paths) for kind, paths in asked_for.items()},
        "rooms": {"n_used": len(rooms.responses), "refused": [p.name for p in rooms.refused]},
    }


def _measured(wanted: Sequence[Cell], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    rows = [
        metrics.summarise(cell.name, [o for o in outcomes if o.cell == cell.name])
        for cell in wanted
    ]
    places = {(cell.label, cell.duration_s): row for cell, row in zip(wanted, rows, strict=True)}
    return {
        "cells": [asdict(row) for row in rows],
        "all": asdict(metrics.summarise("all", outcomes)),
        "calibration": asdict(metrics.calibration(outcomes)),
        "table": report.accuracy_table(rows),
        "tables": {
            "hits": report.hits_table(places),
            "acceptance": report.acceptance_table(places),
        },
    }
