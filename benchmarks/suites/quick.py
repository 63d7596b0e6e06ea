"""Regression gate: fixed queries of synthetic music, compared with the answers of a baseline.

It needs no external data. It shows whether a change lost accuracy or speed, not how accurate
astound is: synthetic music is easier than real music.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from astound.demo import composer
from benchmarks.queries.datasets import RATE, Waveform, generator
from benchmarks.reports import report
from benchmarks.runs import baseline, reference_work
from benchmarks.runs.baseline import Baseline
from benchmarks.runs.provenance import provenance
from benchmarks.runs.workers import map_in_order
from benchmarks.suites import retrieval
from benchmarks.suites.retrieval import RetrievalConfig
from engine.audio import decode

BASELINE = Path(__file__).parents[1] / "results" / "baseline.json"

DISTORTIONS = "clean,noise0,noise-5,room5,opus-12k,speed±3"
DURATIONS_S = (3.0,)

_TUNE_S = 20.0
_FIRST_ABSENT, _FIRST_NOISE = 1000, 2000
_ROOMS_S = (0.2, 0.4, 0.7)
_N_ROUNDS = 15


@dataclass(frozen=True, kw_only=True)
class QuickConfig:
    """Settings of the gate.

    Parameters
    ----------
    baseline : Path
        File of the baseline.
    update : bool
        Write the baseline instead of comparing with it.
    n_tunes, n_absent_tunes : int
        Number of tunes in the catalog, and of tunes outside of it.
    n_queries, n_absent : int
        Queries of present and of absent music, per cell.
    distortions : str
    durations_s : sequence of float
    n_rounds : int
        Number of times each piece of work is timed.
    processes : int
        Number of processes that run queries.
    model : Path or None
        Weights to encode with; the shipped ones by default.
    """

    baseline: Path = BASELINE
    update: bool = False
    n_tunes: int = 24
    n_absent_tunes: int = 12
    n_queries: int = 40
    n_absent: int = 20
    distortions: str = DISTORTIONS
    durations_s: tuple[float, ...] = DURATIONS_S
    n_rounds: int = _N_ROUNDS
    processes: int = 2
    model: Path | None = None


def run(config: QuickConfig) -> dict[str, Any]:
    """Measure, and compare with the baseline or update it.

    Returns
    -------
    dict
        "table", and "losses": a line for each loss, empty with `update`.

    Raises
    ------
    ConfigError
        The baseline is missing, or is of other queries.
    """
    former = None if config.update else baseline.read(config.baseline)
    with tempfile.TemporaryDirectory(prefix="astound-") as folder:
        now = _measure(config, Path(folder))
    losses = baseline.losses(former, now) if former else []
    if config.update:
        baseline.write(config.baseline, now)
    table = report.table(["what", "before", "now"], baseline.rows(former, now))
    return {"table": table, "losses": losses}


def _measure(config: QuickConfig, home: Path) -> Baseline:
    compose(config, home)
    retrieval_config = RetrievalConfig(
        references=[home / "music"], absent=[home / "absent"], noise=home / "noise",
        rooms=home / "rooms", out=home, distortions=config.distortions,
        durations_s=config.durations_s, n_queries=config.n_queries, n_absent=config.n_absent,
        processes=config.processes, model=config.model, device="cpu",
    )  # fmt: skip
    about, outcomes = retrieval.collect(retrieval_config)
    (costs,) = map_in_order(_Timer, (retrieval_config,), [config.n_rounds], 1)
    about = provenance() | {"recipe_id": about["recipe_id"], "catalog": about["catalog"]}
    return baseline.baseline(outcomes, costs, about)


# -- sounds ----------------------------------------------------------------------------------


def compose(config: QuickConfig, home: Path) -> None:
    """Write the folders music, absent, noise and rooms; always the same."""
    composer.write_library(home / "music", config.n_tunes, 0, _TUNE_S)
    composer.write_library(home / "absent", config.n_absent_tunes, _FIRST_ABSENT, _TUNE_S)
    for folder, sounds in (("noise", _noises()), ("rooms", _rooms())):
        (home / folder).mkdir()
        for name, waveform in sounds.items():
            scaled = 0.5 * waveform / np.abs(waveform).max()
            soundfile.write(home / folder / f"{name}.wav", scaled.astype(np.float32), RATE)


def _noises() -> dict[str, Waveform]:
    """Return pink noise, and several tunes at once, none of them in the catalog."""
    rng = generator(0, "noises")
    spectrum = np.fft.rfft(rng.standard_normal(10 * RATE))
    pink = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1.0))
    crowd = sum(composer.compose(_FIRST_NOISE + i, 10.0, RATE) for i in range(6))
    return {"pink": pink.astype(np.float32), "crowd": np.asarray(crowd, np.float32)}


def _rooms() -> dict[str, Waveform]:
    """Return room responses: noise that decays by 60 dB within the reverberation time."""
    rng = generator(0, "rooms")
    found = {}
    for decay_s in _ROOMS_S:
        t = np.arange(round(decay_s * RATE)) / RATE
        response = 0.1 * rng.standard_normal(len(t)) * np.exp(-6.9 * t / decay_s)
        response[0] = 1.0
        found[f"room-{decay_s:g}s"] = response.astype(np.float32)
    return found


# -- costs -----------------------------------------------------------------------------------


class _Timer:
    """Measures costs; runs in a process of its own with one thread."""

    def __init__(self, config: RetrievalConfig) -> None:
        self.catalog = config.open(create=False)
        self.path, self.unknown = (
            sorted(folder.iterdir())[0] for folder in (config.references[0], config.absent[0])
        )

    def __call__(self, n_rounds: int) -> dict[str, float]:
        return reference_work.costs(self._works(), n_rounds)

    def _works(self) -> Mapping[str, Callable[[], object]]:
        fingerprinter, hop_s = self.catalog.fingerprinter, self.catalog.segment_hop_s
        tune = decode.read(self.path, fingerprinter.sample_rate)
        clip = decode.read(self.path, RATE, 3.0, 8.0)
        unknown = decode.read(self.unknown, RATE, 3.0, 8.0)
        return {
            "decoding 5 x 20 s": lambda: [decode.read(self.path, RATE) for _ in range(5)],
            "fingerprinting 20 s": lambda: fingerprinter.fingerprint([tune], hop_s),
            "query of 5 s": lambda: self.catalog.query(clip, sample_rate=RATE),
            "query of 5 s, not known": lambda: self.catalog.query(unknown, sample_rate=RATE),
        }
