"""The Pex audio fingerprinting benchmark: long queries composed of pieces of known recordings.

A data set of the toolkit is a folder with `references`, `queries` and `annotations.csv`; files are
identified by their names without suffixes. Queries are scanned like long recordings, as each
contains several pieces.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import astound
from astound.catalog import Catalog, Device
from astound.output.timelines import write_timelines
from benchmarks.protocols import pex_score
from benchmarks.protocols.pex_score import Score
from benchmarks.queries import datasets
from benchmarks.reports import report
from benchmarks.runs import catalogs
from benchmarks.runs.progress import track
from benchmarks.runs.provenance import provenance
from engine.errors import AudioError
from engine.records import Timeline

log = logging.getLogger(__name__)

LEVELS = {
    "files": pex_score.file_score,
    "segments, bounding boxes": pex_score.box_score,
    "segments, lengths": pex_score.length_score,
}
"""The three evaluations of the toolkit, by their names in tables."""

_HEAD = ["level", "recall %", "precision %", "F %", "TP", "UP", "FP", "FN"]


@dataclass(frozen=True, kw_only=True)
class PexConfig:
    """Settings of the benchmark.

    Parameters
    ----------
    annotations : Path
        CSV file of the ground truth.
    references, queries : Path
        Folders of audio.
    out : Path
        Folder for the catalog, matches.csv and pex.json.
    model : Path or None
        Weights to encode with; the shipped ones by default.
    device : str
    jobs : int or None
        Number of decoder processes.
    """

    annotations: Path
    references: Path
    queries: Path
    out: Path
    model: Path | None = None
    device: Device = "auto"
    jobs: int | None = None


def run(config: PexConfig) -> dict[str, Any]:
    """Scan all queries, write matches.csv and pex.json, and return the content of the latter.

    Raises
    ------
    AstoundError
        The annotations cannot be read, or there are no queries.
    """
    annotated = pex_score.read_spans(config.annotations)
    queries = datasets.audio_files([config.queries])
    if not queries:
        raise AudioError(config.queries, "contains no audio files")
    failed: list[str] = []
    matches = config.out / "matches.csv"
    with astound.open(config.out / "catalog", model=config.model, device=config.device) as catalog:
        catalogs.fill(catalog, datasets.audio_files([config.references]), config.jobs)
        results = {**provenance(), **catalogs.describe(catalog)}
        with matches.open("w", encoding="utf-8", newline="") as file:
            timelines = track(_scanned(catalog, queries, failed), "queries", len(queries))
            write_timelines(timelines, "pexafb", file)
    matched = pex_score.read_spans(matches)
    scores = {level: score(annotated, matched) for level, score in LEVELS.items()}
    results |= {
        "n_queries": len(queries),
        "failed": failed,
        "levels": {level: asdict(score) for level, score in scores.items()},
        "table": report.table(_HEAD, [[level, *_row(score)] for level, score in scores.items()]),
    }
    report.write(config.out / "pex.json", results)
    return results


def _scanned(catalog: Catalog, queries: Sequence[Path], failed: list[str]) -> Iterator[Timeline]:
    """Scan queries. One that cannot be read has no matches, and is added to `failed`."""
    for query in queries:
        try:
            yield catalog.scan(query)
        except AudioError as error:
            log.warning("skipped: %s", error)
            failed.append(query.name)
            yield Timeline(recording=str(query), start_s=0.0, duration_s=0.0, entries=())


def _row(score: Score) -> list[str]:
    shares = score.recall, score.precision, score.f_score
    counts = score.n_true, score.n_unknown, score.n_false, score.n_missed
    return [
        *(f"{100 * share:.2f}" for share in shares),
        *("-" if count is None else str(count) for count in counts),
    ]
