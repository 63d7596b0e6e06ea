from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

import astound
from engine.config import IngestConfig, SearchConfig
from engine.figure import FIGURE_SUFFIXES
from engine.search.calibration import Calibration
from engine.search.searcher import EMPTY, UNCALIBRATED
from tests.astound.commands.conftest import CLIP_AT_S, MAIN, RATE, Run, start_process
from tests.audio_files import Sound, cached_tune, write_streams, write_wav


def _objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_query_jsonl_keeps_its_contract(library: Path, home: Path, run: Run) -> None:
    result = run("query", "unknown.wav", "known.wav", "--format", "jsonl")
    absent, found = _objects(result)
    assert (result.exit_code, result.stderr) == (0, "")
    assert list(found) == ["query", "status", "duration_s", "matches", "warnings", "timings_ms"]
    assert absent["warnings"] == found["warnings"] == []
    assert (absent["query"], absent["status"], absent["matches"]) == ("unknown.wav", "no_match", [])
    assert (found["query"], found["status"], found["duration_s"]) == ("known.wav", "match", 4.0)
    assert set(found["timings_ms"]) == {"decode", "encode", "search", "align"}
    best = found["matches"][0]
    assert (
        list(best)
        == (
            "rank track_id path title artist query_start_s query_end_s reference_start_s "
            "reference_end_s offset_s score confidence votes coverage speed margin tempo pitch "
            "also_at_s start_error_s end_error_s"
        ).split()
    )
    assert (best["rank"], best["path"]) == (1, f"{library}/music/1.wav")
    assert best["offset_s"] == pytest.approx(CLIP_AT_S, abs=0.1)


def test_query_reports_errors_in_place_and_exits_1(home: Path, run: Run) -> None:
    result = run("query", "broken.wav", "missing.wav", "known.wav", "--format", "jsonl")
    broken, missing, found = _objects(result)
    assert result.exit_code == 1
    assert [broken["status"], missing["status"], found["status"]] == ["error", "error", "match"]
    assert set(broken["error"]) == {"code", "message"}
    assert broken["error"]["code"] == "unreadable_audio"
    assert len(result.stderr.splitlines()) == 2


def test_query_warns_of_a_calibration_for_other_settings(
    home: Path, tiny_weights: Path, run: Run
) -> None:
    calibration = Calibration.load(tiny_weights.with_name("calibration.json"))
    other = replace(calibration, search=SearchConfig(k=7))
    other.save(home / "catalog" / "calibration.json")
    for form in ("table", "csv", "pexafb"):
        result = run("query", "known.wav", "unknown.wav", "--format", form)
        assert (result.exit_code, result.stderr) == (0, f"astound: known.wav: {UNCALIBRATED}\n")
    array, line = (run("query", "known.wav", "--format", form) for form in ("json", "jsonl"))
    assert (array.stderr, line.stderr) == ("", "")
    for found in (json.loads(array.stdout)[0], json.loads(line.stdout)):
        assert found["warnings"] == [UNCALIBRATED]


def test_query_of_an_empty_catalog_says_so_once(home: Path, run: Run) -> None:
    tracks = json.loads(run("list", "--format", "json").stdout)
    assert run("delete", *(str(track["id"]) for track in tracks)).exit_code == 0
    result = run("query", "known.wav", "unknown.wav")
    assert (result.exit_code, result.stderr) == (0, f"astound: known.wav: {EMPTY}\n")


def test_query_warns_of_each_file_that_is_cut_off(home: Path, run: Run) -> None:
    for name in ("first.wav", "second.wav"):
        Path(name).write_bytes(Path("known.wav").read_bytes()[:60_000])
    warning = "cut off: 59956 of 64000 bytes of sound are there"
    for form in ("table", "csv", "pexafb"):
        result = run("query", "first.wav", "second.wav", "--format", form)
        assert result.exit_code == 0
        assert result.stderr.splitlines() == [
            f"astound: first.wav: {warning}",
            f"astound: second.wav: {warning}",
        ]
    result = run("query", "first.wav", "--format", "jsonl")
    assert (result.exit_code, result.stderr) == (0, "")
    (found,) = _objects(result)
    assert (found["status"], found["warnings"]) == ("match", [warning])


