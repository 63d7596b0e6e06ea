from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import astound
from benchmarks.queries import datasets, mix
from benchmarks.queries.datasets import RATE
from benchmarks.queries.mix import Mix, Part
from benchmarks.suites.scan import ScanBenchmarkConfig, measured, run
from engine.audio import decode
from engine.errors import ConfigError
from tests.audio_files import cached_tune

N_TUNES = 4
TUNE_S = 62.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders music, with one tune more than a catalog gets, and speech."""
    folder = tmp_path_factory.mktemp("mix")
    (folder / "music").mkdir()
    (folder / "speech").mkdir()
    for seed in range(N_TUNES):
        tune = cached_tune(seed, TUNE_S, RATE)
        soundfile.write(folder / "music" / f"{seed}.wav", tune, RATE)
    babble = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)
    soundfile.write(folder / "speech" / "a.wav", babble, RATE)
    return folder


@pytest.fixture(scope="module")
def planned(folder: Path) -> Mix:
    tunes = datasets.audio_files([folder / "music"])
    return mix.plan(tunes[:3], tunes[3:], 3, 240.0, seed=1)


def test_plan_has_all_tracks_and_the_length_asked_for(planned: Mix) -> None:
    assert sorted(part.path.stem for part in planned.parts) == ["0", "1", "2", "3"]
    assert [part.path.stem for part in planned.parts if not part.present] == ["3"]
    assert planned.duration_s == pytest.approx(240.0, abs=0.01)
    for part in planned.parts:
        assert abs(part.speed - 1) <= mix.MAX_SPEED_CHANGE
        end_s = part.reference_start_s + (part.end_s - part.start_s) * part.speed
        assert 0 <= part.reference_start_s < end_s <= TUNE_S


def test_parts_follow_each_other_by_fades_cuts_and_talks(planned: Mix) -> None:
    for one, other in zip(planned.parts, planned.parts[1:], strict=False):
        apart_s = other.start_s - one.end_s
        if one.fade_out_s >= mix.FADE_S[0]:
            assert apart_s == pytest.approx(-one.fade_out_s)
            assert other.fade_in_s == one.fade_out_s
        elif apart_s > 0.001:
            assert any(start_s == pytest.approx(one.end_s) for start_s, _ in planned.talks)


def test_same_seed_plans_the_same_mix(folder: Path, planned: Mix) -> None:
    tunes = datasets.audio_files([folder / "music"])
    assert mix.plan(tunes[:3], tunes[3:], 3, 240.0, seed=1) == planned
    assert mix.plan(tunes[:3], tunes[3:], 3, 240.0, seed=2) != planned


def test_too_few_tracks_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="n_tracks"):
        mix.plan(datasets.audio_files([folder / "music"]), [], 9, 240.0, seed=1)


def test_mix_sounds_as_planned(folder: Path, planned: Mix) -> None:
    mix.write(planned, datasets.audio_files([folder / "speech"]), folder / "mix.wav", seed=1)
    whole = decode.read(folder / "mix.wav", RATE)
    assert len(whole) == round(planned.duration_s * RATE)
    part = next(part for part in planned.parts if not part.speech_s)
    at_s = (part.start_s + part.end_s) / 2
    first = round(at_s * RATE)
    heard = whole[first : first + RATE]
    reference_s = part.reference_start_s + (at_s - part.start_s) * part.speed
    cut = decode.read(part.path, RATE, start_s=reference_s, end_s=reference_s + 1.2)
    played = decode.change_speed(cut, RATE, part.speed)[:RATE]
    correlation = np.corrcoef(heard, played)[0, 1]
    assert correlation > 0.5


def _entry(track_id: int, start_s: float, end_s: float) -> dict[str, Any]:
    return {
        "track_id": track_id, "path": f"/m/{track_id}.wav", "reference_start_s": 0.0,
        "query_start_s": start_s, "query_end_s": end_s,
    }  # fmt: skip


def test_measured_counts_found_boundaries_and_false_tracks() -> None:
    def part(name: str, start_s: float, end_s: float, *, present: bool = True) -> Part:
        return Part(
            path=Path(name), present=present, start_s=start_s, end_s=end_s, fade_in_s=0.02,
            fade_out_s=6.0, reference_start_s=0.0, speed=1.0,
        )  # fmt: skip

    parts = (part("a", 0, 50), part("b", 44, 90), part("c", 100, 150), part("d", 200, 250))
    unknown = part("u", 300, 350, present=False)
    planned = Mix(parts=(*parts, unknown), talks=((90.0, 100.0),), duration_s=360.0)
    ids = {Path(name).resolve(): number for number, name in enumerate("abcd", 1)}
    planned = Mix(
        parts=tuple(Part(**(one.__dict__ | {"path": one.path.resolve()})) for one in planned.parts),
        talks=planned.talks,
        duration_s=planned.duration_s,
    )
    entries = [
        _entry(1, 0.5, 49.5),  # 2.5 s after the fade's middle, within it
        _entry(2, 44.0, 60.0), _entry(2, 62.0, 88.0),
        _entry(3, 110.0, 146.0),  # begins late
        _entry(1, 305.0, 320.0),  # false
    ]  # fmt: skip
    results = measured(planned, entries, ids)
    assert (results["found"]["n_yes"], results["found"]["n"]) == (3, 4)
    assert results["in_one_entry"]["n_yes"] == 2
    assert (results["boundaries"]["n_yes"], results["boundaries"]["n"]) == (4, 6)
    assert results["boundaries_of_fades"]["n_yes"] == 5
    assert results["n_false"] == 1
    assert results["parts"][0]["offset_error_s"] == pytest.approx(-0.5)


@pytest.mark.slow
def test_run_measures_a_mix(folder: Path, tiny_weights: Path) -> None:
    with astound.open(folder / "catalog", model=tiny_weights, device="cpu") as catalog:
        catalog.add([folder / "music" / f"{seed}.wav" for seed in range(N_TUNES - 1)])
    config = ScanBenchmarkConfig(
        references=[folder / "music"], speech=[folder / "speech"], catalog=folder / "catalog",
        out=folder / "scan.json", minutes=4.0, n_tracks=3, device="cpu",
    )  # fmt: skip
    results = run(config)
    assert json.loads(config.out.read_text())["table"] == results["table"]
    assert (results["n_known"], results["n_unknown"]) == (3, 1)
    assert results["peak_rss_bytes"] > 2**20
