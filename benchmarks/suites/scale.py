"""What a catalog costs, and finds, as it grows: real music, padded with made-up tracks."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import astound
from astound.catalog import Catalog
from astound.storage import DATABASE_FILE, local_shards
from benchmarks.metrics import recall
from benchmarks.metrics.exact import Exact
from benchmarks.metrics.likeness import likeness
from benchmarks.metrics.outcomes import summarise
from benchmarks.metrics.recall import Quiz
from benchmarks.queries import datasets
from benchmarks.queries.distractors import Distractors
from benchmarks.queries.synthetic import MadeUp
from benchmarks.reports import scale_page, scale_tables
from benchmarks.reports.report import write
from benchmarks.runs import catalogs, cold_start, library
from benchmarks.runs.catalogs import Growth
from benchmarks.runs.cold_start import Opening, Storage
from benchmarks.runs.corpus import Stock
from benchmarks.runs.progress import followed
from benchmarks.runs.provenance import code_id, digest, provenance
from engine.errors import ConfigError
from engine.store.store import Store

_N_CLIPS = 50
_FEW = 4
"""A second density is fitted to one of so many tracks."""


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """What to measure.

    Parameters
    ----------
    references : sequence of Path
        Folders of music that is asked for; as much of it as fits into the smallest size.
    distractors_from : Path
        A catalog of other music: made-up tracks are made like it, and compared with it.
    n_segments : sequence of int
        Sizes of the catalogs.
    noise, rooms : Path
        Folders of noises and of room responses.
    out : Path
        The JSON.
    work : Path or None
        Folder for catalogs and what was measured of each, from which a run that was cut short goes
        on; beside `out` by default.
    n_queries : int
        Per cell and size.
    n_exact : int
        Of these, per cell, those that are searched exactly as well.
    seed : int
    storage : {"full", "compact"}
        How large catalogs keep their vectors.
    model : Path or None
        Weights to encode with; those astound ships by default.
    device : str
    jobs : int or None
        Processes that decode.
    docs : Path or None
        Folder for the page and its plots, written from the JSON; none by default.
    keep : bool
        Leave the catalogs where they are.
    """

    references: Sequence[Path]
    distractors_from: Path
    noise: Path
    rooms: Path
    out: Path
    n_segments: Sequence[int] = (10_000, 100_000, 1_000_000, 10_000_000)
    work: Path | None = None
    n_queries: int = 100
    n_exact: int = 20
    seed: int = 1
    storage: Storage = "full"
    model: Path | None = None
    device: str = "auto"
    jobs: int | None = None
    docs: Path | None = None
    keep: bool = False

    def __post_init__(self) -> None:
        for key in ("n_queries", "n_exact"):
            if (value := getattr(self, key)) < 1:
                raise ConfigError.invalid(key, value, "must be at least 1")
        if not self.n_segments or min(self.n_segments) < 1:
            raise ConfigError.invalid("n_segments", self.n_segments, "must be positive sizes")
        if self.storage not in ("full", "compact"):
            raise ConfigError.invalid("storage", self.storage, "must be one of full, compact")

    @property
    def work_folder(self) -> Path:
        """Where catalogs are made."""
        return self.work or self.out.with_suffix(".work")

    def opening(self, folder: Path) -> Opening:
        """How a catalog is opened."""
        model = None if self.model is None else str(self.model.resolve())
        return Opening(folder=str(folder.resolve()), model=model, device=self.device)

    def open(self, folder: Path) -> Catalog:
        """Open a catalog, made if there is none."""
        return astound.open(folder, model=self.model, device=self.device)


def run(config: ScaleConfig) -> dict[str, Any]:
    """Measure, write the results and return them, as the plain dict of the JSON.

    Raises
    ------
    AstoundError
        The music does not suffice, or a former run in the same folder had other settings.
    """
    references = config.work_folder / "references"
    with config.open(references) as catalog:
        library.fill(catalog, datasets.audio_files(config.references), config.jobs)
    smallest = min(config.n_segments)
    with Stock(references, config.distractors_from, smallest, config.seed) as stock:
        results = _Run(config, stock).measure()
    results["table"] = scale_tables.cost_table(results)
    results["tables"] = {"found": scale_tables.found_table(results)}
    write(config.out, results)
    if config.docs is not None:
        scale_page.publish(results, config.docs)
    return results


class _Run:
    """A measurement over some music."""

    def __init__(self, config: ScaleConfig, stock: Stock) -> None:
        self.config, self.stock, self.work = config, stock, config.work_folder
        noises, rooms = datasets.Recordings(config.noise), datasets.Rooms(config.rooms)
        self.quiz = Quiz(stock.paths, noises, rooms, config.n_queries, config.seed)
        _require_same(self.work / "settings.json", self._settings([*noises.paths, *rooms.paths]))

    def _settings(self, sounds: Sequence[Path]) -> dict[str, Any]:
        """Collect all that results depend on; lists and code as hashes."""
        config, stock = self.config, self.stock
        return {
            "seed": config.seed,
            "storage": config.storage,
            "n_queries": config.n_queries,
            "n_exact": config.n_exact,
            "device": config.device,
            "recipe_id": stock.recipe_id,
            "references": digest(map(str, stock.paths)),
            "others": [stock.others.n_tracks, stock.n_others],
            "sounds": digest(map(str, sounds)),
            "code": code_id(),
        }

    def measure(self) -> dict[str, Any]:
        embeddings = self.stock.other_embeddings()
        distractors = Distractors.fit(embeddings, self.config.seed)
        few = Distractors.fit(embeddings[::_FEW], self.config.seed)
        with self.config.open(self.work / "references") as catalog:
            heard = self.quiz.embeddings(catalog.fingerprinter, catalog.segment_hop_s)
        compared = {
            name: [asdict(row) for row in likeness(heard, embeddings, one, self.config.seed)]
            for name, one in (("all", distractors), ("few", few))
        }
        return {
            **provenance(),
            "seed": self.config.seed,
            "storage": self.config.storage,
            "n_queries": self.config.n_queries,
            "n_exact": self.config.n_exact,
            **self.stock.about,
            "likeness": compared,
            "empty": self._empty(),
            "sizes": [self._measured(growth) for growth in self._growths(distractors)],
        }

    def _growths(self, distractors: Distractors) -> Iterator[Growth]:
        """Name catalogs: of references alone, with real music, with as much made up, and so on."""
        stock = self.stock
        n_real = stock.n_references + stock.n_others
        yield Growth(name="references", sources=[stock.references])
        yield Growth(name="real", sources=[stock.references, stock.others])
        for n_segments in sorted({n_real, *self.config.n_segments}):
            made_up = MadeUp.filling(
                n_segments - stock.n_references,
                distractors,
                stock.references.settings,
                self.config.seed,
            )
            if made_up.n_tracks:  # or else it would be that of the references again
                yield Growth(name=f"made-up-{n_segments}", sources=[stock.references, made_up])

    def _empty(self) -> dict[str, Any]:
        """Add music to an empty catalog."""
        folder = self.work / "empty"
        shutil.rmtree(folder, ignore_errors=True)
        with self.config.open(folder) as catalog:
            return self._change(catalog)

    def _change(self, catalog: Catalog) -> dict[str, Any]:
        catalog.fingerprinter  # noqa: B018 - loading it is no part of adding
        return catalogs.change(catalog, catalogs.write_more(self.work / "more", self.stock.paths))

    # -- one size ----------------------------------------------------------------------------

    def _measured(self, grown: Growth) -> dict[str, Any]:
        """Measure a catalog step by step, but for the steps that a former run has done."""
        noted, folder = self.work / f"{grown.name}.json", self.work / f"{grown.name}-catalog"
        done: dict[str, Any] = json.loads(noted.read_text()) if noted.exists() else {}
        for step, measure in self._steps(grown, folder).items():
            if step not in done:
                print(f"{grown.name}: {step}", file=sys.stderr, flush=True)
                done[step] = measure()
                write(noted, done)
        if folder.exists() and not self.config.keep:
            shutil.rmtree(folder)
        return {"name": grown.name, **done.pop("size"), **done.pop("ask"), **done}

    def _steps(self, grown: Growth, folder: Path) -> dict[str, Callable[[], Any]]:
        opening = self.config.opening(folder)
        return {
            "build": lambda: grown.build(folder),
            "compact": lambda: cold_start.compact(opening, self.config.storage),
            "size": lambda: catalogs.sizes(folder),
            "ask": lambda: cold_start.ask(opening, self._clips()),
            "cells": lambda: self._with(folder, self._cells),
            "efforts": lambda: self._with(folder, self._efforts),
            "change": lambda: self._with(folder, self._change),
        }

    def _with(self, folder: Path, measure: Callable[[Catalog], Any]) -> Any:
        with self.config.open(folder) as catalog:
            return measure(catalog)

    def _clips(self) -> dict[str, list[Path]]:
        return self.quiz.write_clips(self.work / "clips", min(self.config.n_queries, _N_CLIPS))

    def _cells(self, catalog: Catalog) -> list[dict[str, Any]]:
        asked = recall.outcomes(self.quiz, catalog, library.track_ids(catalog))
        n_asked = self.config.n_queries * len(self.quiz.cells)
        outcomes = list(followed(asked, "queries", n_asked))
        return [
            {"label": cell.label, "duration_s": cell.duration_s}
            | asdict(summarise(cell.name, [o for o in outcomes if o.cell == cell.name]))
            for cell in self.quiz.cells
        ]

    def _efforts(self, catalog: Catalog) -> list[dict[str, Any]]:
        """Compare with an exact search; with more and fewer lists too, where there are lists."""
        folder, track_ids = catalog.folder, library.track_ids(catalog)
        with Store.open(folder / DATABASE_FILE) as store:
            exact = Exact(local_shards(folder), store.placements(), catalog.recipe_id)
        has_lists = set(catalogs.shard_kinds(folder)) != {"flat"}
        n_probes = [None, *(recall.N_PROBES if has_lists else ())]
        n_exact = min(self.config.n_exact, self.config.n_queries)
        rows = recall.efforts(self.quiz, catalog, exact, track_ids, n_exact, n_probes)
        return [asdict(row) for row in rows]


def _require_same(noted: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to go on with what other settings have begun."""
    if not noted.exists():
        write(noted, settings)
    found = json.loads(noted.read_text())
    if differing := [key for key in settings if found.get(key) != settings[key]]:
        raise ConfigError(
            "work",
            f"{noted.parent} was begun with another {', '.join(differing)}; "
            "delete it to begin anew, or work elsewhere",
        )
