from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.queries import datasets, mix
from benchmarks.queries.datasets import RATE
from benchmarks.queries.mix import Mix
from engine.audio import decode
from engine.audio.resample import change_speed
from engine.errors import ConfigError
from tests.benchmarks.conftest import LONG_TUNE_S


@pytest.fixture(scope="module")
def planned(long_sounds: Path) -> Mix:
    tunes = datasets.audio_files([long_sounds / "music"])
    return mix.plan(tunes[:3], tunes[3:], 3, 240.0, seed=1)


def test_plan_contains_all_tracks_at_the_given_length(planned: Mix) -> None:
    assert sorted(part.path.stem for part in planned.parts) == ["0", "1", "2", "3"]
    assert [part.path.stem for part in planned.parts if not part.present] == ["3"]
    assert planned.duration_s == pytest.approx(240.0, abs=0.01)
    for part in planned.parts:
        assert abs(part.speed - 1) <= mix.MAX_SPEED_CHANGE
        end_s = part.reference_start_s + (part.end_s - part.start_s) * part.speed
        assert 0 <= part.reference_start_s < end_s <= LONG_TUNE_S


def test_plan_joins_parts_by_fades_cuts_and_talks(planned: Mix) -> None:
    for part, following in pairwise(planned.parts):
        apart_s = following.start_s - part.end_s
        if part.fade_out_s >= mix.FADE_S[0]:
            assert apart_s == pytest.approx(-part.fade_out_s)
            assert following.fade_in_s == part.fade_out_s
        elif apart_s > 0.001:
            assert any(start_s == pytest.approx(part.end_s) for start_s, _ in planned.talks)


def test_plan_depends_on_the_seed(long_sounds: Path, planned: Mix) -> None:
    tunes = datasets.audio_files([long_sounds / "music"])
    assert mix.plan(tunes[:3], tunes[3:], 3, 240.0, seed=1) == planned
    assert mix.plan(tunes[:3], tunes[3:], 3, 240.0, seed=2) != planned


def test_plan_too_few_tracks_is_refused(long_sounds: Path) -> None:
    with pytest.raises(ConfigError, match="n_tracks"):
        mix.plan(datasets.audio_files([long_sounds / "music"]), [], 9, 240.0, seed=1)


def test_write_renders_the_plan(long_sounds: Path, planned: Mix) -> None:
    mix.write(
        planned, datasets.audio_files([long_sounds / "speech"]), long_sounds / "mix.wav", seed=1
    )
    whole = decode.read(long_sounds / "mix.wav", RATE)
    assert len(whole) == round(planned.duration_s * RATE)
    part = next(part for part in planned.parts if not part.speech_s)
    at_s = (part.start_s + part.end_s) / 2
    first = round(at_s * RATE)
    rendered = whole[first : first + RATE]
    reference_s = part.reference_start_s + (at_s - part.start_s) * part.speed
    cut = decode.read(part.path, RATE, start_s=reference_s, end_s=reference_s + 1.2)
    played = change_speed(cut, RATE, part.speed)[:RATE]
    correlation = np.corrcoef(rendered, played)[0, 1]
    assert correlation > 0.5
