"""Passages: joins, edits, jingles, repeats and other mixtures of known and unknown sound.

Recordings with their truth are constructed once, and all commands answer them. Constructions and
catalogs stay in the output folder when the engine changes; answers do not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import astound
from astound.catalog import Catalog
from astound.compare import compare, find_repeats
from benchmarks.metrics.passages import ALL, Answer, CaseResult, Figure, figures
from benchmarks.queries import datasets
from benchmarks.queries.passages import SUITES, Case, CaseFolder, CaseSources, Spec, specs
from benchmarks.queries.timeline import Piece
from benchmarks.reports import passage_pages, report
from benchmarks.runs import catalogs
from benchmarks.runs.journal import Journal
from benchmarks.runs.process import run_in_process
from benchmarks.runs.progress import track
from benchmarks.runs.provenance import code_id, digest, provenance
from benchmarks.runs.workers import map_in_order
from engine.errors import AstoundError, ConfigError
from engine.records import Repeat

RESULTS = "results.json"
MAX_MATCHES = 20
HOLD_OUT = 1 / 3

_CASE_MODULES = tuple(
    f"queries/{name}" for name in ("passages", "timeline", "datasets", "degrade", "mix")
)
_MIRROR_S = 0.1
_UNEQUAL_S = 0.05
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class PassagesConfig:
    """Settings of the benchmark.

    Parameters
    ----------
    references : sequence of Path
        Folders of music for the catalog.
    speech, noise : Path
        Folders of speech, and of noises.
    out : Path
        Folder for results, constructed recordings and catalogs.
    absent : sequence of Path
        Folders of music that the catalog does not contain. Files that are references too are
        ignored.
    hold_out : float or None
        Fraction of the references to use as absent music; a third by default if there is no other.
    suites : str
        Names separated by commas; all by default.
    n : int
        Number of cases; see :data:`benchmarks.queries.passages.SUITES`.
    before : Path or None
        results.json of an earlier run, to be compared with.
    seed : int
    model : Path or None
        Weights to encode with; the shipped ones by default.
    device : str
    jobs : int or None
        Number of decoder processes.
    processes : int
        Number of processes that make and answer cases. Answers do not depend on it.
    """

    references: Sequence[Path]
    speech: Path
    noise: Path
    out: Path
    absent: Sequence[Path] = ()
    hold_out: float | None = None
    suites: str = ""
    n: int = 20
    before: Path | None = None
    seed: int = 1
    model: Path | None = None
    device: str = "auto"
    jobs: int | None = None
    processes: int = 1

    def __post_init__(self) -> None:
        for key in ("n", "processes"):
            if (value := getattr(self, key)) < 1:
                raise ConfigError.invalid(key, value, "must be at least 1")
        if self.hold_out is not None and not 0 <= self.hold_out < 1:
            raise ConfigError.invalid("hold_out", self.hold_out, "must be in [0, 1)")
        for name in self.names:
            if name not in SUITES:
                raise ConfigError.invalid("suites", name, f"must be one of {', '.join(SUITES)}")

    @property
    def names(self) -> list[str]:
        """Names of the suites to run."""
        return [name.strip() for name in self.suites.split(",")] if self.suites else list(SUITES)

    @cached_property
    def sources(self) -> CaseSources:
        """The audio to make cases of.

        Raises
        ------
        ConfigError
            There is no absent music.
        """
        references = datasets.audio_files(self.references)
        others = set(datasets.audio_files(self.absent)).difference(references)
        default = 0.0 if others else HOLD_OUT
        share = default if self.hold_out is None else self.hold_out
        known, held_out = datasets.hold_out(references, share, self.seed)
        if not (absent := [*held_out, *sorted(others)]):
            raise ConfigError("absent", "no absent music; use --absent or --hold-out")
        return CaseSources(
            known=known,
            absent=absent,
            speech=datasets.audio_files([self.speech]),
            noise=self.noise,
            seed=self.seed,
        )

    @cached_property
    def inputs(self) -> Path:
        """Folder of recordings and catalogs, which depend on these files and their code alone."""
        files = (f"{path} {path.stat().st_size}" for path in self.sources.paths())
        settings = [str(self.seed), *map(str, self.sources.known), *files]
        name = digest([code_id(_CASE_MODULES, with_engine=False), *settings])
        return self.out.resolve() / f"inputs-{name}"

    @property
    def cases(self) -> CaseFolder:
        """The constructed recordings."""
        return CaseFolder(self.inputs / "cases", self.sources)

    def open(self, name: str, *, create: bool = False) -> Catalog:
        """Open the catalog of music, jingles, speech or pairs."""
        return astound.open(self.inputs / name, create=create, model=self.model, device=self.device)


def run(config: PassagesConfig) -> dict[str, Any]:
    """Run the benchmark and write its results.

    Returns
    -------
    dict
        Content of results.json.

    Raises
    ------
    AstoundError
        A folder has too little usable audio.
    """
    before, folder = _read_before(config), config.cases
    every = [spec for name in config.names for spec in specs(name, config.n)]
    made = map_in_order(_maker, (folder,), every, config.processes)
    cases = dict(zip(every, track(made, "recordings", len(every)), strict=True))
    _fill_catalogs(config, cases)
    answers = config.out / f"answers-{_answers_id(config)}"
    results: dict[tuple[str, str, str], list[CaseResult]] = {}
    for spec, commands in _answered(config, answers, cases):
        for command, result in commands.items():
            results.setdefault((spec.suite, spec.row, command), []).append(result)
    found = [
        figure
        for key, group in pooled(results).items()
        for figure in figures(*key, group, config.seed)
    ]
    about = _about(config, found) | {"before": before}
    about["table"] = passage_pages.goals_table(about)
    report.write(config.out / RESULTS, about)
    (config.out / "report.md").write_text(passage_pages.markdown(about))
    (config.out / "report.html").write_text(passage_pages.html(about, results))
    return about


def pooled(results: passage_pages.Answered) -> dict[tuple[str, str, str], list[CaseResult]]:
    """Add the row ALL of each suite and command that has several rows."""
    rows = {key: list(group) for key, group in results.items()}
    for (suite, _, command), group in results.items():
        if len(SUITES[suite].rows) > 1:
            rows.setdefault((suite, ALL, command), []).extend(group)
    return rows


def _read_before(config: PassagesConfig) -> dict[str, Any] | None:
    if config.before is None:
        return None
    try:
        earlier = json.loads(config.before.read_text())
        return {key: earlier[key] for key in ("command", "commit", "n", "seed", "figures")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError("before", f"{config.before.name} is no results.json of this") from error


def _about(config: PassagesConfig, found: Iterable[Figure]) -> dict[str, Any]:
    with config.open("music") as catalog:
        described = catalogs.describe(catalog)
    return {
        **provenance(),
        **described,
        "seed": config.seed,
        "n": config.n,
        "suites": config.names,
        "n_absent": len(config.sources.absent),
        "figures": [asdict(figure) for figure in found],
    }


# -- recordings and catalogs -------------------------------------------------------------------


def _maker(folder: CaseFolder) -> Callable[[Spec], Case]:
    return folder.case


def _fill_catalogs(config: PassagesConfig, cases: Mapping[Spec, Case]) -> None:
    """Add music, jingles, speech, and the pairs of the suite `same` to a catalog each."""

    def files(suite: str, first: int) -> list[Path]:
        return [
            f for spec, case in cases.items() if spec.suite == suite for f in case.files[first:]
        ]

    contents = {"music": list(config.sources.known), "jingles": files("jingles", 1)}
    contents["pairs"] = files("same", 0)
    if "rejects" in config.names:
        contents["speech"] = config.sources.speech_halves[0]
    for name, paths in contents.items():
        if paths:
            with config.open(name, create=True) as catalog:
                catalogs.fill(catalog, paths, config.jobs)


def _answers_id(config: PassagesConfig) -> str:
    """Hash everything that answers depend on."""
    with config.open("music") as catalog:
        calibration = catalog.calibration
        settings = [*calibration.weights, calibration.min_confidence, catalog.recipe_id]
    code = code_id((*_CASE_MODULES, "suites/passages"))
    return digest(map(str, [config.inputs.name, config.device, code, *settings]))


# -- answers -----------------------------------------------------------------------------------


def _answered(
    config: PassagesConfig, folder: Path, cases: Mapping[Spec, Case]
) -> Iterator[tuple[Spec, dict[str, CaseResult]]]:
    """Yield what all commands answered in each case, from disk if an earlier run did."""
    for suite in config.names:
        own = {spec: case for spec, case in cases.items() if spec.suite == suite}
        journal = Journal(folder / f"{suite}.jsonl", {"suite": suite})
        done = {Spec(**record["spec"]): record["answers"] for record in journal.records}
        rest = [case for spec, case in own.items() if spec not in done]
        answers = _answers(config, suite, rest)
        for case, found in zip(rest, track(answers, suite, len(rest)), strict=True):
            journal.append({"spec": asdict(case.spec), "answers": found})
            done[case.spec] = found
        if suite == "same":
            _add_dedup(config, own, done)
        for spec, case in own.items():
            yield spec, {name: _result(case, found) for name, found in done[spec].items()}


def _answers(config: PassagesConfig, suite: str, cases: Sequence[Case]) -> Iterator[dict[str, Any]]:
    if suite != "long":
        yield from map_in_order(_Worker, (config,), cases, config.processes)
        return
    for case in cases:  # alone, as it is timed
        yield {command: _measured(config, command, case) for command in ("query", "scan")}


def _measured(config: PassagesConfig, command: str, case: Case) -> dict[str, Any]:
    answer, cost = run_in_process(_answer_once, config, command, case)
    answer["extra"] = {
        "realtime_factor": case.duration_s / cost.wall_s,
        "peak_mib": cost.peak_rss_bytes / _MIB,
    }
    return dict(answer)


def _answer_once(config: PassagesConfig, command: str, case: Case) -> dict[str, Any]:
    return _guarded(_QUERY_AND_SCAN[command], _Worker(config), case)


def _result(case: Case, found: Mapping[str, Any]) -> CaseResult:
    return CaseResult(
        case=case.spec.name,
        pieces=case.pieces,
        answers=[Answer(**answer) for answer in found["answers"]],
        status=found["status"],
        extra=found["extra"],
    )


class _Worker:
    """Answers a case with all commands of its suite; opens catalogs when they are needed."""

    def __init__(self, config: PassagesConfig) -> None:
        self.config = config
        self._catalogs: dict[str, Catalog] = {}

    def __call__(self, case: Case) -> dict[str, Any]:
        commands = _COMMANDS.get(case.spec.suite, _QUERY_AND_SCAN)
        return {name: _guarded(command, self, case) for name, command in commands.items()}

    def catalog(self, name: str) -> Catalog:
        """Return an open catalog."""
        if name not in self._catalogs:
            self._catalogs[name] = self.config.open(name)
        return self._catalogs[name]


_Found = tuple[list[Answer], dict[str, Any]]
"""Answers, and further values of the suite."""

_Command = Callable[[_Worker, Case], _Found]


def _guarded(command: _Command, worker: _Worker, case: Case) -> dict[str, Any]:
    """Return what a command answers as plain values; after an error there are no answers."""
    try:
        found, extra = command(worker, case)
    except AstoundError as error:
        return {"status": "error", "answers": [], "extra": {}, "error": str(error)}
    status = "match" if found else "no_match"
    return {"status": status, "answers": [asdict(one) for one in found], "extra": extra}


def _query(
    worker: _Worker, case: Case, name: str = "music", max_matches: int = MAX_MATCHES, **options: Any
) -> _Found:
    catalog = worker.catalog(name)
    result = catalog.query(case.files[0], max_matches=max_matches, **options)
    return [Answer.of(match, match.path) for match in result.matches], {}


def _scan(worker: _Worker, case: Case, name: str = "music") -> _Found:
    timeline = worker.catalog(name).scan(case.files[0])
    return [Answer.of(entry, entry.path) for entry in timeline.entries], {}


def _query_half(worker: _Worker, case: Case) -> _Found:
    """Query, and compare the confidence with that of the known part alone."""
    piece = case.pieces[0]
    alone, _ = _query(worker, case, start_s=piece.query_start_s, end_s=piece.query_end_s)
    found, _ = _query(worker, case)
    return found, {"confidence_lost": _confidence(alone, piece) - _confidence(found, piece)}


def _confidence(found: Iterable[Answer], piece: Piece) -> float:
    own = (answer.confidence or 0.0 for answer in found if answer.track == piece.track)
    return max(own, default=0.0)


def _compare(worker: _Worker, case: Case) -> _Found:
    """Compare a pair in both orders."""
    config = worker.config
    one, other = (
        compare(*files, device=config.device, model=config.model)
        for files in (case.files, case.files[::-1])
    )
    found = [Answer.of(passage, str(case.files[1])) for passage in one.passages]
    back = [_swapped(Answer.of(passage, str(case.files[1]))) for passage in other.passages]
    extra: dict[str, Any] = {"mirrored": float(_are_equal(found, back))}
    if case.spec.row != "faster":  # all of an edit is in the original
        extra["similarity"] = one.similarity
    return found, extra


def _swapped(answer: Answer) -> Answer:
    """Exchange query and reference."""
    return replace(
        answer,
        query_start_s=answer.reference_start_s,
        query_end_s=answer.reference_end_s,
        reference_start_s=answer.query_start_s,
        reference_end_s=answer.query_end_s,
        speed=1 / answer.speed,
    )


def _are_equal(found: Iterable[Answer], others: Iterable[Answer]) -> bool:
    """Whether two lists contain the same passages within a tolerance."""
    spans, other_spans = (
        np.array(
            sorted(
                (a.query_start_s, a.query_end_s, a.reference_start_s, a.reference_end_s)
                for a in answers
            )
        )
        for answers in (found, others)
    )
    return spans.shape == other_spans.shape and np.allclose(spans, other_spans, 0, _MIRROR_S)


def _find_repeats(worker: _Worker, case: Case) -> _Found:
    """Find repeats, and name each as the true one that it overlaps most."""
    config = worker.config
    repeated = find_repeats(case.files, device=config.device, model=config.model).repeats
    names = [_true_name(repeat, case.pieces) for repeat in repeated]
    found = [
        Answer(
            track=name,
            query_start_s=at.start_s,
            query_end_s=at.end_s,
            reference_start_s=at.start_s,
            reference_end_s=at.end_s,
            recording=at.recording,
        )
        for name, repeat in zip(names, repeated, strict=True)
        for at in repeat.occurrences
    ]
    return found, {"n_false": names.count(""), "n_unequal": sum(map(_is_unequal, repeated))}


def _true_name(repeat: Repeat, pieces: Iterable[Piece]) -> str:
    """Return the name of the true repeat that a repeat overlaps most, "" without any."""
    shared_s: dict[str, float] = {}
    for at, piece in product(repeat.occurrences, pieces):
        both_s = min(at.end_s, piece.query_end_s) - max(at.start_s, piece.query_start_s)
        if at.recording == piece.recording and both_s > 0:
            shared_s[piece.track] = shared_s.get(piece.track, 0.0) + both_s
    return max(shared_s, key=shared_s.__getitem__, default="")


def _is_unequal(repeat: Repeat) -> bool:
    lengths_s = [at.end_s - at.start_s for at in repeat.occurrences]
    return max(lengths_s) - min(lengths_s) > _UNEQUAL_S


_QUERY_AND_SCAN: Mapping[str, _Command] = {"query": _query, "scan": _scan}
_COMMANDS: Mapping[str, Mapping[str, _Command]] = {
    "half-known": {"query": _query_half, "scan": _scan},
    "jingles": {
        "query": partial(_query, name="jingles"),
        "scan": partial(_scan, name="jingles"),
    },
    "detuned": {"query": _query},
    "speeds": {"query": _query},
    "same": {"same": _compare},
    "repeats": {"repeats": _find_repeats},
    "rejects": {"query, music": _query, "query, speech": partial(_query, name="speech")},
    "within": {"query": partial(_query, max_matches=1, min_confidence=0.0)},
}
"""By suite; others are queried and scanned."""


# -- duplicates --------------------------------------------------------------------------------


def _add_dedup(
    config: PassagesConfig, cases: Mapping[Spec, Case], answers: Mapping[Spec, dict[str, Any]]
) -> None:
    """Add what `dedup` finds in each pair to the answers, with the edit as the query."""
    with config.open("pairs") as catalog:
        duplicates, _ = catalog.dedup()
        ids = catalogs.track_ids(catalog)
    pairs = {(one.first_id, one.second_id): one.passages for one in duplicates}
    for spec, case in cases.items():
        edit, original = (ids.get(file.resolve(), 0) for file in case.files)
        found = [Answer.of(one, str(case.files[1])) for one in pairs.get((edit, original), ())]
        found += [
            _swapped(Answer.of(one, str(case.files[1]))) for one in pairs.get((original, edit), ())
        ]
        status = "match" if found else "no_match"
        answers[spec]["dedup"] = {
            "status": status,
            "answers": [asdict(one) for one in found],
            "extra": {},
        }
