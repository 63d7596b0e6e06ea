from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astound.evaluation import degradations as module
from astound.evaluation.degradations import AcousticConditions
from engine.errors import ConfigError
from tests.audio_files import write_wav
from training.augment.config import AugmentConfig
from training.augment.rng import Rng

RATE = 8000


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


def test_without_folders_all_is_made_up() -> None:
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
