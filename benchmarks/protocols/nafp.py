"""The test of "Neural Audio Fingerprint" (Chang et al. 2021, arXiv 2010.11910).

Its data set contains queries, the recordings they were made from, file by file and of equal length,
and many more recordings, the dummies. A test id is the index of a segment of one second, half a
second apart, counted through all query files. Queries of 1, 3, 5, 9, 11 and 19 segments start
there: 1, 2, 3, 5, 6 and 10 s.

In the paper, an answer is the id of the best segment: exact if it is the right one, near if it is
that or a neighbour. Here, an answer is a time: exact within 0.25 s, the range in which the right
segment is nearest, and near within 0.5 s. `song` is the right recording at any time. As in the
paper, every query gets an answer, at any confidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

import astound
from astound.catalog import Catalog, Device
from benchmarks.metrics.outcomes import CellMetrics, Outcome, by_cell, run_query, summarise
from benchmarks.queries import datasets
from benchmarks.reports import report
from benchmarks.runs import catalogs
from benchmarks.runs.journal import Journal, collect_outcomes
from benchmarks.runs.provenance import code_id, digest, provenance
from engine.audio import decode
from engine.errors import AudioError, ConfigError

HOP_S = 0.5
SEGMENT_S = 1.0
N_SEGMENTS = (1, 3, 5, 9, 11, 19)
"""Lengths of the queries in segments."""

_HEAD = ["query", "n", "top-1 exact %", "top-1 near %", "top-1 song %"]
_MODULES = ("protocols/nafp", "queries/datasets", "metrics/outcomes")


@dataclass(frozen=True, kw_only=True)
class NafpConfig:
    """Settings of the test.

    Parameters
    ----------
    data : Path
        The data set or its folder `music`, with `test-query-db-*/query`, `test-query-db-*/db` and
        `test-dummy-db-*`; or a folder with `query`, `db` and `dummy`. Dummies are optional.
    out : Path
        Folder for the catalog and nafp.json; an interrupted run resumes there.
    test_ids : Path or None
        A NumPy file of ids, such as the authors' test_ids_icassp2021.npy. Ids whose longest query
        would exceed its file are left out.
    n_queries : int
        Number of ids to draw without such a file.
    seed : int
    model : Path or None
        Weights to encode with; the shipped ones by default.
    device : str
    jobs : int or None
        Number of decoder processes.
    """

    data: Path
    out: Path
    test_ids: Path | None = None
    n_queries: int = 2000
    seed: int = 1
    model: Path | None = None
    device: Device = "auto"
    jobs: int | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Files of the data set; the nth query belongs to the nth reference."""

    queries: Sequence[Path]
    references: Sequence[Path]
    dummies: Sequence[Path]


@dataclass(frozen=True, order=True)
class Start:
    """Start of queries: index of the file, and of the segment in it."""

    file: int
    segment: int

    @property
    def start_s(self) -> float:
        """Seconds from the start of the file."""
        return self.segment * HOP_S


def run(config: NafpConfig) -> dict[str, Any]:
    """Run the test, write nafp.json and return its content.

    Raises
    ------
    AstoundError
        The data set is missing or inconsistent, the ids are invalid, or an earlier run in
        `config.out` had other settings.
    """
    files = layout(config.data)
    starts, n_left_out = _starts(config, [_n_segments(path) for path in files.queries])
    with astound.open(config.out / "catalog", model=config.model, device=config.device) as catalog:
        catalogs.fill(catalog, [*files.references, *files.dummies], config.jobs)
        about = {**provenance(), **catalogs.describe(catalog)}
        settings = _settings(config, catalog, files, starts)
        journal = Journal(config.out / "nafp.jsonl", settings, len(N_SEGMENTS))
        answers = _answers(catalog, files, starts[journal.n_groups :])
        outcomes = collect_outcomes(journal, answers, "test ids", len(starts))
    groups = by_cell(outcomes)
    cells = [summarise(name := _name(n), groups[name]) for n in N_SEGMENTS]
    results = about | {
        "n_dummies": len(files.dummies),
        "n_test_ids": len(starts),
        "n_left_out": n_left_out,
        "cells": [asdict(cell) for cell in cells],
        "table": report.table(_HEAD, [_row(cell) for cell in cells]),
    }
    report.write(config.out / "nafp.json", results)
    return results


