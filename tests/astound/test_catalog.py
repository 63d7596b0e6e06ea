from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import astound
from astound.catalog import Catalog
from engine.audio.resample import resample
from engine.config import AlignConfig, IngestConfig, SearchConfig
from engine.errors import (
    AudioError,
    CatalogBusyError,
    ConfigError,
    RecipeMismatchError,
    SilentAudioError,
    StoreError,
    TrackNotFoundError,
)
from engine.model.network import new_models
from engine.model.weights import Weights, save_weights
from engine.recipe import Recipe
from engine.records import Match, QueryResult
from engine.search.calibration import N_FEATURES, Calibration
from engine.search.searcher import UNCALIBRATED
from tests.audio_files import Waveform, cached_tune, stereo, write_wav
from tests.encoders import TINY_AST

RATE = 8000
TUNE_S = 8.0
SEEDS = (0, 4, 6, 3)  # tunes that the tiny encoder tells apart
ONE_JOB = IngestConfig(n_jobs=1)
FRONT_S = 3.0


def tune(number: int) -> Waveform:
    return cached_tune(SEEDS[number], TUNE_S)


def clip(number: int, start_s: float = 2.0, duration_s: float = 3.0) -> Waveform:
    """A part of a tune; where it starts at a multiple of 0.5 s its segments are the catalog's."""
    first = round(start_s * RATE)
    return tune(number)[first : first + round(duration_s * RATE)]


def best_of(catalog: Catalog, source: Waveform, rate: int = RATE, **options: Any) -> Match:
    """The best match, however sure."""
    best = catalog.query(source, rate, min_confidence=0.0, **options).best
    assert best
    return best


def found(catalog: Catalog, number: int) -> int | None:
    """Id of the track that a part of a tune is a copy of."""
    best = catalog.query(clip(number), RATE, min_confidence=0.0).best
    return best.track_id if best and best.score > 0.95 else None


def untimed(result: QueryResult) -> QueryResult:
    return replace(result, timings_ms={})


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 0.wav, 1.wav, 2.wav; not to be changed."""
    folder = tmp_path_factory.mktemp("music")
    for number in range(3):
        write_wav(folder / f"{number}.wav", tune(number), RATE)
    return folder


@pytest.fixture(scope="module")
def filled_catalog(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, music: Path
) -> Iterator[Catalog]:
    """A catalog of the three tunes, with ids 1 to 3 in two shards; not to be changed."""
    folder = tmp_path_factory.mktemp("filled_catalog")
    with astound.open(folder, model=tiny_model, device="cpu") as catalog:
        catalog.add([music / "0.wav", music / "1.wav"], config=ONE_JOB)
        catalog.add(music / "2.wav", config=ONE_JOB)
        yield catalog


@pytest.fixture
def copy(filled_catalog: Catalog, tmp_path: Path, tiny_model: Path) -> Iterator[Catalog]:
    """A copy of `filled_catalog` that may be changed."""
    shutil.copytree(filled_catalog.folder, tmp_path / "catalog")
    with astound.open(tmp_path / "catalog", model=tiny_model, device="cpu") as catalog:
        yield catalog


@pytest.fixture(params=["sqlite", "postgres"])
def library(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_model: Path, music: Path
) -> Iterator[Catalog]:
    """A catalog of the three tunes in each kind of database."""
    database = request.getfixturevalue("postgres") if request.param == "postgres" else None
    with astound.open(
        tmp_path / "catalog", model=tiny_model, device="cpu", database=database
    ) as catalog:
        catalog.add(music, config=ONE_JOB)
        yield catalog


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of another encoder, with a calibration."""
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(2)
        recipe = Recipe(encoder=TINY_AST)
        recipe = save_weights(path, Weights(*new_models(recipe), recipe))
    Calibration(recipe_id=recipe.recipe_id, weights=(0.0,) * N_FEATURES, min_confidence=0.5).save(
        path.with_name("calibration.json")
    )
    return path


# -- life cycle, in every kind of database ---------------------------------------------------


def test_added_tracks_are_found_where_they_are(library: Catalog, music: Path) -> None:
    for number in range(3):
        best = best_of(library, clip(number))
        assert best.path == str(music / f"{number}.wav")
        assert best.offset_s == pytest.approx(2.0, abs=0.1)
    assert [found(library, number) for number in range(4)] == [1, 2, 3, None]


