"""The test of "Neural Audio Fingerprint" (Chang et al. 2021, arXiv 2010.11910).

Its data set has queries and the recordings they were made of, file by file and as long as each
other, and many more recordings, the dummies. A test id counts segments of one second, half a
second apart, through all query files. From each, queries of 1, 3, 5, 9, 11 and 19 segments are
asked, which are 1, 2, 3, 5, 6 and 10 s.

There, an answer is the id of the best segment; it is exact if it is the right one, and near if it
is that or one beside it. Here, an answer has a time: it is exact within 0.25 s, which is what the
right segment is nearest to, and near within 0.5 s. `song` is the right recording at any time. As
there, every query gets an answer, however unsure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

import astound
from astound.catalog import Catalog, Device
from benchmarks.metrics.outcomes import CellMetrics, Outcome, outcome, summarise
from benchmarks.queries import datasets
from benchmarks.reports import report
from benchmarks.runs import library
from benchmarks.runs.journal import Journal
from benchmarks.runs.progress import followed
from benchmarks.runs.provenance import code_id, digest, provenance
from engine.audio import decode
from engine.errors import AudioError, ConfigError

HOP_S = 0.5
SEGMENT_S = 1.0
N_SEGMENTS = (1, 3, 5, 9, 11, 19)
"""Lengths of the queries."""

_HEAD = ["query", "n", "top-1 exact %", "top-1 near %", "top-1 song %"]
_MODULES = ("protocols/nafp", "queries/datasets", "metrics/outcomes")


@dataclass(frozen=True, kw_only=True)
class NafpConfig:
    """What to measure.

    Parameters
    ----------
    data : Path
        The data set or its folder `music`, with `test-query-db-*/query`, `test-query-db-*/db` and
        `test-dummy-db-*`; or a folder with `query`, `db` and `dummy`. Dummies may be missing.
    out : Path
        Folder for the catalog and nafp.json, in which a run that was cut short goes on.
    test_ids : Path or None
        A NumPy file of ids, such as the authors' test_ids_icassp2021.npy. Those whose longest
        query would run into the next file are left out.
    n_queries : int
        How many ids to draw where there is no such file.
    seed : int
    model : Path or None
        Weights to encode with; those astound ships by default.
    device : str
    jobs : int or None
        Processes that decode recordings.
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
    """The files of the data set; queries and references belong together one by one."""

    queries: Sequence[Path]
    references: Sequence[Path]
    dummies: Sequence[Path]


@dataclass(frozen=True, order=True)
class Start:
    """Where queries begin: index of the file, and of the segment in it."""

    file: int
    segment: int

    @property
    def start_s(self) -> float:
        """Seconds from the beginning of the file."""
        return self.segment * HOP_S


def run(config: NafpConfig) -> dict[str, Any]:
    """Measure, write nafp.json and return what it holds.

    Raises
    ------
    AstoundError
        The folders are not there or do not fit each other, ids are no ids, or what an earlier run
        left was measured with other settings.
    """
    found = layout(config.data)
    n_segments = [_n_segments(path) for path in found.queries]
    chosen, n_left_out = _starts(config, n_segments)
    with astound.open(config.out / "catalog", model=config.model, device=config.device) as catalog:
        library.fill(catalog, [*found.references, *found.dummies], config.jobs)
        about = {**provenance(), **library.describe(catalog)}
        journal = Journal(
            config.out / "nafp.jsonl", _settings(config, catalog, found, chosen), len(N_SEGMENTS)
        )
        n_done = len(journal.outcomes) // len(N_SEGMENTS)
        asked = journal.note(_asked(catalog, found, chosen[n_done:]))
        for _ in followed(asked, "test ids", len(chosen), n_done):
            pass
    rows = [_summary(n, journal.outcomes) for n in N_SEGMENTS]
    results = about | {
        "n_dummies": len(found.dummies),
        "n_test_ids": len(chosen),
        "n_left_out": n_left_out,
        "cells": [asdict(row) for row in rows],
        "table": report.table(_HEAD, [_row(row) for row in rows]),
    }
    report.write(config.out / "nafp.json", results)
    return results


