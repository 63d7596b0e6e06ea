"""`scan` on a long mix: tracks found, boundaries, false entries, speed and memory."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

import astound
from benchmarks.metrics.outcomes import share
from benchmarks.queries import datasets, mix
from benchmarks.queries.mix import Mix, Part
from benchmarks.reports import report
from benchmarks.reports.speed_tables import scan_table
from benchmarks.runs import catalogs
from benchmarks.runs.provenance import provenance
from engine.errors import AstoundError, ConfigError

BOUNDARY_S = 2.0
"""Error up to which a boundary is right, in seconds."""

_POLL_S = 0.05
_COMMAND = "from astound.commands.main import main; main()"


@dataclass(frozen=True, kw_only=True)
class ScanBenchmarkConfig:
    """Settings of the benchmark.

    Parameters
    ----------
    references : sequence of Path
        Folders of music. Tracks that the catalog contains are known, others unknown music.
    catalog : Path
    out : Path
        JSON file to write.
    speech : sequence of Path
        Folders of speech between and over the music.
    minutes : float
        Length of the mix.
    n_tracks : int
        Number of known tracks in it.
    seed : int
    device : str
    """

    references: Sequence[Path]
    catalog: Path
    out: Path
    speech: Sequence[Path] = ()
    minutes: float = 180.0
    n_tracks: int = 40
    seed: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        for key in ("minutes", "n_tracks"):
            if (value := getattr(self, key)) <= 0:
                raise ConfigError.invalid(key, value, "must be positive")


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """A part of the mix with the entries that found it.

    Parameters
    ----------
    part : Part
    entries : tuple of mapping
        Entries of its track that overlap it, by start.
    """

    part: Part
    entries: tuple[Mapping[str, Any], ...]

    @property
    def errors_s(self) -> tuple[float, ...]:
        """Errors of start and end relative to the middle of the fades, in seconds."""
        if not self.entries:
            return ()
        start_s = self.part.start_s + self.part.fade_in_s / 2
        end_s = self.part.end_s - self.part.fade_out_s / 2
        last_s = max(entry["query_end_s"] for entry in self.entries)
        return self.entries[0]["query_start_s"] - start_s, last_s - end_s

    @property
    def excesses_s(self) -> tuple[float, ...]:
        """Distances of start and end from the fades, in seconds; 0 inside a fade."""
        fades_s = self.part.fade_in_s, self.part.fade_out_s
        errors = zip(self.errors_s, fades_s, strict=False)
        return tuple(max(abs(error_s) - fade_s / 2, 0.0) for error_s, fade_s in errors)

    @property
    def offset_error_s(self) -> float | None:
        """Error of the first entry's start in the track, in seconds."""
        if not self.entries:
            return None
        first, part = self.entries[0], self.part
        at_s = part.reference_start_s + part.speed * (first["query_start_s"] - part.start_s)
        return float(first["reference_start_s"] - at_s)


def run(config: ScanBenchmarkConfig) -> dict[str, Any]:
    """Run the benchmark, write the results as JSON and return them."""
    results = provenance() | {"seed": config.seed}
    with astound.open(config.catalog, create=False, device=config.device) as catalog:
        ids = catalogs.track_ids(catalog)
        results |= catalogs.describe(catalog)
    paths = datasets.audio_files(config.references)
    known = [path for path in paths if path in ids]
    unknown = [path for path in paths if path not in ids]
    planned = mix.plan(known, unknown, config.n_tracks, config.minutes * 60, config.seed)
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "mix.flac"
        mix.write(planned, datasets.audio_files(config.speech), recording, config.seed)
        entries, cost = _scan(config, recording)
    results |= measure(planned, entries, ids) | cost
    results["realtime_factor"] = planned.duration_s / cost["wall_s"]
    results["cpu_realtime_factor"] = planned.duration_s / cost["cpu_s"]
    results["table"] = scan_table(results)
    report.write(config.out, results)
    return results


