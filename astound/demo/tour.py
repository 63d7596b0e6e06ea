"""The tour: compose a small library, degrade clips of it, and identify them.

Every answer comes from :meth:`~astound.catalog.Catalog.query`. Some of the clips are of tunes that
are not in the library.
"""

from __future__ import annotations

import os
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import astound
from astound.demo import composer
from astound.output.progress import ingest_progress
from astound.output.terminal import clock, console
from astound.output.tracks import summary
from engine.records import QueryResult

if TYPE_CHECKING:
    from astound.catalog import Catalog, Device

Waveform = NDArray[np.float32]

N_CLIPS, N_ABSENT_CLIPS, N_ABSENT_TUNES = 24, 8, 4
FIRST_ABSENT_SEED = 1000  # a library has at most 900 tunes
CLIP_S = (2.0, 5.0)
MAX_OFFSET_ERROR_S = 0.5
ABSENT = "not in the library"

_RIGHT = (
    f"Right: the tune, and its offset within {MAX_OFFSET_ERROR_S:g} s; no match for an absent tune."
    "\n"
)


class Clip(NamedTuple):
    """An excerpt to identify; `is_known` if its tune is in the library."""

    waveform: Waveform
    degradation: str
    path: Path
    start_s: float
    is_known: bool

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
        return len(self.waveform) / composer.SAMPLE_RATE

    def is_identified_by(self, result: QueryResult) -> bool:
        """Return whether a result is right: tune and offset, or no match for an absent tune."""
        if result.best is None or not self.is_known:
            return result.best is None and not self.is_known
        error_s = abs(result.best.offset_s - self.start_s)
        return result.best.path == str(self.path) and error_s <= MAX_OFFSET_ERROR_S


Results = list[tuple[Clip, QueryResult]]


def tour(
    folder: Path | None,
    n_tunes: int,
    *,
    device: Device = "auto",
    model: Path | None = None,
) -> None:
    """Identify clips of composed music, and print the results.

    Parameters
    ----------
    folder : Path or None
        Keeps music and catalog; without a folder they are removed at the end.
    n_tunes : int
        Number of tunes in the library.
    device, model
        As for :class:`~astound.catalog.Catalog`.
    """
    screen = console(sys.stdout)
    with tempfile.TemporaryDirectory(prefix="astound-") as temporary:
        home = Path(os.path.abspath(folder or temporary))  # without "..", as paths in catalogs
        with astound.open(home / "catalog", device=device, model=model) as catalog:
            library = _make_library(home, n_tunes, catalog, screen)
            absent = composer.write_library(home / "absent", N_ABSENT_TUNES, FIRST_ABSENT_SEED)
            clips = list(_cut_clips(library, absent, np.random.default_rng(0)))
            screen.print(f"Identifying {len(clips)} clips, clean and degraded ...")
            results = [(clip, catalog.query(clip.waveform, composer.SAMPLE_RATE)) for clip in clips]
        parts = _result_table(results), _summary_table(results), _RIGHT, _next_steps(folder)
        for part in parts:
            screen.print(part)


def _make_library(home: Path, n_tunes: int, catalog: Catalog, screen: Console) -> list[Path]:
    screen.print(f"Composing {n_tunes} tunes ...")
    library = composer.write_library(home / "music", n_tunes)
    tags = {
        str(path): {"title": composer.title(seed), "artist": composer.artist(seed)}
        for seed, path in enumerate(library)
    }
    screen.print("Adding them to a catalog ...")
    with ingest_progress() as show:
        report = catalog.add(library, metadata=tags, on_progress=show)
    screen.print(summary(report))
    return library


# -- clips -----------------------------------------------------------------------------------


def _cut_clips(library: list[Path], absent: list[Path], rng: Generator) -> Iterator[Clip]:
    """Cut clips and degrade them in turn; those of absent tunes come last."""
    tunes = [(library[rng.integers(len(library))], True) for _ in range(N_CLIPS)]
    tunes += [(absent[i % len(absent)], False) for i in range(N_ABSENT_CLIPS)]
    for (path, is_known), (name, degrade) in zip(tunes, cycle(_DEGRADATIONS.items()), strict=False):
        waveform, start_s = _excerpt(path, rng)
        yield Clip(degrade(waveform, rng), name, path, start_s, is_known)


