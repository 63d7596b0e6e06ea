from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import astound
from astound.commands.main import cli
from tests.audio_files import cached_tune, write_wav
from tests.catalogs import OtherSpectra, add, flip_a_byte, open_catalog, shard_of

RATE = 8000
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def filled_catalog(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with music/0.wav ... and two catalogs, "catalog" of 0 and 1, "other" of 1 and 2."""
    folder = tmp_path_factory.mktemp("filled_catalog")
    (folder / "music").mkdir()
    for seed in range(3):
        write_wav(folder / "music" / f"{seed}.wav", cached_tune(seed, 4.0), RATE)
    for name, numbers in {"catalog": (0, 1), "other": (1, 2)}.items():
        with astound.open(folder / name, model=tiny_model, device="cpu") as catalog:
            catalog.add([folder / "music" / f"{number}.wav" for number in numbers])
    return folder


@pytest.fixture
def home(
    filled_catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path
) -> Path:
    """The current folder, with copies of both catalogs."""
    for name in ("catalog", "other"):
        shutil.copytree(filled_catalog / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run() -> Run:
    """Give run(*arguments, stdin=None): the command line in this process."""

    def invoke(*arguments: object, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin)
        assert "Traceback" not in result.stderr
        assert "a bug in astound" not in result.stderr
        return result

    return invoke


# -- verify ----------------------------------------------------------------------------------


def test_verify_repairs_what_it_can_and_names_what_it_forgets(home: Path, run: Run) -> None:
    shutil.copy(home / "catalog" / "astound.toml", home / "unharmed.toml")
    assert run("verify").stdout == "no problems: 2 tracks, 1 shard\n"
    with open_catalog(home / "catalog") as catalog:
        flip_a_byte(shard_of(catalog, 1) / "segments.faiss")
        catalog.update(2, path=str(home / "gone.wav"))
    found = run("verify")
    gone = f"track 2: file {home}/gone.wav is gone\n"
    assert (found.exit_code, len(found.stdout.splitlines())) == (1, 2)
    assert found.stdout.endswith(gone)
    assert run("verify").stdout == found.stdout
    mended = run("verify", "--repair")
    problem, lost, repaired, forgotten = mended.stdout.splitlines()
    assert f"{problem}\n{gone}" == found.stdout
    assert repaired.startswith("repaired 1: 0.wav (")
    assert forgotten == f"removed 2: gone.wav ({home}/gone.wav): No such file or directory"
    assert mended.exit_code == 1
    again = run("verify", "--repair")
    assert (again.exit_code, again.stdout) == (0, f"{lost}\nno problems: 1 track, 1 shard\n")
    assert "cannot be restored" in lost  # damaged, and one of its tracks could not be repaired


def test_repair_sweeps_and_is_well(home: Path, run: Run) -> None:
    (home / "catalog" / "shards" / "orphan").mkdir()
    result = run("verify", "--repair")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "cleared 1 shard left behind by a crash",
        "no problems: 2 tracks, 1 shard",
    ]


def test_verify_repair_lists_what_remains(home: Path, run: Run) -> None:
    with open_catalog(home / "catalog") as catalog:
        header = shard_of(catalog, 1) / "header.json"
        header.write_text(json.dumps(json.loads(header.read_text()) | {"version": 99}))
    for _ in range(2):
        result = run("verify", "--repair")
        assert (result.exit_code, "no problems" in result.stdout) == (1, False)
        found, remaining = result.stdout.splitlines()
        assert "update astound" in found
        assert remaining == f"not repaired: {found}"


def test_verify_repair_lists_a_changed_hop_and_names_restored_tracks(home: Path, run: Run) -> None:
    with open_catalog(home / "catalog") as catalog:
        catalog._store.put_settings({"segment_hop_s": "7.5"})
    result = run("verify", "--repair")
    assert (result.exit_code, "not repaired" in result.stdout) == (1, True)
    with open_catalog(home / "catalog") as catalog:
        store = catalog._store
        store.delete([1, 2])
        store.delete_shards(store.shard_names(), superseded=False)
        store.put_settings({"segment_hop_s": "0.5"})
    result = run("verify", "--repair")
    assert [line.split()[0] for line in result.stdout.splitlines()[2:4]] == ["restored"] * 2
    assert result.exit_code == 0


# -- merge, export, import -------------------------------------------------------------------


def test_merge_counts_and_is_idempotent(home: Path, run: Run) -> None:
    first, again = run("merge", "other"), run("merge", "other")
    assert (first.exit_code, first.stdout) == (0, "merged 1, skipped 1\n")
    assert (again.exit_code, again.stdout) == (0, "merged 0, skipped 2\n")


def test_merge_makes_a_catalog_of_several(home: Path, run: Run) -> None:
    result = run("--catalog", "new", "merge", "catalog", "other")
    assert result.stdout == "merged 3, skipped 1\n"
    assert run("--catalog", "new", "verify").exit_code == 0


def test_merge_goes_on_past_what_fails_and_exits_1(home: Path, run: Run, tunes: Path) -> None:
    with open_catalog(home / "foreign", model=OtherSpectra()) as foreign:
        add(foreign, tunes, [0])
    result = run("merge", "foreign", "ghost", "other", "catalog")
    assert result.exit_code == 1
    assert result.stdout == "merged 1, skipped 1, failed 3\n"
    recipe, missing, itself = result.stderr.splitlines()
    assert recipe.startswith("astound: catalog foreign was made with recipe fedcba9876543210, but")
    assert "ghost: no catalog here" in missing
    assert "into itself" in itself


def test_merge_says_what_it_renamed(home: Path, filled_catalog: Path, run: Run) -> None:
    run("--catalog", "other", "update", 2, "--path", filled_catalog / "music" / "0.wav")
    result = run("merge", "other")
    assert result.stdout == "merged 1, skipped 1\n"
    assert (
        f"{filled_catalog}/music/0.wav is another recording in this catalog; added as "
        in result.stderr
    )


def test_export_and_import_bring_all_over(home: Path, run: Run) -> None:
    assert run("export", "music.astound").stdout == "exported 2\n"
    result = run("--catalog", "new", "import", "music.astound", "music.astound")
    assert (result.exit_code, result.stdout) == (0, "imported 2, skipped 2\n")
    lists = [run("--catalog", one, "list", "--format", "csv").stdout for one in ("catalog", "new")]
    assert [text.count("music/") for text in lists] == [2, 2]


def test_export_takes_ids_paths_and_lists(home: Path, filled_catalog: Path, run: Run) -> None:
    assert run("export", "a", 1).stdout == "exported 1\n"
    assert (
        run("export", "a", f"{filled_catalog}/music/1.wav", "-", stdin="1\n").stdout
        == "exported 2\n"
    )
    Path("list.txt").write_text("2\n")
    assert run("export", "a", "--list", "list.txt").stdout == "exported 1\n"


def test_export_over_music_is_refused(home: Path, run: Run) -> None:
    write_wav(home / "song.wav", cached_tune(0, 4.0), RATE)
    before = (home / "song.wav").read_bytes()
    result = run("export", "song.wav")
    assert (result.exit_code, result.stdout) == (1, "")
    assert (home / "song.wav").read_bytes() == before


def test_import_of_a_bad_file_is_one_line_and_the_others_come_in(home: Path, run: Run) -> None:
    run("--catalog", "other", "export", "good")
    Path("bad").write_bytes(b"nothing")
    result = run("import", "bad", "ghost", "good")
    assert result.exit_code == 1
    assert result.stdout == "imported 1, skipped 1, failed 2\n"
    assert result.stderr.splitlines() == [
        "astound: bad: is not an export of astound",
        "astound: ghost: cannot be read (No such file or directory)",
    ]


def test_verify_says_all_well(home: Path, run: Run) -> None:
    result = run("verify")
    assert (result.exit_code, result.stdout) == (0, "no problems: 2 tracks, 1 shard\n")


def test_verify_finds_damage(home: Path, run: Run) -> None:
    (file,) = Path("catalog/shards").rglob("segments.faiss")
    flip_a_byte(file)
    result = run("verify")
    assert result.exit_code == 1
    assert file.name in result.stdout
