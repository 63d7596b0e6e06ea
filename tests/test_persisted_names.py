"""Every name that files, databases and scripts of users depend on, frozen.

Renaming one of them makes existing catalogs, weights or scripts useless. A test that fails here
asks for a migration, a new format version or another name, not for a new literal.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

import astound
from astound.commands.main import cli
from engine.errors import AstoundError
from engine.model.weights import load_weights
from engine.model.weights_file import SHIPPED_WEIGHTS
from engine.recipe import Recipe
from engine.records import CUT_OFF_KEY, SOUND_KEY, USER_TAGS_KEY, Sound
from engine.search.calibration import SHIPPED_CALIBRATION
from engine.store.tables import SCHEMA_HEAD, Base
from engine.vectors import shard
from tests.audio_files import cached_tune, write_audio, write_wav
from training.config import TrainConfig

RATE = 8000

# -- weights ---------------------------------------------------------------------------------

SHIPPED_RECIPE_ID = "55f04010645def71"

RECIPE_OF = {
    "spectrogram": """
        sample_rate n_fft hop_length n_mels f_min_hz f_max_hz n_frames floor_db silence_db
        front_end mean deviation
    """,
    "encoder": """
        sample_rate num_classes embedding_dim num_layers num_heads patch_size stride
        num_mel_bands target_length mlp_ratio dropout use_distillation multi_label
        fingerprint_dim projection_dim norm_eps
    """,
    "clip": "n_segments segment_hop_s hop_segments n_heads",
}
RECIPE = " ".join(f"{part}({keys})" for part, keys in RECIPE_OF.items()) + " weights_sha256"
WEIGHTS_METADATA = {"recipe", "training_record", "labels"}
TRAINING_RECORD = """
    config(n_pairs n_pairs_per_chunk gradient_checkpointing compiled n_steps n_warmup_steps
           max_minutes cooldown_fraction optimizer learning_rate weight_decay max_grad_norm loss
           temperature margin n_clips n_clip_steps n_clip_pairs clip_learning_rate n_held_out
           checkpoint_every_s validate_every seed
           augment(shift_s context_s transpose transpose_prob reverse_prob mix_prob mix_db
                   speed speed_prob wide_speed wide_speed_prob tempo tempo_prob
                   pitch pitch_prob wide_pitch wide_pitch_prob
                   room_prob recorded_room_prob room_s build_up_s direct_db
                   noise_prob snr_db noise_kind_probs composed_noise_prob composed_minutes
                   two_noises_prob device_prob n_resonances resonance_db
                   band_prob low_hz high_hz slope_db tilt_db
                   compress_prob compress_s compression gain_control_prob gain_control
                   attack_s release_s suppress_prob suppress_factor suppress_floor_db
                   clip_prob clip_quantile codec_prob drop_prob n_drops drop_s
                   packet_loss_prob lost_fraction mask_prob mask_width))
    validations clip_loss clip_hit_rate
"""
CALIBRATION = """
    recipe_id weights min_confidence
    search(query_hop_s k n_fallback_neighbours n_rescored nprobe speeds speeds_s
           resampled_weight)
    alignment(max_candidates max_tracks min_cosine n_tilted max_tilt tilted_weight)
    terms_version
"""

# -- catalogs --------------------------------------------------------------------------------

CATALOG_FILES = {"astound.toml", "catalog.db", "shards"}
CATALOG_SETTINGS = {"database"}
SCHEMA = "0003"
TABLES = {
    "settings": "key value",
    "shards": "id name n_segments n_clips n_bytes recipe_id created_at",
    "tracks": """
        id shard_id first_row n_segments first_clip n_clips path n_bytes modified_ns content_hash
        duration_s title artist album isrc added_at
    """,
    "track_metadata": "track_id key value",
    "api_keys": "id scope note secret_hash created_at",
    "jobs": """
        id kind status key_id options upload n_starts progress result error created_at started_at
        cancelled_at finished_at
    """,
}
DATABASE_SETTINGS = {"recipe", "recipe_id", "segment_hop_s", "n_changes"}
SHARD_FORMAT = ("astound shard", 4)
SHARD_HEADER = """
    format version kind recipe_id segment_hop_s n_segments n_clips dim
    sha256(segments.faiss clips.i8 tracks.jsonl)
