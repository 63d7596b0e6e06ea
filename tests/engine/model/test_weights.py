from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.errors import ModelError
from engine.model.network import AST, ClipHead
from engine.model.weights import (
    Encoder,
    Weights,
    load_encoder,
    load_weights,
    new_models,
    resolve_device,
    save_weights,
)
from engine.recipe import FINGERPRINT_AST, Recipe
from tests.encoders import TINY_AST


def segments_like_music(n: int) -> Tensor:
    """Normalised features: each segment has its own tones that come and go."""
    torch.manual_seed(3)
    bands, times = torch.rand(n, 1, 128).pow(8), torch.rand(n, 64, 4)
    shapes = torch.rand(n, 4, 128).pow(8)
    raw = 4 * bands + 8 * times @ shapes + 0.5 * torch.randn(n, 64, 128)
    return (raw - raw.mean((1, 2), keepdim=True)) / raw.std((1, 2), keepdim=True)


def worst_cosine(first: Tensor, second: Tensor) -> float:
    return float(torch.cosine_similarity(first, second, dim=1).min())


@pytest.fixture(scope="module", params=["tiny", "fingerprint"])
def encoder(request: pytest.FixtureRequest, tiny_model: Path) -> Encoder:
    if request.param == "tiny":
        return load_encoder(tiny_model, "cpu")
    torch.manual_seed(0)
    return Encoder(*new_models(Recipe()), Recipe(), "cpu")


@pytest.mark.parametrize("half", [False, True])
def test_embed_segments_company_changes_nothing(encoder: Encoder, half: bool) -> None:
    encoder.half = half
    features = segments_like_music(33)
    together = encoder.embed_segments(features)
    for size in (1, 2, 7, 32):
        apart = torch.cat([encoder.embed_segments(part) for part in features.split(size)])
        assert worst_cosine(apart, together) >= 0.9999


@pytest.mark.parametrize("half", [False, True])
def test_embed_segments_gives_unit_norm_float32(encoder: Encoder, half: bool) -> None:
    encoder.half = half
    embeddings = encoder.embed_segments(segments_like_music(5))
    assert embeddings.dtype == torch.float32
    assert embeddings.shape == (5, encoder.recipe.encoder.fingerprint_dim)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5), atol=1e-4, rtol=0)


def test_embed_segments_half_precision_is_close_to_single(encoder: Encoder) -> None:
    features = segments_like_music(16)
    embeddings = []
    for half in (False, True):
        encoder.half = half
        embeddings.append(encoder.embed_segments(features))
    assert not torch.equal(*embeddings)
    assert worst_cosine(*embeddings) >= 0.999


def test_embed_segments_twice_gives_the_same_bits(encoder: Encoder) -> None:
    features = segments_like_music(9)
    first, second = (encoder.embed_segments(features) for _ in range(2))
    assert torch.equal(first, second)


def test_embed_segments_none_gives_none(encoder: Encoder) -> None:
    dim = encoder.recipe.encoder.fingerprint_dim
    assert encoder.embed_segments(torch.zeros(0, 64, 128)).shape == (0, dim)


def test_embed_clips_ignores_absent_segments(encoder: Encoder) -> None:
    torch.manual_seed(0)
    dim = encoder.recipe.encoder.fingerprint_dim
    segments = torch.nn.functional.normalize(torch.randn(4, 19, dim), dim=2)
    absent = torch.zeros(4, 19, dtype=torch.bool)
    absent[:, 11:] = True
    other = segments.clone()
    other[:, 11:] = 7.0
    pooled = encoder.embed_clips(segments, absent)
    assert pooled.shape == (4, dim)
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(encoder.embed_clips(other, absent), pooled)
    assert not torch.allclose(encoder.embed_clips(segments, ~absent), pooled, atol=1e-3)


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
    model_again, clip_head_again, recipe_again, record, _ = load_weights(path)
    assert record == {"seed": 0}
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
    [None, {"format": "pt"}, {"recipe": "{"}, {"recipe": '{"speed": 1}'}, {"recipe": "{}"}],
)
def test_load_weights_foreign_safetensors_is_refused(
    tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"layer.weight": torch.zeros(3, 3)}, path, metadata)
    with pytest.raises(ModelError, match="not astound weights"):
        load_weights(path)


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


def test_resolve_device_cuda_without_a_device_is_refused() -> None:
    assert resolve_device("cpu") == "cpu"
    if torch.cuda.is_available():
        assert resolve_device("auto") == resolve_device("cuda") == "cuda"
        return
    assert resolve_device("auto") == "cpu"
    with pytest.raises(ModelError, match="--device cpu"):
        resolve_device("cuda")


def test_fingerprint_model_is_small() -> None:
    with torch.device("meta"):
        model = AST(FINGERPRINT_AST)
    assert sum(one.numel() for one in model.parameters()) < 4_000_000
