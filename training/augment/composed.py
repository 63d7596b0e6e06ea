"""Compose noise of kinds that recordings are rare of, from random numbers and voices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from training.augment.pool import AudioPool

Samples = NDArray[np.floating]
_Compose = Callable[[np.random.Generator, int, int, AudioPool], Samples]

LENGTH_S = 15.0  # of each noise
_PEAK = 0.9
_MAX_UTTERANCE_S = 4.0
_MAX_ENGINE_HARMONICS = 40
_LOWEST_HZ = 30.0
_FLOOR_DB = -45.0  # noise of the room between clicks and clinks, under their peaks


def compose_pool(
    generator: np.random.Generator, minutes: float, sample_rate: int, speech: AudioPool
) -> AudioPool:
    """Compose noises of all kinds in turn.

    Parameters
    ----------
    generator : numpy.random.Generator
        The only source of randomness.
    minutes : float
        Length of all noises together, rounded up to a whole number of noises.
    sample_rate : int
        Hz.
    speech : AudioPool
        Voices for crowds.

    Returns
    -------
    AudioPool
    """
    kinds, n_noises = list(KINDS), int(np.ceil(60 * minutes / LENGTH_S))
    n_samples = int(LENGTH_S * sample_rate)
    return AudioPool.from_waveforms(
        [
            compose(kinds[i % len(kinds)], generator, n_samples, sample_rate, speech)
            for i in range(n_noises)
        ]
    )


def compose(
    kind: str, generator: np.random.Generator, n_samples: int, sample_rate: int, speech: AudioPool
) -> NDArray[np.float32]:
    """Compose one noise.

    Parameters
    ----------
    kind : str
        A key of `KINDS`.
    generator : numpy.random.Generator
    n_samples, sample_rate : int
        Length, and rate in Hz.
    speech : AudioPool
        Voices for crowds.

    Returns
    -------
    float32 array of shape (n_samples,)
        With a peak of 0.9, or silence if it is a crowd of silent voices.
    """
    noise = KINDS[kind](generator, n_samples, sample_rate, speech)
    return np.asarray(_PEAK * noise / max(float(np.abs(noise).max()), 1e-6), np.float32)


def _crowd(generator: np.random.Generator, n: int, rate: int, speech: AudioPool) -> Samples:
    """Overlap many utterances at random speeds, far away and of changing loudness."""
    audible = np.flatnonzero(speech.lengths)
    length = min(float(speech.lengths[audible].mean()), _MAX_UTTERANCE_S * rate)
    n_voices = _log_uniform(generator, 6, 40)
    out = np.zeros(n)
    for index in generator.choice(audible, int(n_voices * n / length) + 1):
        voice = speech.recording(int(index))
        start = int(generator.integers(max(len(voice) - int(_MAX_UTTERANCE_S * rate), 0) + 1))
        voice = voice[start : start + int(_MAX_UTTERANCE_S * rate)]
        at = np.arange(0, len(voice) - 1, generator.uniform(0.7, 1.4))
        spoken = np.interp(at, np.arange(len(voice)), voice)
        begin = int(generator.integers(-len(spoken), n))
        spoken = spoken[max(-begin, 0) :][: n - max(begin, 0)]
        out[max(begin, 0) : max(begin, 0) + len(spoken)] += spoken * _gain(generator, -15, 0)
    far = _filter(out, rate, (100.0, _log_uniform(generator, 1200, 3600)))
    return far * _slow_gain(generator, n, rate, period_s=1.5, deviation_db=3.0)


def _applause(generator: np.random.Generator, n: int, rate: int, _: AudioPool) -> Samples:
    """Clap at random times, each hand with a resonance of its own."""
    per_s = _log_uniform(generator, 8, 300)
    out = np.zeros(n)
    for _hand in range(8):
        burst = _burst(generator, rate, generator.uniform(0.004, 0.02))
        centre = _log_uniform(generator, 700, 2800)
        clap = _filter(burst, rate, (centre / 1.5, centre * 1.5))
        out += _convolve(_impulses(generator, n, per_s / 8 / rate), clap)
    return out * _slow_gain(generator, n, rate, period_s=2.0, deviation_db=3.0)


def _clinking(generator: np.random.Generator, n: int, rate: int, _: AudioPool) -> Samples:
    """Strike glasses and cutlery, whose partials are inharmonic and decay."""
    per_s = _log_uniform(generator, 2, 20)
    at_s = np.arange(rate) / rate
    out = np.zeros(n)
    for _object in range(6):
        first_hz, ring_s = _log_uniform(generator, 500, 2500), _log_uniform(generator, 0.02, 0.4)
        ratios = np.cumsum(np.concatenate([[1.0], generator.uniform(0.15, 1.2, 5)]))
        ratios = ratios[ratios * first_hz < 0.48 * rate]
        sound = sum(
            _gain(generator, -12, 0)
            * np.sin(2 * np.pi * ratio * first_hz * at_s)
            * np.exp(-at_s * ratio / ring_s)
            for ratio in ratios
        )
        out += _convolve(_impulses(generator, n, per_s / 6 / rate), np.asarray(sound))
    return _with_floor(generator, out, rate)


def _rain(generator: np.random.Generator, n: int, rate: int, _: AudioPool) -> Samples:
    """Let many drops fall on several surfaces, near ones over the rush of far ones."""
    out = np.zeros(n)
    for _surface in range(4):
        centre = _log_uniform(generator, 400, 3000)
        drop = _filter(_burst(generator, rate, 0.003), rate, (centre / 2, centre * 2))
        per_s = _log_uniform(generator, 20, 3000)
        out += _convolve(_impulses(generator, n, per_s / rate), drop) / np.sqrt(per_s)
    rush = _coloured(generator, n, rate, generator.uniform(-0.3, 0.6))
    out = out / _rms(out) + rush * _gain(generator, -12, 6)
    return out * _slow_gain(generator, n, rate, period_s=3.0, deviation_db=2.0)


def _wind(generator: np.random.Generator, n: int, rate: int, _: AudioPool) -> Samples:
    """Let low noise and a whistle follow slow gusts."""
    gusts = _slow_gain(generator, n, rate, generator.uniform(0.4, 2.5), deviation_db=6.0)
    edge_hz = _log_uniform(generator, 120, 800)
    low = _filter(generator.standard_normal(n), rate, (_LOWEST_HZ, edge_hz))
    centre = _log_uniform(generator, 250, 1500)
    whistle = _filter(generator.standard_normal(n), rate, (centre / 1.15, centre * 1.15))
    hiss = _coloured(generator, n, rate, 1.0) * _gain(generator, -30, -10)
    return (low / _rms(low) + hiss) * gusts + whistle / _rms(whistle) * gusts**2 * _gain(
        generator, -40, -12
    )


def _engine(generator: np.random.Generator, n: int, rate: int, _: AudioPool) -> Samples:
    """Run an engine at a changing rate; it passes by, or stays."""
    at = np.linspace(-1, 1, n)
    hz = _log_uniform(generator, 40, 150) * _slow_gain(generator, n, rate, 3.0, deviation_db=0.7)
    loudness = np.ones(n)
    if generator.random() < 0.6:
        closest, width = generator.uniform(-0.7, 0.7), _log_uniform(generator, 0.05, 0.6)
        loudness = 0.03 + 1 / (1 + ((at - closest) / width) ** 2)
        hz *= 1 - generator.uniform(0, 0.08) * np.tanh((at - closest) / width)
    cycles = np.cumsum(hz) / rate
    tones, fall = np.zeros(n), generator.uniform(0.3, 1.3)
    for number in range(1, _MAX_ENGINE_HARMONICS + 1):
        if number * hz.max() < 0.48 * rate:
            phase = number * cycles + generator.random()
            tones += np.sin(2 * np.pi * phase) * _gain(generator, -15, 0) / number**fall
    edge_hz = _log_uniform(generator, 300, 3000)
    road = _filter(_coloured(generator, n, rate, 0.5), rate, (_LOWEST_HZ, edge_hz))
    tones = tones / _rms(tones) + road / _rms(road) * _gain(generator, -12, 9)
    return tones * loudness


def _fan(generator: np.random.Generator, n: int, rate: int, _: AudioPool) -> Samples:
    """Sum a few steady tones, slightly modulated, and coloured noise."""
    at_s = np.arange(n) / rate
    blade_hz, turn_hz = _log_uniform(generator, 60, 500), generator.uniform(2, 25)
    tones = np.zeros(n)
    for number in range(1, 7):
        phase = 2 * np.pi * (number * blade_hz * at_s + generator.random())
        tones += np.sin(phase) * _gain(generator, -20, 0)
    tones *= 1 + generator.uniform(0, 0.5) * np.sin(2 * np.pi * turn_hz * at_s)
    air = _coloured(generator, n, rate, generator.uniform(0.2, 1.0))
    return tones / _rms(tones) * _gain(generator, -20, 3) + air


def _keyboard(generator: np.random.Generator, n: int, rate: int, _: AudioPool) -> Samples:
    """Type: each key clicks when it goes down, and more softly when it comes up."""
    per_s = _log_uniform(generator, 4, 15)
    out = np.zeros(n)
    for _key in range(6):
        low_hz = _log_uniform(generator, 200, 1500)
        press = _filter(_burst(generator, rate, 0.004), rate, (low_hz, 0.5 * rate))
        click = np.zeros(int(0.15 * rate))
        release = int(generator.uniform(0.06, 0.1) * rate)
        for begin, gain in ((0, 1.0), (release, _gain(generator, -15, -3))):
            end = min(begin + len(press), len(click))
            click[begin:end] += gain * press[: end - begin]
        out += _convolve(_impulses(generator, n, per_s / 6 / rate), click)
    return _with_floor(generator, out, rate)


KINDS: dict[str, _Compose] = {
    "crowd": _crowd,
    "applause": _applause,
    "clinking": _clinking,
    "rain": _rain,
    "wind": _wind,
    "engine": _engine,
    "fan": _fan,
    "keyboard": _keyboard,
}
"""Kinds of noise, and what composes them."""


def _log_uniform(generator: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(generator.uniform(np.log(low), np.log(high))))


def _gain(generator: np.random.Generator, low_db: float, high_db: float) -> float:
    return float(10 ** (generator.uniform(low_db, high_db) / 20))


def _impulses(generator: np.random.Generator, n: int, per_sample: float) -> Samples:
    """Place a Poisson number of impulses, at least one, of random heights at random samples."""
    n_impulses = max(int(generator.poisson(per_sample * n)), 1)
    at = generator.integers(n, size=n_impulses)
    heights = 10 ** (generator.uniform(-20, 0, n_impulses) / 20)
    out = np.zeros(n)
    np.add.at(out, at, heights)
    return out


def _burst(generator: np.random.Generator, rate: int, decay_s: float) -> Samples:
    """Draw noise that decays within eight times `decay_s`."""
    at_s = np.arange(int(8 * decay_s * rate) + 1) / rate
    return generator.standard_normal(len(at_s)) * np.exp(-at_s / decay_s)


def _slow_gain(
    generator: np.random.Generator, n: int, rate: int, period_s: float, deviation_db: float
) -> Samples:
    """Draw a gain that changes within `period_s`, with a standard deviation in dB."""
    at = np.arange(n) / (period_s * rate)
    points_db = generator.standard_normal(int(at[-1]) + 2) * deviation_db
    gain: Samples = 10 ** (np.interp(at, np.arange(len(points_db)), points_db) / 20)
    return gain


def _coloured(generator: np.random.Generator, n: int, rate: int, exponent: float) -> Samples:
    """Draw audible noise that falls by 6 dB per octave and unit of the exponent; unit RMS."""
    hz = np.fft.rfftfreq(n, 1 / rate)
    spectrum = np.fft.rfft(generator.standard_normal(n))
    spectrum *= np.maximum(hz, _LOWEST_HZ) ** -exponent * (hz >= _LOWEST_HZ)
    noise = np.fft.irfft(spectrum, n)
    return noise / _rms(noise)


def _filter(sound: Samples, rate: int, band_hz: tuple[float, float]) -> Samples:
    """Attenuate by 24 dB per octave outside a band."""
    hz = np.maximum(np.fft.rfftfreq(len(sound), 1 / rate), 1.0)
    low, high = band_hz
    gain = 1 / np.sqrt((1 + (low / hz) ** 8) * (1 + (hz / high) ** 8))
    return np.fft.irfft(np.fft.rfft(sound) * gain, len(sound))


def _convolve(impulses: Samples, response: Samples) -> Samples:
    n_fft = 1 << (len(impulses) + len(response) - 2).bit_length()
    spectrum = np.fft.rfft(impulses, n_fft) * np.fft.rfft(response, n_fft)
    return np.fft.irfft(spectrum, n_fft)[: len(impulses)]


def _with_floor(generator: np.random.Generator, sound: Samples, rate: int) -> Samples:
    floor = _coloured(generator, len(sound), rate, 0.5) * 10 ** (_FLOOR_DB / 20)
    return sound / max(float(np.abs(sound).max()), 1e-6) + floor


def _rms(sound: Samples) -> float:
    return max(float(np.sqrt(np.mean(sound**2))), 1e-9)