def _excerpt(path: Path, rng: Generator) -> tuple[Waveform, float]:
    """Cut a few seconds out of a tune; return the waveform and its start in seconds."""
    with wave.open(str(path), "rb") as file:
        rate = file.getframerate()
        n_samples = round(rng.uniform(*CLIP_S) * rate)
        first = int(rng.integers(file.getnframes() - n_samples))
        file.setpos(first)
        samples = np.frombuffer(file.readframes(n_samples), "<i2")
    return np.asarray(samples / 32768, np.float32), first / rate


def _with_noise(waveform: Waveform, rng: Generator, snr_db: float) -> Waveform:
    """Add pink noise, whose power per octave is constant, roughly as in music."""
    spectrum = np.fft.rfft(rng.standard_normal(len(waveform)))
    noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1.0), len(waveform))
    gain = np.std(waveform) / np.std(noise) * 10 ** (-snr_db / 20)
    return np.asarray(waveform + gain * noise, np.float32)


def _in_a_room(waveform: Waveform, rng: Generator, decay_s: float = 0.4) -> Waveform:
    """Add reverberation as loud as the direct sound, and keep the 300 to 3400 Hz of a phone."""
    time_s = np.arange(round(decay_s * composer.SAMPLE_RATE)) / composer.SAMPLE_RATE
    response = rng.standard_normal(len(time_s)) * np.exp(-6.9 * time_s / decay_s)
    response /= np.linalg.norm(response)
    response[0] = 1.0
    n_fft = len(waveform) + len(response)
    hz = np.fft.rfftfreq(n_fft, 1 / composer.SAMPLE_RATE)
    spectrum = np.fft.rfft(waveform, n_fft) * np.fft.rfft(response, n_fft)
    degraded = np.fft.irfft(spectrum * ((hz > 300) & (hz < 3400)), n_fft)
    return np.asarray(degraded[: len(waveform)], np.float32)


_DEGRADATIONS: dict[str, Callable[[Waveform, Generator], Waveform]] = {
    "clean": lambda waveform, _: waveform,
    "noise 5 dB": partial(_with_noise, snr_db=5.0),
    "noise 0 dB": partial(_with_noise, snr_db=0.0),
    "room, phone": _in_a_room,
}


# -- output ----------------------------------------------------------------------------------


def _result_table(results: Results) -> Table:
    table = _table("clip", "degradation", "truth", "answer", "confidence", "")
    for clip, result in results:
        right = clip.is_identified_by(result)
        table.add_row(
            f"{clip.duration_s:.1f}s",
            clip.degradation,
            _place(clip.path.stem.partition(" - ")[2], clip.start_s) if clip.is_known else ABSENT,
            _place(result.best.title or "", result.best.offset_s) if result.best else ABSENT,
            f"{result.best.confidence:.2f}" if result.best else "",
            Text("✓", "green") if right else Text("✗", "red"),
        )
    return table


def _summary_table(results: Results) -> Table:
    table = _table("clips", "right", "of")
    for kind in (*_DEGRADATIONS, ABSENT):
        rights = [
            clip.is_identified_by(result)
            for clip, result in results
            if kind == (clip.degradation if clip.is_known else ABSENT)
        ]
        table.add_row(kind, str(sum(rights)), str(len(rights)))
    return table


def _table(*headers: str) -> Table:
    """Make a table that fits into 80 columns."""
    return Table(*headers, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def _place(title: str, at_s: float) -> str:
    return f"{title} {clock(max(at_s, 0.0))}"


def _next_steps(folder: Path | None) -> str:
    steps = {
        "astound add ~/music": "add your own music to ./catalog",
        "astound query clip.wav": "find the recording that a clip comes from",
    }
    if folder:
        steps[f"astound --catalog {folder}/catalog list"] = "list the tunes of this tour"
    else:
        steps["astound demo --folder tour"] = "take the tour again and keep its files"
    width = max(map(len, steps))
    lines = [f"  {command:<{width}}  {effect}" for command, effect in steps.items()]
    return "\n".join(["What to try next:", *lines])
