from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import ModelError
from engine.model.network import AST, ClipHead, new_models
from engine.model.weights import Weights, load_weights, save_weights
from engine.recipe import Recipe
from tests.encoders import TINY_AST


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, AST, ClipHead, Recipe]:
    torch.manual_seed(0)
    path, recipe = tmp_path / "weights.safetensors", Recipe(encoder=TINY_AST)
    model, clip_head = new_models(recipe)
    return (
        path,
        model,
        clip_head,
        save_weights(path, Weights(model, clip_head, recipe, {"seed": 0})),
    )


Saved = tuple[Path, AST, ClipHead, Recipe]


def test_weights_come_back_as_they_were(saved: Saved) -> None:
    path, model, clip_head, recipe = saved
    model_again, clip_head_again, recipe_again, training_record, _ = load_weights(path)
    assert training_record == {"seed": 0}
    assert recipe_again == recipe
    assert recipe.weights_sha256
    for one, again in ((model, model_again), (clip_head, clip_head_again)):
        assert one.state_dict().keys() == again.state_dict().keys()
        for key, tensor in one.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[key]), key


def test_weights_other_numbers_give_another_recipe(saved: Saved, tmp_path: Path) -> None:
    _, model, clip_head, recipe = saved
    with torch.no_grad():
        model.positions[0, 0, 0] += 1e-3
    other = save_weights(tmp_path / "other.safetensors", Weights(model, clip_head, recipe))
    assert other.recipe_id != recipe.recipe_id


def test_weights_same_numbers_give_the_same_recipe(saved: Saved, tmp_path: Path) -> None:
    path, model, clip_head, recipe = saved
    again = tmp_path / "again.safetensors"
    assert save_weights(again, Weights(model, clip_head, recipe, {"seed": 0})) == recipe
    assert load_weights(again)[2] == load_weights(path)[2]


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.999])
def test_load_weights_truncated_file_is_refused(saved: Saved, share: float) -> None:
    path = saved[0]
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match="damaged"):
        load_weights(path)


def test_load_weights_changed_number_is_refused(saved: Saved) -> None:
    path = saved[0]
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="hash"):
        load_weights(path)


def test_load_weights_changed_setting_is_refused(saved: Saved) -> None:
    path, _, _, recipe = saved
    wider = dataclasses.replace(recipe, encoder=dataclasses.replace(TINY_AST, num_layers=3))
    save_file(load_file(path), path, {"recipe": json.dumps(wider.to_dict())})
    with pytest.raises(ModelError, match="damaged"):
        load_weights(path)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"recipe": "{", "training_record": "{}", "labels": "null"},
        {"recipe": '{"speed": 1}'},
        {"recipe": "{}"},
    ],
)
def test_load_weights_foreign_safetensors_is_refused(
    tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"layer.weight": torch.zeros(3, 3)}, path, metadata)
    with pytest.raises(ModelError, match="not astound weights"):
        load_weights(path)


HOSTILE: dict[str, list[Any]] = {
    "recipe.encoder.num_layers": [10**9, 2**63, "12", None, 2.5, True, -1],
    "recipe.encoder.embedding_dim": [10**12, [], "32"],
    "recipe.encoder.mlp_ratio": [1e308, "4", None],
    "recipe.encoder.multi_label": [1, None],
    "recipe.spectrogram.n_fft": [2**40, "1024"],
    "recipe.spectrogram.front_end": [5, "\ud800"],
    "recipe.spectrogram.floor_db": [float("inf"), float("nan"), None],
    "recipe.clip.n_segments": [2**40, 0],
    "recipe.clip.n_heads": [7, 2**40],
    "labels": [5, [5], ["dog"], "dog"],
    "training_record": [5, []],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field in HOSTILE for value in HOSTILE[field]]
)
def test_load_weights_hostile_field_is_named(saved: Saved, field: str, value: object) -> None:
    path, recipe = saved[0], saved[3]
    metadata: dict[str, Any] = {
        "recipe": recipe.to_dict(), "training_record": {}, "labels": None
    }  # fmt: skip
    *outer, name = field.split(".")
    within = metadata
    for key in outer:
        within = within[key]
    within[name] = value
    texts = {key: json.dumps(content) for key, content in metadata.items()}
    save_file(load_file(path), path, texts)
    with pytest.raises(ModelError, match=f"invalid [a-z.]*{name}"):
        load_weights(path)


@pytest.mark.parametrize("key", ["recipe", "training_record", "labels"])
def test_load_weights_deep_or_missing_metadata_is_refused(saved: Saved, key: str) -> None:
    path, recipe = saved[0], saved[3]
    texts = {"recipe": json.dumps(recipe.to_dict()), "training_record": "{}", "labels": "null"}
    save_file(load_file(path), path, texts | {key: "[" * 100_000})
    with pytest.raises(ModelError, match="nested too deeply"):
        load_weights(path)
    save_file(load_file(path), path, {one: texts[one] for one in texts if one != key})
    with pytest.raises(ModelError, match=f"field {key} is missing"):
        load_weights(path)


def test_load_weights_integer_for_a_float_keeps_the_recipe_id(saved: Saved) -> None:
    recipe = saved[3].to_dict()
    recipe["spectrogram"]["f_min_hz"] = 100
    again = Recipe.from_dict(json.loads(json.dumps(recipe)))
    assert '"f_min_hz": 100,' in json.dumps(again.to_dict())


@pytest.mark.parametrize("recipe", ["[]", "5", '{"spectrogram": {"n_mels": "many"}}'])
def test_load_weights_recipe_of_wrong_types_is_refused(tmp_path: Path, recipe: str) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"layer.weight": torch.zeros(3, 3)}, path, {"recipe": recipe})
    with pytest.raises(ModelError, match="not astound weights"):
        load_weights(path)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.write_text("hello"), Path.touch])
def test_load_weights_anything_else_is_refused(tmp_path: Path, make) -> None:
    path = tmp_path / "weights.safetensors"
    make(path)
    with pytest.raises(ModelError):
        load_weights(path)


def test_load_weights_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such weights file"):
        load_weights(tmp_path / "weights.safetensors")