def test_query_and_scan_read_the_stream_that_is_chosen(home: Path, run: Run) -> None:
    music = cached_tune(1, 12.0)
    sounds = [Sound(0 * music, language="eng", is_default=True), Sound(music, language="ger")]
    write_streams(Path("film.mkv"), sounds, RATE, video_s=12.0)
    silent = run("query", "film.mkv", "--format", "jsonl")
    (answer,) = _objects(silent)
    assert (silent.exit_code, answer["error"]["code"]) == (1, "silent_audio")
    assert "choose another one: 2 (ger, flac)" in answer["error"]["message"]
    (answer,) = _objects(run("query", "film.mkv", "--stream", 2, "--format", "jsonl"))
    assert answer["matches"][0]["path"].endswith("/1.wav")
    missing = run("query", "film.mkv", "--stream", 3)
    assert "no sound stream 3; its sound streams: 1 (eng, flac), 2 (ger, flac)" in missing.stdout
    assert run("scan", "film.mkv", "--stream", 3).exit_code == 1
    assert run("query", "film.mkv", "--stream", 0).exit_code == 2


def test_query_reads_standard_input(home: Path) -> None:
    with Path("known.wav").open("rb") as file:
        process = start_process(home, "query", "/dev/stdin", "--format", "jsonl", stdin=file)
        stdout, _ = process.communicate(timeout=100)
    assert json.loads(stdout)["matches"][0]["path"].endswith("/1.wav")
    process = start_process(
        home, "query", "/dev/stdin", "--format", "jsonl", stdin=subprocess.DEVNULL
    )
    stdout, _ = process.communicate(timeout=100)
    assert json.loads(stdout)["error"]["message"] == "/dev/stdin: a device, not a file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_interrupted_query_ends_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(home / "temporary"))
    os.mkfifo(home / "silent.wav")
    # A shell starts what runs in the background with SIGINT ignored.
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {MAIN}"
    with (
        start_process(home, "query", "silent.wav", code=code) as process,
        (home / "silent.wav").open("wb"),  # opens when the query does, and stays open
    ):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=40)  # a silent pipe is waited for 60 s
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "astound: interrupted"
    assert list((home / "temporary").glob("astound-*")) == []


def test_query_json_is_one_array(home: Path, run: Run) -> None:
    given = ["query", "known.wav", "unknown.wav", "--format"]
    array = json.loads(run(*given, "json").stdout)
    lines = _objects(run(*given, "jsonl"))
    for one in (*array, *lines):
        del one["timings_ms"]
    assert array == lines


def test_query_csv_has_a_row_for_every_query(home: Path, run: Run) -> None:
    result = run("query", "known.wav", "unknown.wav", "broken.wav", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["status"] for row in rows] == ["match", "no_match", "error"]
    assert float(rows[0]["offset_s"]) == pytest.approx(CLIP_AT_S, abs=0.1)
    assert rows[1]["track_id"] == rows[1]["confidence"] == rows[1]["error"] == ""
    assert rows[2]["error"].startswith("broken.wav: ")


def test_query_pexafb_has_whole_seconds(home: Path, run: Run) -> None:
    result = run("query", "known.wav", "unknown.wav", "--format", "pexafb")
    header, row = result.stdout.splitlines()
    assert header == ("reference_id,query_id,reference_begin,reference_end,query_begin,query_end")
    assert row == "1,known,3,8,0,4"


def test_query_table_is_for_people(home: Path, run: Run) -> None:
    lines = run("query", "known.wav", "unknown.wav", "broken.wav").stdout.splitlines()
    assert lines[1].split() == ["query", "answer", "at", "confidence"]
    known, unknown, broken = lines[3:6]
    assert known.split()[:2] == ["known.wav", "1.wav"]
    assert re.fullmatch(r"0:03\.[45]\d", known.split()[2])
    assert "not in the catalog" in unknown
    assert "error: " in broken


def test_query_of_a_folder_takes_the_audio_in_it(home: Path, run: Run) -> None:
    (home / "clips" / "deep").mkdir(parents=True)
    shutil.copy("known.wav", "clips/deep/b.wav")
    shutil.copy("unknown.wav", "clips/a.wav")
    (home / "clips" / "cover.jpg").touch()
    objects = _objects(run("query", "clips", "--format", "jsonl"))
    assert [one["query"] for one in objects] == ["clips/a.wav", "clips/deep/b.wav"]


