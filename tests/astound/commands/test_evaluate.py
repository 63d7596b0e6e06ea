from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import Result

import astound
from astound.evaluation import calibrate
from engine.config import IngestConfig, SearchConfig
from engine.search.calibration import Calibration
from tests.astound.commands.conftest import RATE, Run
from tests.audio_files import cached_tune, write_audio

N_TUNES = 10
N_CLIPS = N_TUNES
CALIBRATION = Path("catalog/calibration.json")
DEGRADATIONS = ["clean", "noise10", "noise0", "room", "telephone", "codec", "speed-3", "speed+3"]


@pytest.fixture(scope="module", autouse=True)
def brief() -> Iterator[None]:
    """Calibrate with short clips only, and at no other speeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrate, "DURATIONS_S", (1.0, 2.0))
        patch.setattr("astound.catalog.SearchConfig", partial(SearchConfig, speeds=()))
        yield


@pytest.fixture(scope="module")
def tunes(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Ten tunes and a catalog of them; not to be changed."""
    folder = tmp_path_factory.mktemp("tunes")
    for seed in range(N_TUNES):
        write_audio(folder / f"{seed}.wav", cached_tune(seed, 10.0), RATE)
    with astound.open(folder / "catalog", model=tiny_model, device="cpu") as catalog:
        catalog.add(folder, config=IngestConfig(n_jobs=1))
    return folder


# -- calibrate -------------------------------------------------------------------------------


@pytest.fixture
def calibrated(
    tunes: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path
) -> Callable[..., Result]:
    """Return calibrated(*arguments): runs `astound calibrate` beside a copy of the catalog."""
    shutil.copytree(tunes / "catalog", tmp_path / "catalog")
    monkeypatch.chdir(tmp_path)
    return partial(run, "--device", "cpu", "calibrate")


def test_calibrate_reports_and_saves(calibrated: Run) -> None:
    result = calibrated("--queries", N_CLIPS, "--seed", 1, "-o", "diagram.png")
    assert result.exit_code == 0, result.stderr
    assert "expected calibration error 0." in result.stdout
    assert "false accepts: " in result.stdout
    assert f"of {N_CLIPS}\n" in result.stdout
    assert "use --queries 300 or more" in result.stderr
    assert "10 tracks represent other music poorly" in result.stderr
    assert "calibration saved" in result.stderr
    saved = Calibration.load(CALIBRATION)
    assert f"threshold {saved.min_confidence:.4f}" in result.stdout
    assert Path("diagram.png").read_bytes().startswith(b"\x89PNG")


def test_calibrate_dry_run_saves_nothing(calibrated: Run) -> None:
    result = calibrated("--queries", N_CLIPS, "--false-accepts", 0.5, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "threshold " in result.stdout
    assert "too few" not in result.stderr
    assert "saved" not in result.stderr
    assert not CALIBRATION.exists()


def test_bad_diagram_path_is_refused_before_the_work(calibrated: Run) -> None:
    result = calibrated("--queries", N_CLIPS, "-o", "diagram.txt")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "must end in one of" in result.stderr
    assert not CALIBRATION.exists()


@pytest.mark.parametrize(
    "arguments",
    [("--false-accepts", 0), ("--false-accepts", 1), ("--noise", "missing"), ("--queries", 0)],
)
def test_senseless_calibrate_options_are_usage_errors(
    calibrated: Run, arguments: tuple[object, ...]
) -> None:
    assert calibrated(*arguments).exit_code == 2


# -- robustness ------------------------------------------------------------------------------


@pytest.fixture
def robustness(
    tunes: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path
) -> Callable[..., Result]:
    """Return robustness(*arguments), which runs `astound robustness` beside the catalog."""
    monkeypatch.chdir(tunes)
    (tunes / "broken.wav").write_bytes(b"not audio")
    return partial(run, "--device", "cpu", "robustness", "--queries", 1, "--durations", 1)


def test_robustness_table_has_a_row_for_each_degradation(robustness: Run) -> None:
    result = robustness()
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    for degradation in DEGRADATIONS:
        assert sum(line.split()[0] == degradation for line in lines if line.split()) == 1
    assert "false accepts of music not in the catalog: " in lines[-1]
    assert lines[-1].endswith(f"of {len(DEGRADATIONS)}")


def test_robustness_json_and_csv_agree(robustness: Run) -> None:
    report = json.loads(robustness("--format", "json").stdout)
    rows = list(csv.DictReader(io.StringIO(robustness("--format", "csv").stdout)))
    assert [row["degradation"] for row in rows] == DEGRADATIONS
    for row, cell in zip(rows, report["cells"], strict=True):
        assert float(row["right"]) == cell["hits"]["value"]
        assert int(row["n"]) == cell["hits"]["n"] == 1
        assert float(row["false_accept_rate"]) == report["false_accepts"]["value"]


def test_bad_file_of_robustness_is_a_line_on_stderr_and_exit_1(robustness: Run) -> None:
    result = robustness("broken.wav", "1.wav", "--queries", 2)
    assert result.exit_code == 1
    assert "broken.wav: " in result.stderr
    assert "clean" in result.stdout


@pytest.mark.parametrize("durations", ["", "1,x", "nan"])
def test_senseless_durations_are_refused(robustness: Run, durations: str) -> None:
    result = robustness("--durations", durations)
    assert result.exit_code in (1, 2)
    assert "durations" in result.stderr