def layout(data: Path) -> Layout:
    """Find the files.

    Raises
    ------
    ConfigError
        There are no queries, or not as many recordings.
    """
    roots = [
        data,
        *sorted(data.glob("test-query-db-*")),
        *sorted(data.glob("music/test-query-db-*")),
    ]
    tests = [root for root in roots if (root / "query").is_dir() and (root / "db").is_dir()]
    if len(tests) != 1:
        reason = f"{data} has {len(tests)} folders with query and db in it, not one"
        raise ConfigError("data", reason)
    test = tests[0]
    dummies = [test / "dummy"] if test == data else sorted(test.parent.glob("test-dummy-db-*"))
    found = Layout(
        queries=datasets.audio_files([test / "query"]),
        references=datasets.audio_files([test / "db"]),
        dummies=datasets.audio_files([folder for folder in dummies if folder.is_dir()]),
    )
    if not found.queries or len(found.queries) != len(found.references):
        counts = f"{len(found.queries)} queries and {len(found.references)} recordings"
        raise ConfigError("data", f"{test} has {counts}; as many of both are needed")
    return found


def _n_segments(path: Path) -> int:
    try:
        duration_s = soundfile.info(path).duration
    except soundfile.LibsndfileError as error:
        raise AudioError(path, "cannot be read") from error
    return max(int((duration_s - SEGMENT_S) // HOP_S) + 1, 0)


def _starts(config: NafpConfig, n_segments: Sequence[int]) -> tuple[list[Start], int]:
    """Choose where queries begin; tell how many ids were left out."""
    every = [Start(file, segment) for file, n in enumerate(n_segments) for segment in range(n)]
    fits = np.array([one.segment + max(N_SEGMENTS) <= n_segments[one.file] for one in every])
    if config.test_ids is not None:
        ids = _read_ids(config.test_ids, len(every))
    else:
        drawn = datasets.generator(config.seed, "test ids").permutation(np.flatnonzero(fits))
        ids = drawn[: config.n_queries]
    kept = ids[fits[ids]]
    if not len(kept):
        raise ConfigError("data", f"no query is as long as {max(N_SEGMENTS)} segments")
    return sorted(every[i] for i in kept), len(ids) - len(kept)


def _read_ids(path: Path, n_ids: int) -> NDArray[np.int64]:
    try:
        ids = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError("test_ids", f"{path} is no NumPy file") from error
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or not ((ids >= 0) & (ids < n_ids)).all():
        raise ConfigError("test_ids", f"{path} needs whole numbers below {n_ids}, one dimension")
    return np.unique(ids).astype(np.int64)


def _settings(
    config: NafpConfig, catalog: Catalog, found: Layout, chosen: Sequence[Start]
) -> dict[str, Any]:
    """Collect all that outcomes depend on."""
    tracks = [f"{track.path} {track.content_hash}" for track in catalog.tracks()]
    return {
        "recipe_id": catalog.recipe_id,
        "device": config.device,
        "tracks": digest(tracks),
        "queries": digest(map(str, found.queries)),
        "test_ids": digest(map(str, chosen)),
        "code": code_id(_MODULES),
    }


# -- queries ---------------------------------------------------------------------------------


def _asked(catalog: Catalog, found: Layout, chosen: Sequence[Start]) -> Iterator[list[Outcome]]:
    track_ids = library.track_ids(catalog)
    rate = catalog.fingerprinter.sample_rate
    for file, starts in groupby(chosen, key=lambda start: start.file):
        waveform = decode.read(found.queries[file], rate)
        reference = found.references[file]
        for start in starts:
            rest = waveform[round(start.start_s * rate) :]
            yield [
                _ask(catalog, rest[: round(_length_s(n) * rate)], start, n, reference, track_ids)
                for n in N_SEGMENTS
            ]


def _ask(
    catalog: Catalog,
    clip: datasets.Waveform,
    start: Start,
    n_segments: int,
    reference: Path,
    track_ids: dict[Path, int],
) -> Outcome:
    asked = Outcome(
        query_id=f"{start.file}-{start.segment}",
        cell=_name(n_segments),
        present=True,
        true_track=reference.name,
        true_start_s=start.start_s,
    )
    rate = catalog.fingerprinter.sample_rate
    try:
        result = catalog.query(clip, sample_rate=rate, max_matches=1, min_confidence=0.0)
    except AudioError as error:
        return replace(asked, error=str(error))
    return outcome(asked, result, track_ids.get(reference), 0.0)


def _length_s(n_segments: int) -> float:
    return SEGMENT_S + (n_segments - 1) * HOP_S


def _name(n_segments: int) -> str:
    return f"{_length_s(n_segments):g} s"


# -- results ---------------------------------------------------------------------------------


def _summary(n_segments: int, outcomes: Sequence[Outcome]) -> CellMetrics:
    name = _name(n_segments)
    return summarise(name, [one for one in outcomes if one.cell == name])


def _row(cell: CellMetrics) -> list[str]:
    assert cell.present is not None
    shares = cell.present.exact, cell.present.near, cell.present.hit_rate
    shown = [report.percent(share) for share in shares]
    return [cell.cell, str(cell.present.hit_rate.n), *shown]