def test_query_options_reach_the_catalog(library: Path, home: Path, run: Run) -> None:
    def ask(*options: object) -> dict[str, Any]:
        (one,) = _objects(run("query", f"{library}/music/0.wav", "--format", "jsonl", *options))
        return one

    part = ask("--start", 2, "--end", 5)
    assert (part["duration_s"], part["matches"][0]["offset_s"]) == (
        3.0,
        pytest.approx(0.0, abs=0.1),
    )
    assert part["matches"][0]["query_start_s"] >= 2.0
    assert len(ask("--min-confidence", 0)["matches"]) > 1
    assert len(ask("--min-confidence", 0, "-n", 1)["matches"]) == 1


@pytest.mark.parametrize(
    "options",
    [("--start", "3", "--end", "3"), ("--min-confidence", "1.5"), ("-n", "0"), ("--format", "xml")],
)
def test_senseless_query_options_are_usage_errors(
    home: Path, run: Run, options: tuple[str, ...]
) -> None:
    assert run("query", "known.wav", *options).exit_code == 2


# -- scan ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixes(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with mix.wav, parts of two tunes between noise, and a catalog of the tunes."""
    folder = tmp_path_factory.mktemp("mixes")
    (folder / "music").mkdir()
    tunes = [cached_tune(seed, 32.0) for seed in (0, 4)]  # tunes that the tiny encoder tells apart
    for number, tune in enumerate(tunes):
        write_wav(folder / "music" / f"{number}.wav", tune, RATE)
    rng = np.random.default_rng(0)
    noise = [rng.normal(0, 0.1, 10 * RATE).astype(np.float32) for _ in range(2)]
    parts = noise[0], tunes[0][5 * RATE : 25 * RATE], tunes[1][: 20 * RATE], noise[1]
    write_wav(folder / "mix.wav", np.concatenate(parts), RATE)
    with astound.open(folder / "catalog", model=tiny_model, device="cpu") as catalog:
        catalog.add(folder / "music", config=IngestConfig(n_jobs=1))
    return folder