def test_deleted_track_is_never_found_again(library: Catalog, music: Path) -> None:
    assert [track.id for track in library.delete([2])] == [2]
    assert [track.id for track in library.tracks()] == [1, 3]
    assert [found(library, number) for number in range(3)] == [1, None, 3]
    library.delete([str(music / "2.wav"), 3])
    assert [found(library, number) for number in range(3)] == [1, None, None]
    with pytest.raises(TrackNotFoundError):
        library.track(2)
    # Nor under the id of what comes later, although its vectors still lie in a shard.
    assert [one.track_id for one in library.add(music, config=ONE_JOB).added] == [4, 5]
    assert [found(library, number) for number in range(3)] == [1, 4, 5]
    assert library.verify() == []


def test_delete_of_an_unknown_track_deletes_nothing(library: Catalog) -> None:
    with pytest.raises(TrackNotFoundError):
        library.delete([1, 77])
    assert len(library.tracks()) == 3


def test_update_changes_what_is_given(library: Catalog, music: Path) -> None:
    library.update(1, title="T", artist="A", metadata={"mood": "blue", "key": "C"})
    track = library.update(str(music / "0.wav"), title="", metadata={"key": ""})
    assert track == library.track(1)
    assert (track.title, track.artist, track.metadata) == (None, "A", {"mood": "blue"})
    library.update(1, title="New")
    best = best_of(library, clip(0))
    assert (best.title, best.artist) == ("New", "A")
    assert library.track(2).title is None


def test_stats_count_the_living_and_the_stored(library: Catalog) -> None:
    before = library.stats()
    n_segments = [track.n_segments for track in library.tracks()]
    assert (before.n_tracks, before.n_shards) == (3, 1)
    assert before.duration_s == pytest.approx(3 * TUNE_S)
    assert before.n_segments == before.n_stored_segments == sum(n_segments)
    files = library.folder.glob("shards/*/*")
    assert before.n_bytes == sum(file.stat().st_size for file in files)
    library.delete([2])
    after = library.stats()
    assert (after.n_tracks, after.n_segments) == (2, n_segments[0] + n_segments[2])
    assert after.n_stored_segments == before.n_stored_segments


def test_reader_sees_what_another_process_did(library: Catalog, tmp_path: Path) -> None:
    write_wav(tmp_path / "new.wav", tune(3), RATE)
    assert [found(library, number) for number in (0, 3)] == [1, None]
    code = """
import sys, astound
with astound.open(sys.argv[1], model=sys.argv[2], device="cpu") as catalog:
    catalog.delete([1])
    catalog.add(sys.argv[3])
"""
    arguments = [library.folder, library.model, tmp_path / "new.wav"]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)
    assert [found(library, number) for number in (0, 3)] == [None, 4]


def test_reopened_catalog_knows_what_it_knew(library: Catalog, tiny_model: Path) -> None:
    with astound.open(library.folder, create=False, model=tiny_model, device="cpu") as again:
        assert again.tracks() == library.tracks()
        assert untimed(again.query(clip(1), RATE)) == untimed(library.query(clip(1), RATE))


# -- opening ---------------------------------------------------------------------------------


