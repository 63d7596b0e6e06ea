from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

import astound
from astound.catalog import Catalog
from astound.evaluation.robustness import RobustnessReport, robustness
from engine.config import IngestConfig
from engine.errors import ConfigError
from tests.audio_files import cached_tune, write_audio

RATE = 8000
N_TUNES = 4
DEGRADATIONS = ["clean", "noise10", "noise0", "room", "telephone", "codec", "speed-3", "speed+3"]

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """music/0.wav ..., unknown.wav, twin.flac (which is 1.wav), short.wav and broken.wav."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "music").mkdir()
    for seed in range(N_TUNES):
        write_audio(folder / "music" / f"{seed}.wav", cached_tune(seed, 10.0), RATE)
    write_audio(folder / "unknown.wav", cached_tune(20, 10.0), RATE)
    write_audio(folder / "twin.flac", cached_tune(1, 10.0), RATE)
    write_audio(folder / "short.wav", cached_tune(1, 2.5), RATE)
    (folder / "broken.wav").write_bytes(b"not audio")
    return folder


@pytest.fixture(scope="module")
def catalog(folder: Path, tiny_model: Path) -> Iterator[Catalog]:
    """Of the music; accepts what it takes for a copy. Not to be changed."""
    with astound.open(folder / "catalog", model=tiny_model, device="cpu") as catalog:
        catalog.add(folder / "music", config=IngestConfig(n_jobs=1))
        yield catalog


@pytest.fixture(scope="module")
def report(catalog: Catalog) -> RobustnessReport:
    """Of the catalog's own tracks."""
    return asked(catalog)


def asked(catalog: Catalog, *paths: Path, **options: Any) -> RobustnessReport:
    wanted: dict[str, Any] = {"durations_s": (1.0, 3.0), "n_queries": 1} | options
    return robustness(catalog, paths, **wanted)


def test_every_degradation_is_asked_for_at_every_length(report: RobustnessReport) -> None:
    places = [(one.degradation, one.duration_s) for one in report.cells]
    assert places == [
        (degradation, duration_s) for degradation in DEGRADATIONS for duration_s in (1.0, 3.0)
    ]
    assert all(one.hits.n == one.found.n == 1 for one in report.cells)
    assert report.false_accepts.n == len(DEGRADATIONS)  # each at one of the lengths
    assert report.failed == ()


def test_clean_clips_are_found_where_they_are(report: RobustnessReport) -> None:
    (clean,) = (one for one in report.cells if (one.degradation, one.duration_s) == ("clean", 3.0))
    assert clean.hits.value == 1.0
    assert clean.median_offset_error_s is not None
    assert clean.median_offset_error_s < 0.2


def test_accepted_is_what_passes_the_threshold(
    catalog: Catalog, folder: Path, tiny_model: Path
) -> None:
    shares = []
    for threshold in (0.0, 1.1):
        calibration = replace(catalog.calibration, min_confidence=threshold)
        with astound.open(folder / "catalog", model=tiny_model, calibration=calibration) as one:
            found = asked(one, durations_s=(3.0,))
        clean = found.cells[0]
        shares.append((clean.found.value, found.false_accepts.value))
        assert clean.hits.value == 1.0
    assert shares == [(1.0, 1.0), (0.0, 0.0)]


def test_absent_clips_are_asked_without_every_track_that_holds_them(
    catalog: Catalog, folder: Path, tmp_path: Path, tiny_model: Path
) -> None:
    accept_all = replace(catalog.calibration, min_confidence=0.0)
    with astound.open(tmp_path / "one", model=tiny_model, calibration=accept_all) as one:
        one.add([folder / "music" / "1.wav", folder / "twin.flac"])
        found = asked(one)
    assert all(cell.found.value == 1.0 for cell in found.cells)
    assert (found.false_accepts.n_yes, found.false_accepts.n) == (0, len(DEGRADATIONS))


def test_report_repeats_with_its_seed(catalog: Catalog, report: RobustnessReport) -> None:
    assert asked(catalog) == report
    assert asked(catalog, seed=1) != report


def test_files_are_asked_for_as_the_tracks_that_hold_them(catalog: Catalog, folder: Path) -> None:
    options: dict[str, Any] = {"durations_s": (3.0,)}
    named, twin, unknown = (
        asked(catalog, folder / name, **options)
        for name in ("music/1.wav", "twin.flac", "unknown.wav")
    )
    for one in (named, twin):
        assert one.cells[0].hits.value == 1.0
        assert one.cells[0].median_offset_error_s is not None
        assert one.cells[0].median_offset_error_s < 0.2
    assert {one.hits.n for one in unknown.cells} == {0}
    assert unknown.false_accepts.n == len(DEGRADATIONS)


def test_lengths_that_do_not_fit_are_left_out(catalog: Catalog, folder: Path) -> None:
    found = asked(catalog, folder / "short.wav")
    assert [one.hits.n for one in found.cells] == [1, 0] * len(DEGRADATIONS)


def test_files_that_give_no_clip_are_told(catalog: Catalog, folder: Path) -> None:
    names = "broken.wav", "short.wav", "missing.wav"
    found = asked(catalog, *(folder / name for name in names), durations_s=(3.0,), n_queries=4)
    assert len(found.failed) == 3
    for name, reason in (("broken", "not audio"), ("short", "too short"), ("missing", "No such")):
        assert any(f"{name}.wav: " in line and reason in line for line in found.failed)


def test_silence_is_left_out(catalog: Catalog, tmp_path: Path) -> None:
    write_audio(tmp_path / "silence.wav", np.zeros(5 * RATE, np.float32), RATE)
    found = asked(catalog, tmp_path / "silence.wav")
    assert {one.hits.n for one in found.cells} == {found.false_accepts.n} == {0}


@pytest.mark.parametrize("durations_s", [(), (0.5, 2.0), (-1.0,)])
def test_lengths_shorter_than_a_segment_are_refused(
    catalog: Catalog, durations_s: tuple[float, ...]
) -> None:
    with pytest.raises(ConfigError, match=r"must all be at least 0\.92 s"):
        asked(catalog, durations_s=durations_s)
