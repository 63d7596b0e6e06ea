"""Play the composed tunes with the sampled instruments of a General MIDI sound font.

FluidSynth plays them. The tunes serve `astound train`: recordings of some kinds of music are rare.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from astound.demo.composer import notes, write_wav
from astound.demo.instruments import DRUMS, Note, Waveform
from engine.errors import ConfigError
from engine.files import atomic_write

log = logging.getLogger(__name__)

TUNE_S = 120.0

_DRUM_CHANNEL, _DRUM_BANK = 9, 128
_DRUM_KEYS = {"kick": (35, 36), "snare": (38, 40, 37, 39), "hat": (42, 44, 46, 51, 54, 70)}
_Places = dict[str, tuple[int, int | None]]  # channel of each part, and key if it is a drum
_TAIL_S = 1.0  # until the last notes have faded
_GAIN, _PEAK = 0.3, 0.9


class Style(NamedTuple):
    """General MIDI programs, counted from 0, of which a tune draws one for each part.

    `chords` plays the parts "keys" and "harp", `drums` are kits; a style without kits has no drums.
    """

    lead: tuple[int, ...]
    chords: tuple[int, ...]
    bass: tuple[int, ...]
    drums: tuple[int, ...] = ()


STYLES = {
    "jazz": Style((11, 26, 56, 59, 64, 65, 66, 71), (0, 1, 4, 16, 26), (32, 33, 35), (32, 40)),
    "metal": Style((29, 30, 84), (29, 30), (33, 34, 36), (0, 16)),
    "strings": Style((40, 41, 42, 110), (44, 45, 48, 49), (42, 43)),
    "choir": Style((52, 53, 54, 73), (19, 52, 53, 91), (19, 43, 52)),
    "rock": Style((26, 27, 28, 29, 65), (16, 18, 25, 27, 28), (33, 34), (0, 8, 16)),
    "electronic": Style((80, 81, 82, 87), (50, 51, 88, 89, 90), (38, 39), (24, 25)),
    "folk": Style((21, 22, 24, 72, 73, 75, 105), (15, 21, 24, 25, 46, 105), (32, 43)),
    "brass": Style((56, 57, 58, 60, 61), (60, 61, 62, 69), (43, 58), (0, 48)),
    "piano": Style((0, 1), (0, 1, 2, 3), (0, 1)),
    "mallets": Style((8, 9, 10, 11, 12, 13, 108, 114), (7, 10, 12, 46), (32, 35, 47), (0, 40, 48)),
}
"""The kinds of music that are played."""


def write_tunes(folder: Path, sound_font: Path, hours: float, sample_rate: int) -> list[Path]:
    """Write tunes of two minutes as 16-bit WAV files; those that exist are kept.

    Parameters
    ----------
    folder : Path
        Created if it does not exist.
    sound_font : Path
        SF2 or SF3 file with the General MIDI instruments.
    hours : float
        Length of all tunes together, rounded up to whole tunes. The styles take turns.
    sample_rate : int
        Hz; FluidSynth plays at 8,000 to 96,000.

    Returns
    -------
    list of Path

    Raises
    ------
    ConfigError
        FluidSynth is not installed, or the file is not a sound font.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seeds = range(int(np.ceil(3600 * hours / TUNE_S)))
    paths = [folder / f"{_style(seed)}-{seed:05}.wav" for seed in seeds]
    missing = [(seed, path) for seed, path in zip(seeds, paths, strict=True) if not path.exists()]
    for n_done, (seed, path) in enumerate(missing):
        if n_done % 20 == 0:
            log.info("played %d of %d tunes", n_done, len(missing))
        with atomic_write(path) as partial:
            write_wav(partial, _play(seed, sound_font, sample_rate), sample_rate)
    return paths


def _style(seed: int) -> str:
    return list(STYLES)[seed % len(STYLES)]


class _Event(NamedTuple):
    """A note begins, or ends if its velocity is 0; in order of time, ends first."""

    at: int
    velocity: int
    channel: int
    key: int


def _play(seed: int, sound_font: Path, sample_rate: int) -> Waveform:
    """Play one tune, from a new state of FluidSynth; float32 array of shape (n_samples,)."""
    try:
        from fluidsynth import Synth
    except ImportError as error:
        reason = "needs pyfluidsynth and FluidSynth (Debian: apt install libfluidsynth3)"
        raise ConfigError("sound_font", reason) from error
    with ExitStack() as stack:
        synth = Synth(gain=_GAIN, samplerate=float(sample_rate))
        stack.callback(synth.delete)
        font = synth.sfload(str(sound_font))
        if font < 0:
            raise ConfigError.invalid("sound_font", sound_font, "must be an SF2 or SF3 file")
        places = _choose_instruments(synth, font, seed)
        parts, now = [], 0
        for event in sorted(_events(seed, sample_rate, places)):
            parts.append(synth.get_samples(event.at - now))
            now = event.at
            if event.velocity:
                synth.noteon(event.channel, event.key, event.velocity)
            else:
                synth.noteoff(event.channel, event.key)
        parts.append(synth.get_samples(int(_TAIL_S * sample_rate)))
    mono = np.concatenate(parts).reshape(-1, 2).astype(np.float32).sum(axis=1)
    return np.asarray(mono * (_PEAK / max(float(np.abs(mono).max()), 1.0)), np.float32)


def _choose_instruments(synth: Any, font: int, seed: int) -> _Places:
    """Draw an instrument for each part; returns where the parts are played."""
    rng, style = np.random.default_rng([seed, 2]), STYLES[_style(seed)]
    programs = {
        "lead": rng.choice(style.lead),
        "second": rng.choice(style.lead),
        "keys": rng.choice(style.chords),
        "harp": rng.choice(style.chords),
        "bass": rng.choice(style.bass),
    }
    places: _Places = {}
    for channel, (part, program) in enumerate(programs.items()):
        synth.program_select(channel, font, 0, int(program))
        places[part] = channel, None
    if style.drums:
        synth.program_select(_DRUM_CHANNEL, font, _DRUM_BANK, int(rng.choice(style.drums)))
        places |= {drum: (_DRUM_CHANNEL, int(rng.choice(_DRUM_KEYS[drum]))) for drum in DRUMS}
    return places


def _events(seed: int, sample_rate: int, places: _Places) -> Iterator[_Event]:
    """List the beginnings and ends of the notes of a tune, and leave out parts without a place."""
    for note in _beginning(seed):
        if note.instrument not in places:
            continue
        channel, drum_key = places[note.instrument]
        key = note.pitch if drum_key is None else drum_key
        begin = int(note.start_s * sample_rate)
        velocity = min(int(30 + 120 * note.loudness), 127)
        yield _Event(begin, velocity, channel, int(key))
        yield _Event(begin + int(note.length_s * sample_rate), 0, channel, int(key))


def _beginning(seed: int) -> Iterator[Note]:
    for note in notes(seed):
        if note.start_s >= TUNE_S:
            return
        yield note
