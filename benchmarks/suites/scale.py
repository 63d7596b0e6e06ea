"""Costs and recall of a catalog as it grows: real music, padded with synthetic tracks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import astound
from astound.catalog import Catalog
from astound.storage import DATABASE_FILE, local_shards
from benchmarks.metrics import recall
from benchmarks.metrics.exact import ExactIndex
from benchmarks.metrics.outcomes import by_cell, summarise
from benchmarks.metrics.recall import QuerySet
from benchmarks.queries import datasets
from benchmarks.queries.datasets import Sounds
from benchmarks.queries.distractors import Distractors, compare_with_real
from benchmarks.queries.synthetic import SyntheticTracks
from benchmarks.reports import report, scale_page, scale_tables
from benchmarks.runs import catalogs, cold_start
from benchmarks.runs.catalogs import CatalogBuilder
from benchmarks.runs.cold_start import OpenOptions, Storage
from benchmarks.runs.corpus import Corpus
from benchmarks.runs.journal import Journal
from benchmarks.runs.progress import log, track
from benchmarks.runs.provenance import code_id, digest, provenance
from engine.errors import ConfigError
from engine.store.store import Store

JOURNAL = "scale.jsonl"
_N_CLIPS = 50
_FEW = 4
"""A second model of synthetic tracks is fitted to every nth track."""


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """Settings of the benchmark.

    Parameters
    ----------
    references : sequence of Path
        Folders of music to cut queries from, limited to the smallest size.
    distractors_from : Path
        A catalog of other music, to fit synthetic tracks to and to compare them with.
    n_segments : sequence of int
        Sizes of the catalogs.
    noise, rooms : Path
        Folders of noises and of room responses.
    out : Path
        JSON file to write.
    work : Path or None
        Folder for catalogs and finished steps, from which an interrupted run resumes; beside `out`
        by default.
    n_queries : int
        Number of queries per cell and size.
    n_exact : int
        Number of these, per cell, that are also searched exactly.
    seed : int
    storage : {"full", "codes"}
        Storage of vectors in large catalogs.
    model : Path or None
        Weights to encode with; the shipped ones by default.
    device : str
    jobs : int or None
        Number of decoder processes.
    docs : Path or None
        Folder to write the page and its plots to; none by default.
    keep : bool
        Keep the catalogs.
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
        if self.storage not in ("full", "codes"):
            raise ConfigError.invalid("storage", self.storage, "must be one of full, codes")

    @property
    def work_folder(self) -> Path:
        """Folder of the catalogs."""
        return self.work or self.out.with_suffix(".work")

    def open_options(self, folder: Path) -> OpenOptions:
        """Return the arguments to open a catalog."""
        model = None if self.model is None else str(self.model)
        return OpenOptions(folder=str(folder), model=model, device=self.device)

    def open(self, folder: Path) -> Catalog:
        """Open a catalog, or create it."""
        return astound.open(folder, model=self.model, device=self.device)


def run(config: ScaleConfig) -> dict[str, Any]:
    """Run the benchmark, write the results as JSON and return them.

    Raises
    ------
    AstoundError
        There is not enough music, or an earlier run in the same folder had other settings.
    """
    references = config.work_folder / "references"
    with config.open(references) as catalog:
        catalogs.fill(catalog, datasets.audio_files(config.references), config.jobs)
    smallest = min(config.n_segments)
    with Corpus(references, config.distractors_from, smallest, config.seed) as corpus:
        results = _Run(config, corpus).measure()
    results["table"] = scale_tables.cost_table(results)
    results["tables"] = {"found": scale_tables.recall_table(results)}
    report.write(config.out, results)
    if config.docs is not None:
        scale_page.publish(results, config.docs)
    return results


