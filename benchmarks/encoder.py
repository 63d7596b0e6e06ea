"""What the encoder alone finds: every place of all recordings is scored, so that no search errs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import cells, chains, datasets, report
from benchmarks.cells import Cell, Place
from benchmarks.metrics import Share, share
from benchmarks.progress import followed
from benchmarks.provenance import provenance
from benchmarks.questions import Question, questions
from engine import align, audio
from engine.config import AlignConfig, IndexConfig, SearchConfig
from engine.encoder import SHIPPED_WEIGHTS, load_encoder
from engine.errors import AudioError, ConfigError
from engine.fingerprint import Fingerprinter
from engine.records import Vectors


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
        As for :func:`benchmarks.cells.places`.
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
            raise ConfigError("n_queries", f"{self.n_queries} does not work; at least 1 is needed")


@dataclass(frozen=True)
class Recordings:
    """The stored segments of all recordings, one recording behind the other.

    Parameters
    ----------
    embeddings : float32 array of shape (n_segments, dim)
    owners : int64 array of shape (n_segments,)
        Which recording each is of.
    """

    embeddings: Vectors
    owners: NDArray[np.int64]

    def best(self, query: Vectors, n_phases: int) -> int:
        """Lay a query at every place, and tell the recording with the highest mean cosine along it.

        Parameters
        ----------
        query : float32 array of shape (n_query_segments, dim)
            `n_phases` segments in every hop of the recordings.
        n_phases : int
        """
        phases = (query[first::n_phases] for first in range(min(n_phases, len(query))))
        scores = np.maximum.reduce([self._scores(phase) for phase in phases])
        return int(self.owners[np.argmax(scores)])

    def _scores(self, query: Vectors) -> NDArray[np.float32]:
        """Mean cosine at every place, -inf where a query would reach into the next recording."""
        n_segments, n_places = len(query), len(self.owners)
        cosines = query @ self.embeddings.T
        scores = np.full(n_places, -np.inf, np.float32)
        last = n_places - n_segments + 1
        if last > 0:
            along = sum(cosines[k, k : k + last] for k in range(n_segments))
            fits = self.owners[:last] == self.owners[n_segments - 1 :]
            scores[:last] = np.where(fits, along / n_segments, -np.inf)
        return scores


def run(config: EncoderConfig) -> dict[str, Any]:
    """Measure, write the results and return them, as the plain dict of the JSON."""
    fingerprinter = Fingerprinter(load_encoder(config.model, config.device))
    known = datasets.audio_files(config.references)
    recordings = embedded([*known, *datasets.audio_files(config.distractors)], fingerprinter)
    rooms = datasets.Rooms(config.rooms)
    draws = {chains.NOISE: datasets.Recordings(config.noise).draw, chains.ROOMS: rooms.draw}
    wanted = cells.make(cells.places(config.distortions, config.durations_s), draws)
    asked = questions("present", known, config.n_queries, wanted, config.seed)
    found: dict[Place, list[bool]] = {cell.place: [] for cell in wanted}
    for question in followed(asked, "questions", config.n_queries):
        right = known.index(question.excerpt.cut.path)
        for cell in wanted:
            query = _sharp(question, cell, config.seed, fingerprinter)
            hit = query is not None and recordings.best(query, _n_phases()) == right
            found[cell.place].append(hit)
    rates = {place: share(hits) for place, hits in found.items()}
    results = {
        **provenance(),
        "seed": config.seed,
        "recipe_id": fingerprinter.recipe_id,
        "n_segments": len(recordings.owners),
        "rooms_refused": [path.name for path in rooms.refused],
        "cells": [
            {"label": label, "duration_s": duration_s, "hit_rate": asdict(rate)}
            for (label, duration_s), rate in rates.items()
        ],
        "table": report.table(
            ["right track, %", *(f"{seconds:g} s" for seconds in config.durations_s)],
            list(_rows(rates)),
        ),
    }
    report.write(config.out, results)
    return results


def embedded(paths: Sequence[Path], fingerprinter: Fingerprinter) -> Recordings:
    """Embed recordings as a catalog would; what cannot be decoded or is silent has no segments."""
    parts, owners = [], []
    for owner, path in enumerate(followed(paths, "recordings", len(paths))):
        try:
            blocks = audio.blocks(path, fingerprinter.sample_rate)
            one = fingerprinter.fingerprint(blocks, IndexConfig().segment_hop_s, str(path))
        except AudioError:
            continue
        parts.append(one.embeddings)
        owners.append(np.full(len(one.embeddings), owner, np.int64))
    if not parts:
        raise ConfigError("references", "nothing in them can be decoded")
    return Recordings(np.concatenate(parts), np.concatenate(owners))


def _sharp(
    question: Question, cell: Cell, seed: int, fingerprinter: Fingerprinter
) -> Vectors | None:
    """Embed a query as a catalog is asked with it, None if it is silent or too short."""
    waveform = question.waveform(cell, seed)
    played = audio.resample(waveform, datasets.RATE, fingerprinter.sample_rate)
    try:
        fingerprint = fingerprinter.fingerprint([played], SearchConfig().query_hop_s)
    except AudioError:
        return None
    return align.sharpen(fingerprint, AlignConfig())


def _n_phases() -> int:
    return round(IndexConfig().segment_hop_s / SearchConfig().query_hop_s)


def _rows(rates: dict[Place, Share]) -> Iterator[list[str]]:
    for label, row in groupby(rates.items(), key=lambda one: one[0][0]):
        yield [label, *(report.percent(rate) for _, rate in row)]
