from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from astound.compare import compare, find_repeats
from engine.errors import AudioError
from tests.audio_files import cached_tune, write_wav

RATE = 8000
FIELDS = "query_start_s query_end_s reference_start_s reference_end_s score speed".split()

Run = Callable[..., Result]


def test_shipped_encoder_finds_a_tune_in_a_mix(tmp_path: Path) -> None:
    tune, other = cached_tune(6, 16.0), cached_tune(5, 8.0)
    silence = np.zeros(2 * RATE, np.float32)
    write_wav(tmp_path / "tune.wav", tune, RATE)
    mix = np.concatenate([other, silence, tune[8 * RATE :]])
    write_wav(tmp_path / "mix.wav", mix, RATE)
    answer = compare(tmp_path / "mix.wav", tmp_path / "tune.wav")
    (found,) = answer.passages
    assert (found.query_start_s, found.query_end_s) == pytest.approx((10, 18), abs=0.75)
    assert (found.reference_start_s, found.reference_end_s) == pytest.approx((8, 16), abs=0.75)


def test_clip_of_five_seconds_is_found(tmp_path: Path) -> None:
    tune = cached_tune(1, 20.0)
    write_wav(tmp_path / "whole.wav", tune, 8000)
    write_wav(tmp_path / "clip.wav", tune[8000 * 7 : 8000 * 12], 8000)
    (found,) = compare(tmp_path / "clip.wav", tmp_path / "whole.wav", device="cpu").passages
    assert found.reference_start_s == pytest.approx(7.0, abs=0.3)


def test_repeats_raise_without_a_callback_for_errors(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"not audio")
    with pytest.raises(AudioError):
        find_repeats([tmp_path / "broken.wav"], model=tiny_model, device="cpu")