class _Run:
    """A run over a corpus."""

    def __init__(self, config: ScaleConfig, corpus: Corpus) -> None:
        self.config, self.corpus, self.work = config, corpus, config.work_folder
        sounds = Sounds(config.noise, config.rooms)
        self.queries = QuerySet(corpus.paths, sounds, config.n_queries, config.seed)
        self.journal = Journal(self.work / JOURNAL, self._settings(sounds))

    def _settings(self, sounds: Sounds) -> dict[str, Any]:
        """Return everything that results depend on; lists and code as hashes."""
        config, corpus = self.config, self.corpus
        return {
            "seed": config.seed,
            "storage": config.storage,
            "n_queries": config.n_queries,
            "n_exact": config.n_exact,
            "device": config.device,
            "recipe_id": corpus.recipe_id,
            "references": digest(map(str, corpus.paths)),
            "others": [corpus.others.n_tracks, corpus.n_others],
            "sounds": digest(map(str, sounds.paths)),
            "code": code_id(),
        }

    def measure(self) -> dict[str, Any]:
        embeddings = self.corpus.other_embeddings()
        distractors = Distractors.fit(embeddings, self.config.seed)
        few = Distractors.fit(embeddings[::_FEW], self.config.seed)
        with self.config.open(self.work / "references") as catalog:
            queries = self.queries.embeddings(catalog.fingerprinter, catalog.segment_hop_s)
        comparisons = {
            name: [
                asdict(row)
                for row in compare_with_real(queries, embeddings, model, self.config.seed)
            ]
            for name, model in (("all", distractors), ("few", few))
        }
        return {
            **provenance(),
            "seed": self.config.seed,
            "storage": self.config.storage,
            "n_queries": self.config.n_queries,
            "n_exact": self.config.n_exact,
            **self.corpus.about,
            "likeness": comparisons,
            "empty": self._add_to_empty(),
            "sizes": [self._measure(builder) for builder in self._builders(distractors)],
        }

    def _builders(self, distractors: Distractors) -> Iterator[CatalogBuilder]:
        """Yield catalogs: references alone, with real music, with as much synthetic, and larger."""
        corpus = self.corpus
        n_real = corpus.n_references + corpus.n_others
        yield CatalogBuilder(name="references", sources=[corpus.references])
        yield CatalogBuilder(name="real", sources=[corpus.references, corpus.others])
        for n_segments in sorted({n_real, *self.config.n_segments}):
            synthetic = SyntheticTracks.filling(
                n_segments - corpus.n_references,
                distractors,
                corpus.references.settings,
                self.config.seed,
            )
            if synthetic.n_tracks:  # otherwise it equals that of the references
                yield CatalogBuilder(
                    name=f"made-up-{n_segments}", sources=[corpus.references, synthetic]
                )

    def _add_to_empty(self) -> dict[str, Any]:
        """Add music to an empty catalog."""
        folder = self.work / "empty"
        shutil.rmtree(folder, ignore_errors=True)
        with self.config.open(folder) as catalog:
            return self._change(catalog)

    def _change(self, catalog: Catalog) -> dict[str, Any]:
        catalog.fingerprinter  # noqa: B018 - loads it before the measurement
        return catalogs.change(catalog, catalogs.write_more(self.work / "more", self.corpus.paths))

    # -- one size ----------------------------------------------------------------------------

    def _measure(self, builder: CatalogBuilder) -> dict[str, Any]:
        """Run all steps for one catalog that an earlier run has not finished."""
        folder = self.work / f"{builder.name}-catalog"
        done = {
            record["step"]: record["result"]
            for record in self.journal.records
            if record["catalog"] == builder.name
        }
        for step, measure in self._steps(builder, folder).items():
            if step not in done:
                log(f"{builder.name}: {step}")
                done[step] = measure()
                self.journal.append({"catalog": builder.name, "step": step, "result": done[step]})
        if folder.exists() and not self.config.keep:
            shutil.rmtree(folder)
        return {"name": builder.name, **done.pop("size"), **done.pop("query"), **done}

    def _steps(self, builder: CatalogBuilder, folder: Path) -> dict[str, Callable[[], Any]]:
        options = self.config.open_options(folder)
        return {
            "build": lambda: builder.build(folder),
            "compact": lambda: cold_start.compact(options, self.config.storage),
            "size": lambda: catalogs.sizes(folder),
            "query": lambda: cold_start.query(options, self._clips()),
            "cells": lambda: self._with_catalog(folder, self._cells),
            "efforts": lambda: self._with_catalog(folder, self._compare_with_exact),
            "change": lambda: self._with_catalog(folder, self._change),
        }

    def _with_catalog(self, folder: Path, measure: Callable[[Catalog], Any]) -> Any:
        with self.config.open(folder) as catalog:
            return measure(catalog)

    def _clips(self) -> dict[str, list[Path]]:
        return self.queries.write_clips(self.work / "clips", min(self.config.n_queries, _N_CLIPS))

    def _cells(self, catalog: Catalog) -> list[dict[str, Any]]:
        n_queries = self.config.n_queries * len(self.queries.cells)
        outcomes = recall.outcomes(self.queries, catalog, catalogs.track_ids(catalog))
        groups = by_cell(track(outcomes, "queries", n_queries))
        return [
            {"label": cell.label, "duration_s": cell.duration_s}
            | asdict(summarise(cell.name, groups.get(cell.name, [])))
            for cell in self.queries.cells
        ]

    def _compare_with_exact(self, catalog: Catalog) -> list[dict[str, Any]]:
        """Compare with an exact search; if there are lists, with several numbers of probes."""
        folder, track_ids = catalog.folder, catalogs.track_ids(catalog)
        with Store.open(folder / DATABASE_FILE) as store:
            exact = ExactIndex(local_shards(folder), store.placements(), catalog.recipe_id)
        has_lists = set(catalogs.shard_kinds(folder)) != {"flat"}
        n_probes = [None, *(recall.N_PROBES if has_lists else ())]
        n_exact = min(self.config.n_exact, self.config.n_queries)
        rows = recall.compare_with_exact(self.queries, catalog, exact, track_ids, n_exact, n_probes)
        return [asdict(row) for row in rows]
