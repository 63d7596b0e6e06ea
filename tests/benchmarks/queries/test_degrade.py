from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from benchmarks.queries import degrade
from benchmarks.queries.conditions import STANDARD, make_distortion
from benchmarks.queries.degrade import Distortion, Waveform
from engine.errors import AudioError

RATE = 16_000
CONTEXT_S = 1.0


def white(seconds: float, seed: int = 0) -> Waveform:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def melody(seconds: float, seed: int = 0) -> Waveform:
    """Notes of a quarter second, so that every moment differs."""
    rng = np.random.default_rng(seed)
    t = np.arange(RATE // 4) / RATE
    notes = [
        np.sin(2 * np.pi * hz * t) * np.exp(-12 * t)
        for hz in rng.uniform(400, 3000, round(seconds * 4))
    ]
    return (0.3 * np.concatenate(notes)).astype(np.float32)


def draw_noise(rng: np.random.Generator) -> Waveform:
    return white(0.7, seed=9)


def draw_room(rng: np.random.Generator) -> Waveform:
    t = np.arange(RATE // 2) / RATE
    tail = 0.02 * np.random.default_rng(5).normal(size=len(t)) * np.exp(-12 * t)
    return np.concatenate([[1.0], tail]).astype(np.float32)


MORE = ("aac-24k", "band500-2000", "gain-20", "gain12", "clipped6")
SOURCES = {"noise": draw_noise, "rooms": draw_room}
DISTORTIONS = {name: make_distortion(name, SOURCES) for name in (*STANDARD, *MORE)}


def query(
    distortion: Distortion, excerpt: Waveform, duration_s: float = 5.0, seed: int = 0
) -> Waveform:
    rng = np.random.default_rng(seed)
    return distortion.query(excerpt, RATE, rng, context_s=CONTEXT_S, duration_s=duration_s)


def lag_s(played: Waveform, expected: Waveform) -> float:
    """Return the delay of `played` relative to `expected`, in seconds."""
    correlation = signal.correlate(played, expected, "full")
    return (int(np.argmax(correlation)) - (len(expected) - 1)) / RATE


@pytest.mark.parametrize("name", DISTORTIONS)
@pytest.mark.parametrize("duration_s", [1.0, 5.0])
def test_query_has_its_duration_and_stays_within_full_scale(name: str, duration_s: float) -> None:
    made = query(DISTORTIONS[name], 3 * melody(8), duration_s)
    assert made.shape == (round(duration_s * RATE),)
    assert made.dtype == np.float32
    assert np.abs(made).max() <= 1


@pytest.mark.parametrize("name", DISTORTIONS)
def test_same_seed_gives_the_same_query(name: str) -> None:
    excerpt = melody(8)
    np.testing.assert_array_equal(
        query(DISTORTIONS[name], excerpt), query(DISTORTIONS[name], excerpt)
    )


def test_seed_chooses_the_noise() -> None:
    loop = Distortion(name="n", query_steps=(degrade.add_noise(lambda rng: white(30), 0),))
    excerpt = melody(8)
    assert not np.array_equal(query(loop, excerpt, seed=1), query(loop, excerpt, seed=2))


@pytest.mark.parametrize("name", ["clean", "noise0", "room5", "mp3-32k", "opus-12k", "aac-24k"])
def test_second_zero_is_the_start_of_the_cut(name: str) -> None:
    excerpt = melody(8)
    made = query(DISTORTIONS[name], excerpt)
    expected = excerpt[round(CONTEXT_S * RATE) :][: len(made)]
    for first in (0, 4 * RATE):
        part = slice(first, first + RATE)
        assert abs(lag_s(made[part], expected[part])) < 0.010


@pytest.mark.parametrize(
    "name", [n for n, d in DISTORTIONS.items() if n.startswith(("speed", "tempo"))]
)
def test_speed_of_the_query_is_as_named(name: str) -> None:
    """Check the positions of clicks."""
    excerpt = np.zeros(9 * RATE, np.float32)
    truth_s = np.arange(0.25, 4.5, 0.75)
    for at_s in truth_s:
        first = round((CONTEXT_S + at_s * DISTORTIONS[name].speed) * RATE)
        excerpt[first - 20 : first + 21] = np.hanning(41)
    made = query(DISTORTIONS[name], excerpt)
    tolerance_s = 0.002 if name.startswith("speed") else 0.050  # atempo moves pieces of 40 ms
    for at_s in truth_s:
        around = made[round((at_s - 0.2) * RATE) : round((at_s + 0.2) * RATE)]
        assert int(np.argmax(np.abs(around))) / RATE - 0.2 == pytest.approx(0, abs=tolerance_s)


def peak_hz(waveform: Waveform) -> float:
    power = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.argmax(power)) * RATE / len(waveform)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("speed+8", 1.08), ("speed-3", 0.97), ("tempo+20", 1.0), ("tempo-8", 1.0),
        ("pitch+2", 2 ** (2 / 12)), ("pitch-1", 2 ** (-1 / 12)), ("noise5", 1.0),
    ],
)  # fmt: skip
def test_frequencies_change_as_named(name: str, factor: float) -> None:
    tone = (0.5 * np.sin(2 * np.pi * 1000 * np.arange(9 * RATE) / RATE)).astype(np.float32)
    assert peak_hz(query(DISTORTIONS[name], tone)) == pytest.approx(1000 * factor, rel=0.003)


