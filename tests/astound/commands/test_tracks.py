from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from tests.astound.commands.conftest import N_TUNES, TUNE_S, Run


def test_list_shows_all_tracks_in_every_format(library: Path, home: Path, run: Run) -> None:
    paths = [f"{library}/music/{seed}.wav" for seed in range(N_TUNES)]
    as_json = json.loads(run("list", "--format", "json").stdout)
    as_csv = list(csv.DictReader(io.StringIO(run("list", "--format", "csv").stdout)))
    table = run("list").stdout
    assert [track["path"] for track in as_json] == [row["path"] for row in as_csv] == paths
    assert [line.split()[-1] for line in table.splitlines() if "/" in line] == paths


def test_tracks_are_found_by_id_or_path(library: Path, home: Path, run: Run) -> None:
    by_path = run("show", f"{library}/music/2.wav", "--format", "json")
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


def test_deleted_track_is_no_longer_found(library: Path, home: Path, run: Run) -> None:
    result = run("delete", f"{library}/music/1.wav")
    assert result.stdout.startswith("deleted ")
    assert result.stdout.endswith(f": 1.wav ({library}/music/1.wav)\n")
    answer = json.loads(run("query", "known.wav", "--format", "jsonl").stdout)
    assert answer["status"] == "no_match"


def test_delete_is_all_or_nothing(library: Path, home: Path, run: Run) -> None:
    result = run("delete", f"{library}/music/1.wav", "12345")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "not in the catalog: 12345" in result.stderr
    assert json.loads(run("stats", "--format", "json").stdout)["n_tracks"] == N_TUNES


def test_update_sets_and_removes(library: Path, home: Path, run: Run) -> None:
    key = f"{library}/music/0.wav"
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


@pytest.mark.parametrize("how", ["file", "stdin"])
def test_delete_takes_a_list(home: Path, library: Path, run: Run, how: str) -> None:
    listed = f"{library}/music/0.wav\n\n2\n"
    Path("list.txt").write_text(listed)
    given = ["--list", "list.txt"] if how == "file" else ["-"]
    result = run("delete", *given, stdin=listed)
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == ["deleted 1", "deleted 2"]
    left = json.loads(run("list", "--format", "json").stdout)
    assert [track["id"] for track in left] == [3, 4]


def test_delete_names_all_it_does_not_know_and_deletes_nothing(home: Path, run: Run) -> None:
    result = run("delete", 1, 77, "ghost.wav", 78)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"not in the catalog: 77, '{home}/ghost.wav', 78" in result.stderr
    assert len(run("list", "--format", "csv").stdout.splitlines()) == 1 + N_TUNES


def test_delete_of_nothing_is_a_usage_error(home: Path, run: Run) -> None:
    assert run("delete").exit_code == 2


def test_delete_names_a_track_given_twice_once(home: Path, library: Path, run: Run) -> None:
    result = run("delete", 1, f"{library}/music/0.wav", 1)
    assert len(result.stdout.splitlines()) == 1


def test_path_through_a_link_finds_its_track(library: Path, home: Path, run: Run) -> None:
    Path("music").symlink_to(library / "music")
    Path("one.wav").symlink_to(library / "music" / "1.wav")
    Path("list.txt").write_text("music/2.wav\n")
    shown = run("show", library / "music" / "1.wav").stdout
    assert run("show", "music/1.wav").stdout == run("show", "one.wav").stdout == shown
    assert run("similar", "music/1.wav").exit_code == 0
    assert "/2.wav" in run("delete", "--list", "list.txt").stdout
    missing = run("show", "music/9.wav")
    assert (missing.exit_code, f"{home}/music/9.wav" in missing.stderr) == (1, True)


def test_track_added_through_a_link_is_found_by_its_real_path(
    library: Path, home: Path, run: Run
) -> None:
    shutil.copytree(library / "music", home / "real")
    Path("music").symlink_to("real")
    Path("other").symlink_to("music")
    Path("one.wav").symlink_to("real/1.wav")
    assert run("--catalog", "new", "add", "music/0.wav", "one.wav").stdout.startswith("added 2,")
    for name in ("music/0.wav", "real/0.wav", "other/0.wav", "other/../real/0.wav"):
        assert f"{home}/music/0.wav" in run("--catalog", "new", "show", name).stdout, name
    for name in ("real/1.wav", "music/1.wav"):
        assert f"{home}/one.wav" in run("--catalog", "new", "show", name).stdout, name
    assert run("--catalog", "new", "update", "real/0.wav", "--title", "Rain").exit_code == 0
    assert run("--catalog", "new", "export", "a", "real/0.wav", "real/1.wav").exit_code == 0
    listed = run("--catalog", "new", "similar", "real/0.wav", "--format", "csv").stdout
    assert "0.wav" not in listed
    Path("real/0.wav").unlink()
    deleted = run("--catalog", "new", "delete", "real/0.wav", "other/0.wav", "real/1.wav")
    assert [line.split(":")[0] for line in deleted.stdout.splitlines()] == [
        "deleted 1",
        "deleted 2",
    ]
    missing = run("--catalog", "new", "delete", "real/2.wav")
    assert (missing.exit_code, f"{home}/real/2.wav" in missing.stderr) == (1, True)


def test_metadata_of_the_real_path_belong_to_a_file_added_through_a_link(
    library: Path, home: Path, run: Run
) -> None:
    Path("music").symlink_to(library / "music")
    Path("tags.csv").write_text(f"path,title\n{library}/music/1.wav,Rain\n")
    added = run("--catalog", "new", "add", "music/1.wav", "--metadata", "tags.csv")
    assert (added.exit_code, added.stderr) == (0, "")
    assert "Rain" in run("--catalog", "new", "show", "1").stdout


def test_folder_through_a_link_adds_nothing_twice(library: Path, home: Path, run: Run) -> None:
    Path("music").symlink_to(library / "music")
    assert run("add", "music").stdout == "added 0, skipped 4, failed 0\n"


def test_metadata_through_a_link_belongs_to_its_file(library: Path, home: Path, run: Run) -> None:
    Path("music").symlink_to(library / "music")
    Path("tags.csv").write_text("path,title\nmusic/1.wav,Rain\n")
    added = run("--catalog", "new", "add", library / "music" / "1.wav", "--metadata", "tags.csv")
    assert (added.exit_code, added.stderr) == (0, "")
    assert "Rain" in run("--catalog", "new", "show", "1").stdout
