"""Accuracy of the encoder alone: every position of all recordings is scored, without a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.outcomes import share
from benchmarks.queries import datasets
from benchmarks.queries.conditions import CellKey, make_cells, parse_cells
from benchmarks.queries.datasets import Sounds, Waveform
from benchmarks.queries.questions import fingerprint, questions
from benchmarks.reports import report
from benchmarks.runs.progress import track
from benchmarks.runs.provenance import provenance
from engine.audio import decode
from engine.config import IndexConfig, SearchConfig
from engine.errors import AudioError, ConfigError
from engine.model.fingerprinter import Fingerprinter
from engine.model.weights_file import SHIPPED_WEIGHTS
from engine.records import Vectors
from engine.search.alignment import remove_mean
from training.validate import best_tracks

_N_PHASES = round(IndexConfig().segment_hop_s / SearchConfig().query_hop_s)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Settings of the benchmark.

    Parameters
    ----------
    references, distractors : sequence of Path
        Folders of recordings to find. Queries are cut from references only.
    noise, rooms : Path
        Folders of noises and of room responses.
    out : Path
        JSON file to write.
    distortions : str
    durations_s : sequence of float
        See :func:`benchmarks.queries.conditions.parse_cells`.
    n_queries : int
        Number of queries per cell.
    seed : int
    model : Path
        Weights to encode with; the shipped ones by default.
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
    """Run the benchmark, write the results as JSON and return them."""
    fingerprinter = Fingerprinter.load(config.model, config.device)
    known = datasets.audio_files(config.references)
    paths = list(dict.fromkeys([*known, *datasets.audio_files(config.distractors)]))
    stored, owners = embed(paths, fingerprinter)
    sounds = Sounds(config.noise, config.rooms)
    cells = make_cells(parse_cells(config.distortions, config.durations_s), sounds.sources)
    hits: dict[CellKey, list[bool]] = {cell.key: [] for cell in cells}
    all_questions = questions("present", known, config.n_queries, cells, config.seed)
    for question in track(all_questions, "questions", config.n_queries):
        true_owner = known.index(question.excerpt.cut.path)
        for cell in cells:
            query = _embed_query(question.waveform(cell, config.seed), fingerprinter)
            hits[cell.key].append(
                query is not None
                and int(best_tracks(query[None], stored, owners, _N_PHASES)) == true_owner
            )
    rates = {key: share(flags) for key, flags in hits.items()}
    rejected_rooms = sounds.rooms.refused if sounds.rooms else []
    results = {
        **provenance(),
        "seed": config.seed,
        "recipe_id": fingerprinter.recipe_id,
        "n_segments": len(owners),
        "rooms_refused": [path.name for path in rejected_rooms],
        "cells": [
            {"label": label, "duration_s": duration_s, "hit_rate": asdict(rate)}
            for (label, duration_s), rate in rates.items()
        ],
        "table": report.grid(
            "right track, %", {key: report.percent(rate) for key, rate in rates.items()}
        ),
    }
    report.write(config.out, results)
    return results


def embed(paths: Sequence[Path], fingerprinter: Fingerprinter) -> tuple[Vectors, NDArray[np.int64]]:
    """Embed recordings as a catalog does; those that cannot be decoded or are silent are skipped.

    Returns
    -------
    embeddings : float32 array of shape (n_segments, dim)
        Of all recordings, concatenated.
    owners : int64 array of shape (n_segments,)
        Index into `paths` of each segment.

    Raises
    ------
    ConfigError
        No recording can be decoded.
    """
    parts, owners = [], []
    for owner, path in enumerate(track(paths, "recordings", len(paths))):
        try:
            blocks = decode.blocks(path, fingerprinter.sample_rate)
            recording = fingerprinter.fingerprint(blocks, IndexConfig().segment_hop_s, str(path))
        except AudioError:
            continue
        parts.append(recording.embeddings)
        owners.append(np.full(len(recording.embeddings), owner, np.int64))
    if not parts:
        raise ConfigError("references", "contain no file that can be decoded")
    return np.concatenate(parts), np.concatenate(owners)


def _embed_query(waveform: Waveform, fingerprinter: Fingerprinter) -> Vectors | None:
    """Embed a query as a search does; None if it is silent or too short."""
    try:
        query = fingerprint(fingerprinter, waveform, SearchConfig().query_hop_s)
    except AudioError:
        return None
    return remove_mean(query)
