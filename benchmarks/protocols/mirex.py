"""The audio fingerprinting task of MIREX: phone recordings of about ten seconds, top-1 hit rate.

The task's data base and most of its queries are hidden, and no query is of unknown music. Files
are known by their names without endings, as the task promises that these are unique. What it
publishes is the format of the result: a line for each query, with the name of the query and that
of the best recording. The list of right answers is read in the same form; how the task itself
keeps it is not published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import astound
from astound.catalog import Catalog, Device
from benchmarks.metrics.outcomes import Outcome, outcome, summarise
from benchmarks.queries import datasets
from benchmarks.reports import report
from benchmarks.runs import library
from benchmarks.runs.journal import Journal
from benchmarks.runs.progress import followed
from benchmarks.runs.provenance import code_id, digest, provenance
from engine.audio import decode
from engine.errors import AudioError, ConfigError

_MODULES = ("protocols/mirex", "metrics/outcomes")


@dataclass(frozen=True, kw_only=True)
class MirexConfig:
    """What to measure.

    Parameters
    ----------
    references, queries : Path
        Folders of audio.
    list : Path
        Right answers: a line for each query, with its file and that of its recording, separated by
        a tab or spaces. Folders and endings do not matter.
    out : Path
        Folder for the catalog, results.txt in the task's format, and mirex.json; a run that was cut
        short goes on there.
    model : Path or None
        Weights to encode with; those astound ships by default.
    device : str
    jobs : int or None
        Processes that decode the references.
    """

    references: Path
    queries: Path
    list: Path
    out: Path
    model: Path | None = None
    device: Device = "auto"
    jobs: int | None = None


def run(config: MirexConfig) -> dict[str, Any]:
    """Ask, write the answers and the hit rate, and return what mirex.json holds.

    Raises
    ------
    AstoundError
        The list cannot be read or names files that are not there, or what an earlier run left was
        measured with other settings.
    """
    truth = read_list(config.list)
    queries = _by_name(datasets.audio_files([config.queries]))
    references = _by_name(datasets.audio_files([config.references]))
    _require("queries", truth, queries)
    _require("references", truth.values(), references)
    with astound.open(config.out / "catalog", model=config.model, device=config.device) as catalog:
        library.fill(catalog, list(references.values()), config.jobs)
        about = {**provenance(), **library.describe(catalog)}
        journal = Journal(config.out / "mirex.jsonl", _settings(config, catalog, truth), 1)
        n_done = len(journal.outcomes)
        rest = sorted(truth)[n_done:]
        asked = journal.note(_asked(catalog, rest, truth, queries, references))
        for _ in followed(asked, "queries", len(truth), n_done):
            pass
    (config.out / "results.txt").write_text(_result_file(journal.outcomes))
    found = summarise("all", journal.outcomes)
    assert found.present is not None
    hits = found.present.hit_rate
    results = about | {
        "cells": [asdict(found)],
        "table": report.table(["n", "top-1 hit rate %"], [[str(hits.n), report.percent(hits)]]),
    }
    report.write(config.out / "mirex.json", results)
    return results


def read_list(path: Path) -> dict[str, str]:
    """Read right answers.

    Returns
    -------
    dict of str
        The name of the recording by that of the query, both without folders and endings.

    Raises
    ------
    ConfigError
        It cannot be read, is empty, or a line does not name two files.
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
            reason = f"{path}: line {number} names {len(files)} files, not a query and a recording"
            raise ConfigError("list", reason)
        truth[_name(files[0])] = _name(files[1])
    if not truth:
        raise ConfigError("list", f"{path} names no queries")
    return truth


def _name(file: str) -> str:
    name = Path(file.strip())
    is_audio = name.suffix[1:].lower() in decode.EXTENSIONS
    return name.stem if is_audio else name.name


def _by_name(paths: Sequence[Path]) -> dict[str, Path]:
    return {path.stem: path for path in paths}


def _require(key: str, names: Iterable[str], files: Mapping[str, Path]) -> None:
    missing = sorted({name for name in names if name not in files})
    if missing:
        reason = f"{len(missing)} that the list names are not there, {missing[0]!r} for one"
        raise ConfigError(key, reason)


def _settings(config: MirexConfig, catalog: Catalog, truth: Mapping[str, str]) -> dict[str, Any]:
    """Collect all that outcomes depend on."""
    tracks = [f"{track.path} {track.content_hash}" for track in catalog.tracks()]
    return {
        "recipe_id": catalog.recipe_id,
        "device": config.device,
        "tracks": digest(tracks),
        "queries": str(config.queries),
        "list": digest(f"{query} {reference}" for query, reference in sorted(truth.items())),
        "code": code_id(_MODULES),
    }


def _asked(
    catalog: Catalog,
    names: Sequence[str],
    truth: Mapping[str, str],
    queries: Mapping[str, Path],
    references: Mapping[str, Path],
) -> Iterator[list[Outcome]]:
    track_ids = library.track_ids(catalog)
    for name in names:
        asked = Outcome(
            query_id=name, cell="all", present=True, true_track=truth[name], true_start_s=0.0
        )
        true_id = track_ids.get(references[truth[name]])
        try:
            result = catalog.query(queries[name], max_matches=1, min_confidence=0.0)
        except AudioError as error:
            yield [replace(asked, error=str(error))]
        else:
            yield [outcome(asked, result, true_id, 0.0)]


def _result_file(outcomes: Sequence[Outcome]) -> str:
    """Write the best recording of every query, by the names of the queries."""
    named = [(one.query_id, Path(one.answer).stem if one.answer else "") for one in outcomes]
    return "".join(f"{query} {answer}\n" for query, answer in sorted(named))
