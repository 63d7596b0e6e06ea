"""How often the answer is right: known music, distorted and asked for; unknown music, asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import astound
from astound.catalog import Catalog
from benchmarks import cells, datasets, distort, metrics, report
from benchmarks.cells import Cell
from benchmarks.datasets import Excerpt
from benchmarks.metrics import Outcome
from benchmarks.provenance import provenance
from engine.config import IngestConfig
from engine.errors import AstoundError, ConfigError
from engine.records import QueryResult

_MAX_MATCHES = 5


@dataclass(frozen=True, kw_only=True)
class AccuracyConfig:
    """What to measure.

    Parameters
    ----------
    references, distractors : sequence of Path
        Folders the catalog gets; queries are cut from references only.
    absent : sequence of Path
        Folders of music the catalog must not know.
    hold_out : float
        Share of the references that is left out of the catalog and asked for as absent music.
    noise, rooms : Path
        Folders of noises and of room responses.
    catalog : Path
        Where to open or create the catalog.
    n_queries : int
        Of present and of absent music, each, per cell.
    seed : int
    cells : {"quick", "issue", "full"}
    out : Path
        The JSON; every query's line goes to a file beside it that ends in .jsonl.
    device : str
    jobs : int or None
    """

    references: Sequence[Path]
    noise: Path
    rooms: Path
    catalog: Path
    out: Path
    distractors: Sequence[Path] = ()
    absent: Sequence[Path] = ()
    hold_out: float = 0.0
    n_queries: int = 100
    seed: int = 1
    cells: str = "issue"
    device: str = "auto"
    jobs: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.hold_out < 1:
            raise ConfigError("hold_out", f"{self.hold_out} does not work; 0 <= hold_out < 1")
        if self.n_queries < 1:
            raise ConfigError("n_queries", f"{self.n_queries} does not work; at least 1 is needed")


def run(config: AccuracyConfig) -> dict[str, Any]:
    """Measure, write the results and return them.

    Returns
    -------
    dict
        What the JSON holds.

    Raises
    ------
    AstoundError
        The catalog knows music that should be absent, or a folder has no audio to work with.
    """
    known, held_out = datasets.hold_out(
        datasets.audio_files(config.references), config.hold_out, config.seed
    )
    absent = [*held_out, *datasets.audio_files(config.absent)]
    rooms = datasets.Rooms(config.rooms)
    chains = distort.chains(datasets.Recordings(config.noise).draw, rooms.draw)
    wanted = cells.choose(config.cells, chains)
    with astound.open(config.catalog, device=config.device) as catalog:
        _fill(catalog, [*known, *datasets.audio_files(config.distractors)], config.jobs)
        track_ids = _track_ids(catalog)
        _refuse_known(absent, track_ids)
        present = [path for path in known if path in track_ids]
        asked = chain(
            _ask_all(catalog, present, wanted, config, track_ids),
            _ask_all(catalog, absent, wanted, config, track_ids) if absent else (),
        )
        outcomes = list(report.noted(config.out.with_suffix(".jsonl"), asked))
        about = _about(config, catalog, n_present=len(present), n_absent=len(absent), rooms=rooms)
    results = about | _measured(wanted, outcomes)
    report.write(config.out, results)
    return results


def _fill(catalog: Catalog, paths: Sequence[Path], jobs: int | None) -> None:
    done = catalog.add(paths, config=IngestConfig(n_jobs=jobs))
    _say(f"{len(done.added)} added, {len(done.skipped)} known, {len(done.failed)} failed\n")
    for failure in done.failed:
        _say(f"  {Path(failure.path).name}: {failure.reason}\n")


def _track_ids(catalog: Catalog) -> dict[Path, int]:
    return {Path(track.path).resolve(): track.id for track in catalog.tracks()}


def _refuse_known(absent: Iterable[Path], track_ids: Mapping[Path, int]) -> None:
    known = [path.name for path in absent if path in track_ids]
    if known:
        raise ConfigError(
            "absent",
            f"the catalog knows {len(known)} of these, {known[0]} for one; use another catalog",
        )


# -- queries ---------------------------------------------------------------------------------


def _ask_all(
    catalog: Catalog,
    paths: Sequence[Path],
    wanted: Sequence[Cell],
    config: AccuracyConfig,
    track_ids: Mapping[Path, int],
) -> Iterator[Outcome]:
    """Ask for the same excerpts in every cell, so that cells differ by nothing else."""
    cuts = datasets.excerpts(
        paths,
        config.n_queries,
        duration_s=max(cell.span_s for cell in wanted),
        seed=config.seed,
        audible_s=min(cell.span_s for cell in wanted),
    )
    for i, excerpt in enumerate(cuts):
        kind = "present" if excerpt.cut.path in track_ids else "absent"
        _say(f"\r{kind} {i + 1}/{config.n_queries}")
        for cell in wanted:
            query_id = f"{kind}-{i:05d}"
            yield _ask(catalog, excerpt, cell, config.seed, query_id, track_ids)
    _say("\n")


def _ask(
    catalog: Catalog,
    excerpt: Excerpt,
    cell: Cell,
    seed: int,
    query_id: str,
    track_ids: Mapping[Path, int],
) -> Outcome:
    waveform = cell.distortion.query(
        excerpt.waveform,
        datasets.RATE,
        datasets.generator(seed, cell.name, query_id),
        context_s=datasets.CONTEXT_S,
        duration_s=cell.duration_s,
        tail_s=datasets.TAIL_S,
    )
    asked = Outcome(
        query_id=query_id,
        cell=cell.name,
        present=excerpt.cut.path in track_ids,
        true_track=excerpt.cut.path.name,
        true_start_s=excerpt.cut.start_s,
    )
    try:
        result = catalog.query(
            waveform, sample_rate=datasets.RATE, max_matches=_MAX_MATCHES, min_confidence=0.0
        )
    except AstoundError as error:
        return replace(asked, error=str(error))
    return outcome(asked, result, track_ids.get(excerpt.cut.path), catalog.min_confidence)


def outcome(
    asked: Outcome, result: QueryResult, true_id: int | None, min_confidence: float
) -> Outcome:
    """Hold the answer against the truth.

    Parameters
    ----------
    asked : Outcome
        The question.
    result : QueryResult
        All candidates, whatever their confidence.
    true_id : int or None
        The true track, None if the catalog does not know it.
    min_confidence : float
        Confidence from which on an answer is accepted.
    """
    best = result.best
    if best is None:
        return replace(asked, error=(result.error or {}).get("message"))
    ranks = [i for i, match in enumerate(result.matches, 1) if match.track_id == true_id]
    hit = best.track_id == true_id
    return replace(
        asked,
        rank=ranks[0] if ranks else None,
        answer=Path(best.path).name,
        answer_offset_s=best.offset_s,
        offset_error_s=best.offset_s - asked.true_start_s if hit else None,
        score=best.score,
        confidence=best.confidence,
        margin=best.margin,
        coverage=best.coverage,
        votes=best.votes,
        accepted=best.confidence >= min_confidence,
    )


# -- results ---------------------------------------------------------------------------------


def _about(
    config: AccuracyConfig,
    catalog: Catalog,
    *,
    n_present: int,
    n_absent: int,
    rooms: datasets.Rooms,
) -> dict[str, Any]:
    tracks = list(catalog.tracks())
    return {
        **provenance(),
        "seed": config.seed,
        "recipe_id": catalog.recipe_id,
        "min_confidence": catalog.min_confidence,
        "catalog": {
            "n_tracks": len(tracks),
            "duration_s": sum(track.duration_s for track in tracks),
        },
        "n_tracks_asked_for": {"present": n_present, "absent": n_absent},
        "rooms": {"n_used": len(rooms.responses), "refused": [p.name for p in rooms.refused]},
    }


def _measured(wanted: Sequence[Cell], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    rows = [
        metrics.summarise(cell.name, [o for o in outcomes if o.cell == cell.name])
        for cell in wanted
    ]
    return {
        "cells": [asdict(row) for row in rows],
        "all": asdict(metrics.summarise("all", outcomes)),
        "calibration": asdict(metrics.calibration(outcomes)),
        "table": report.accuracy_table(rows),
    }


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
