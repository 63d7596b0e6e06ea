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
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import astound
from astound.commands.main import ALIASES, cli
from tests.audio_files import cached_tune, write_wav

RATE = 8000
N_TUNES = 4
TUNE_S = 12.0
CLIP_AT_S = 3.5  # a multiple of the catalog's hop: there the clip's segments are the tune's

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with music/0.wav ... and a catalog of them; not to be changed."""
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "music").mkdir()
    for seed in range(N_TUNES):
        write_wav(folder / "music" / f"{seed}.wav", cached_tune(seed, TUNE_S), RATE)
    with astound.open(folder / "catalog", model=tiny_model) as catalog:
        catalog.add(folder / "music")
    return folder


@pytest.fixture
def home(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> Path:
    """The current folder, with a copy of the catalog and clips of tune 1 and of an unknown tune."""
    shutil.copytree(shelf / "catalog", tmp_path / "catalog")
    _write_clip(tmp_path / "known.wav", seed=1)
    _write_clip(tmp_path / "unknown.wav", seed=100)
    (tmp_path / "broken.wav").write_bytes(b"not audio")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write_clip(path: Path, seed: int) -> None:
    first = round(CLIP_AT_S * RATE)
    write_wav(path, cached_tune(seed, TUNE_S)[first : first + 4 * RATE], RATE)


@pytest.fixture
def run() -> Run:
    """Give run(*arguments, stdin=None): the command line in this process."""

    def invoke(*arguments: object, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin)
        assert "Traceback" not in result.stderr
        return result

    return invoke


def _objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


# -- add -------------------------------------------------------------------------------------


def test_add_counts_what_it_did_and_is_idempotent(shelf: Path, home: Path, run: Run) -> None:
    first = run("--catalog", "new", "add", shelf / "music")
    again = run("--catalog", "new", "add", shelf / "music")
    assert first.stdout.startswith("added 4, skipped 0, failed 0 (48.0 s of audio in ")
    assert "× real time" in first.stdout
    assert again.stdout == "added 0, skipped 4, failed 0\n"
    assert (first.exit_code, again.exit_code, first.stderr) == (0, 0, "")


def test_add_goes_on_past_bad_files_and_exits_1(shelf: Path, home: Path, run: Run) -> None:
    result = run("--catalog", "new", "add", "broken.wav", "missing.wav", shelf / "music" / "0.wav")
    assert result.exit_code == 1
    assert result.stdout.startswith("added 1, skipped 0, failed 2")
    lines = sorted(result.stderr.splitlines())
    assert len(lines) == 2
    assert lines[0].startswith(f"{home}/broken.wav: ")
    assert lines[1] == f"{home}/missing.wav: No such file or directory"


@pytest.mark.parametrize("how", ["file", "stdin"])
def test_add_takes_a_list(shelf: Path, home: Path, run: Run, how: str) -> None:
    listed = f"{shelf}/music/0.wav\n\n{shelf}/music/1.wav\n"
    Path("list.txt").write_text(listed)
    given = ["--list", "list.txt"] if how == "file" else ["-"]
    result = run("--catalog", "new", "add", *given, stdin=listed)
    assert result.stdout.startswith("added 2,")


def test_paths_of_a_list_are_relative_to_the_current_folder(
    home: Path, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "list.txt"
    elsewhere.write_text("known.wav\n")
    assert run("--catalog", "new", "add", "--list", elsewhere).stdout.startswith("added 1,")


def test_add_notes_metadata(shelf: Path, home: Path, run: Run) -> None:
    Path("noted.csv").write_text(
        "path,title,artist,mood\nknown.wav,Quiet Rain,Ada Trio,calm\nother.wav,Loud,,\n"
    )
    added = run("--catalog", "new", "add", "known.wav", "--metadata", "noted.csv")
    (track,) = json.loads(run("--catalog", "new", "list", "--format", "json").stdout)
    assert (track["title"], track["artist"]) == ("Quiet Rain", "Ada Trio")
    assert track["metadata"] == {"mood": "calm"}
    assert added.stderr == "astound: noted.csv: 1 of its rows are about no file that was added\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        (b"", "column path"),
        (b"title,artist\nx,y\n", "column path"),
        (b"path,title\na.wav\n", "line 2"),
        (b"path,title\na.wav,b,c\n", "line 2"),
        (b"path,title\n,b\n", "line 2"),
        (b"path,title\na\xe9.wav,b\n", "cannot be read"),
        (b'path,title\n"a.wav,b\n', "cannot be read"),
    ],
)
def test_bad_metadata_is_one_line(home: Path, run: Run, content: bytes | None, reason: str) -> None:
    if content is not None:
        Path("noted.csv").write_bytes(content)
    result = run("--catalog", "new", "add", "known.wav", "--metadata", "noted.csv")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("astound: noted.csv")
    assert reason in line
    assert not Path("new").exists()


@pytest.mark.parametrize("command", ["add", "query"])
def test_nothing_given_is_a_usage_error(home: Path, run: Run, command: str) -> None:
    assert run(command).exit_code == 2


# -- query -----------------------------------------------------------------------------------


def test_query_jsonl_keeps_its_contract(shelf: Path, home: Path, run: Run) -> None:
    result = run("query", "unknown.wav", "known.wav", "--format", "jsonl")
    absent, found = _objects(result)
    assert (result.exit_code, result.stderr) == (0, "")
    assert list(found) == ["query", "status", "duration_s", "matches", "timings_ms"]
    assert (absent["query"], absent["status"], absent["matches"]) == ("unknown.wav", "no_match", [])
    assert (found["query"], found["status"], found["duration_s"]) == ("known.wav", "match", 4.0)
    assert set(found["timings_ms"]) == {"decode", "encode", "search", "align"}
    best = found["matches"][0]
    assert (
        list(best)
        == (
            "rank track_id path title artist query_start_s query_end_s reference_start_s "
            "reference_end_s offset_s score confidence votes coverage speed margin tempo pitch "
            "also_at_s"
        ).split()
    )
    assert (best["rank"], best["path"]) == (1, f"{shelf}/music/1.wav")
    assert best["offset_s"] == pytest.approx(CLIP_AT_S, abs=0.1)


def test_query_reports_errors_in_place_and_exits_1(home: Path, run: Run) -> None:
    result = run("query", "broken.wav", "missing.wav", "known.wav", "--format", "jsonl")
    broken, missing, found = _objects(result)
    assert result.exit_code == 1
    assert [broken["status"], missing["status"], found["status"]] == ["error", "error", "match"]
    assert set(broken["error"]) == {"code", "message"}
    assert broken["error"]["code"] == "unreadable_audio"
    assert len(result.stderr.splitlines()) == 2


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


@pytest.mark.parametrize("command", ["add", "query"])
def test_folder_without_audio_is_told(home: Path, run: Run, command: str) -> None:
    (home / "empty").mkdir()
    result = run(command, "empty")
    assert result.exit_code == 0
    assert "no audio files" in result.stderr


def test_option_of_all_commands_behind_one_is_told_its_place(home: Path, run: Run) -> None:
    result = run("query", "known.wav", "--catalog", "catalog")
    assert result.exit_code == 2
    assert "stands before them: cli --catalog ... query" in " ".join(result.stderr.split())
    assert "no such option" in run("query", "known.wav", "--catalogue").stderr.lower()


def test_query_of_a_folder_takes_the_audio_in_it(home: Path, run: Run) -> None:
    (home / "clips" / "deep").mkdir(parents=True)
    shutil.copy("known.wav", "clips/deep/b.wav")
    shutil.copy("unknown.wav", "clips/a.wav")
    (home / "clips" / "cover.jpg").touch()
    objects = _objects(run("query", "clips", "--format", "jsonl"))
    assert [one["query"] for one in objects] == ["clips/a.wav", "clips/deep/b.wav"]


def test_query_options_reach_the_catalog(shelf: Path, home: Path, run: Run) -> None:
    def ask(*options: object) -> dict[str, Any]:
        (one,) = _objects(run("query", f"{shelf}/music/0.wav", "--format", "jsonl", *options))
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


def test_query_without_a_catalog_is_one_line(home: Path, run: Run) -> None:
    result = run("--catalog", "nowhere", "query", "known.wav")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"astound: {Path('nowhere').absolute()}: no catalog there; "
        "`astound add` makes one, --catalog names another place\n"
    )
    assert not Path("nowhere").exists()


def test_catalog_comes_from_the_environment(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("catalog").rename("elsewhere")
    assert run("stats").exit_code == 1
    monkeypatch.setenv("ASTOUND_CATALOG", "elsewhere")
    assert run("stats").exit_code == 0


# -- life cycle ------------------------------------------------------------------------------


def test_list_shows_all_tracks_in_every_format(shelf: Path, home: Path, run: Run) -> None:
    paths = [f"{shelf}/music/{seed}.wav" for seed in range(N_TUNES)]
    as_json = json.loads(run("list", "--format", "json").stdout)
    as_csv = list(csv.DictReader(io.StringIO(run("list", "--format", "csv").stdout)))
    table = run("list").stdout
    assert [track["path"] for track in as_json] == [row["path"] for row in as_csv] == paths
    assert [line.split()[-1] for line in table.splitlines() if "/" in line] == paths


def test_tracks_are_found_by_id_or_path(shelf: Path, home: Path, run: Run) -> None:
    by_path = run("show", f"{shelf}/music/2.wav", "--format", "json")
    track = json.loads(by_path.stdout)
    by_id = run("show", track["id"], "--format", "json")
    assert by_id.stdout == by_path.stdout
    assert track["duration_s"] == TUNE_S
    assert track["path"] in run("show", track["id"]).stdout


def test_stats_count(home: Path, run: Run) -> None:
    counts = json.loads(run("stats", "--format", "json").stdout)
    assert (counts["n_tracks"], counts["duration_s"], counts["n_shards"]) == (N_TUNES, 48.0, 1)
    assert "48.0 s" in run("stats").stdout
    assert " kB" in run("stats").stdout


def test_deleted_track_is_no_longer_found(shelf: Path, home: Path, run: Run) -> None:
    result = run("delete", f"{shelf}/music/1.wav")
    assert result.stdout.startswith("deleted ")
    assert result.stdout.endswith(f": 1.wav ({shelf}/music/1.wav)\n")
    (answer,) = _objects(run("query", "known.wav", "--format", "jsonl"))
    assert answer["status"] == "no_match"


def test_delete_is_all_or_nothing(shelf: Path, home: Path, run: Run) -> None:
    result = run("delete", f"{shelf}/music/1.wav", "12345")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no track 12345" in result.stderr
    assert json.loads(run("stats", "--format", "json").stdout)["n_tracks"] == N_TUNES


def test_update_sets_and_removes(shelf: Path, home: Path, run: Run) -> None:
    key = f"{shelf}/music/0.wav"
    track_id = json.loads(run("show", key, "--format", "json").stdout)["id"]
    run("update", key, "--title", "Rain", "--artist", "Ada", "--set", "mood=a=b", "--set", "x=1")
    result = run("update", key, "--artist", "", "--set", "x=", "--path", "moved.wav")
    track = json.loads(run("show", track_id, "--format", "json").stdout)
    assert result.stdout == f"updated {track_id}: Rain ({home}/moved.wav)\n"
    assert (track["title"], track["artist"]) == ("Rain", None)
    assert (track["metadata"], track["path"]) == ({"mood": "a=b"}, f"{home}/moved.wav")


@pytest.mark.parametrize("options", [(), ("--set", "mood"), ("--set", "=calm")])
def test_update_without_a_change_is_a_usage_error(
    home: Path, run: Run, options: tuple[str, ...]
) -> None:
    assert run("update", "1", *options).exit_code == 2


def test_verify_says_all_well(home: Path, run: Run) -> None:
    result = run("verify")
    assert (result.exit_code, result.stdout) == (0, "all well: tracks 4, shards 1\n")


def test_verify_finds_damage(home: Path, run: Run) -> None:
    file = max((p for p in Path("catalog/shards").rglob("*") if p.is_file()), key=os.path.getsize)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    result = run("verify")
    assert result.exit_code == 1
    assert file.name in result.stdout


# -- the face itself -------------------------------------------------------------------------


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases_work_and_are_hidden(run: Run, alias: str) -> None:
    commands = run("--help").stdout.partition("Commands:")[2]
    assert f"\n  {alias} " not in commands
    by_alias, by_name = (run(name, "--help").stdout for name in (alias, ALIASES[alias]))
    assert by_alias.splitlines()[1:] == by_name.splitlines()[1:]


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"astound {astound.__version__}\n"


def test_unexpected_error_is_called_a_bug(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def burst(*_: object) -> None:
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr("astound.catalog.Catalog.stats", burst)
    result = run("stats")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("astound: a bug in astound (ZeroDivisionError: one two)")
    assert "Traceback" in CliRunner().invoke(cli, ["-v", "stats"]).stderr


def _start(home: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    root = Path(astound.__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", "from astound.commands.main import main; main()", *arguments],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(root)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.mark.slow
def test_closed_pipe_is_quiet(home: Path) -> None:
    with _start(home, "query", *["known.wav"] * 50, "--format", "jsonl") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.slow
def test_interrupted_add_says_how_to_go_on(home: Path) -> None:
    for seed in range(40):
        write_wav(home / f"long{seed}.wav", cached_tune(seed % N_TUNES, 60.0), RATE)
    with _start(home, "--catalog", "new", "add", ".") as process:
        while not Path("new/shards").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == (
        "astound: interrupted; what is committed stays, and the same command goes on from there"
    )


def test_module_is_the_command_line_too() -> None:
    command = [sys.executable, "-m", "astound", "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout == f"astound {astound.__version__}\n"
