"""Accuracy of clip-level embeddings alone: all tracks ranked by one cosine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

import astound
from benchmarks.metrics.outcomes import Share, share
from benchmarks.queries import datasets
from benchmarks.queries.conditions import CELL_SETS, make_cells
from benchmarks.queries.datasets import Sounds, Waveform
from benchmarks.queries.questions import fingerprint, questions
from benchmarks.reports import report
from benchmarks.runs import catalogs
from benchmarks.runs.progress import track
from benchmarks.runs.provenance import provenance
from engine.compare.similar import ClipIndex
from engine.errors import AudioError, ConfigError
from engine.protocol import AudioFingerprinter
from engine.recipe import ClipConfig

TOP = (1, 5, 20, 100)
"""Ranks within which right tracks are counted."""


@dataclass(frozen=True, kw_only=True)
class ClipsConfig:
    """Settings of the benchmark.

    Parameters
    ----------
    references, distractors : sequence of Path
        Folders that the catalog gets. Queries are cut from references only.
    noise, rooms : Path
        Folders of noises and of room responses.
    catalog : Path
        Folder to open or create the catalog in.
    out : Path
        JSON file to write.
    n_queries : int
        Number of queries per cell.
    seed : int
    model : Path or None
        Weights to encode with; the shipped ones by default.
    device : str
    jobs : int or None
        Number of decoder processes.
    """

    references: Sequence[Path]
    noise: Path
    rooms: Path
    catalog: Path
    out: Path
    distractors: Sequence[Path] = ()
    n_queries: int = 100
    seed: int = 1
    model: Path | None = None
    device: str = "auto"
    jobs: int | None = None

    def __post_init__(self) -> None:
        if self.n_queries < 1:
            raise ConfigError.invalid("n_queries", self.n_queries, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Rank of the true track among all tracks.

    Parameters
    ----------
    rank : int or None
        From 1; the true track is last of those with equal cosines. None without an embedding.
    right_cosine, wrong_cosine : float or None
        Cosine of the true track, and of the best other one; None if there is none.
    """

    rank: int | None
    right_cosine: float | None = None
    wrong_cosine: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClipMetrics:
    """Metrics of one cell.

    Parameters
    ----------
    cell : str
    top : dict of Share
        Share of queries whose true track is among the first n, by n.
    median_right_cosine, median_wrong_cosine : float or None
        Of the true tracks, and of the best wrong ones.
    n_errors : int
        Queries without an embedding; they count as not found.
    """

    cell: str
    top: dict[int, Share]
    median_right_cosine: float | None
    median_wrong_cosine: float | None
    n_errors: int


def run(config: ClipsConfig) -> dict[str, Any]:
    """Run the benchmark, write the results as JSON and return them."""
    known = datasets.audio_files(config.references)
    cells = make_cells(CELL_SETS["clips"], Sounds(config.noise, config.rooms).sources)
    with astound.open(config.catalog, model=config.model, device=config.device) as catalog:
        catalogs.fill(catalog, [*known, *datasets.audio_files(config.distractors)], config.jobs)
        track_ids = catalogs.track_ids(catalog)
        present = {path: track_ids[path] for path in known if path in track_ids}
        stored = ClipIndex(catalog.index.track_ids, cache(catalog.index.clips))
        rankings: dict[str, list[Ranking]] = {cell.name: [] for cell in cells}
        all_questions = questions("present", list(present), config.n_queries, cells, config.seed)
        for question in track(all_questions, "questions", config.n_queries):
            true_id = present[question.excerpt.cut.path]
            for cell in cells:
                waveform = question.waveform(cell, config.seed)
                rankings[cell.name].append(_rank(catalog.fingerprinter, waveform, stored, true_id))
        about = catalogs.describe(catalog)
    rows = [summarise(name, of_cell) for name, of_cell in rankings.items()]
    results = {
        **provenance(),
        "seed": config.seed,
        **about,
        "n_tracks_asked_for": len(present),
        "cells": [asdict(row) for row in rows],
        "table": report.table(_HEAD, [list(_columns(row)) for row in rows]),
    }
    report.write(config.out, results)
    return results


def _rank(
    fingerprinter: AudioFingerprinter, waveform: Waveform, stored: ClipIndex, true_id: int
) -> Ranking:
    """Compare the first clip of a query with all stored clips."""
    try:
        query = fingerprint(fingerprinter, waveform, ClipConfig().segment_hop_s)
        cosines = stored.scores(query.clip_embeddings[:1])
    except AudioError:
        return Ranking(rank=None)
    return ranking(cosines, stored.track_ids.index(true_id))


def ranking(cosines: NDArray[np.float32], right: int) -> Ranking:
    """Rank one track among all.

    Parameters
    ----------
    cosines : float32 array of shape (n_tracks,)
    right : int
        Index of the true track.
    """
    others = np.delete(cosines, right)
    return Ranking(
        rank=1 + int((others >= cosines[right]).sum()),
        right_cosine=float(cosines[right]),
        wrong_cosine=float(others.max()) if len(others) else None,
    )


def summarise(cell: str, rankings: Sequence[Ranking]) -> ClipMetrics:
    """Compute the metrics of one cell."""
    right = [one.right_cosine for one in rankings if one.right_cosine is not None]
    wrong = [one.wrong_cosine for one in rankings if one.wrong_cosine is not None]
    return ClipMetrics(
        cell=cell,
        top={n: share(one.rank is not None and one.rank <= n for one in rankings) for n in TOP},
        median_right_cosine=median(right) if right else None,
        median_wrong_cosine=median(wrong) if wrong else None,
        n_errors=sum(one.rank is None for one in rankings),
    )


_HEAD = ["query", "n", *(f"top {n} %" for n in TOP), "right cosine", "best wrong cosine"]


def _columns(row: ClipMetrics) -> Iterator[str]:
    yield row.cell
    yield str(row.top[1].n)
    yield from (report.percent(share) for share in row.top.values())
    for cosine in (row.median_right_cosine, row.median_wrong_cosine):
        yield "-" if cosine is None else f"{cosine:.3f}"