"""
SHARD_KINDS = {"flat", "full", "codes"}
ARCHIVE_FILES = [
    "000000/tracks.jsonl",
    "000000/segments.npy",
    "000000/clips.npy",
    "astound.json",
]
ARCHIVE_MANIFEST = "format version recipe_id recipe segment_hop_s dim n_batches n_tracks"
ARCHIVE_TRACK = """
    path content_hash n_bytes modified_ns duration_s n_segments n_clips
    tags(title artist album isrc) metadata(astound:sound)
"""
METADATA_KEYS = ["cut_off", "astound:sound", "astound:user_tags"]
SOUND = "codec is_lossless sample_rate n_bytes"

# -- the command line ------------------------------------------------------------------------

ERROR_CODES = {
    *(
        "audio_too_long",
        "audio_too_short",
        "audio_unavailable",
        "catalog_busy",
        "damaged_shard",
        "duplicate_track",
        "error",
    ),
    *("invalid_config", "invalid_model", "newer_shard", "recipe_mismatch", "schema_mismatch"),
    *(
        "job_not_found",
        "key_not_found",
        "service_error",
        "silent_audio",
        "store_error",
        "track_changed",
        "track_not_found",
        "unreadable_audio",
    ),
}
MATCH = """
    rank track_id path title artist query_start_s query_end_s reference_start_s reference_end_s
    offset_s score confidence votes coverage speed margin tempo pitch also_at_s
    start_error_s end_error_s
"""
ENTRY = """
    track_id path title artist query_start_s query_end_s reference_start_s reference_end_s
    offset_s score confidence speed start_error_s end_error_s
"""
TRACK = """
    id path title artist album isrc duration_s content_hash n_segments added_at metadata(genre)
