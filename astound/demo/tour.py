"""The tour: compose a small library, spoil clips of it, and let the catalog say what they are.

Nothing is staged: every answer comes from :meth:`~astound.catalog.Catalog.query`, and clips of
tunes that are not in the library are among them.
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

N_CLIPS, N_STRANGE_CLIPS, N_STRANGERS = 24, 8, 4
FIRST_STRANGER = 1000  # a seed beyond those of any library
CLIP_S = (2.0, 5.0)
NEAR_S = 0.5
ABSENT = "not in the library"


class Clip(NamedTuple):
    """An excerpt to identify; `known` tells whether its tune is in the library."""

    waveform: Waveform
    how: str
    path: Path
    start_s: float
    known: bool

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
        return len(self.waveform) / composer.SAMPLE_RATE

    def is_answered_by(self, result: QueryResult) -> bool:
        """Tell whether an answer is right: tune and time, or that it is not known."""
        if result.best is None or not self.known:
            return result.best is None and not self.known
        is_tune = result.best.path == str(self.path)
        return is_tune and abs(result.best.offset_s - self.start_s) <= NEAR_S


Answers = list[tuple[Clip, QueryResult]]


def tour(
    folder: Path | None,
    n_tunes: int,
    *,
    device: Device = "auto",
    model: Path | None = None,
) -> None:
    """Show astound at work on music made for the occasion.

    Parameters
    ----------
    folder : Path or None
        Where music and catalog are kept; by default they are removed at the end.
    n_tunes : int
        Size of the library.
    device, model
        As for :class:`~astound.catalog.Catalog`.
    """
    screen = console(sys.stdout)
    with tempfile.TemporaryDirectory(prefix="astound-") as temporary:
        home = Path(os.path.abspath(folder or temporary))  # without "..", as catalogs note paths
        with astound.open(home / "catalog", device=device, model=model) as catalog:
            library = _make_library(home, n_tunes, catalog, screen)
            strangers = composer.write_library(home / "strangers", N_STRANGERS, FIRST_STRANGER)
            clips = list(_clips(library, strangers, np.random.default_rng(0)))
            screen.print(f"Identifying {len(clips)} clips, clean and spoiled ...")
            answers = [(clip, catalog.query(clip.waveform, composer.SAMPLE_RATE)) for clip in clips]
        for shown in (_answer_table(answers), _summary_table(answers), _closing(folder)):
            screen.print(shown)


def _make_library(home: Path, n_tunes: int, catalog: Catalog, screen: Console) -> list[Path]:
    screen.print(f"Composing {n_tunes} tunes ...")
    library = composer.write_library(home / "music", n_tunes)
    noted = {
        str(path): {"title": composer.title(seed), "artist": composer.artist(seed)}
        for seed, path in enumerate(library)
    }
    screen.print("Adding them to a catalog ...")
    with ingest_progress() as show:
        report = catalog.add(library, metadata=noted, on_progress=show)
    screen.print(summary(report))
    return library


# -- clips -----------------------------------------------------------------------------------


def _clips(library: list[Path], strangers: list[Path], rng: Generator) -> Iterator[Clip]:
    """Cut clips, each kind of spoiling in turn; the strangers' come last."""
    chosen = [(library[rng.integers(len(library))], True) for _ in range(N_CLIPS)]
    chosen += [(strangers[i % len(strangers)], False) for i in range(N_STRANGE_CLIPS)]
    for (path, known), (how, spoil) in zip(chosen, cycle(_SPOILERS.items()), strict=False):
        waveform, start_s = _excerpt(path, rng)
        yield Clip(spoil(waveform, rng), how, path, start_s, known)


def _excerpt(path: Path, rng: Generator) -> tuple[Waveform, float]:
    """Cut a few seconds out of a tune; the waveform and where it begins."""
    with wave.open(str(path), "rb") as file:
        rate = file.getframerate()
        n_samples = round(rng.uniform(*CLIP_S) * rate)
        first = int(rng.integers(file.getnframes() - n_samples))
        file.setpos(first)
        samples = np.frombuffer(file.readframes(n_samples), "<i2")
    return np.asarray(samples / 32768, np.float32), first / rate


def _with_noise(waveform: Waveform, rng: Generator, snr_db: float) -> Waveform:
    """Add pink noise, which is spread over the octaves as music is."""
    spectrum = np.fft.rfft(rng.standard_normal(len(waveform)))
    noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1.0), len(waveform))
    gain = np.std(waveform) / np.std(noise) * 10 ** (-snr_db / 20)
    return np.asarray(waveform + gain * noise, np.float32)


def _in_a_room(waveform: Waveform, rng: Generator, decay_s: float = 0.4) -> Waveform:
    """Let it reverberate, as loud as the direct sound, and pass 300 to 3400 Hz as a phone does."""
    time_s = np.arange(round(decay_s * composer.SAMPLE_RATE)) / composer.SAMPLE_RATE
    response = rng.standard_normal(len(time_s)) * np.exp(-6.9 * time_s / decay_s)
    response /= np.linalg.norm(response)
    response[0] = 1.0
    n_fft = len(waveform) + len(response)
    hz = np.fft.rfftfreq(n_fft, 1 / composer.SAMPLE_RATE)
    spectrum = np.fft.rfft(waveform, n_fft) * np.fft.rfft(response, n_fft)
    heard = np.fft.irfft(spectrum * ((hz > 300) & (hz < 3400)), n_fft)
    return np.asarray(heard[: len(waveform)], np.float32)


_SPOILERS: dict[str, Callable[[Waveform, Generator], Waveform]] = {
    "clean": lambda waveform, _: waveform,
    "noise 5 dB": partial(_with_noise, snr_db=5.0),
    "noise 0 dB": partial(_with_noise, snr_db=0.0),
    "room, phone": _in_a_room,
}


# -- what is shown ---------------------------------------------------------------------------


def _answer_table(answers: Answers) -> Table:
    table = _table("clip", "spoiled by", "truth", "answer", "sure", "")
    for clip, result in answers:
        right = clip.is_answered_by(result)
        table.add_row(
            f"{clip.duration_s:.1f}s",
            clip.how,
            _place(clip.path.stem.partition(" - ")[2], clip.start_s) if clip.known else ABSENT,
            _place(result.best.title or "", result.best.offset_s) if result.best else ABSENT,
            f"{result.best.confidence:.2f}" if result.best else "",
            Text("✓", "green") if right else Text("✗", "red"),
        )
    return table


def _summary_table(answers: Answers) -> Table:
    table = _table("clips", "right", "of")
    table.caption = f"right: the tune, and where in it within {NEAR_S:g} s; or that it is unknown"
    for kind in (*_SPOILERS, ABSENT):
        rights = [
            clip.is_answered_by(result)
            for clip, result in answers
            if kind == (clip.how if clip.known else ABSENT)
        ]
        table.add_row(kind, str(sum(rights)), str(len(rights)))
    return table


def _table(*headers: str) -> Table:
    """Make a table that fits into 80 columns."""
    return Table(*headers, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def _place(title: str, at_s: float) -> str:
    return f"{title} {clock(max(at_s, 0.0))}"


def _closing(folder: Path | None) -> str:
    look = f"astound --catalog {folder}/catalog list" if folder else "astound demo --folder tour"
    hints = {
        "astound add ~/music": "remember your own music, in ./catalog",
        "astound query clip.wav": "say which of it a clip comes from",
        look: "look at this library" if folder else "the same, to keep",
    }
    width = max(map(len, hints))
    lines = [f"  {command:<{width}}  {what}" for command, what in hints.items()]
    return "\n".join(["What to try next:", *lines])
