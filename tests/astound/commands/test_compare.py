from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import astound
from astound.commands.main import cli
from astound.compare import recurrence
from engine.config import DedupConfig
from engine.errors import AudioError, TrackNotFoundError
from tests.audio_files import cached_tune, write_audio, write_wav

RATE = 8000
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with music/*.wav and a catalog of them; not to be changed.

    1 a.wav; 2 b.wav; 3 copy.flac, a.wav without its first 3 s, as FLAC; 4 medley.wav, 15 s of each
    of a.wav and b.wav.
    """
    folder = tmp_path_factory.mktemp("shelf")
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
def run(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> Run:
    """Give run(*arguments) in a folder with a catalog, other music, and files that are wrong."""
    shutil.copytree(shelf / "catalog", tmp_path / "catalog")
    monkeypatch.chdir(tmp_path)
    tune, jingle = cached_tune(1, 40.0), cached_tune(7, 8.0)
    write_wav(Path("part.wav"), tune[5 * RATE : 20 * RATE], RATE)
    between = [cached_tune(seed, 9.0) for seed in (11, 12, 13)]
    hour = np.concatenate([between[0], jingle, between[1], jingle, between[2]])
    write_wav(Path("hour.wav"), hour, RATE)
    write_wav(Path("jingle.wav"), jingle, RATE)
    write_wav(Path("silent.wav"), np.zeros(5 * RATE, np.float32), RATE)
    Path("broken.wav").write_bytes(b"not audio")

    def invoke(*arguments: object) -> Result:
        result = CliRunner().invoke(cli, [str(a) for a in arguments])
        assert "Traceback" not in result.stderr
        return result

    return invoke


# -- dedup -----------------------------------------------------------------------------------


def test_dedup_tells_full_and_partial_duplicates_apart(run: Run) -> None:
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
    (passage,) = medley["passages"]
    assert passage["first_start_s"] == pytest.approx(20, abs=0.6)
    assert passage["second_start_s"] == pytest.approx(15, abs=0.6)
    assert passage["second_end_s"] == pytest.approx(30, abs=0.6)
    assert [one["keeper_id"] for one in pairs.values() if one["kind"] == "part"] == [None] * 3
    assert medley["second_share"] == pytest.approx(0.5, abs=0.05)
    assert answer["clusters"] == [{"keeper_id": 1, "other_ids": [3]}]


def test_dedup_full_only_leaves_the_others_out(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("dedup", "--full-only", "--format", "csv").stdout)))
    assert [(row["kind"], row["first_id"], row["second_id"]) for row in rows] == [
        ("full", "1", "3")
    ]
    assert rows[0]["keeper_id"] == "1"
    assert float(rows[0]["first_start_s"]) == 3.0


def test_dedup_min_length_is_in_seconds(run: Run) -> None:
    longer = json.loads(run("dedup", "--min-length", "20", "--format", "json").stdout)
    assert [one["kind"] for one in longer["duplicates"]] == ["full"]


def test_dedup_table_names_tracks_and_the_one_to_keep(run: Run) -> None:
    lines = run("dedup").stdout.splitlines()
    assert any(line.split()[:5] == "full 1: a.wav 3: copy.flac".split() for line in lines)
    assert any(line.split() == "1: a.wav 3: copy.flac".split() for line in lines)


def test_dry_run_says_what_delete_does(run: Run) -> None:
    planned = run("dedup", "--full-only", "--delete", "--dry-run", "--format", "json")
    assert "would delete 3: copy.flac" in planned.stderr
    assert len(json.loads(run("list", "--format", "json").stdout)) == 4
    done = run("dedup", "--full-only", "--delete", "--format", "json")
    assert done.stdout == planned.stdout
    assert done.stderr == planned.stderr.replace("would delete", "deleted")
    left = json.loads(run("list", "--format", "json").stdout)
    assert [track["id"] for track in left] == [1, 2, 4]
    assert run("dedup", "--full-only", "--delete").stdout == "no duplicates\n"


def test_dry_run_without_delete_is_a_usage_error(run: Run) -> None:
    assert run("dedup", "--dry-run").exit_code == 2


def test_dedup_leaves_out_forgotten_tracks(run: Run, tiny_weights: Path) -> None:
    run("delete", "3")
    with astound.open("catalog", model=tiny_weights) as catalog:
        found, clusters = catalog.dedup(DedupConfig(min_length_s=12.0))
    assert {(one.first_id, one.second_id) for one in found} == {(1, 4), (2, 4)}
    assert clusters == []


# -- similar ---------------------------------------------------------------------------------


def test_similar_track_is_its_copy_and_never_itself(run: Run, shelf: Path) -> None:
    by_id = json.loads(run("similar", "1", "--format", "json").stdout)
    by_path = run("similar", shelf / "music" / "a.wav", "--format", "json").stdout
    assert json.loads(by_path) == by_id
    assert {one["track_id"] for one in by_id} == {2, 3, 4}
    assert [one["rank"] for one in by_id] == [1, 2, 3]
    scores = [one["clip_score"] for one in by_id]
    assert scores == sorted(scores, reverse=True)


def test_similar_to_another_file_is_the_track_it_was_cut_from(run: Run) -> None:
    result = run("similar", "part.wav", "-n", "2", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(rows) == 2
    assert (rows[0]["track_id"], rows[0]["rank"]) == ("1", "1")
    assert float(rows[0]["clip_score"]) == pytest.approx(1.0, abs=0.01)


def test_similar_takes_arrays(run: Run, tiny_weights: Path) -> None:
    with astound.open("catalog", model=tiny_weights) as catalog:
        found = catalog.similar(cached_tune(1, 40.0)[5 * RATE : 20 * RATE], RATE, max_tracks=1)
    assert [one.track_id for one in found] == [1]


def test_similar_to_nothing_is_said(run: Run) -> None:
    unknown = run("similar", "99")
    assert (unknown.exit_code, "no track 99" in unknown.stderr) == (1, True)
    missing = run("similar", "gone.wav")
    assert (missing.exit_code, "gone.wav" in missing.stderr) == (1, True)
    assert run("similar", "silent.wav").exit_code == 1
    with astound.open("catalog") as catalog, pytest.raises(TrackNotFoundError):
        catalog.similar(99)


def test_only_track_is_similar_to_no_other(run: Run) -> None:
    run("delete", "2", "3", "4")
    result = run("similar", "1")
    assert (result.exit_code, result.stdout) == (0, "no other track in the catalog\n")


# -- repeats ---------------------------------------------------------------------------------


def test_jingle_is_heard_again_in_one_file_and_in_another(run: Run) -> None:
    result = run("repeats", "hour.wav", "jingle.wav", "--min-length", "6", "--format", "json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    (jingle,) = [one for one in found if len(one["occurrences"]) == 3]
    assert [at["path"] for at in jingle["occurrences"]] == ["hour.wav", "hour.wav", "jingle.wav"]
    starts_s = [at["start_s"] for at in jingle["occurrences"]]
    assert starts_s == pytest.approx([9, 26, 0], abs=0.6)
    assert not Path("repeats").exists()


def test_repeats_csv_has_a_row_for_each_occurrence(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("repeats", "hour.wav", "--format", "csv").stdout)))
    assert list(rows[0]) == ["repeat", "score", "path", "start_s", "end_s"]
    assert {"1"} <= {row["repeat"] for row in rows}
    assert any(abs(float(row["start_s"]) - 9) < 0.6 for row in rows)


def test_file_that_cannot_be_read_does_not_stop_the_others(run: Run) -> None:
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


def test_nothing_repeated_is_an_answer(run: Run) -> None:
    result = run("repeats", "jingle.wav", "--min-length", "30")
    assert (result.exit_code, "heard more than once" in result.stdout) == (0, True)
    assert run("repeats").exit_code == 2


def test_api_raises_unless_it_is_told_where_errors_go(run: Run, tiny_weights: Path) -> None:
    with pytest.raises(AudioError):
        recurrence(["broken.wav"], model=tiny_weights, device="cpu")
