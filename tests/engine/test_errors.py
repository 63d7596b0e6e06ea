from __future__ import annotations

import inspect
import os
import pickle
from pathlib import Path

import pytest

from engine import errors
from engine.errors import (
    AstoundError,
    AudioError,
    AudioTooLongError,
    AudioTooShortError,
    ConfigError,
    DuplicateTrackError,
    KeyNotFoundError,
    ModelError,
    RecipeMismatchError,
    SchemaError,
    ShardError,
    SilentAudioError,
    StoreError,
    TrackNotFoundError,
)

EXAMPLES = [
    (ConfigError("speed", "unknown setting"), ("speed", "unknown setting")),
    (ConfigError.invalid("k", 0, "must be positive"), ("invalid k=0: must be positive",)),
    (AudioError("a.wav", "not audio"), ("a.wav", "not audio")),
    (AudioTooShortError(Path("a.wav"), 0.25, 0.9155), ("a.wav", "0.25 s", "0.92 s")),
    (AudioTooLongError("a.wav", 600.0), ("a.wav", "600 s")),
    (SilentAudioError("a.wav", "silent"), ("a.wav", "silent")),
    (ModelError(Path("m.safetensors"), "damaged"), ("m.safetensors", "damaged")),
    (RecipeMismatchError("aaaa", "bbbb", "shard 7"), ("shard 7", "aaaa", "bbbb")),
    (ShardError(Path("shards/7"), "truncated"), ("7", "truncated")),
    (TrackNotFoundError(12), ("12", "astound list")),
    (TrackNotFoundError(12, "/a.wav"), ("12, '/a.wav'", "astound list")),
    (KeyNotFoundError(3), ("no key 3", "astound key list")),
    (DuplicateTrackError("c0ffee", 12), ("12",)),
    (SchemaError(None, "0001"), ("none", "0001")),
]


@pytest.mark.parametrize(("error", "parts"), EXAMPLES)
def test_message_is_one_line_that_names_what_is_wrong(
    error: AstoundError, parts: tuple[str, ...]
) -> None:
    assert "\n" not in str(error)
    for part in parts:
        assert part in str(error)


def _classes() -> list[type[Exception]]:
    classes = [one for _, one in inspect.getmembers(errors, inspect.isclass)]
    return [one for one in classes if issubclass(one, Exception)]


def test_every_error_descends_from_the_root() -> None:
    assert all(issubclass(one, AstoundError) for one in _classes())


def test_codes_are_stable() -> None:
    codes = {one.__name__: one.code for one in _classes() if issubclass(one, AstoundError)}
    assert codes == {
        "AstoundError": "error",
        "ConfigError": "invalid_config",
        "AudioError": "unreadable_audio",
        "AudioTooShortError": "audio_too_short",
        "AudioTooLongError": "audio_too_long",
        "SilentAudioError": "silent_audio",
        "ModelError": "invalid_model",
        "RecipeMismatchError": "recipe_mismatch",
        "ShardError": "damaged_shard",
        "ServiceError": "service_error",
        "NewerShardError": "newer_shard",
        "StoreError": "store_error",
        "CatalogBusyError": "catalog_busy",
        "TrackNotFoundError": "track_not_found",
        "TrackChangedError": "track_changed",
        "TrackFileError": "audio_unavailable",
        "JobNotFoundError": "job_not_found",
        "DuplicateTrackError": "duplicate_track",
        "KeyNotFoundError": "key_not_found",
        "SchemaError": "schema_mismatch",
    }


@pytest.mark.parametrize(
    ("error", "parent"),
    [(AudioTooShortError, AudioError), (SilentAudioError, AudioError), (ConfigError, ValueError)]
    + [(one, StoreError) for one in (TrackNotFoundError, DuplicateTrackError, SchemaError)],
)
def test_error_is_caught_as_its_parent(error: type[Exception], parent: type[Exception]) -> None:
    assert issubclass(error, parent)


def test_attributes_hold_the_arguments() -> None:
    invalid = ConfigError.invalid("k", 0, "must be positive")
    assert (invalid.key, invalid.reason) == ("k", "must be positive")
    short = AudioTooShortError("a.wav", 0.25, 0.5)
    assert (short.source, short.duration_s, short.minimum_s) == ("a.wav", 0.25, 0.5)
    mismatch = RecipeMismatchError("aaaa", "bbbb", "shard 7")
    assert (mismatch.expected, mismatch.found, mismatch.where) == ("aaaa", "bbbb", "shard 7")


@pytest.mark.parametrize("name", [b"caf\xe9.wav", "café.wav".encode(), b"plain.wav"])
def test_printable_any_file_name_can_be_written_as_utf8(name: bytes) -> None:
    for path in (name, os.fsdecode(name), Path(os.fsdecode(name))):
        assert errors.printable(path).encode("utf-8").endswith(b".wav")


def test_printable_undecodable_byte_stays_visible() -> None:
    assert errors.printable(b"caf\xe9.wav") == "caf\\udce9.wav"


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("speed", "unknown setting"),
        ConfigError.invalid("k", 0, "must be positive"),
        AudioTooShortError("a.wav", 0.25, 0.5),
        RecipeMismatchError("aaaa", "bbbb", "shard 7"),
        TrackNotFoundError(3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_is_the_same_after_pickling(error: AstoundError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
