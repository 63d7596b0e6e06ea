from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import astound
from astound.catalog import Catalog
from astound.evaluation import calibrate as calibration
from astound.evaluation import excerpts
from astound.evaluation.calibrate import CalibrationReport, calibrate
from astound.evaluation.degradations import AcousticConditions
from engine.config import IngestConfig, SearchConfig
from engine.errors import RecipeMismatchError, StoreError
from tests.audio_files import cached_tune, write_audio
from training.augment.config import AugmentConfig

RATE = 8000
N_TUNES = 10
N_CLIPS = N_TUNES + 1  # one of each file
CALIBRATION = "calibration.json"

Run = Callable[..., Result]


@pytest.fixture(scope="module", autouse=True)
def brief() -> Iterator[None]:
    """Calibrate on short clips only, and search no other speeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "DURATIONS_S", (1.0, 2.0))
        patch.setattr("astound.catalog.SearchConfig", partial(SearchConfig, speeds=()))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Ten tunes, one of them as 3.flac too, and a catalog of them; not to be changed."""
    folder = tmp_path_factory.mktemp("filled_catalog")
    for seed in range(N_TUNES):
        write_audio(folder / f"{seed}.wav", cached_tune(seed, 10.0), RATE)
    write_audio(folder / "3.flac", cached_tune(3, 10.0), RATE)
    with astound.open(folder / "catalog", model=tiny_model, device="cpu") as catalog:
        catalog.add(folder, config=IngestConfig(n_jobs=1))
    return folder


@pytest.fixture(scope="module")
def report(folder: Path, tiny_model: Path, brief: None) -> CalibrationReport:
    """What calibrating with seed 1 gives."""
    with astound.open(folder / "catalog", model=tiny_model, device="cpu") as catalog:
        return calibrated(catalog, seed=1)


@pytest.fixture
def catalog(folder: Path, tmp_path: Path, tiny_model: Path) -> Iterator[Catalog]:
    """A copy of the catalog that may be changed."""
    shutil.copytree(folder / "catalog", tmp_path / "catalog")
    with astound.open(tmp_path / "catalog", model=tiny_model, device="cpu") as catalog:
        yield catalog


def calibrated(catalog: Catalog, **options: Any) -> CalibrationReport:
    return calibrate(catalog, n_queries=N_CLIPS, **options)


def name(catalog: Catalog, track_id: int) -> str:
    return Path(catalog.track(track_id).path).name


# -- what is asked ---------------------------------------------------------------------------


def test_absent_clips_are_asked_without_every_track_that_holds_them(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        calibration, "query_augmentation", lambda config, **_: AugmentConfig.disabled()
    )
    conditions = AcousticConditions.from_folders(RATE, 0)
    context = catalog.search_context()
    runner = calibration._TrialRunner(catalog.fingerprinter, context, conditions, 0)
    tasks = excerpts.split_clips(excerpts.select_tracks(catalog.tracks(), 100, 0), N_TUNES + 1)
    n_right = 0
    assert len(tasks) == N_TUNES + 1
    for task in tasks:
        own = name(catalog, task.source.track_id or 0)
        twins = {"3.wav", "3.flac"} if own[0] == "3" else {own}
        (trial,) = runner.run(task)
        known, absent, *unknown = trial.answers
        assert (known.is_known, absent.is_known) == (True, False)
        found = [name(catalog, one.track_id) for one in known.candidates]
        assert known.right == tuple(one in twins for one in found)
        n_right += any(known.right)
        assert absent.candidates
        assert not {name(catalog, one.track_id) for one in absent.candidates} & twins
        assert not any(absent.right)
        assert not any(one.is_known or any(one.right) for one in unknown)
    assert n_right > N_TUNES / 2


def test_report_counts_every_clip_twice_and_a_sound(
    report: CalibrationReport, catalog: Catalog
) -> None:
    assert report.hits.n == N_CLIPS
    assert report.false_accepts.n == 2 * N_CLIPS
    assert sum(one.n for one in report.reliability.bins) == 3 * N_CLIPS
    assert report.n_tracks == N_TUNES
    assert report.calibration.recipe_id == catalog.recipe_id


def test_report_repeats_with_its_seed(report: CalibrationReport, catalog: Catalog) -> None:
    again, other = (calibrated(catalog, seed=seed) for seed in (1, 2))
    assert again == report
    assert other.calibration.weights != report.calibration.weights


def test_more_false_accepts_are_a_lower_threshold(
    report: CalibrationReport, catalog: Catalog
) -> None:
    lax = calibrated(catalog, seed=1, false_accept_rate=0.5)
    assert lax.calibration.weights == report.calibration.weights
    assert lax.calibration.min_confidence < report.calibration.min_confidence


# -- what is kept ----------------------------------------------------------------------------


def test_kept_calibration_is_used_by_later_queries(
    catalog: Catalog, tiny_model: Path, report: CalibrationReport
) -> None:
    clip = cached_tune(1, 10.0)[2 * RATE : 5 * RATE]
    assert catalog.query(clip, RATE).best
    strict = replace(report.calibration, min_confidence=1.0001)
    catalog.save_calibration(strict)
    with astound.open(catalog.folder, model=tiny_model, device="cpu") as later:
        for one in (catalog, later):
            assert one.calibration == strict
            assert one.query(clip, RATE).status == "no_match"


def test_calibration_that_was_given_goes_before_the_kept_one(
    catalog: Catalog, tiny_model: Path
) -> None:
    given = replace(catalog.calibration, min_confidence=0.123)
    catalog.save_calibration(replace(given, min_confidence=0.9))
    with astound.open(catalog.folder, model=tiny_model, calibration=given) as later:
        assert later.min_confidence == 0.123


def test_calibration_of_another_recipe_is_refused(catalog: Catalog, tiny_model: Path) -> None:
    wrong = replace(catalog.calibration, recipe_id="0" * 16)
    with pytest.raises(RecipeMismatchError, match="calibration"):
        catalog.save_calibration(wrong)
    assert not (catalog.folder / CALIBRATION).exists()
    wrong.save(catalog.folder / CALIBRATION)
    with (
        astound.open(catalog.folder, model=tiny_model) as later,
        pytest.raises(RecipeMismatchError, match="calibration"),
    ):
        later.query(cached_tune(1, 10.0), RATE)


def test_catalog_without_any_calibration_gets_one(
    catalog: Catalog, tiny_model: Path, tmp_path: Path
) -> None:
    bare = shutil.copy(tiny_model, tmp_path / "bare.safetensors")
    with astound.open(catalog.folder, model=bare, device="cpu") as one:
        one.save_calibration(calibrated(one).calibration)
        assert one.query(cached_tune(1, 10.0), RATE).status in ("match", "no_match")


def test_too_few_tracks_are_refused(catalog: Catalog) -> None:
    catalog.delete([1, 2, 3])
    with pytest.raises(
        StoreError, match=r"7 different tracks gave clips; calibration needs 8 tracks"
    ):
        calibrated(catalog)
    catalog.delete([4])
    with pytest.raises(StoreError, match=r"it has 7 tracks; calibration needs 8 tracks"):
        calibrated(catalog)
