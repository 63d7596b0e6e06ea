"""Compose small pieces of music, so that `astound demo` and the tests need no audio files.

A tune is a score drawn bar by bar from one seed and rendered by
:class:`~astound.demo.instruments.Instruments`. Melody and voicings are random walks that never
repeat exactly, so any second of a tune occurs in one place only, as in recorded music.
"""

from __future__ import annotations

import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from astound.demo.instruments import DRUMS, MAX_NOTE_S, Instruments, Note, Waveform
from engine.errors import ConfigError

SAMPLE_RATE = 22050

_ADJECTIVES = (
    *("Amber", "Blue", "Borrowed", "Bright", "Broken", "Copper", "Distant", "Early", "Electric"),
    *("Empty", "Falling", "Gentle", "Golden", "Hidden", "Hollow", "Late", "Little", "Lunar"),
    *("Northern", "Open", "Paper", "Quiet", "Restless", "Silver", "Sleeping", "Slow", "Southern"),
    *("Velvet", "Wandering", "Winter"),
)
_NOUNS = (
    *("Afternoon", "Arcade", "Balcony", "Bicycle", "Canal", "Cinema", "Comet", "Corridor", "Dust"),
    *("Ferry", "Fountain", "Garden", "Harbour", "Island", "Kite", "Ladder", "Lantern", "Meadow"),
    *(
        "Mirror",
        "Motel",
        "Orchard",
        "Pavement",
        "Rain",
        "River",
        "Satellite",
        "Signal",
        "Staircase",
    ),
    *("Tide", "Train", "Window"),
)
_LEADERS = (
    *("Ada", "Bruno", "Clara", "Dario", "Elin", "Felix", "Greta", "Hugo"),
    *("Ines", "Jonas", "Kaia", "Leon", "Mira", "Nils", "Olive", "Pavel"),
)
_ENSEMBLES = (
    *("Quartet", "Trio", "Ensemble", "Orchestra", "Club", "Parade"),
    *("Machine", "Collective", "Sisters", "Radio", "Five"),
)

_MODES = (
    (0, 2, 4, 5, 7, 9, 11),
    (0, 2, 3, 5, 7, 8, 10),
    (0, 2, 3, 5, 7, 9, 10),
    (0, 2, 4, 5, 7, 9, 10),
    (0, 2, 4, 6, 7, 9, 11),
    (0, 2, 3, 5, 7, 8, 11),
)
_CHORDS_AFTER = ((3, 4, 5, 1), (4, 6, 3), (5, 3), (0, 4, 1), (0, 5, 3), (3, 1, 4), (0, 2))
_OFF_BEAT = np.array([[0.3], [0.45], [0.9]])
_BUSIEST = np.array([[0.5], [0.4], [1.0]])


def title(seed: int) -> str:
    """Return the title of a tune; 900 consecutive seeds have 900 different titles."""
    adjective, noun = divmod((seed * 389 + 101) % 900, len(_NOUNS))
    return f"{_ADJECTIVES[adjective]} {_NOUNS[noun]}"


def artist(seed: int) -> str:
    """Return the artist of a tune; some artists have several tunes."""
    leader, ensemble = divmod((seed * 67 + 29) % 176, len(_ENSEMBLES))
    return f"{_LEADERS[leader]} {_ENSEMBLES[ensemble]}"


def compose(seed: int, duration_s: float = 30.0, sample_rate: int = SAMPLE_RATE) -> Waveform:
    """Compose and render a tune.

    Parameters
    ----------
    seed : int
        At least 0. Each seed gives another tune, which is the same at any sample rate.
    duration_s : float
    sample_rate : int
        Hz.

    Returns
    -------
    float32 array of shape (round(duration_s * sample_rate),), in [-1, 1]

    Raises
    ------
    ConfigError
        The seed is negative, or the duration or rate is not positive.
    """
    _check(seed, duration_s, sample_rate)
    instruments = Instruments.draw(np.random.default_rng([seed, 1]), sample_rate)
    dry = np.zeros(round(duration_s * sample_rate), np.float32)
    for note in notes(seed):
        start = round(note.start_s * sample_rate)
        if start >= len(dry):
            break
        sound = instruments.play(note)[: len(dry) - start]
        dry[start : start + len(sound)] += sound
    return _master(dry, sample_rate, instruments.rng)


