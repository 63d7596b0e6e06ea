from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from astound.commands.main import cli
from astound.compare import compare
from engine.compare.passages import told
from engine.records import Passage
from tests.audio_files import cached_tune, write_wav

RATE = 8000
FIELDS = "query_start_s query_end_s reference_start_s reference_end_s score speed".split()

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> Run:
    """Give run(*arguments) in a folder with a.wav, c.wav, part.wav, and files that are wrong.

    part.wav is 4 s of something else and then a.wav from its second 3 on.
    """
    monkeypatch.chdir(tmp_path)
    tune, other = cached_tune(1, 12.0), cached_tune(99, 12.0)
    noise = np.random.default_rng(0).normal(0, 0.1, 8 * RATE).astype(np.float32)
    write_wav(Path("a.wav"), tune, RATE)
    write_wav(Path("noise.wav"), noise, RATE)
    write_wav(Path("part.wav"), np.concatenate([other[: 4 * RATE], tune[3 * RATE :]]), RATE)
    write_wav(Path("short.wav"), tune[:1000], RATE)
    write_wav(Path("silent.wav"), np.zeros(5 * RATE, np.float32), RATE)
    Path("broken.wav").write_bytes(b"not audio")

    def invoke(*arguments: object) -> Result:
        result = CliRunner().invoke(cli, [str(a) for a in arguments])
        assert "Traceback" not in result.stderr
        return result

    return invoke


def test_same_file_is_one_passage_and_needs_no_catalog(run: Run) -> None:
    result = run("same", "a.wav", "a.wav")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    similarity, header, _, passage = lines
    assert similarity == "similarity 1.000"
    assert header.split() == "in the first in the second speed score".split()
    assert passage.split() == "0:00.0 – 0:11.9 0:00.0 – 0:11.9 1.000 1.000".split()
    assert not Path("catalog").exists()


def test_same_json_tells_where_a_part_lies_in_both(run: Run) -> None:
    answer = json.loads(run("same", "part.wav", "a.wav", "--format", "json").stdout)
    assert list(answer) == ["similarity", "passages"]
    best = max(answer["passages"], key=lambda one: one["query_end_s"] - one["query_start_s"])
    assert list(best) == FIELDS
    assert best["query_end_s"] == pytest.approx(13, abs=0.5)
    assert best["reference_end_s"] == pytest.approx(12, abs=0.5)
    offset_s = best["reference_start_s"] - best["query_start_s"]
    assert offset_s == pytest.approx(-1, abs=0.3)
    assert 0 < answer["similarity"] < 1


def test_same_csv_has_a_row_for_each_passage(run: Run) -> None:
    result = run("same", "a.wav", "a.wav", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert list(row) == ["similarity", *FIELDS]
    assert (row["similarity"], row["query_start_s"], row["speed"]) == ("1.0", "0.0", "1.0")


def test_nothing_in_common_is_an_answer(run: Run) -> None:
    table = run("same", "a.wav", "noise.wav", "--min-length", "9")
    assert table.exit_code == 0
    assert table.stdout.splitlines()[1:] == ["no passage in common that is long enough"]
    as_csv = run("same", "a.wav", "noise.wav", "--min-length", "9", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(as_csv.stdout))
    assert row["similarity"]
    assert not any(row[key] for key in FIELDS)


@pytest.mark.parametrize(("length_s", "n_passages"), [(11, 1), (12.5, 0)])
def test_min_length_is_in_seconds(run: Run, length_s: float, n_passages: int) -> None:
    result = run("same", "a.wav", "a.wav", "--min-length", length_s, "--format", "json")
    assert len(json.loads(result.stdout)["passages"]) == n_passages


@pytest.mark.parametrize("name", ["missing.wav", "broken.wav", "short.wav", "silent.wav"])
@pytest.mark.parametrize("first", [True, False])
def test_bad_file_is_one_line_and_exits_1(run: Run, name: str, first: bool) -> None:
    result = run("same", *((name, "a.wav") if first else ("a.wav", name)))
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"astound: {name}: ")


@pytest.mark.parametrize(
    "arguments", [(), ("a.wav",), ("a.wav", "a.wav", "--min-length", "-1"), ("a.wav",) * 3]
)
def test_senseless_use_is_a_usage_error(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("same", *arguments).exit_code == 2


def _passage(query: tuple[float, float], reference: tuple[float, float], score: float) -> Passage:
    return Passage(
        query_start_s=query[0],
        query_end_s=query[1],
        reference_start_s=reference[0],
        reference_end_s=reference[1],
        score=score,
        speed=1.0,
    )


def test_repetitions_inside_a_better_passage_are_not_told() -> None:
    whole = _passage((0, 30), (10, 40), 0.9)
    echo = _passage((0, 20), (20, 40), 0.8)
    again = _passage((0, 30), (50, 80), 0.7)
    assert told([echo, whole, again]) == [whole, again]
    assert told([]) == []


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