def layout(data: Path) -> Layout:
    """Find the files of the data set.

    Raises
    ------
    ConfigError
        There are no queries, or the number of references differs.
    """
    roots = [
        data,
        *sorted(data.glob("test-query-db-*")),
        *sorted(data.glob("music/test-query-db-*")),
    ]
    tests = [root for root in roots if (root / "query").is_dir() and (root / "db").is_dir()]
    if len(tests) != 1:
        reason = f"{data} contains {len(tests)} folders with query and db instead of one"
        raise ConfigError("data", reason)
    test = tests[0]
    dummies = [test / "dummy"] if test == data else sorted(test.parent.glob("test-dummy-db-*"))
    files = Layout(
        queries=datasets.audio_files([test / "query"]),
        references=datasets.audio_files([test / "db"]),
        dummies=datasets.audio_files([folder for folder in dummies if folder.is_dir()]),
    )
    if not files.queries or len(files.queries) != len(files.references):
        counts = f"{len(files.queries)} queries and {len(files.references)} references"
        raise ConfigError("data", f"{test} contains {counts}; the numbers must be equal")
    return files


def _n_segments(path: Path) -> int:
    try:
        duration_s = soundfile.info(path).duration
    except soundfile.LibsndfileError as error:
        raise AudioError(path, "cannot be read") from error
    return max(int((duration_s - SEGMENT_S) // HOP_S) + 1, 0)


def _starts(config: NafpConfig, n_segments: Sequence[int]) -> tuple[list[Start], int]:
    """Choose the starts of queries; also return the number of ids left out."""
    every = [Start(file, segment) for file, n in enumerate(n_segments) for segment in range(n)]
    fits = np.array([one.segment + max(N_SEGMENTS) <= n_segments[one.file] for one in every])
    if config.test_ids is not None:
        ids = _read_ids(config.test_ids, len(every))
    else:
        drawn = datasets.generator(config.seed, "test ids").permutation(np.flatnonzero(fits))
        ids = drawn[: config.n_queries]
    kept = ids[fits[ids]]
    if not len(kept):
        raise ConfigError("data", f"no query has {max(N_SEGMENTS)} segments")
    return sorted(every[i] for i in kept), len(ids) - len(kept)


def _read_ids(path: Path, n_ids: int) -> NDArray[np.int64]:
    try:
        ids = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError("test_ids", f"{path} is not a NumPy file") from error
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or not ((ids >= 0) & (ids < n_ids)).all():
        raise ConfigError(
            "test_ids", f"{path} must contain one dimension of integers below {n_ids}"
        )
    return np.unique(ids).astype(np.int64)


def _settings(
    config: NafpConfig, catalog: Catalog, files: Layout, starts: Sequence[Start]
) -> dict[str, Any]:
    """Return everything that outcomes depend on."""
    tracks = [f"{track.path} {track.content_hash}" for track in catalog.tracks()]
    return {
        "recipe_id": catalog.recipe_id,
        "device": config.device,
        "tracks": digest(tracks),
        "queries": digest(map(str, files.queries)),
        "test_ids": digest(map(str, starts)),
        "code": code_id(_MODULES),
    }


# -- queries ---------------------------------------------------------------------------------


def _answers(catalog: Catalog, files: Layout, starts: Sequence[Start]) -> Iterator[list[Outcome]]:
    track_ids = catalogs.track_ids(catalog)
    rate = catalog.fingerprinter.sample_rate
    for file, group in groupby(starts, key=lambda start: start.file):
        waveform = decode.read(files.queries[file], rate)
        reference = files.references[file]
        true_id = track_ids.get(reference)
        for start in group:
            rest = waveform[round(start.start_s * rate) :]
            clips = [rest[: round(_length_s(n) * rate)] for n in N_SEGMENTS]
            queries = [_unanswered(start, n, reference) for n in N_SEGMENTS]
            yield [
                _answer(catalog, query, clip, true_id)
                for query, clip in zip(queries, clips, strict=True)
            ]


def _unanswered(start: Start, n_segments: int, reference: Path) -> Outcome:
    return Outcome(
        query_id=f"{start.file}-{start.segment}",
        cell=_name(n_segments),
        present=True,
        true_track=reference.name,
        true_start_s=start.start_s,
    )


def _answer(
    catalog: Catalog, unanswered: Outcome, clip: datasets.Waveform, true_id: int | None
) -> Outcome:
    rate = catalog.fingerprinter.sample_rate
    return run_query(
        unanswered,
        lambda: catalog.query(clip, sample_rate=rate, max_matches=1, min_confidence=0.0),
        true_id,
        0.0,
    )


def _length_s(n_segments: int) -> float:
    return SEGMENT_S + (n_segments - 1) * HOP_S


def _name(n_segments: int) -> str:
    return f"{_length_s(n_segments):g} s"


def _row(cell: CellMetrics) -> list[str]:
    assert cell.present is not None
    shares = cell.present.exact, cell.present.near, cell.present.hit_rate
    return [cell.cell, str(cell.present.hit_rate.n), *(report.percent(share) for share in shares)]
