from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astound.evaluation import degradations as module
from astound.evaluation.degradations import AcousticConditions, degradations
from engine.errors import ConfigError
from engine.records import Waveform
from tests.audio_files import cached_tune, write_wav
from training.augment.config import AugmentConfig
from training.augment.rng import Rng

RATE = 8000
START = 2 * RATE
N = 3 * RATE
CONDITIONS = AcousticConditions.from_folders(RATE, 0)
NAMES = ["clean", "noise10", "noise0", "room", "telephone", "codec", "speed-3", "speed+3"]
TUNE = cached_tune(1, 10.0)


def degraded(
    name: str, waveform: Waveform = TUNE, conditions: AcousticConditions = CONDITIONS
) -> Waveform:
    (one,) = (one for one in degradations(conditions) if one.name == name)
    return one.clip(waveform, START, N, Rng((1,)), conditions)


def tones(*all_hz: float) -> Waveform:
    at = np.arange(10 * RATE) / RATE
    waves = [0.2 * np.sin(2 * np.pi * hz * at) for hz in all_hz]
    return np.sum(waves, axis=0).astype(np.float32)


def level(waveform: Waveform, hz: float) -> float:
    """Amplitude of one frequency."""
    at = np.arange(len(waveform)) / RATE
    return float(2 * np.abs(np.mean(waveform * np.exp(-2j * np.pi * hz * at))))


def test_clips_of_all_degradations_are_reproducible() -> None:
    assert [one.name for one in degradations(CONDITIONS)] == NAMES
    for name in NAMES:
        clip = degraded(name)
        assert clip.shape == (N,)
        assert clip.dtype == np.float32
        np.testing.assert_array_equal(clip, degraded(name))


def test_clean_is_the_recording_itself() -> None:
    np.testing.assert_allclose(degraded("clean"), TUNE[START : START + N], atol=1e-6)


@pytest.mark.parametrize(("name", "snr_db"), [("noise10", 10), ("noise0", 0)])
def test_noise_has_the_ratio_of_its_name_over_the_clip(name: str, snr_db: float) -> None:
    clean = TUNE[START : START + N]
    noise = degraded(name) - clean
    ratio = np.mean(np.square(clean)) / np.mean(np.square(noise))
    assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.1)


def test_recorded_noise_replaces_coloured_noise(tmp_path: Path) -> None:
    write_wav(tmp_path / "hum.wav", tones(440.0), RATE)
    conditions = AcousticConditions.from_folders(RATE, 0, noise=tmp_path)
    noise = degraded("noise0", conditions=conditions) - TUNE[START : START + N]
    assert np.sqrt(2 * np.mean(np.square(noise))) == pytest.approx(level(noise, 440.0), rel=0.01)


def test_room_smears_a_click() -> None:
    click = np.zeros(10 * RATE, np.float32)
    click[START + RATE] = 1.0
    wet = degraded("room", click)
    assert np.abs(wet[:RATE]).max() < 1e-6
    assert np.count_nonzero(np.abs(wet[RATE:]) > 1e-4) > 100


def test_music_before_the_clip_reverberates_into_it() -> None:
    click = np.zeros(10 * RATE, np.float32)
    click[START - 100] = 1.0
    assert np.abs(degraded("room", click)).max() > 1e-4


def test_telephone_leaves_the_middle_of_the_band() -> None:
    clip = degraded("telephone", tones(100.0, 1000.0, 3900.0))
    assert level(clip, 1000.0) == pytest.approx(0.2, rel=0.05)
    assert level(clip, 100.0) < 0.01
    assert level(clip, 3900.0) < 0.15


def test_codec_changes_the_sound_but_not_its_time() -> None:
    clip, clean = degraded("codec"), TUNE[START : START + N]
    assert not np.allclose(clip, clean, atol=1e-3)
    spectrum = np.fft.rfft(clip, 2 * N) * np.fft.rfft(clean, 2 * N).conj()
    lag = int(np.fft.irfft(spectrum).argmax())
    assert min(lag, 2 * N - lag) <= 0.05 * RATE


@pytest.mark.parametrize(("name", "factor"), [("speed-3", 0.97), ("speed+3", 1.03)])
def test_speed_raises_the_pitch_and_begins_at_the_same_moment(name: str, factor: float) -> None:
    clip = degraded(name, tones(1000.0))
    assert level(clip, 1000.0 * factor) == pytest.approx(0.2, rel=0.01)
    ramp = np.linspace(0, 1, 10 * RATE, endpoint=False, dtype=np.float32)
    expected = (START + factor * np.arange(N)) / (10 * RATE)
    np.testing.assert_allclose(degraded(name, ramp), expected, atol=1e-5)


def test_codec_is_left_out_at_unsupported_rates() -> None:
    assert "codec" not in {
        one.name for one in degradations(AcousticConditions.from_folders(11025, 0))
    }


# -- acoustic conditions ---------------------------------------------------------------------


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder with two tones of 0.5 s, 500 and 1000 Hz, and a file that is no audio."""
    (tmp_path / "deep").mkdir()
    for name, hz in (("a.wav", 500), ("deep/b.wav", 1000)):
        tone = 0.5 * np.sin(2 * np.pi * hz * np.arange(RATE // 2) / RATE)
        write_wav(tmp_path / name, tone.astype(np.float32), RATE)
    (tmp_path / "c.wav").write_bytes(b"not audio")
    (tmp_path / "notes.txt").write_text("not audio either")
    return tmp_path


def test_conditions_without_folders_are_synthesised() -> None:
    conditions = AcousticConditions.from_folders(RATE, 0)
    assert (conditions.has_noise, conditions.has_speech, len(conditions.rooms.recorded)) == (
        False,
        False,
        0,
    )
    assert conditions.rooms.synthesise(Rng((1,)), 1, AugmentConfig()).any()


def test_sounds_of_a_folder_are_used(sounds: Path) -> None:
    conditions = AcousticConditions.from_folders(RATE, 0, noise=sounds, speech=sounds, rooms=sounds)
    assert (conditions.has_noise, conditions.has_speech, len(conditions.rooms.recorded)) == (
        True,
        True,
        2,
    )
    noise = conditions.noises.noise.draw(np.random.default_rng(0), 20, RATE).numpy()
    peaks_hz = np.abs(np.fft.rfft(noise)).argmax(axis=1)
    assert set(peaks_hz) == {500, 1000}


def test_only_some_files_of_a_large_folder_are_read(
    sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_FILES", 1)
    counts = set()
    for seed in range(10):
        try:
            counts.add(len(AcousticConditions.from_folders(RATE, seed, noise=sounds).noises.noise))
        except ConfigError:  # the one chosen is no audio
            continue
    assert counts == {1}


def test_folder_without_audio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="contains no readable audio"):
        AcousticConditions.from_folders(RATE, 0, noise=tmp_path)


@pytest.mark.parametrize(("rate", "takes"), [(8000, True), (16000, True), (11025, False)])
def test_codecs_take_the_rates_of_opus(rate: int, takes: bool) -> None:
    assert AcousticConditions.from_folders(rate, 0).has_codecs is takes
