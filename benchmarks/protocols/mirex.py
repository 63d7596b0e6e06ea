"""The audio fingerprinting task of MIREX: phone recordings of about ten seconds, top-1 hit rate.

The task's recordings and most of its queries are not public, and no query is of unknown music.
Files are identified by their names without suffixes, which the task guarantees to be unique. The
task publishes the format of results: a line for each query, with the names of the query and of the
best recording. The ground truth is read in the same format, as the task's own is not published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import astound
from astound.catalog import Catalog, Device
from benchmarks.metrics.outcomes import Outcome, run_query, summarise
from benchmarks.queries import datasets
from benchmarks.reports import report
from benchmarks.runs import catalogs
from benchmarks.runs.journal import Journal, collect_outcomes
from benchmarks.runs.provenance import code_id, digest, provenance
from engine.audio.walk import has_extension
from engine.errors import ConfigError

_MODULES = ("protocols/mirex", "metrics/outcomes")


@dataclass(frozen=True, kw_only=True)
class MirexConfig:
    """Settings of the task.

    Parameters
    ----------
    references, queries : Path
        Folders of audio.
    list : Path
        Ground truth: a line for each query, with its file and that of its recording, separated by
        a tab or spaces. Folders and suffixes are ignored.
    out : Path
        Folder for the catalog, results.txt in the task's format, and mirex.json; an interrupted run
        resumes there.
    model : Path or None
        Weights to encode with; the shipped ones by default.
    device : str
    jobs : int or None
        Number of decoder processes.
    """

    references: Path
    queries: Path
    list: Path
    out: Path
    model: Path | None = None
    device: Device = "auto"
    jobs: int | None = None


def run(config: MirexConfig) -> dict[str, Any]:
    """Run the task, write results.txt and mirex.json, and return the content of the latter.

    Raises
    ------
    AstoundError
        The list cannot be read or names missing files, or an earlier run in `config.out` had other
        settings.
    """
    truth = read_list(config.list)
    queries = _by_name(datasets.audio_files([config.queries]))
    references = _by_name(datasets.audio_files([config.references]))
    _require("queries", truth, queries)
    _require("references", truth.values(), references)
    with astound.open(config.out / "catalog", model=config.model, device=config.device) as catalog:
        catalogs.fill(catalog, list(references.values()), config.jobs)
        about = {**provenance(), **catalogs.describe(catalog)}
        journal = Journal(config.out / "mirex.jsonl", _settings(config, catalog, truth))
        names = sorted(truth)[journal.n_groups :]
        answers = _answers(catalog, names, truth, queries, references)
        outcomes = collect_outcomes(journal, answers, "queries", len(truth))
    (config.out / "results.txt").write_text(_result_file(outcomes))
    metrics = summarise("all", outcomes)
    assert metrics.present is not None
    hits = metrics.present.hit_rate
    results = about | {
        "cells": [asdict(metrics)],
        "table": report.table(["n", "top-1 hit rate %"], [[str(hits.n), report.percent(hits)]]),
    }
    report.write(config.out / "mirex.json", results)
    return results


def read_list(path: Path) -> dict[str, str]:
    """Read the ground truth.

    Returns
    -------
    dict of str
        Name of the recording by that of the query, both without folders and suffixes.

    Raises
    ------
    ConfigError
        The file cannot be read or is empty, or a line does not name two files.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("list", f"{path} cannot be read ({error})") from error
    truth = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        files = line.strip().split("\t") if "\t" in line.strip() else line.split()
        if len(files) != 2:
            reason = (
                f"{path}: line {number} names {len(files)} files instead of a query and a recording"
            )
            raise ConfigError("list", reason)
        truth[_name(files[0])] = _name(files[1])
    if not truth:
        raise ConfigError("list", f"{path} names no queries")
    return truth


def _name(file: str) -> str:
    name = Path(file.strip())
    return name.stem if has_extension(name) else name.name


def _by_name(paths: Sequence[Path]) -> dict[str, Path]:
    return {path.stem: path for path in paths}


def _require(key: str, names: Iterable[str], files: Mapping[str, Path]) -> None:
    missing = sorted({name for name in names if name not in files})
    if missing:
        reason = f"{len(missing)} files of the list are missing, such as {missing[0]!r}"
        raise ConfigError(key, reason)


def _settings(config: MirexConfig, catalog: Catalog, truth: Mapping[str, str]) -> dict[str, Any]:
    """Return everything that outcomes depend on."""
    tracks = [f"{track.path} {track.content_hash}" for track in catalog.tracks()]
    return {
        "recipe_id": catalog.recipe_id,
        "device": config.device,
        "tracks": digest(tracks),
        "queries": str(config.queries),
        "list": digest(f"{query} {reference}" for query, reference in sorted(truth.items())),
        "code": code_id(_MODULES),
    }


def _answers(
    catalog: Catalog,
    names: Sequence[str],
    truth: Mapping[str, str],
    queries: Mapping[str, Path],
    references: Mapping[str, Path],
) -> Iterator[list[Outcome]]:
    track_ids = catalogs.track_ids(catalog)
    for name in names:
        unanswered = Outcome(
            query_id=name, cell="all", present=True, true_track=truth[name], true_start_s=0.0
        )
        query = partial(catalog.query, queries[name], max_matches=1, min_confidence=0.0)
        true_id = track_ids.get(references[truth[name]])
        yield [run_query(unanswered, query, true_id, 0.0)]


def _result_file(outcomes: Sequence[Outcome]) -> str:
    """Format the best recording of every query, sorted by query."""
    named = [(one.query_id, Path(one.answer).stem if one.answer else "") for one in outcomes]
    return "".join(f"{query} {answer}\n" for query, answer in sorted(named))
