from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.errors import ConfigError, RecipeMismatchError
from engine.records import Vectors
from engine.search.query_fingerprint import ClipEmbeddings, QueryFingerprint
from engine.validation import parse_json, to_record, to_values

DIM, SEGMENT_S, HOP_S = 8, 1.0, 0.5


def unit(n_segments: int) -> Vectors:
    vectors = np.random.default_rng(1).normal(size=(n_segments, DIM)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def clip(**changes: Any) -> ClipEmbeddings:
    values: dict[str, Any] = {"start_s": 0.0, "duration_s": 5.0, "embeddings": unit(9)}
    return ClipEmbeddings(**values | changes)


FINGERPRINT = QueryFingerprint(recipe_id="a", segment_hop_s=HOP_S, duration_s=5.0, clips=(clip(),))


def test_fingerprint_is_the_same_after_json() -> None:
    made = to_values(FINGERPRINT)
    read = to_record(QueryFingerprint, made)
    assert to_values(read) == made
    (found,) = read.to_clips(SEGMENT_S, DIM)
    assert len(found.waveform) == 0
    assert found.end_s == 5.0
    assert np.array_equal(found.fingerprint.embeddings, unit(9))


def test_fingerprint_of_another_recipe_or_hop_is_refused() -> None:
    FINGERPRINT.require("a", HOP_S)
    with pytest.raises(RecipeMismatchError, match="recipe a, but recipe b"):
        FINGERPRINT.require("b", HOP_S)
    with pytest.raises(ConfigError, match=r"invalid segment_hop_s=0.5: must be 0.125"):
        FINGERPRINT.require("a", 0.125)


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ((), "clips: must not be empty"),
        ((clip(start_s=-1.0),), "clips: must overlap"),
        ((clip(), clip()), "clips: must overlap"),
        ((clip(duration_s=0.5),), "duration_s: must be from 1 to 128"),
        ((clip(duration_s=500.0),), "duration_s: must be from 1 to 128"),
        ((clip(duration_s=50.0),), r"must have the shape \(99, 8\)"),
        ((clip(embeddings=unit(9)[:, 1:]),), r"must have the shape \(9, 8\)"),
        ((clip(embeddings=unit(9)[0]),), r"must have the shape \(9, 8\)"),
        ((clip(embeddings=2 * unit(9)),), "must be unit vectors"),
        ((clip(embeddings=0 * unit(9)),), "must be unit vectors"),
        ((clip(embeddings=np.nan * unit(9)),), "must be unit vectors"),
    ],
)
def test_what_is_no_fingerprint_is_refused(clips: tuple[ClipEmbeddings, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(FINGERPRINT, clips=clips).to_clips(SEGMENT_S, DIM)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ("[]", "must be an object"),
        ('{"shape": [1, 8]}', "embeddings.base64"),
        ('{"shape": [1, 8], "base64": "AAAA"}', "must be base64 of float32 of shape"),
        ('{"shape": [-1, -8], "base64": "AAAA"}', "must be of 0 or more"),
        ('{"shape": [0, 4611686018427387904], "base64": ""}', "must be base64"),
        ('{"shape": [1e9], "base64": ""}', "shape"),
        ('{"shape": [0], "base64": "?"}', "must be base64"),
    ],
)
def test_damaged_array_is_refused(array: str, message: str) -> None:
    text = (
        '{"recipe_id": "a", "segment_hop_s": 0.5, "duration_s": 5.0, "clips": '
        '[{"start_s": 0.0, "duration_s": 5.0, "embeddings": %s}]}'
    )
    with pytest.raises(ValueError, match=message):
        to_record(QueryFingerprint, parse_json(text % array))
