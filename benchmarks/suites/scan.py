"""How well a long mix is taken apart: tracks found, boundaries, false tracks, speed and memory."""

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
from benchmarks.metrics.outcomes import Share, share
from benchmarks.queries import datasets, mix
from benchmarks.queries.mix import Mix, Part
from benchmarks.reports import report
from benchmarks.runs import library
from benchmarks.runs.provenance import provenance
from engine.errors import AstoundError, ConfigError

BOUNDARY_S = 2.0

_POLL_S = 0.05
_COMMAND = "from astound.commands.main import main; main()"


@dataclass(frozen=True, kw_only=True)
class ScanBenchmarkConfig:
    """What to measure.

    Parameters
    ----------
    references : sequence of Path
        Folders of music; what the catalog knows of it is found or not, the rest is unknown music.
    catalog : Path
    out : Path
        The JSON.
    speech : sequence of Path
        Folders of speech between the music and over it.
    minutes : float
        Length of the mix.
    n_tracks : int
        Known tracks in it.
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
class Found:
    """A part of the mix with the entries about it.

    Parameters
    ----------
    part : Part
    entries : tuple of mapping
        Entries of its track that overlap it, by when they begin.
    """

    part: Part
    entries: tuple[Mapping[str, Any], ...]

    @property
    def errors_s(self) -> tuple[float, ...]:
        """How far start and end lie beside the middles of the fades, in seconds."""
        if not self.entries:
            return ()
        start_s = self.part.start_s + self.part.fade_in_s / 2
        end_s = self.part.end_s - self.part.fade_out_s / 2
        last_s = max(entry["query_end_s"] for entry in self.entries)
        return self.entries[0]["query_start_s"] - start_s, last_s - end_s

    @property
    def excesses_s(self) -> tuple[float, ...]:
        """How far they lie outside of the fades, in seconds; a hard cut is a fade of no length."""
        fades_s = self.part.fade_in_s, self.part.fade_out_s
        errors = zip(self.errors_s, fades_s, strict=False)
        return tuple(max(abs(error_s) - fade_s / 2, 0.0) for error_s, fade_s in errors)

    @property
    def offset_error_s(self) -> float | None:
        """How far beside its line the first entry begins, in seconds of the track."""
        if not self.entries:
            return None
        first, part = self.entries[0], self.part
        at_s = part.reference_start_s + part.speed * (first["query_start_s"] - part.start_s)
        return float(first["reference_start_s"] - at_s)


def run(config: ScanBenchmarkConfig) -> dict[str, Any]:
    """Measure, write the results and return them, as the plain dict of the JSON."""
    results = provenance() | {"seed": config.seed}
    with astound.open(config.catalog, create=False, device=config.device) as catalog:
        ids = library.track_ids(catalog)
        results |= library.describe(catalog)
    paths = datasets.audio_files(config.references)
    known = [path for path in paths if path in ids]
    unknown = [path for path in paths if path not in ids]
    planned = mix.plan(known, unknown, config.n_tracks, config.minutes * 60, config.seed)
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "mix.flac"
        mix.write(planned, datasets.audio_files(config.speech), recording, config.seed)
        entries, cost = _scan(config, recording)
    results |= measured(planned, entries, ids) | cost
    results["realtime_factor"] = planned.duration_s / cost["wall_s"]
    results["cpu_realtime_factor"] = planned.duration_s / cost["cpu_s"]
    results["table"] = report.key_values(_rows(results))
    report.write(config.out, results)
    return results


def _scan(
    config: ScanBenchmarkConfig, recording: Path
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Run the command, and watch what it costs; its start counts too."""
    command = [sys.executable, "-c", _COMMAND, "--catalog", str(config.catalog)]
    command += ["--device", config.device, "scan", str(recording), "--format", "jsonl"]
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        child = psutil.Popen(command, stdout=output)
        peak_bytes, cpu_s = _watch(child)
        wall_s = time.perf_counter() - began
        output.seek(0)
        lines = [json.loads(line) for line in output]
    if child.returncode:
        raise AstoundError(f"the command ended with {child.returncode}")
    entries = [line for line in lines if line["status"] == "entry"]
    entries.sort(key=lambda entry: float(entry["query_start_s"]))
    return entries, {"wall_s": wall_s, "cpu_s": cpu_s, "peak_rss_bytes": peak_bytes}


def _watch(process: psutil.Popen) -> tuple[int, float]:
    """Wait for a process; give the peak of its memory, and the CPU seconds it took."""
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


def measured(
    planned: Mix, entries: Sequence[Mapping[str, Any]], ids: Mapping[Path, int]
) -> dict[str, Any]:
    """Compare what was found with the truth.

    Parameters
    ----------
    planned : Mix
    entries : sequence of mapping
        As ``astound scan --format jsonl`` writes them, by when they begin.
    ids : mapping
        Ids of the known tracks by path.
    """
    known = [part for part in planned.parts if part.present]
    found = [Found(part=part, entries=_about(part, entries, ids)) for part in known]
    right = {id(entry) for one in found for entry in one.entries}
    false = [entry for entry in entries if id(entry) not in right]
    errors = [abs(error_s) for one in found for error_s in one.errors_s]
    excesses = [excess_s for one in found for excess_s in one.excesses_s]
    return {
        "duration_s": planned.duration_s,
        "n_known": len(known),
        "n_unknown": len(planned.parts) - len(known),
        "talk_s": sum(end_s - start_s for start_s, end_s in planned.talks),
        "found": _share(bool(one.entries) for one in found),
        "in_one_entry": _share(len(one.entries) == 1 for one in found if one.entries),
        "boundaries": _share(error_s <= BOUNDARY_S for error_s in errors),
        "boundaries_of_fades": _share(excess_s <= BOUNDARY_S for excess_s in excesses),
        "n_false": len(false),
        "false": [_named(entry) for entry in false],
        "parts": [_told(part, planned, found) for part in planned.parts],
    }


def _about(
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


def _told(part: Part, planned: Mix, found: Sequence[Found]) -> dict[str, Any]:
    told = asdict(part) | {"path": part.path.name}
    for one in found:
        if one.part is part:
            told |= {"errors_s": one.errors_s, "offset_error_s": one.offset_error_s}
            told |= {"n_entries": len(one.entries)}
    return told


def _rows(results: Mapping[str, Any]) -> dict[str, str]:
    def percent(key: str) -> str:
        return report.percent(Share(**results[key]))

    minutes = results["duration_s"] / 60
    parts = f"{results['n_known']} known, {results['n_unknown']} unknown"
    return {
        "mix": f"{minutes:.0f} min, {parts}, {results['talk_s'] / 60:.0f} min of speech alone",
        "known tracks found, %": percent("found"),
        "of these, told as one entry, %": percent("in_one_entry"),
        f"boundaries within {BOUNDARY_S:g} s of the middle of a fade, %": percent("boundaries"),
        f"boundaries within {BOUNDARY_S:g} s of a fade, %": percent("boundaries_of_fades"),
        "false entries": str(results["n_false"]),
        "speed, wall clock": f"{results['realtime_factor']:.0f} × real time",
        "speed, CPU seconds": f"{results['cpu_realtime_factor']:.0f} × real time",
        "peak memory": f"{results['peak_rss_bytes'] / 2**20:.0f} MiB",
    }
