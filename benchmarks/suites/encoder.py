"""What the encoder alone finds: every place of all recordings is scored, so that no search errs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.outcomes import share
from benchmarks.queries import cells, conditions, datasets
from benchmarks.queries.cells import Cell, Place
from benchmarks.queries.questions import Question, questions
from benchmarks.reports import report
from benchmarks.runs.progress import followed
from benchmarks.runs.provenance import provenance
from engine.audio import decode
from engine.config import AlignConfig, IndexConfig, SearchConfig
from engine.errors import AudioError, ConfigError
from engine.model.fingerprinter import Fingerprinter
from engine.model.weights import SHIPPED_WEIGHTS
from engine.records import Vectors
from engine.search import alignment
from training.validate import best_tracks

_N_PHASES = round(IndexConfig().segment_hop_s / SearchConfig().query_hop_s)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What to measure.

    Parameters
    ----------
    references, distractors : sequence of Path
        Folders of what can be found; queries are cut from references only.
    noise, rooms : Path
        Folders of noises and of room responses.
    out : Path
        The JSON.
    distortions : str
        As for :func:`benchmarks.queries.cells.places`.
    durations_s : sequence of float
        Lengths of the queries.
    n_queries : int
        Per cell.
    seed : int
    model : Path
        Weights to encode with; those astound ships by default.
    device : str
    """

    references: Sequence[Path]
    noise: Path
    rooms: Path
    out: Path
    distractors: Sequence[Path] = ()
    distortions: str = "noise0,noise-5,noise-10,room5,room0"
    durations_s: Sequence[float] = (1.0, 2.0, 3.0)
    n_queries: int = 100
    seed: int = 1
    model: Path = SHIPPED_WEIGHTS
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.n_queries < 1:
            raise ConfigError.invalid("n_queries", self.n_queries, "must be at least 1")


def run(config: EncoderConfig) -> dict[str, Any]:
    """Measure, write the results and return them, as the plain dict of the JSON."""
    fingerprinter = Fingerprinter.load(config.model, config.device)
    known = datasets.audio_files(config.references)
    paths = list(dict.fromkeys([*known, *datasets.audio_files(config.distractors)]))
    stored, owners = embedded(paths, fingerprinter)
    rooms = datasets.Rooms(config.rooms)
    draws = {conditions.NOISE: datasets.Recordings(config.noise).draw, conditions.ROOMS: rooms.draw}
    wanted = cells.make(cells.places(config.distortions, config.durations_s), draws)
    asked = questions("present", known, config.n_queries, wanted, config.seed)
    found: dict[Place, list[bool]] = {cell.place: [] for cell in wanted}
    for question in followed(asked, "questions", config.n_queries):
        right = known.index(question.excerpt.cut.path)
        for cell in wanted:
            query = _sharp(question, cell, config.seed, fingerprinter)
            found[cell.place].append(
                query is not None
                and int(best_tracks(query[None], stored, owners, _N_PHASES)) == right
            )
    rates = {place: share(hits) for place, hits in found.items()}
    results = {
        **provenance(),
        "seed": config.seed,
        "recipe_id": fingerprinter.recipe_id,
        "n_segments": len(owners),
        "rooms_refused": [path.name for path in rooms.refused],
        "cells": [
            {"label": label, "duration_s": duration_s, "hit_rate": asdict(rate)}
            for (label, duration_s), rate in rates.items()
        ],
        "table": report.grid(
            "right track, %", {place: report.percent(rate) for place, rate in rates.items()}
        ),
    }
    report.write(config.out, results)
    return results


def embedded(
    paths: Sequence[Path], fingerprinter: Fingerprinter
) -> tuple[Vectors, NDArray[np.int64]]:
    """Embed recordings as a catalog would; what cannot be decoded or is silent has no segments.

    Returns
    -------
    embeddings : float32 array of shape (n_segments, dim)
        One recording behind the other.
    owners : int64 array of shape (n_segments,)
        Which of `paths` each segment is of.
    """
    parts, owners = [], []
    for owner, path in enumerate(followed(paths, "recordings", len(paths))):
        try:
            blocks = decode.blocks(path, fingerprinter.sample_rate)
            one = fingerprinter.fingerprint(blocks, IndexConfig().segment_hop_s, str(path))
        except AudioError:
            continue
        parts.append(one.embeddings)
        owners.append(np.full(len(one.embeddings), owner, np.int64))
    if not parts:
        raise ConfigError("references", "nothing in them can be decoded")
    return np.concatenate(parts), np.concatenate(owners)


def _sharp(
    question: Question, cell: Cell, seed: int, fingerprinter: Fingerprinter
) -> Vectors | None:
    """Embed a query as a catalog is asked with it, None if it is silent or too short."""
    waveform = question.waveform(cell, seed)
    played = decode.resample(waveform, datasets.RATE, fingerprinter.sample_rate)
    try:
        fingerprint = fingerprinter.fingerprint([played], SearchConfig().query_hop_s)
    except AudioError:
        return None
    return alignment.sharpen(fingerprint, AlignConfig())
