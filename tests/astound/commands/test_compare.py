from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

import astound
from engine.config import DedupConfig
from engine.errors import TrackNotFoundError
from tests.audio_files import cached_tune, write_audio, write_wav

RATE = 8000
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def filled_catalog(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with music/*.wav and a catalog of them; not to be changed.

    1 a.wav; 2 b.wav; 3 copy.flac, a.wav without its first 3 s, as FLAC; 4 medley.wav, 15 s of each
    of a.wav and b.wav.
    """
    folder = tmp_path_factory.mktemp("filled_catalog")
    music = folder / "music"
    music.mkdir()
    a, b = cached_tune(1, 40.0), cached_tune(2, 40.0)
    write_wav(music / "a.wav", a, RATE)
    write_wav(music / "b.wav", b, RATE)
    write_audio(music / "copy.flac", a[3 * RATE :], RATE)
    medley = np.concatenate([a[10 * RATE : 25 * RATE], b[20 * RATE : 35 * RATE]])
    write_wav(music / "medley.wav", medley, RATE)
    with astound.open(folder / "catalog", model=tiny_model) as catalog:
        catalog.add(sorted(music.iterdir()))
    return folder


@pytest.fixture
def files(
    filled_catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path
) -> None:
    """The current folder, with a copy of the catalog, other music, and bad files."""
    shutil.copytree(filled_catalog / "catalog", tmp_path / "catalog")
    monkeypatch.chdir(tmp_path)
    tune, jingle = cached_tune(1, 40.0), cached_tune(7, 8.0)
    write_wav(Path("part.wav"), tune[5 * RATE : 20 * RATE], RATE)
    between = [cached_tune(seed, 9.0) for seed in (11, 12, 13)]
    hour = np.concatenate([between[0], jingle, between[1], jingle, between[2]])
    write_wav(Path("hour.wav"), hour, RATE)
    write_wav(Path("jingle.wav"), jingle, RATE)
    write_wav(Path("silent.wav"), np.zeros(5 * RATE, np.float32), RATE)
    Path("broken.wav").write_bytes(b"not audio")


# -- dedup -----------------------------------------------------------------------------------


def test_dedup_tells_full_and_partial_duplicates_apart(files: None, run: Run) -> None:
    result = run("dedup", "--format", "json")
    answer = json.loads(result.stdout)
    pairs = {(one["first_id"], one["second_id"]): one for one in answer["duplicates"]}
    assert {pair: one["kind"] for pair, one in pairs.items()} == {
        (1, 3): "full", (1, 4): "part", (2, 4): "part", (3, 4): "part",
    }  # fmt: skip
    copy, medley = pairs[1, 3], pairs[2, 4]
    assert Path(copy["second_path"]).name == "copy.flac"
    assert copy["first_share"] == pytest.approx(37 / 40, abs=0.02)
    assert (copy["second_share"], copy["keeper_id"]) == (1.0, 1)
    passage = max(medley["passages"], key=lambda one: one["first_end_s"] - one["first_start_s"])
    assert passage["first_start_s"] == pytest.approx(20, abs=0.6)
    assert passage["second_start_s"] == pytest.approx(15, abs=0.6)
    assert passage["second_end_s"] == pytest.approx(30, abs=0.6)
    assert [one["keeper_id"] for one in pairs.values() if one["kind"] == "part"] == [None] * 3
    assert medley["second_share"] == pytest.approx(0.5, abs=0.05)
    assert answer["clusters"] == [{"keeper_id": 1, "other_ids": [3], "reason": "39.5 s of sound"}]


def test_dedup_full_only_leaves_the_others_out(files: None, run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("dedup", "--full-only", "--format", "csv").stdout)))
    assert [(row["kind"], row["first_id"], row["second_id"]) for row in rows] == [
        ("full", "1", "3")
    ]
    assert rows[0]["keeper_id"] == "1"
    assert float(rows[0]["first_start_s"]) == pytest.approx(3.0, abs=0.01)


def test_dedup_min_length_is_in_seconds(files: None, run: Run) -> None:
    longer = json.loads(run("dedup", "--min-length", "20", "--format", "json").stdout)
    assert [one["kind"] for one in longer["duplicates"]] == ["full"]


def test_dedup_table_names_tracks_and_the_one_to_keep(files: None, run: Run) -> None:
    lines = run("dedup").stdout.splitlines()
    assert any(line.split()[:5] == "full 1: a.wav 3: copy.flac".split() for line in lines)
    assert any(line.split() == "1: a.wav 39.5 s of sound 3: copy.flac".split() for line in lines)


def test_dry_run_says_what_delete_does(files: None, run: Run) -> None:
    planned = run("dedup", "--full-only", "--delete", "--dry-run", "--format", "json")
    assert "would delete 3: copy.flac" in planned.stderr
    assert "; kept 1: 39.5 s of sound" in planned.stderr
    assert len(json.loads(run("list", "--format", "json").stdout)) == 4
    done = run("dedup", "--full-only", "--delete", "--format", "json")
    assert done.stdout == planned.stdout
    assert done.stderr == planned.stderr.replace("would delete", "deleted")
    left = json.loads(run("list", "--format", "json").stdout)
    assert [track["id"] for track in left] == [1, 2, 4]
    assert run("dedup", "--full-only", "--delete").stdout == "no duplicates\n"


def test_dry_run_without_delete_is_a_usage_error(files: None, run: Run) -> None:
    assert run("dedup", "--dry-run").exit_code == 2


def test_dedup_leaves_out_forgotten_tracks(files: None, run: Run, tiny_weights: Path) -> None:
    run("delete", "3")
    with astound.open("catalog", model=tiny_weights) as catalog:
        found, clusters = catalog.dedup(DedupConfig(min_length_s=12.0))
    assert {(one.first_id, one.second_id) for one in found} == {(1, 4), (2, 4)}
    assert clusters == []


# -- similar ---------------------------------------------------------------------------------


def test_similar_track_is_its_copy_and_never_itself(
    files: None, run: Run, filled_catalog: Path
) -> None:
    by_id = json.loads(run("similar", "1", "--format", "json").stdout)
    by_path = run("similar", filled_catalog / "music" / "a.wav", "--format", "json").stdout
    assert json.loads(by_path) == by_id
    assert {one["track_id"] for one in by_id} == {2, 3, 4}
    assert [one["rank"] for one in by_id] == [1, 2, 3]
    scores = [one["clip_score"] for one in by_id]
    assert scores == sorted(scores, reverse=True)


def test_similar_to_another_file_is_the_track_it_was_cut_from(files: None, run: Run) -> None:
    result = run("similar", "part.wav", "-n", "2", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(rows) == 2
    assert (rows[0]["track_id"], rows[0]["rank"]) == ("1", "1")
    assert float(rows[0]["clip_score"]) == pytest.approx(1.0, abs=0.01)


def test_similar_takes_arrays(files: None, run: Run, tiny_weights: Path) -> None:
    with astound.open("catalog", model=tiny_weights) as catalog:
        found = catalog.similar(cached_tune(1, 40.0)[5 * RATE : 20 * RATE], RATE, max_tracks=1)
    assert [one.track_id for one in found] == [1]


def test_similar_to_nothing_is_said(files: None, run: Run) -> None:
    unknown = run("similar", "99")
    assert (unknown.exit_code, "not in the catalog: 99" in unknown.stderr) == (1, True)
    missing = run("similar", "gone.wav")
    assert (missing.exit_code, "gone.wav" in missing.stderr) == (1, True)
    assert run("similar", "silent.wav").exit_code == 1
    with astound.open("catalog") as catalog, pytest.raises(TrackNotFoundError):
        catalog.similar(99)


def test_only_track_is_similar_to_no_other(files: None, run: Run) -> None:
    run("delete", "2", "3", "4")
    result = run("similar", "1")
    assert (result.exit_code, result.stdout) == (0, "no other track in the catalog\n")


# -- repeats ---------------------------------------------------------------------------------


def test_jingle_is_heard_again_in_one_file_and_in_another(files: None, run: Run) -> None:
    result = run("repeats", "hour.wav", "jingle.wav", "--min-length", "6", "--format", "json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    (jingle,) = [one for one in found if len(one["occurrences"]) == 3]
    assert [at["path"] for at in jingle["occurrences"]] == ["hour.wav", "hour.wav", "jingle.wav"]
    starts_s = [at["start_s"] for at in jingle["occurrences"]]
    assert starts_s == pytest.approx([9, 26, 0], abs=0.6)
    assert not Path("repeats").exists()


def test_repeats_csv_has_a_row_for_each_occurrence(files: None, run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("repeats", "hour.wav", "--format", "csv").stdout)))
    assert list(rows[0]) == ["repeat", "score", "path", "start_s", "end_s"]
    assert {"1"} <= {row["repeat"] for row in rows}
    assert any(abs(float(row["start_s"]) - 9) < 0.6 for row in rows)


def test_file_that_cannot_be_read_does_not_stop_the_others(files: None, run: Run) -> None:
    asked = ("broken.wav", "hour.wav", "silent.wav", "hour.wav")
    result = run("repeats", *asked, "--min-length", "6", "--format", "json")
    assert result.exit_code == 1
    assert "broken.wav" in result.stderr
    assert "silent.wav" in result.stderr
    lengths_s = [
        at["end_s"] - at["start_s"]
        for one in json.loads(result.stdout)
        for at in one["occurrences"]
    ]
    assert lengths_s
    assert max(lengths_s) < 20, "a file named twice was compared with itself"


def test_nothing_repeated_is_an_answer(files: None, run: Run) -> None:
    result = run("repeats", "jingle.wav", "--min-length", "30")
    assert (result.exit_code, "no repeated passage" in result.stdout) == (0, True)
    assert run("repeats").exit_code == 2


# -- same ------------------------------------------------------------------------------------

FIELDS = "query_start_s query_end_s reference_start_s reference_end_s score speed".split()


@pytest.fixture
def same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path, run: Run
) -> Callable[..., Result]:
    """Return same(*arguments), which runs `astound same` beside the files below.

    part.wav is 4 s of something else and then a.wav from its second 3 on.
    """
    (tmp_path / "same").mkdir()
    monkeypatch.chdir(tmp_path / "same")
    tune, other = cached_tune(1, 12.0), cached_tune(99, 12.0)
    noise = np.random.default_rng(0).normal(0, 0.1, 8 * RATE).astype(np.float32)
    write_wav(Path("a.wav"), tune, RATE)
    write_wav(Path("noise.wav"), noise, RATE)
    write_wav(Path("part.wav"), np.concatenate([other[: 4 * RATE], tune[3 * RATE :]]), RATE)
    write_wav(Path("short.wav"), tune[:1000], RATE)
    write_wav(Path("silent.wav"), np.zeros(5 * RATE, np.float32), RATE)
    Path("broken.wav").write_bytes(b"not audio")
    return partial(run, "same")


def test_same_file_is_one_passage_and_needs_no_catalog(same: Run) -> None:
    result = same("a.wav", "a.wav")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    similarity, header, _, passage = lines
    assert similarity == "similarity 1.000"
    assert header.split() == "in the first in the second speed score".split()
    assert passage.split() == "0:00.0 – 0:11.9 0:00.0 – 0:11.9 1.000 1.000".split()
    assert not Path("catalog").exists()


def test_same_json_tells_where_a_part_lies_in_both(same: Run) -> None:
    answer = json.loads(same("part.wav", "a.wav", "--format", "json").stdout)
    assert list(answer) == ["similarity", "passages"]
    best = max(answer["passages"], key=lambda one: one["query_end_s"] - one["query_start_s"])
    assert list(best) == FIELDS
    assert best["query_end_s"] == pytest.approx(13, abs=0.5)
    assert best["reference_end_s"] == pytest.approx(12, abs=0.5)
    offset_s = best["reference_start_s"] - best["query_start_s"]
    assert offset_s == pytest.approx(-1, abs=0.3)
    assert 0 < answer["similarity"] < 1


def test_same_csv_has_a_row_for_each_passage(same: Run) -> None:
    result = same("a.wav", "a.wav", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert list(row) == ["similarity", *FIELDS]
    assert (row["similarity"], row["query_start_s"], row["speed"]) == ("1.0", "0.0", "1.0")


def test_nothing_in_common_is_a_result(same: Run) -> None:
    table = same("a.wav", "noise.wav", "--min-length", "9")
    assert table.exit_code == 0
    assert table.stdout.splitlines()[1:] == ["no common passage of the minimum length"]
    as_csv = same("a.wav", "noise.wav", "--min-length", "9", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(as_csv.stdout))
    assert row["similarity"]
    assert not any(row[key] for key in FIELDS)


@pytest.mark.parametrize(("length_s", "n_passages"), [(11, 1), (12.5, 0)])
def test_same_min_length_is_in_seconds(same: Run, length_s: float, n_passages: int) -> None:
    result = same("a.wav", "a.wav", "--min-length", length_s, "--format", "json")
    assert len(json.loads(result.stdout)["passages"]) == n_passages


@pytest.mark.parametrize("name", ["missing.wav", "broken.wav", "short.wav", "silent.wav"])
@pytest.mark.parametrize("first", [True, False])
def test_bad_file_of_same_is_one_line_and_exits_1(same: Run, name: str, first: bool) -> None:
    result = same(*((name, "a.wav") if first else ("a.wav", name)))
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"astound: {name}: ")


@pytest.mark.parametrize(
    "arguments", [(), ("a.wav",), ("a.wav", "a.wav", "--min-length", "-1"), ("a.wav",) * 3]
)
def test_senseless_use_of_same_is_a_usage_error(same: Run, arguments: tuple[str, ...]) -> None:
    assert same(*arguments).exit_code == 2
