"""Distortions that turn an excerpt into a query: noise, rooms, codecs, speed, pitch and tempo.

Independent of the training's augmentation on purpose, so that an error in one is not repeated in
the other. Every step is a pure function of a waveform, its sample rate and a random generator.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import av
import numpy as np
import soxr
from numpy.typing import NDArray
from scipy import signal

from engine.audio import tempo
from engine.errors import AudioError

Waveform = NDArray[np.float32]
Generator = np.random.Generator
Step = Callable[[Waveform, int, Generator], Waveform]
DrawSound = Callable[[Generator], Waveform]
"""Draws one of several sounds, all at the sample rate of the queries."""

_PHONE_HZ = (300.0, 3400.0)
_N_TRIES = 20
_INAUDIBLE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """A named chain of steps.

    Parameters
    ----------
    name : str
    context_steps : tuple of Step
        Applied first, with the audio before and after the query: rooms, codecs, speed changes.
    query_steps : tuple of Step
        Applied to the query alone, so that a signal-to-noise ratio is that of the query.
    speed : float
        Reference seconds per query second.
    """

    name: str
    context_steps: tuple[Step, ...] = ()
    query_steps: tuple[Step, ...] = ()
    speed: float = 1.0

    def query(
        self,
        excerpt: Waveform,
        rate: int,
        rng: Generator,
        *,
        context_s: float,
        duration_s: float,
        tail_s: float = 0.5,
    ) -> Waveform:
        """Make a query whose second 0 is the excerpt's second `context_s`.

        Parameters
        ----------
        excerpt : float32 array of shape (n_samples,)
            At least ``context_s + duration_s * speed + tail_s`` seconds.
        rate : int
            Sample rate in Hz.
        rng : Generator
        context_s, duration_s, tail_s : float
            Seconds before the query, of the query, and after the query.

        Returns
        -------
        float32 array of shape (duration_s * rate,), in [-1, 1]
        """
        needed_s = context_s + duration_s * self.speed + tail_s
        waveform = excerpt[: round(needed_s * rate)]
        for step in self.context_steps:
            waveform = step(_within_full_scale(waveform), rate, rng)
        first, n_samples = round(context_s / self.speed * rate), round(duration_s * rate)
        waveform = waveform[first : first + n_samples]
        assert len(waveform) == n_samples, f"{self.name}: {len(waveform)} of {n_samples} samples"
        for step in self.query_steps:
            waveform = step(waveform, rate, rng)
        return _within_full_scale(waveform)


def _within_full_scale(waveform: Waveform) -> Waveform:
    peak = float(np.abs(waveform).max(initial=0.0))
    return (waveform / max(peak, 1.0)).astype(np.float32)


# -- noise and rooms -------------------------------------------------------------------------


def add_noise(draw: DrawSound, snr_db: float) -> Step:
    """Add a random stretch of a noise, looped if it is too short.

    Parameters
    ----------
    draw : callable
    snr_db : float
        Ratio of the mean powers of music and noise over the whole waveform, in dB.
    """

    def step(waveform: Waveform, rate: int, rng: Generator) -> Waveform:
        noise = _stretch(draw, len(waveform), rng)
        gain = _rms(waveform) / _rms(noise) * 10 ** (-snr_db / 20)
        return (waveform + np.float32(gain) * noise).astype(np.float32)

    return step


def _stretch(draw: DrawSound, n_samples: int, rng: Generator) -> Waveform:
    for _ in range(_N_TRIES):
        noise = draw(rng)
        first = int(rng.integers(max(len(noise) - n_samples, 0) + 1))
        stretch = np.resize(noise[first : first + n_samples], n_samples)
        if _rms(stretch) > _INAUDIBLE:
            return stretch
    raise AudioError("noise", f"silent at {_N_TRIES} random positions")


def _rms(waveform: Waveform) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def reverberate(draw: DrawSound) -> Step:
    """Convolve with a room response; the loudness stays."""

    def step(waveform: Waveform, rate: int, rng: Generator) -> Waveform:
        wet = signal.oaconvolve(waveform, draw(rng))[: len(waveform)]
        return (wet * (_rms(waveform) / max(_rms(wet), 1e-9))).astype(np.float32)

    return step


def band(low_hz: float, high_hz: float) -> Step:
    """Keep the band between two frequencies (Butterworth, fourth order on both sides)."""

    def step(waveform: Waveform, rate: int, rng: Generator) -> Waveform:
        sections = _band_filter(low_hz, high_hz, rate)
        return np.asarray(signal.sosfilt(sections, waveform), np.float32)

    return step


@lru_cache
def _band_filter(low_hz: float, high_hz: float, rate: int) -> NDArray[np.float64]:
    return np.asarray(signal.butter(4, (low_hz, high_hz), "bandpass", fs=rate, output="sos"))


band_pass = band(*_PHONE_HZ)
"""Keeps the band of a telephone."""


# -- loudness --------------------------------------------------------------------------------


def gain(gain_db: float) -> Step:
    """Change the level; a :class:`Distortion` scales down what exceeds full scale."""

    def step(waveform: Waveform, rate: int, rng: Generator) -> Waveform:
        return (waveform * np.float32(10 ** (gain_db / 20))).astype(np.float32)

    return step


def clipped(over_db: float) -> Step:
    """Raise the peak to `over_db` dB over full scale, and clip at full scale."""

    def step(waveform: Waveform, rate: int, rng: Generator) -> Waveform:
        peak = max(float(np.abs(waveform).max(initial=0.0)), _INAUDIBLE)
        louder = waveform * np.float32(10 ** (over_db / 20) / peak)
        return np.asarray(np.clip(louder, -1.0, 1.0), np.float32)

    return step


# -- codecs ----------------------------------------------------------------------------------


def coded(codec: str, container: str, bit_rate: int) -> Step:
    """Encode and decode in memory; the container carries the codec delay to remove.

    Parameters
    ----------
    codec, container : str
        FFmpeg names.
    bit_rate : int
        Bits per second.
    """

    def step(waveform: Waveform, rate: int, rng: Generator) -> Waveform:
        memory = io.BytesIO()
        _encode(memory, waveform, rate, codec, container, bit_rate)
        memory.seek(0)
        return _decode(memory, container, rate)

    return step


def _encode(
    memory: io.BytesIO, waveform: Waveform, rate: int, codec: str, container: str, bit_rate: int
) -> None:
    with av.open(memory, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream), f"{codec} is not an audio codec"
        stream.bit_rate = bit_rate
        output.mux(stream.encode(_frame(waveform, rate)))
        output.mux(stream.encode(None))


def _decode(memory: io.BytesIO, container: str, rate: int) -> Waveform:
    with av.open(memory, "r", format=container) as source:
        native_rate = source.streams.audio[0].rate
        mono = av.AudioResampler("flt", "mono", native_rate)
        frames = [f for frame in source.decode(audio=0) for f in mono.resample(frame)]
    decoded = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return np.asarray(soxr.resample(decoded, native_rate, rate), np.float32)


def _frame(waveform: Waveform, rate: int) -> av.AudioFrame:
    samples = np.ascontiguousarray(waveform[None], np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return frame


# -- speed, tempo and pitch ------------------------------------------------------------------


def change_speed(factor: float) -> Step:
    """Multiply tempo and pitch by `factor`, as a turntable does."""

    def step(waveform: Waveform, rate: int, rng: Generator) -> Waveform:
        return np.asarray(soxr.resample(waveform, rate * factor, rate), np.float32)

    return step


def change_tempo(factor: float) -> Step:
    """Multiply the tempo by `factor` at the same pitch (FFmpeg's atempo, a WSOLA)."""

    def step(waveform: Waveform, rate: int, rng: Generator) -> Waveform:
        return tempo.change_tempo(waveform, rate, factor)

    return step


def change_pitch(semitones: float) -> Step:
    """Shift the pitch at the same tempo: change the speed, then undo the change of tempo."""
    factor = 2 ** (semitones / 12)
    faster, slower = change_speed(factor), change_tempo(1 / factor)

    def step(waveform: Waveform, rate: int, rng: Generator) -> Waveform:
        return slower(faster(waveform, rate, rng), rate, rng)

    return step
