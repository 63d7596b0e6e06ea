"""The instruments of the demo music: a few timbres and drums, drawn from a seed.

A timbre is a set of harmonics that decay at different rates; a plucked string is the algorithm of
Karplus and Strong 1983 in closed form. The periods of a pitch are computed once and resampled for
each note with its own detuning, so no two notes have the same samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Waveform = NDArray[np.float32]
Harmonics = NDArray[Any]

DRUMS = ("kick", "snare", "hat")
MAX_NOTE_S = 4.0

_CYCLE = 64  # samples of one stored period
_K = np.arange(1, _CYCLE // 2)  # harmonics that fit


class Note(NamedTuple):
    """One sound: `pitch` is a MIDI number, `loudness` lies in [0, 1]."""

    instrument: str
    start_s: float
    length_s: float
    pitch: float
    loudness: float


@dataclass
class Instruments:
    """Five timbres and three drums.

    Parameters
    ----------
    rng : Generator
        Draws the variations between notes.
    sample_rate : int
        Hz.
    timbres : dict
        The timbres of "lead", "second", "keys", "harp" and "bass".
    noise : float32 array of shape (n_samples,)
        Source of the drum sounds.
    """

    rng: Generator
    sample_rate: int
    timbres: dict[str, _Timbre]
    noise: Waveform
    _periods: dict[tuple[str, float], Waveform] = field(default_factory=dict)

    @classmethod
    def draw(cls, rng: Generator, sample_rate: int) -> Instruments:
        """Draw timbres; the same state of `rng` gives the same timbres at any sample rate."""
        lead, second = (_MELODIC[i] for i in rng.permutation(len(_MELODIC))[:2])
        keys, bass = _CHORDAL[rng.integers(len(_CHORDAL))], _LOW[rng.integers(len(_LOW))]
        makers = {"lead": lead, "second": second, "keys": keys, "harp": _string, "bass": bass}
        timbres = {name: make(rng) for name, make in makers.items()}
        noise_rng = np.random.default_rng(rng.integers(2**32))
        noise = noise_rng.standard_normal(2 * sample_rate, np.float32)
        return cls(rng=rng, sample_rate=sample_rate, timbres=timbres, noise=noise)

    def play(self, note: Note) -> Waveform:
        """Render one note.

        Parameters
        ----------
        note : Note
            Its `length_s` is at most MAX_NOTE_S.

        Returns
        -------
        float32 array of shape (n_samples,)
            Longer than the note by the release of its timbre.
        """
        sound = self._hit(note.instrument) if note.instrument in DRUMS else self._tone(note)
        return np.asarray(sound * note.loudness, np.float32)

    def _tone(self, note: Note) -> Waveform:
        timbre = self.timbres[note.instrument]
        t = self._time(note.length_s + timbre.release_s)
        hz = _hz(note.pitch + self.rng.normal(0, 0.03))
        at = t * np.float32(hz * _CYCLE)
        if timbre.vibrato_cents:
            turn = np.float32(2 * np.pi * self.rng.uniform(4.5, 6.0))
            depth = hz * (2 ** (timbre.vibrato_cents / 1200) - 1) / turn
            at += np.float32(depth * _CYCLE) * (1 - np.cos(turn * t))
        periods = self._periods_of(note.instrument, note.pitch)
        whole = at.astype(np.int32)
        left = periods[whole]
        sound = left + (at - whole).astype(np.float32) * (periods[whole + 1] - left)
        rise = np.minimum(t / np.float32(timbre.attack_s), 1)
        fall = np.minimum((t[-1] - t) / np.float32(timbre.release_s), 1)
        return np.asarray(sound * rise * fall * fall, np.float32)

    def _periods_of(self, instrument: str, pitch: float) -> Waveform:
        """Return all periods of the longest note of a pitch, end to end."""
        if (instrument, pitch) not in self._periods:
            timbre, hz = self.timbres[instrument], _hz(pitch)
            n_periods = int(1.02 * hz * (MAX_NOTE_S + timbre.release_s)) + 8
            n_kept = min(len(_K), int(0.47 * self.sample_rate / hz))
            rates = (timbre.decays(hz)[:n_kept] / hz).astype(np.float32)
            fading = np.exp(-np.arange(n_periods, dtype=np.float32)[:, None] * rates)
            spectrum = np.zeros((n_periods, _CYCLE // 2 + 1), np.complex64)
            spectrum[:, 1 : 1 + n_kept] = timbre.harmonics[:n_kept] * _CYCLE / 2 * fading
            periods = np.fft.irfft(spectrum, axis=1).astype(np.float32, copy=False)
            self._periods[instrument, pitch] = periods.ravel()
        return self._periods[instrument, pitch]

    def _hit(self, drum: str) -> Waveform:
        t = self._time({"kick": 0.3, "snare": 0.22, "hat": 0.09}[drum])
        first = int(self.rng.random() * (len(self.noise) - len(t) - 1))
        hiss = self.noise[first : first + len(t) + 1]
        if drum == "kick":
            sound = np.sin(300 * t + 20 * (1 - np.exp(-30 * t))) * np.exp(-9 * t)
        elif drum == "snare":
            sound = (0.3 * hiss[1:] + 0.5 * np.sin(1150 * t)) * np.exp(-20 * t)
        else:
            sound = 0.14 * np.diff(hiss) * np.exp(-55 * t)
        return np.asarray(sound, np.float32)

    def _time(self, length_s: float) -> Waveform:
        n_samples = int(length_s * self.sample_rate) + 1
        return np.arange(n_samples, dtype=np.float32) / np.float32(self.sample_rate)


@dataclass(frozen=True, kw_only=True)
class _Timbre:
    """Harmonics and their decay rates in 1/s at a frequency in Hz, both of shape (31,)."""

    harmonics: Harmonics
    decays: Callable[[float], Harmonics]
    attack_s: float
    release_s: float
    vibrato_cents: float = 0.0


def _organ(rng: Generator) -> _Timbre:
    drawbars = rng.uniform(0, 1, len(_K)) ** 2 / _K
    drawbars[0] = 0.7
    still = np.full(len(_K), 0.2)
    return _Timbre(
        harmonics=_of_unit_power(drawbars * _phases(rng)),
        decays=lambda _: still,
        attack_s=rng.uniform(0.02, 0.08),
        release_s=0.15,
        vibrato_cents=rng.uniform(5, 18),
    )


def _saw(rng: Generator) -> _Timbre:
    """Sawtooth through a low-pass filter that closes during the note."""
    closing = 0.4 + rng.uniform(0.1, 0.6) * (_K - 1)
    return _Timbre(
        harmonics=_of_unit_power(1j / _K / (1 + (_K / rng.uniform(5, 20)) ** 4)),
        decays=lambda _: closing,
        attack_s=rng.uniform(0.008, 0.03),
        release_s=0.1,
        vibrato_cents=rng.uniform(0, 12),
    )


def _string(rng: Generator) -> _Timbre:
    """Plucked string: noise in which neighbouring samples are averaged once per period."""
    pluck = np.abs(np.sin(np.pi * rng.uniform(0.12, 0.45) * _K)) / np.sqrt(_K)
    loss = -np.log(0.997 * np.cos(np.pi * _K / rng.uniform(75, 140)))
    return _Timbre(
        harmonics=_of_unit_power(pluck * _phases(rng)),
        decays=lambda hz: hz * loss,
        attack_s=0.002,
        release_s=0.12,
    )


def _bell(rng: Generator) -> _Timbre:
    """Bell: side bands around multiples of a ratio, as in frequency modulation."""
    ratio = int(rng.integers(3, 8))
    partials = np.isin(_K % ratio, (1, ratio - 1)) * np.exp(-_K / rng.uniform(3, 9))
    fading = rng.uniform(1.0, 2.5) + rng.uniform(0.3, 0.9) * (_K - 1)
    return _Timbre(
        harmonics=_of_unit_power(partials * _phases(rng)),
        decays=lambda _: fading,
        attack_s=0.004,
        release_s=0.25,
    )


_MELODIC = (_organ, _saw, _string, _bell)
_CHORDAL = (_organ, _saw, _bell)
_LOW = (_saw, _string)


def _phases(rng: Generator) -> Harmonics:
    return np.asarray(np.exp(2j * np.pi * rng.random(len(_K))))


def _of_unit_power(harmonics: Harmonics) -> Harmonics:
    return np.asarray(harmonics / np.linalg.norm(harmonics))


def _hz(pitch: float) -> float:
    return float(440.0 * 2 ** ((pitch - 69) / 12))