def test_missing_catalog_is_not_made_unless_asked_for(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no catalog here"):
        astound.open(tmp_path / "none", create=False)
    assert list(tmp_path.iterdir()) == []


def test_catalog_cannot_lie_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot create a catalog"):
        astound.open(tmp_path / "file" / "catalog")


@pytest.mark.parametrize(
    "settings",
    [
        "database = ",
        'colour = "blue"',
        'database = "mysql://x"',
        'database = "sqlite:////elsewhere/catalog.db"',
        "database = 5",
        "database = inf",
        f"database = {'[' * 2000}",
    ],
)
def test_senseless_settings_are_refused(tmp_path: Path, settings: str) -> None:
    (tmp_path / "astound.toml").write_text(settings)
    with pytest.raises((ConfigError, StoreError)):
        astound.open(tmp_path)


def test_empty_catalog_finds_nothing(tmp_path: Path, tiny_model: Path) -> None:
    with astound.open(tmp_path / "new", model=tiny_model, device="cpu") as catalog:
        assert catalog.query(clip(0), RATE).status == "no_match"
        assert catalog.tracks() == []
        assert catalog.stats().n_tracks == 0
        assert catalog.verify() == []


def test_emptied_catalog_finds_nothing(copy: Catalog) -> None:
    copy.delete([1, 2, 3])
    assert copy.query(clip(0), RATE).status == "no_match"
    assert copy.verify() == []


# -- what may not be mixed -------------------------------------------------------------------


def test_other_encoder_is_refused_by_name(
    copy: Catalog, other_model: Path, tiny_model: Path, music: Path
) -> None:
    used = copy.recipe_id
    with astound.open(copy.folder, model=other_model, device="cpu") as mixed:
        for use in (lambda: mixed.query(clip(0), RATE), lambda: mixed.add(music)):
            with pytest.raises(RecipeMismatchError) as caught:
                use()
            assert {caught.value.expected, caught.value.found} > {used}
            assert caught.value.expected in str(caught.value)
            assert caught.value.found in str(caught.value)
            assert caught.value.expected != caught.value.found
    assert len(copy.tracks()) == 3


def test_calibration_of_another_encoder_is_refused(
    filled_catalog: Catalog, other_model: Path, tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copy(tiny_model, tmp_path / "tiny.safetensors")
    shutil.copy(other_model.with_name("calibration.json"), tmp_path / "calibration.json")
    with (
        astound.open(
            filled_catalog.folder, model=tmp_path / "tiny.safetensors", device="cpu"
        ) as catalog,
        pytest.raises(RecipeMismatchError, match="calibration"),
    ):
        catalog.query(clip(0), RATE)


WRITES = """
import sys, astound
def waiting():
    print("writing", flush=True)
    sys.stdin.readline()
    yield 1
with astound.open(sys.argv[1]) as catalog:
    catalog.delete(waiting())
"""


@pytest.fixture
def writer(copy: Catalog) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of a deletion."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES, str(copy.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.communicate()


def test_only_one_process_writes(copy: Catalog, writer: subprocess.Popen[str], music: Path) -> None:
    for write in (
        lambda: copy.add(music),
        lambda: copy.delete([1]),
        lambda: copy.update(1, title="T"),
    ):
        with pytest.raises(CatalogBusyError, match="another process"):
            write()
    assert found(copy, 0) == 1
    writer.communicate("go on\n")
    assert writer.returncode == 0
    assert found(copy, 0) is None
    copy.update(2, title="T")


def test_killed_writer_blocks_nobody(copy: Catalog, writer: subprocess.Popen[str]) -> None:
    writer.kill()
    writer.wait()
    copy.update(1, title="T")
    assert found(copy, 0) == 1


# -- verify ----------------------------------------------------------------------------------


def shard_folder(catalog: Catalog) -> Path:
    """The shard with tracks 1 and 2."""
    return catalog.folder / "shards" / catalog._store.placements()[0].shard


def _flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    path.write_bytes(content)


def _change_recipe(shard: Path) -> None:
    header = json.loads((shard / "header.json").read_text())
    (shard / "header.json").write_text(json.dumps(header | {"recipe_id": "0123456789abcdef"}))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing shard": (shutil.rmtree, "header cannot be read"),
    "missing file": (lambda shard: (shard / "clips.i8").unlink(), "cannot be read"),
    "flipped vector": (lambda shard: _flip_a_byte(shard / "segments.faiss"), "has changed"),
    "flipped clip": (lambda shard: _flip_a_byte(shard / "clips.i8"), "has changed"),
    "truncated": (lambda shard: _truncate(shard / "segments.faiss"), "truncated"),
    "other recipe": (_change_recipe, "recipe 0123456789abcdef"),
    "broken header": (lambda shard: _truncate(shard / "header.json"), "header cannot be read"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_verify_names_the_damaged_shard_and_goes_on(copy: Catalog, name: str) -> None:
    assert copy.verify() == []
    shard = shard_folder(copy)
    damage, reason = DAMAGES[name]
    damage(shard)
    (problem,) = copy.verify()
    assert shard.name in problem
    assert reason in problem


def test_damaged_shard_is_an_error_for_a_query(copy: Catalog) -> None:
    shutil.rmtree(shard_folder(copy))
    with pytest.raises(astound.AstoundError, match="header cannot be read"):
        copy.query(clip(2), RATE)


# -- queries ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{}, {"search": SearchConfig(speeds=())}, {"alignment": AlignConfig(n_tilted=0)}],
    ids=["default", "search", "alignment"],
)
def test_query_with_other_settings_answers_and_warns(
    filled_catalog: Catalog, settings: dict[str, Any]
) -> None:
    result = filled_catalog.query(clip(0, start_s=3.5), RATE, **settings)
    assert result.status == "match"
    assert result.warnings == ((UNCALIBRATED,) if settings else ())


def test_match_says_where(filled_catalog: Catalog, music: Path) -> None:
    result = filled_catalog.query(clip(0, start_s=3.5), RATE)
    assert (result.query, result.status, result.error) == ("array", "match", None)
    assert result.duration_s == 3.0
    assert set(result.timings_ms) == {"decode", "encode", "search", "align"}
    best = result.matches[0]
    assert best is result.best
    assert (best.rank, best.track_id, best.path) == (1, 1, str(music / "0.wav"))
    assert best.offset_s == pytest.approx(3.5, abs=0.1)
    assert best.reference_start_s == pytest.approx(best.query_start_s + best.offset_s, abs=2e-3)
    assert best.reference_end_s == pytest.approx(best.query_end_s + best.offset_s, abs=2e-3)
    assert 0 <= best.query_start_s < best.query_end_s <= 3.0
    assert best.score > 0.9
    assert filled_catalog.min_confidence <= best.confidence <= 1


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
def test_array_of_any_rate_is_found(filled_catalog: Catalog, rate: int) -> None:
    best = best_of(filled_catalog, resample(clip(1), RATE, rate), rate)
    assert best.track_id == 2
    assert best.offset_s == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(
    "transform",
    [
        stereo,
        lambda waveform: stereo(waveform).T,
        lambda waveform: (waveform * 32767).astype(np.int16),
        lambda waveform: (waveform * 2**31 * 0.99).astype(np.int32),
        lambda waveform: waveform.astype(np.float64),
        lambda waveform: np.repeat(waveform, 2)[::2],
    ],
    ids=["stereo", "channels first", "int16", "int32", "float64", "strided"],
)
def test_array_of_any_form_gives_the_same_answer(
    filled_catalog: Catalog, transform: Callable[[Waveform], np.ndarray]
) -> None:
    expected = best_of(filled_catalog, clip(1))
    best = best_of(filled_catalog, transform(clip(1)))
    assert best.track_id == expected.track_id == 2
    assert best.offset_s == pytest.approx(expected.offset_s, abs=0.02)
    assert best.score == pytest.approx(expected.score, abs=0.01)


def test_file_gives_the_same_answer_as_its_samples(filled_catalog: Catalog, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "clip.wav", clip(1), RATE, "FLOAT")
    expected = untimed(filled_catalog.query(clip(1), RATE))
    assert untimed(filled_catalog.query(path)) == replace(expected, query=str(path))


@pytest.mark.parametrize("as_file", [True, False])
def test_times_of_a_part_are_those_of_the_whole_clip(
    filled_catalog: Catalog, tmp_path: Path, as_file: bool
) -> None:
    whole = np.concatenate([tune(3)[: round(FRONT_S * RATE)], clip(0, 2.0, 4.0), tune(3)])
    source = write_wav(tmp_path / "clip.wav", whole, RATE, "FLOAT") if as_file else whole
    rate = None if as_file else RATE
    result = filled_catalog.query(
        source, rate, start_s=FRONT_S + 0.5, end_s=FRONT_S + 4.0, min_confidence=0.0
    )
    assert result.duration_s == 3.5
    best = result.best
    assert best
    assert best.track_id == 1
    assert best.offset_s == pytest.approx(2.0 - FRONT_S, abs=0.1)
    assert best.query_start_s == pytest.approx(FRONT_S + 0.5, abs=0.25)
    assert best.query_end_s == pytest.approx(FRONT_S + 4.0, abs=0.25)
    assert best.reference_start_s == pytest.approx(2.5, abs=0.3)
    assert best.reference_end_s == pytest.approx(6.0, abs=0.3)


@pytest.mark.parametrize("is_file", [True, False])
def test_part_behind_the_end_is_told(
    filled_catalog: Catalog, tmp_path: Path, is_file: bool
) -> None:
    whole, path = clip(0), tmp_path / "clip.wav"
    write_wav(path, whole, RATE)
    source, rate = (path, None) if is_file else (whole, RATE)
    with pytest.raises(AudioError, match=r"it ends before 60 s; use an earlier start"):
        filled_catalog.query(source, rate, start_s=60.0, end_s=65.0)


def test_part_alone_decides(filled_catalog: Catalog) -> None:
    whole = np.concatenate([clip(0, 2.0, 3.0), clip(1, 2.0, 3.0)])
    best = [best_of(filled_catalog, whole, start_s=s, end_s=s + 3.0) for s in (0.0, 3.0)]
    assert [one.track_id for one in best] == [1, 2]


@pytest.mark.parametrize("front", ["silence", "other music"])
def test_clip_that_begins_before_the_track_has_a_negative_offset(
    filled_catalog: Catalog, front: str
) -> None:
    before = tune(3)[: round(FRONT_S * RATE)] * (front != "silence")
    best = best_of(filled_catalog, np.concatenate([before, tune(0)]))
    assert best.track_id == 1
    assert best.offset_s == pytest.approx(-FRONT_S, abs=0.15)
    assert best.reference_start_s >= 0.0
    assert best.reference_end_s <= TUNE_S


def test_clip_longer_than_the_track_is_found(filled_catalog: Catalog) -> None:
    silence = np.zeros(2 * RATE, np.float32)
    best = best_of(filled_catalog, np.concatenate([silence, tune(2), silence]))
    assert best.track_id == 3
    assert best.offset_s == pytest.approx(-2.0, abs=0.1)
    assert best.reference_end_s <= TUNE_S


def test_min_confidence_and_max_matches_bound_the_matches(filled_catalog: Catalog) -> None:
    everything = filled_catalog.query(clip(0), RATE, min_confidence=0.0)
    assert len(everything.matches) > 1
    assert [match.rank for match in everything.matches] == list(
        range(1, len(everything.matches) + 1)
    )
    assert len(filled_catalog.query(clip(0), RATE, min_confidence=0.0, max_matches=1).matches) == 1
    assert filled_catalog.query(clip(0), RATE, min_confidence=1.1).status == "no_match"


def test_unreachable_database_leaves_no_folder(tmp_path: Path) -> None:
    url = "postgresql://127.0.0.1:9/none?connect_timeout=2"
    with pytest.raises(StoreError):
        astound.open(tmp_path / "new", database=url)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("n_samples", [0, 1, 7323])
def test_clip_shorter_than_a_segment_is_refused(filled_catalog: Catalog, n_samples: int) -> None:
    with pytest.raises(AudioError, match="too short"):
        filled_catalog.query(tune(0)[:n_samples], RATE)


def test_clip_of_exactly_one_segment_is_searched(filled_catalog: Catalog) -> None:
    n_samples = round(
        filled_catalog.fingerprinter.segment_s * filled_catalog.fingerprinter.sample_rate
    )
    assert n_samples == 7324
    assert best_of(filled_catalog, clip(0)[:n_samples]).track_id == 1


def test_silence_is_refused(filled_catalog: Catalog) -> None:
    with pytest.raises(SilentAudioError, match="silent"):
        filled_catalog.query(np.zeros(3 * RATE, np.float32), RATE)


def test_array_needs_its_rate(filled_catalog: Catalog) -> None:
    with pytest.raises(ConfigError, match="sample_rate"):
        filled_catalog.query(clip(0))


def test_threads_get_the_same_answers_as_one_by_one(copy: Catalog) -> None:
    clips = [clip(number, start_s) for number in range(4) for start_s in (0.5, 1.0, 2.0, 3.5)]
    alone = [untimed(copy.query(one, RATE)) for one in clips]
    assert "match" in {result.status for result in alone}
    copy.update(1, title="T")  # so that all threads find the index outdated at once
    copy.update(1, title="")
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda one: untimed(copy.query(one, RATE)), clips))
    assert together == alone