def notes(seed: int) -> Iterator[Note]:
    """Compose the notes of a tune, which never ends, in order of time."""
    return _Score.draw(np.random.default_rng([seed, 0])).notes()


def write_library(
    folder: Path, n_tunes: int, first_seed: int = 0, duration_s: float = 30.0
) -> list[Path]:
    """Write tunes as 16-bit WAV files named "artist - title.wav".

    Parameters
    ----------
    folder : path
        Created if it does not exist.
    n_tunes, first_seed : int
        Composes the seeds first_seed to first_seed + n_tunes - 1; at most 900 tunes.
    duration_s : float

    Returns
    -------
    list of path
        In the order of the seeds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in range(first_seed, first_seed + n_tunes):
        paths.append(folder / f"{artist(seed)} - {title(seed)}.wav")
        write_wav(paths[-1], compose(seed, duration_s), SAMPLE_RATE)
    return paths


def write_wav(path: Path, waveform: Waveform, sample_rate: int) -> None:
    """Write a waveform in [-1, 1] as a 16-bit WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.round(waveform * 32767).astype("<i2").tobytes())


def _check(seed: int, duration_s: float, sample_rate: int) -> None:
    if seed < 0:
        raise ConfigError.invalid("seed", seed, "must be 0 or more")
    for key, value in (("duration_s", duration_s), ("sample_rate", sample_rate)):
        if not value > 0:
            raise ConfigError.invalid(key, value, "must be positive")


def _master(dry: Waveform, sample_rate: int, rng: Generator) -> Waveform:
    """Add some reverberation, saturate gently, fade both ends, and set the peak to 0.9."""
    t = np.arange(sample_rate, dtype=np.float32) / np.float32(sample_rate)
    room = rng.standard_normal(sample_rate, np.float32) * np.exp(-t / 0.15)
    room /= np.linalg.norm(room)
    n_fft = 1 << (len(dry) + len(room)).bit_length()
    wet = np.fft.irfft(np.fft.rfft(dry, n_fft) * np.fft.rfft(room, n_fft), n_fft)[: len(dry)]
    mixed = np.tanh(0.7 * (dry + 0.25 * wet))
    to_end = np.minimum(np.arange(len(mixed)), np.arange(len(mixed))[::-1])
    mixed *= np.minimum(to_end / (0.02 * sample_rate), 1)
    return np.asarray(mixed * (0.9 / max(np.abs(mixed).max(), 1e-9)), np.float32)


class _Section(NamedTuple):
    """The constants of a few bars; `drums` are loudnesses of shape (3, n_eighths)."""

    lead: str
    accompaniment: str
    rhythm: list[int]
    drums: NDArray[np.float64]
    chords: list[int]


