"""Accuracy of the encoder alone: every position of all recordings is scored, without a search."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.outcomes import share
from benchmarks.queries import datasets
from benchmarks.queries.conditions import Cell, CellKey, cell_name, make_cells, parse_cells
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

_OF_THE_SAME_QUERIES = ("seed", "n_segments")
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
    before : Path or None
        Results of other weights on the same queries, to be compared with.
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
    before: Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.n_queries < 1:
            raise ConfigError.invalid("n_queries", self.n_queries, "must be at least 1")


def run(config: EncoderConfig) -> dict[str, Any]:
    """Run the benchmark, write the results as JSON and return them.

    Raises
    ------
    ConfigError
        No recording can be decoded, or the earlier results are of other queries.
    """
    former = None if config.before is None else _read(config.before)
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
    right = {cell_name(key): "".join("01"[hit] for hit in flags) for key, flags in hits.items()}
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
        "right": right,
        "table": report.grid(
            "right track, %", {key: report.percent(rate) for key, rate in rates.items()}
        ),
    }
    if former is not None:
        results["tables"] = {"compared": _comparison(former, results, cells)}
    report.write(config.out, results)
    return results


def _read(before: Path) -> dict[str, Any]:
    try:
        earlier = json.loads(before.read_text())
        return {key: earlier[key] for key in (*_OF_THE_SAME_QUERIES, "right")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError("before", f"{before.name} has no results of this benchmark") from error


def _comparison(former: Mapping[str, Any], now: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    """Compare two encoders by the queries that one of them finds and the other does not.

    The p-value is that of the exact test of McNemar (1947), a sign test.
    """
    from scipy.stats import binomtest

    n_queries = {name: len(flags) for name, flags in now["right"].items()}
    if any(former[key] != now[key] for key in _OF_THE_SAME_QUERIES) or n_queries != {
        name: len(flags) for name, flags in former["right"].items()
    }:
        raise ConfigError("before", "its results are of other queries or recordings")
    names = {cell.label: [] for cell in cells} | {"all": list(n_queries)}
    for cell in cells:
        names[cell.label].append(cell.name)
    rows = []
    for label, of_label in names.items():
        before, after = ("".join(one["right"][name] for name in of_label) for one in (former, now))
        pairs = list(zip(before, after, strict=True))
        n_gained, n_lost = pairs.count(("0", "1")), pairs.count(("1", "0"))
        chance = binomtest(n_lost, n_lost + n_gained).pvalue if n_lost + n_gained else 1.0
        counts = map(str, (len(pairs), before.count("1"), after.count("1"), n_gained, n_lost))
        rows.append([label, *counts, f"{chance:.2g}"])
    return report.table(["query", "n", "before", "now", "gained", "lost", "p"], rows)


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