@pytest.fixture
def scan(mixes: Path, run: Run, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return scan(*arguments), which runs `astound scan` beside mix.wav."""
    monkeypatch.chdir(mixes)
    return partial(run, "--device", "cpu", "scan")


def test_scan_streams_entries_and_reports_errors(scan: Run) -> None:
    arguments = ("--format", "jsonl", "--min-confidence", 0.9)
    result = scan("mix.wav", "missing.wav", *arguments)
    assert result.exit_code == 1
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["status"] for line in lines] == ["entry", "entry", "done", "error"]
    assert "missing.wav" in result.stderr


def test_scan_writes_a_cue_sheet_of_a_part(scan: Run) -> None:
    arguments = ("--format", "cue", "--min-confidence", 0.9, "--start", 12, "--end", 28)
    result = scan("mix.wav", *arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith('FILE "mix.wav" WAVE\n  TRACK 01 AUDIO\n    TITLE "0"\n')


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("mix.wav", "--start", "5", "--end", "5"),
        ("mix.wav", "mix.wav", "--format", "audacity"),
    ],
)
def test_senseless_scan_options_are_usage_errors(scan: Run, arguments: tuple[str, ...]) -> None:
    assert scan(*arguments).exit_code == 2


# -- explain ---------------------------------------------------------------------------------


@pytest.fixture
def explain(tunes_apart: Path, run: Run, home: Path) -> Run:
    """Return explain(*arguments), which runs `astound explain` in the current folder."""
    write_wav(home / "known.wav", cached_tune(4, 8.0)[2 * RATE : 6 * RATE], RATE)
    write_wav(home / "unknown.wav", cached_tune(98, 4.0), RATE)
    write_wav(home / "silent.wav", np.zeros(3 * RATE, np.float32), RATE)
    write_wav(home / "tiny.wav", cached_tune(4, 8.0)[2 * RATE : round(2.3 * RATE)], RATE)
    return partial(run, "--device", "cpu", "--catalog", tunes_apart / "catalog", "explain")


@pytest.fixture(scope="module")
def tunes_apart(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of four tunes that the tiny encoder tells apart, 0.wav to 3.wav, ids 1 to 4."""
    folder = tmp_path_factory.mktemp("tunes")
    with astound.open(folder / "catalog", model=tiny_model, device="cpu") as catalog:
        for number, seed in enumerate((0, 4, 6, 3)):
            path = write_wav(folder / f"{number}.wav", cached_tune(seed, 8.0), RATE)
            catalog.add(path, config=IngestConfig(n_jobs=1))
    return folder


def test_explain_text_has_answer_reason_votes_and_seconds(explain: Run) -> None:
    result = explain("known.wav")
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()[:2]
    assert first.startswith("known.wav: 1.wav at 0:02.0")
    assert second.startswith("its confidence reaches the threshold (confidence ")
    for part in ("0.wav", "3.wav", "votes: ", "timings: ", "0:02.00", " of 8"):
        assert part in result.stdout


def test_no_match_is_explained_and_is_no_failure(explain: Run) -> None:
    result = explain("unknown.wav")
    assert result.exit_code == 0
    assert result.stdout.startswith("unknown.wav: not in the catalog\ntoo little evidence")


@pytest.mark.parametrize(
    ("name", "rule", "reason"),
    [("silent", "silent", "it is silent"), ("tiny", "too_short", "it is too short")],
)
def test_inaudible_clip_is_explained(explain: Run, name: str, rule: str, reason: str) -> None:
    text, coded = explain(f"{name}.wav"), explain(f"{name}.wav", "--format", "json")
    assert (text.exit_code, coded.exit_code) == (0, 0)
    assert text.stdout.startswith(f"{name}.wav: not in the catalog\n{reason}")
    answer = json.loads(coded.stdout)
    assert (answer["status"], answer["verdict"]["rule"]) == ("no_match", rule)
    assert (answer["nearest"], answer["subject"]) == ([], None)
    assert answer["duration_s"] == (3.0 if name == "silent" else 0.3)


def test_explain_json_is_complete(explain: Run) -> None:
    answer = json.loads(explain("known.wav", "--format", "json", "--track", "1").stdout)
    assert (answer["query"], answer["status"], answer["duration_s"]) == ("known.wav", "match", 4.0)
    assert [one["rank"] for one in answer["nearest"]] == [1, 2, 3, 4]
    assert {"offset_s", "votes", "evidence", "score", "margin", "also_at_s"} <= set(
        answer["nearest"][0]
    )
    subject = answer["subject"]
    assert (subject["track_id"], subject["verdict"]["accepted"]) == (1, False)
    assert subject["verdict"]["rule"] == subject["verdict"]["costs"][0]["rule"]
    assert len(subject["segments"]) > 10
    assert set(subject["segments"][0]) == {
        "query_s", "reference_s", "similarity", "agrees", "n_neighbours", "votes",
    }  # fmt: skip
    for votes in (subject["votes_near"], subject["votes_in_track"]):
        assert len(votes["offsets_s"]) == len(votes["counts"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["broken.wav"], 1, "broken.wav"),
        (["known.wav", "--track", "77"], 1, "not in the catalog: 77"),
        (["known.wav", "-o", "why.txt"], 1, "invalid path='why.txt': must end in one of"),
        (["known.wav", "--start", "3", "--end", "2"], 2, "--end must come after --start"),
    ],
)
def test_explain_of_bad_input_is_one_line(
    explain: Run, arguments: list[str], code: int, message: str
) -> None:
    result = explain(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr


BEGINNINGS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.mark.parametrize("suffix", FIGURE_SUFFIXES)
def test_explain_picture_is_drawn(explain: Run, tmp_path: Path, suffix: str) -> None:
    result = explain("known.wav", "-o", f"why{suffix}")
    assert result.exit_code == 0
    assert f"drawn: why{suffix}" in result.stderr
    assert (tmp_path / f"why{suffix}").read_bytes().startswith(BEGINNINGS[suffix])
    assert "matplotlib.pyplot" not in sys.modules


def test_explain_picture_without_a_subject_is_not_drawn(explain: Run, tmp_path: Path) -> None:
    result = explain("silent.wav", "-o", "why.png")
    assert result.exit_code == 0
    assert "not drawn" in result.stderr
    assert not (tmp_path / "why.png").exists()


def test_explain_picture_without_matplotlib_says_how_to_get_it(
    explain: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = explain("known.wav", "-o", "why.png")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "pip install 'astound[plot]'" in result.stderr