@dataclass
class _Score:
    """A tune: key, mode, tempo and metre are drawn once, all else bar by bar.

    Times are in eighths and pitches in degrees of the scale until `_note` converts them.
    """

    rng: Generator
    key: int
    mode: tuple[int, ...]
    eighth_s: float
    n_eighths: int
    swing: float
    melody_degree: int = 4

    @classmethod
    def draw(cls, rng: Generator) -> _Score:
        return cls(
            rng=rng,
            key=int(rng.integers(42, 54)),
            mode=_MODES[rng.integers(len(_MODES))],
            eighth_s=30.0 / rng.uniform(76, 148),
            n_eighths=int(rng.choice([6, 8], p=[0.25, 0.75])),
            swing=float(rng.choice([0.0, 0.0, 0.12, 0.25])),
        )

    def notes(self) -> Iterator[Note]:
        """Draw an endless sequence of notes in order of time."""
        bar, chord = 0, 0
        while True:
            section = self._section(chord)
            for chord in section.chords:
                notes = [*self._melody(bar, chord, section), *self._bass(bar, chord)]
                notes += [*self._accompaniment(bar, chord, section), *self._drums(bar, section)]
                yield from sorted(notes, key=lambda note: note.start_s)
                bar += 1

    def _section(self, chord: int) -> _Section:
        chords = []
        for _ in range(int(self.rng.choice([4, 4, 6, 8]))):
            chord = int(self.rng.choice(_CHORDS_AFTER[chord]))
            chords.append(chord)
        on_beat = np.arange(self.n_eighths) % 2 == 0
        drums = self.rng.random((3, self.n_eighths)) * np.where(on_beat, 1.0, _OFF_BEAT)
        drums[0, 0] = drums[1, self.n_eighths // 2] = 1.0
        return _Section(
            lead=str(self.rng.choice(["lead", "second"])),
            accompaniment=str(self.rng.choice(["pad", "chops", "arpeggio"])),
            rhythm=self._rhythm(),
            drums=drums * (drums > 1 - self.rng.uniform(0.1, 0.95, (3, 1)) * _BUSIEST),
            chords=chords,
        )

    def _rhythm(self) -> list[int]:
        lengths: list[int] = []
        while left := self.n_eighths - sum(lengths):
            lengths.append(min(int(self.rng.choice([1, 1, 1, 2, 2, 2, 3, 4])), left))
        return lengths

    def _melody(self, bar: int, chord: int, section: _Section) -> Iterator[Note]:
        rhythm = section.rhythm if self.rng.random() < 0.5 else self._rhythm()
        eighth = 0
        for length in rhythm:
            degree = self.melody_degree + round(self.rng.normal(0, 1.9))
            if eighth % 4 == 0:
                degree = _onto_chord(degree, chord)
            # A melody that leaves its two octaves continues an octave further in.
            self.melody_degree = degree if -1 <= degree <= 13 else degree - 7 * int(np.sign(degree))
            if self.rng.random() > 0.1:
                yield self._note(section.lead, bar, eighth, length, self.melody_degree + 7, 0.5)
            eighth += length

    def _accompaniment(self, bar: int, chord: int, section: _Section) -> Iterator[Note]:
        lowest = int(self.rng.integers(2, 7))
        n_tones = int(self.rng.choice([3, 3, 4]))
        voicing = [lowest + (chord + 2 * i - lowest) % 7 for i in range(n_tones)]
        if section.accompaniment == "arpeggio":
            for eighth in range(self.n_eighths):
                degree = int(self.rng.choice(voicing)) + 7 * int(self.rng.random() < 0.3)
                yield self._note("harp", bar, eighth, 3, degree, 0.4)
        elif section.accompaniment == "pad":
            for degree in voicing:
                yield self._note("keys", bar, 0, self.n_eighths, degree, 0.2)
        else:
            played = self.rng.random(self.n_eighths) < np.resize([0.3, 0.75], self.n_eighths)
            for eighth in np.flatnonzero(played).tolist():
                for degree in voicing:
                    yield self._note("keys", bar, eighth, 1.2, degree, 0.2)

    def _bass(self, bar: int, chord: int) -> Iterator[Note]:
        eighth = 0
        for length in self._rhythm():
            above = 0 if eighth == 0 else int(self.rng.choice([0, 0, 4, 7, 2]))
            degree = chord + above - (7 if chord + above <= 4 else 14)
            yield self._note("bass", bar, eighth, length, degree, 0.55)
            eighth += length

    def _drums(self, bar: int, section: _Section) -> Iterator[Note]:
        other = self.rng.random(section.drums.shape) < 0.06  # omitted or additional hits
        for drum, eighth in np.argwhere((section.drums > 0) != other):
            loudness = 0.7 if section.drums[drum, eighth] else 0.35
            yield self._note(DRUMS[drum], bar, int(eighth), 1, 0, loudness)

    def _note(
        self, instrument: str, bar: int, eighth: int, length: float, degree: int, loudness: float
    ) -> Note:
        octave, step = divmod(degree, 7)
        at = bar * self.n_eighths + eighth + self.swing * (eighth % 2)
        late_s = abs(self.rng.normal(0, 0.008))
        return Note(
            instrument=instrument,
            start_s=at * self.eighth_s + late_s,
            length_s=min(length * self.eighth_s * self.rng.uniform(0.8, 1.0), MAX_NOTE_S),
            pitch=self.key + 12 * octave + self.mode[step],
            loudness=loudness * self.rng.uniform(0.7, 1.0),
        )


def _onto_chord(degree: int, chord: int) -> int:
    return min((degree, degree + 1, degree - 1), key=lambda d: (d - chord) % 7 not in (0, 2, 4))