@pytest.mark.parametrize("name", [n for n in DISTORTIONS if n.startswith("pitch")])
def test_pitch_change_keeps_time(name: str) -> None:
    excerpt = np.zeros(8 * RATE, np.float32)
    excerpt[round((CONTEXT_S + 3.0) * RATE) :][:41] = np.hanning(41)
    at_s = int(np.argmax(np.abs(query(DISTORTIONS[name], excerpt)))) / RATE
    assert at_s == pytest.approx(3.0, abs=0.050)


@pytest.mark.parametrize("snr_db", [10, 0, -10])
def test_noise_has_the_stated_level(snr_db: int) -> None:
    music = 0.1 * melody(5)
    made = degrade.add_noise(draw_noise, snr_db)(music, RATE, np.random.default_rng(0))
    noise = made - music
    found_db = 10 * np.log10(np.mean(music**2) / np.mean(noise**2))
    assert found_db == pytest.approx(snr_db, abs=0.05)


def test_noise_level_depends_on_the_query_not_on_its_context() -> None:
    excerpt = 0.1 * melody(8)
    excerpt[: round(CONTEXT_S * RATE)] *= 8
    made = query(DISTORTIONS["noise0"], excerpt)
    music = excerpt[round(CONTEXT_S * RATE) :][: len(made)]
    assert np.mean((made - music) ** 2) == pytest.approx(np.mean(music**2), rel=0.02)


def test_silent_noise_is_refused() -> None:
    silence = degrade.add_noise(lambda rng: np.zeros(RATE, np.float32), 0)
    with pytest.raises(AudioError, match="silent"):
        silence(melody(1), RATE, np.random.default_rng(0))


def test_music_before_the_cut_reverberates_into_the_query() -> None:
    excerpt = melody(8)
    excerpt[round(CONTEXT_S * RATE) :] = 0
    room = Distortion(name="room", context_steps=(degrade.reverberate(draw_room),))
    made = query(room, excerpt)
    assert np.abs(made[: RATE // 10]).max() > 1e-3
    assert np.abs(made[RATE:]).max() < 1e-4


def test_band_pass_removes_all_but_the_telephone_band() -> None:
    passed = degrade.band_pass(white(10), RATE, np.random.default_rng(0))
    hz, power = signal.welch(passed, RATE, nperseg=4096)
    middle = power[(hz > 500) & (hz < 3000)].mean()
    assert power[hz < 100].mean() < 1e-3 * middle
    assert power[hz > 6000].mean() < 1e-3 * middle


@pytest.mark.parametrize("name", ["opus-12k", "mp3-32k"])
def test_codecs_are_lossy(name: str) -> None:
    excerpt = white(8)
    made = query(DISTORTIONS[name], excerpt)
    expected = excerpt[round(CONTEXT_S * RATE) :][: len(made)]
    assert 0.01 < np.mean((made - expected) ** 2) / np.mean(expected**2) < 2


def test_band_keeps_its_band() -> None:
    made = query(DISTORTIONS["band500-2000"], white(8))
    power = np.abs(np.fft.rfft(made)) ** 2
    hz = np.fft.rfftfreq(len(made), 1 / RATE)
    inside = power[(hz > 700) & (hz < 1700)].mean()
    assert power[(hz < 250) | (hz > 4000)].mean() < 0.01 * inside


def test_gain_changes_the_level_and_nothing_else() -> None:
    clean, quiet = query(DISTORTIONS["clean"], melody(8)), query(DISTORTIONS["gain-20"], melody(8))
    np.testing.assert_allclose(quiet, clean / 10, rtol=1e-5, atol=1e-7)


def test_clipping_cuts_at_full_scale() -> None:
    clean, loud = query(DISTORTIONS["clean"], melody(8)), query(DISTORTIONS["clipped6"], melody(8))
    expected = np.clip(clean / np.abs(clean).max() * 10**0.3, -1, 1)
    np.testing.assert_allclose(loud, expected, atol=1e-5)
    assert np.mean(np.abs(loud) >= 1) > 0