def _scan(
    config: ScanBenchmarkConfig, recording: Path
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Run the command and measure its costs, including its start."""
    command = [sys.executable, "-c", _COMMAND, "--catalog", str(config.catalog)]
    command += ["--device", config.device, "scan", str(recording), "--format", "jsonl"]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        child = psutil.Popen(command, stdout=output)
        peak_bytes, cpu_s = _watch(child)
        wall_s = time.perf_counter() - start
        output.seek(0)
        lines = [json.loads(line) for line in output]
    if child.returncode:
        raise AstoundError(f"`astound scan` ended with exit code {child.returncode}")
    entries = [line for line in lines if line["status"] == "entry"]
    entries.sort(key=lambda entry: float(entry["query_start_s"]))
    return entries, {"wall_s": wall_s, "cpu_s": cpu_s, "peak_rss_bytes": peak_bytes}


def _watch(process: psutil.Popen) -> tuple[int, float]:
    """Wait for a process; return its peak memory in bytes and its processor seconds."""
    peak_bytes, cpu_s = 0, 0.0
    while process.poll() is None:
        try:
            peak_bytes = max(peak_bytes, process.memory_info().rss)
            times = process.cpu_times()
            cpu_s = times.user + times.system
        except psutil.NoSuchProcess:
            break
        time.sleep(_POLL_S)
    process.wait()
    return peak_bytes, cpu_s


# -- results ---------------------------------------------------------------------------------


def measure(
    planned: Mix, entries: Sequence[Mapping[str, Any]], ids: Mapping[Path, int]
) -> dict[str, Any]:
    """Compare entries with the ground truth.

    Parameters
    ----------
    planned : Mix
    entries : sequence of mapping
        Output of ``astound scan --format jsonl``, by start.
    ids : mapping
        Ids of the known tracks by path.
    """
    known = [part for part in planned.parts if part.present]
    results = [PartResult(part=part, entries=_matching(part, entries, ids)) for part in known]
    right = {id(entry) for result in results for entry in result.entries}
    false = [entry for entry in entries if id(entry) not in right]
    errors = [abs(error_s) for result in results for error_s in result.errors_s]
    excesses = [excess_s for result in results for excess_s in result.excesses_s]
    return {
        "duration_s": planned.duration_s,
        "n_known": len(known),
        "n_unknown": len(planned.parts) - len(known),
        "talk_s": sum(end_s - start_s for start_s, end_s in planned.talks),
        "found": _share(bool(result.entries) for result in results),
        "in_one_entry": _share(len(result.entries) == 1 for result in results if result.entries),
        "boundaries": _share(error_s <= BOUNDARY_S for error_s in errors),
        "boundaries_of_fades": _share(excess_s <= BOUNDARY_S for excess_s in excesses),
        "n_false": len(false),
        "false": [_named(entry) for entry in false],
        "parts": [_describe(part, results) for part in planned.parts],
    }


def _matching(
    part: Part, entries: Sequence[Mapping[str, Any]], ids: Mapping[Path, int]
) -> tuple[Mapping[str, Any], ...]:
    track_id = ids[part.path.resolve()]
    return tuple(
        entry
        for entry in entries
        if entry["track_id"] == track_id
        and entry["query_start_s"] < part.end_s
        and entry["query_end_s"] > part.start_s
    )


def _share(yes: Iterable[bool]) -> dict[str, Any]:
    return asdict(share(yes))


def _named(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {**entry, "recording": "mix", "path": Path(entry["path"]).name}


def _describe(part: Part, results: Sequence[PartResult]) -> dict[str, Any]:
    fields = asdict(part) | {"path": part.path.name}
    for result in results:
        if result.part is part:
            fields |= {"errors_s": result.errors_s, "offset_error_s": result.offset_error_s}
            fields |= {"n_entries": len(result.entries)}
    return fields
