"""How well clip-level embeddings alone tell tracks apart: all tracks ranked by one cosine."""

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
from benchmarks.queries import cells, conditions, datasets
from benchmarks.queries.datasets import Waveform
from benchmarks.queries.questions import questions
from benchmarks.reports import report
from benchmarks.runs import library
from benchmarks.runs.progress import followed
from benchmarks.runs.provenance import provenance
from engine.audio import decode
from engine.compare.similar import ClipIndex
from engine.errors import AudioError, ConfigError
from engine.protocol import AudioFingerprinter
from engine.recipe import ClipConfig

TOP = (1, 5, 20, 100)
"""Ranks at which the share of right tracks is counted."""


@dataclass(frozen=True, kw_only=True)
class ClipsConfig:
    """What to measure.

    Parameters
    ----------
    references, distractors : sequence of Path
        Folders the catalog gets; queries are cut from references only.
    noise, rooms : Path
        Folders of noises and of room responses.
    catalog : Path
        Where to open or create the catalog.
    n_queries : int
        Per cell.
    seed : int
    out : Path
        The JSON.
    model : Path or None
        Weights to encode with; those astound ships by default.
    device : str
    jobs : int or None
        Processes that decode what the catalog gets.
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
    """Where the true track stands among all tracks.

    Parameters
    ----------
    rank : int or None
        From 1; of tracks with the same cosine the true one comes last. None without an embedding.
    right_cosine, wrong_cosine : float or None
        Of the true track; of the best other one, None where there is no other.
    """

    rank: int | None
    right_cosine: float | None = None
    wrong_cosine: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClipMetrics:
    """One cell.

    Parameters
    ----------
    cell : str
    top : dict of Share
        Share of queries whose true track is among the first 1, 5, 20, 100, by that number.
    median_right_cosine, median_wrong_cosine : float or None
        Of the true tracks; of the best wrong ones.
    n_errors : int
        Queries that have no embedding; they count as not found.
    """

    cell: str
    top: dict[int, Share]
    median_right_cosine: float | None
    median_wrong_cosine: float | None
    n_errors: int


def run(config: ClipsConfig) -> dict[str, Any]:
    """Measure, write the results and return them, as the plain dict of the JSON."""
    known = datasets.audio_files(config.references)
    draws = {
        conditions.NOISE: datasets.Recordings(config.noise).draw,
        conditions.ROOMS: datasets.Rooms(config.rooms).draw,
    }
    wanted = cells.make(cells.SETS["clips"], draws)
    with astound.open(config.catalog, model=config.model, device=config.device) as catalog:
        library.fill(catalog, [*known, *datasets.audio_files(config.distractors)], config.jobs)
        track_ids = library.track_ids(catalog)
        present = {path: track_ids[path] for path in known if path in track_ids}
        stored = ClipIndex(catalog.index.track_ids, cache(catalog.index.clips))
        found: dict[str, list[Ranking]] = {cell.name: [] for cell in wanted}
        asked = questions("present", list(present), config.n_queries, wanted, config.seed)
        for question in followed(asked, "questions", config.n_queries):
            true_id = present[question.excerpt.cut.path]
            for cell in wanted:
                waveform = question.waveform(cell, config.seed)
                found[cell.name].append(_ask(catalog.fingerprinter, waveform, stored, true_id))
        about = library.describe(catalog)
    rows = [measured(name, rankings) for name, rankings in found.items()]
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


def _ask(
    fingerprinter: AudioFingerprinter, waveform: Waveform, stored: ClipIndex, true_id: int
) -> Ranking:
    """Compare the first clip of a query, at the hop clips are made of."""
    played = decode.resample(waveform, datasets.RATE, fingerprinter.sample_rate)
    hop_s = ClipConfig().segment_hop_s
    try:
        fingerprint = fingerprinter.fingerprint([played], hop_s)
        cosines = stored.scores(fingerprint.clip_embeddings[:1])
    except AudioError:
        return Ranking(rank=None)
    return ranking(cosines, stored.track_ids.index(true_id))


def ranking(cosines: NDArray[np.float32], right: int) -> Ranking:
    """Rank one track among all.

    Parameters
    ----------
    cosines : float32 array of shape (n_tracks,)
    right : int
        Which of them is the true track.
    """
    others = np.delete(cosines, right)
    return Ranking(
        rank=1 + int((others >= cosines[right]).sum()),
        right_cosine=float(cosines[right]),
        wrong_cosine=float(others.max()) if len(others) else None,
    )


def measured(cell: str, rankings: Sequence[Ranking]) -> ClipMetrics:
    """Measure one cell."""
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
    yield from map(report.percent, row.top.values())
    for cosine in (row.median_right_cosine, row.median_wrong_cosine):
        yield "-" if cosine is None else f"{cosine:.3f}"