def test_relative_paths_name_tracks(
    copy: Catalog, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(music)
    assert copy.track("1.wav").id == 2
    assert copy.track(os.path.join("..", music.name, "1.wav")).id == 2
    copy.delete(["1.wav"])
    assert [track.id for track in copy.tracks()] == [1, 3]


# -- repetitions -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repeating(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """A track that plays a tune, another one, and the first again, from 16 s on; and others."""
    folder = tmp_path_factory.mktemp("music")
    write_wav(
        folder / "again.wav",
        np.concatenate([cached_tune(0, TUNE_S), cached_tune(4, TUNE_S), cached_tune(0, TUNE_S)]),
        RATE,
    )
    for seed in (6, 3):
        write_wav(folder / f"{seed}.wav", cached_tune(seed, TUNE_S), RATE)
    with astound.open(folder / "catalog", model=tiny_model, device="cpu") as opened:
        opened.add(folder, config=ONE_JOB)
        yield opened


@pytest.mark.parametrize("start_s", [0.0, 1.0])
def test_other_place_of_a_repeated_tune_is_reported(repeating: Catalog, start_s: float) -> None:
    clip = cached_tune(0, TUNE_S)[2 * RATE : 7 * RATE]
    best = repeating.query(clip, RATE, start_s=start_s).best
    assert best
    assert len(best.also_at_s) == 1
    places_s = sorted((best.reference_start_s, *best.also_at_s))
    assert places_s == pytest.approx([2.0 + start_s, 18.0 + start_s], abs=0.1)


def test_tune_that_occurs_once_has_no_other_place(repeating: Catalog) -> None:
    best = repeating.query(cached_tune(4, TUNE_S)[2 * RATE : 7 * RATE], RATE).best
    assert best
    assert best.offset_s == pytest.approx(10.0, abs=0.05)
    assert (best.also_at_s, best.tempo, best.pitch) == ((), 1.0, 0.0)