"""
END = "reason similarity rank"
VERDICT = "accepted rule reason confidence min_confidence costs(rule found plain logit)"
JSON = {
    "query clip.wav broken.wav --format jsonl": f"""
        query status duration_s matches({MATCH}) warnings timings_ms(decode encode search align)
        error(code message)
    """,
    "scan hour.wav --min-confidence 0 --format jsonl": f"""
        recording status {ENTRY} start_s duration_s n_entries warnings
    """,
    "scan hour.wav broken.wav --min-confidence 0.01 --format json": f"""
        recording status start_s duration_s n_entries entries({ENTRY}) gaps(start_s end_s) warnings
        error(code message)
    """,
    "list --format json": TRACK,
    "show 1 --format json": TRACK,
    "stats --format json": "n_tracks duration_s n_segments n_shards n_stored_segments n_bytes",
    "same music/a.wav music/medley.wav --format json": """
        similarity
        passages(query_start_s query_end_s reference_start_s reference_end_s score speed)
    """,
    "similar 1 --format json": "rank track_id path title artist duration_s clip_score",
    "dedup --format json": """
        duplicates(kind first_id first_path second_id second_path first_share second_share
                   keeper_id
                   passages(first_start_s first_end_s second_start_s second_end_s score speed))
        clusters(keeper_id other_ids reason)
    """,
    "repeats hour.wav --format json": "score occurrences(path start_s end_s)",
    "explain clip.wav --track 2 --format json": f"""
        query status duration_s heard_s verdict({VERDICT}) passages({MATCH} evidence others
                verdict({VERDICT}) start({END}) end({END}) min_similarity
                segments(query_s reference_s similarity))
        nearest({MATCH} evidence others)
        subject({MATCH} evidence others verdict({VERDICT})
                start({END}) end({END})
                segments(query_s reference_s similarity agrees n_neighbours votes)
                votes_near(bin_s offsets_s counts) votes_in_track(bin_s offsets_s counts))
        timings_ms(decode encode search align)
    """,
    "model info --format json": f"""
        name config({RECIPE_OF["encoder"]}) n_parameters recipe_id
        recipe({RECIPE}) labels training
    """,
}


def names(value: Any) -> str:
    """Nested keys of a JSON value: ``a b(c d)``; a list has the keys of all its elements."""
    if isinstance(value, dict):
        return " ".join(
            f"{key}({inner})" if (inner := names(v)) else key for key, v in value.items()
        )
    if isinstance(value, list):
        merged: dict[str, Any] = {}
        for element in value:
            if isinstance(element, dict):
                merged |= {k: v for k, v in element.items() if k not in merged or names(v)}
        return names(merged)
    return ""


def words(literal: str) -> str:
    """Join a literal's words by single spaces."""
    return " ".join(literal.split()).replace("( ", "(").replace(" )", ")")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A catalog of tunes, a copy and a medley of them; a clip, a recording and a broken file."""
    folder = tmp_path_factory.mktemp("home")
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
        catalog.update(1, metadata={"genre": "test"})
    write_wav(folder / "clip.wav", a[5 * RATE : 12 * RATE], RATE)
    between = [cached_tune(seed, 9.0) for seed in (11, 12, 13)]
    jingle = cached_tune(7, 8.0)
    hour = np.concatenate([between[0], jingle, between[1], jingle, between[2], a[: 30 * RATE]])
    write_wav(folder / "hour.wav", hour, RATE)
    (folder / "broken.wav").write_bytes(b"not audio")
    return folder


def test_recipe_names_and_id_of_the_shipped_weights() -> None:
    recipe = load_weights(SHIPPED_WEIGHTS).recipe
    assert names(recipe.to_dict()) == words(RECIPE)
    assert names(Recipe().to_dict()) == words(RECIPE)
    assert recipe.recipe_id == SHIPPED_RECIPE_ID
    assert dataclasses.replace(Recipe(), weights_sha256=recipe.weights_sha256) == recipe


def test_weights_file_names() -> None:
    content = SHIPPED_WEIGHTS.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert set(header["__metadata__"]) == WEIGHTS_METADATA
    record = json.loads(header["__metadata__"]["training_record"])
    assert names(record) == words(TRAINING_RECORD)
    assert names(record["config"]) == names(dataclasses.asdict(TrainConfig()))


def test_calibration_file_names() -> None:
    assert names(json.loads(SHIPPED_CALIBRATION.read_text())) == words(CALIBRATION)


def test_catalog_folder_names(home: Path) -> None:
    found = {path.name for path in (home / "catalog").iterdir()}
    assert found >= CATALOG_FILES
    settings = tomllib.loads((home / "catalog" / "astound.toml").read_text())
    assert set(settings) == CATALOG_SETTINGS


def test_database_names(home: Path) -> None:
    assert SCHEMA_HEAD == SCHEMA
    expected = {table: columns.split() for table, columns in TABLES.items()}
    found = {t.name: [c.name for c in t.columns] for t in Base.metadata.tables.values()}
    assert found == expected
    database = sa.create_engine(f"sqlite:///{home / 'catalog' / 'catalog.db'}")
    with database.connect() as connection:
        assert set(sa.inspect(connection).get_table_names()) == {*expected, "alembic_version"}
        keys = connection.execute(sa.text("SELECT key FROM settings")).scalars()
        assert set(keys) == DATABASE_SETTINGS
    database.dispose()


def test_shard_names(home: Path) -> None:
    (path,) = (home / "catalog" / "shards").iterdir()
    header = json.loads((path / "header.json").read_text())
    assert (header["format"], header["version"]) == SHARD_FORMAT
    assert names(dict.fromkeys(header) | {"sha256": header["sha256"]}) == words(SHARD_HEADER)
    assert set(shard._FILES) == SHARD_KINDS


def test_metadata_names() -> None:
    assert [CUT_OFF_KEY, SOUND_KEY, USER_TAGS_KEY] == METADATA_KEYS
    assert " ".join(field.name for field in dataclasses.fields(Sound)) == SOUND


def test_archive_names(home: Path, tmp_path: Path) -> None:
    with astound.open(home / "catalog", create=False) as catalog:
        catalog.export(tmp_path / "export.zip")
    with zipfile.ZipFile(tmp_path / "export.zip") as archive:
        assert archive.namelist() == ARCHIVE_FILES
        assert names(json.loads(archive.read("astound.json"))) == words(ARCHIVE_MANIFEST)
        tracks = archive.read("000000/tracks.jsonl").decode().splitlines()
    assert names([json.loads(track) for track in tracks]) == words(ARCHIVE_TRACK)


def test_error_codes() -> None:
    classes = [AstoundError]
    for error in classes:
        classes += error.__subclasses__()
    own = [error for error in classes if error.__module__.split(".")[0] in ("engine", "astound")]
    assert {error.code for error in own} == ERROR_CODES
    assert len({error.code for error in own}) == len(own)


@pytest.mark.parametrize("command", JSON)
def test_json_fields(
    command: str, home: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    result = CliRunner().invoke(cli, command.split())
    lines = result.stdout.splitlines()
    found = (
        [json.loads(line) for line in lines] if "jsonl" in command else json.loads(result.stdout)
    )
    assert names(found) == words(JSON[command])
