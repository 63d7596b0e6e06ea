from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.recipe import FINGERPRINT_AST, ASTConfig, ClipConfig, Recipe, SpectrogramConfig

BAD = [
    (SpectrogramConfig, {"sample_rate": 0}),
    (SpectrogramConfig, {"hop_length": -1}),
    (SpectrogramConfig, {"n_mels": 0}),
    (SpectrogramConfig, {"floor_db": 0.0}),
    (SpectrogramConfig, {"f_max_hz": 4001.0}),
    (SpectrogramConfig, {"f_min_hz": 4000.0}),
    (SpectrogramConfig, {"f_min_hz": -1.0}),
    (SpectrogramConfig, {"f_max_hz": float("nan")}),
    (ASTConfig, {"embedding_dim": 100}),
    (ASTConfig, {"mlp_ratio": 0.0}),
    (ASTConfig, {"num_classes": -1}),
    (ASTConfig, {"fingerprint_dim": -1}),
    (SpectrogramConfig, {"front_end": "mfcc"}),
    (SpectrogramConfig, {"deviation": 0.0}),
    (ASTConfig, {"stride": 0}),
    (ASTConfig, {"patch_size": 129}),
    (ASTConfig, {"dropout": 1.0}),
    (ClipConfig, {"n_segments": 0}),
    (ClipConfig, {"segment_hop_s": 0.0}),
    (Recipe, {"encoder": ASTConfig(fingerprint_dim=128)}),
    (Recipe, {"encoder": dataclasses.replace(FINGERPRINT_AST, sample_rate=16000)}),
    (Recipe, {"spectrogram": SpectrogramConfig(n_mels=64)}),
]


@pytest.mark.parametrize(("config", "values"), BAD)
def test_config_bad_value_is_refused(config: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        config(**values)


def test_segment_is_as_long_as_its_frames_reach() -> None:
    config = SpectrogramConfig()
    assert config.samples_per_segment == 63 * 100 + 1024
    assert config.segment_s == pytest.approx(0.9155)


@pytest.mark.parametrize(("hop_s", "n_frames"), [(0.0125, 1), (0.125, 10), (0.5, 40), (1.0, 80)])
def test_frames_per_hop_whole_number_of_frames(hop_s: float, n_frames: int) -> None:
    assert SpectrogramConfig().frames_per_hop(hop_s) == n_frames


@pytest.mark.parametrize("hop_s", [0.0, 0.001, 0.13, 0.0126, -0.5])
def test_frames_per_hop_anything_else_is_refused(hop_s: float) -> None:
    with pytest.raises(ConfigError, match=r"0\.0125 s"):
        SpectrogramConfig().frames_per_hop(hop_s)


def test_published_model_has_its_patches() -> None:
    assert ASTConfig().n_patches == (12, 101)
    assert FINGERPRINT_AST.n_patches == (8, 4)


OTHER_VALUES: dict[str, dict[str, Any]] = {
    "spectrogram": {
        "n_fft": 512,
        "hop_length": 80,
        "f_min_hz": 50.0,
        "f_max_hz": 3000.0,
        "floor_db": 60.0,
        "silence_db": -60.0,
        "front_end": "kaldi",
        "mean": -6.0,
        "deviation": 5.0,
    },
    "encoder": {
        "patch_size": 8,
        "stride": 10,
        "embedding_dim": 96,
        "num_layers": 5,
        "num_heads": 6,
        "mlp_ratio": 2.0,
        "dropout": 0.1,
        "use_distillation": False,
        "num_classes": 10,
        "multi_label": False,
        "fingerprint_dim": 64,
        "projection_dim": 256,
        "norm_eps": 1e-6,
    },
    "clip": {"n_segments": 9, "segment_hop_s": 0.25, "hop_segments": 5, "n_heads": 8},
}


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [(part, *item) for part, values in OTHER_VALUES.items() for item in values.items()],
)
def test_recipe_id_changes_with_every_setting(part: str, name: str, value: object) -> None:
    changed = dataclasses.replace(getattr(Recipe(), part), **{name: value})
    assert dataclasses.replace(Recipe(), **{part: changed}).recipe_id != Recipe().recipe_id


@pytest.mark.parametrize("part", OTHER_VALUES)
def test_recipe_id_test_covers_every_setting(part: str) -> None:
    names = {field.name for field in dataclasses.fields(getattr(Recipe(), part))}
    shared = {
        "sample_rate",
        "n_mels",
        "num_mel_bands",
        "n_frames",
        "target_length",
    }  # two parts agree on those
    assert names - shared == set(OTHER_VALUES[part])


@pytest.mark.parametrize(
    ("name", "of_encoder", "value"),
    [
        ("sample_rate", "sample_rate", 16000),
        ("n_mels", "num_mel_bands", 96),
        ("n_frames", "target_length", 96),
    ],
)
def test_recipe_id_changes_with_what_its_parts_share(
    name: str, of_encoder: str, value: int
) -> None:
    sizes: dict[str, Any] = {name: value}
    sizes_of_encoder: dict[str, Any] = {of_encoder: value}
    changed = Recipe(
        spectrogram=SpectrogramConfig(**sizes),
        encoder=dataclasses.replace(FINGERPRINT_AST, **sizes_of_encoder),
    )
    assert changed.recipe_id != Recipe().recipe_id


def test_recipe_id_changes_with_the_weights() -> None:
    assert Recipe(weights_sha256="c0ffee").recipe_id != Recipe().recipe_id


def test_recipe_id_equal_recipes_share_it() -> None:
    assert Recipe().recipe_id == Recipe(encoder=dataclasses.replace(FINGERPRINT_AST)).recipe_id
    assert len(Recipe().recipe_id) == 16


def test_recipe_survives_json() -> None:
    recipe = Recipe(weights_sha256="c0ffee")
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.recipe_id == recipe.recipe_id


@pytest.mark.parametrize(
    ("values", "key"),
    [({"speed": 1}, "speed"), ({"spectrogram": {"n_mel": 128}}, "spectrogram.n_mel")],
)
def test_recipe_unknown_setting_is_refused_by_its_full_name(
    values: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError, match="choose from") as caught:
        Recipe.from_dict(values)
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("hop_s", "whole_s", "found_s"),
    [
        (0.1, 0.5, 0.1), (0.4, 0.5, 0.25), (9.0, 0.5, 0.5), (1e-9, 0.5, 0.0125),
        (0.9, 0.75, 0.25), (5.0, 2.0, 2.0), (1.6, 1.5, 1.5), (1.25, 1.25, 0.25),
    ],
)  # fmt: skip
def test_hop_within_is_one_that_the_clip_head_supports(
    hop_s: float, whole_s: float, found_s: float
) -> None:
    assert Recipe().hop_within(hop_s, whole_s) == pytest.approx(found_s)
