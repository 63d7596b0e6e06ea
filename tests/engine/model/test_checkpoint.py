from __future__ import annotations

import json
import os
import pickle
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import ASTFeatureExtractor, ASTForAudioClassification

from engine.errors import ModelError
from engine.model.checkpoint import Checkpoint, adapt, read_checkpoint
from engine.model.network import AST
from engine.recipe import ASTConfig, SpectrogramConfig
from tests.encoders import TINY_AST

PREFIX = "audio_spectrogram_transformer"
IN_BLOCKS = {  # Hugging Face's names in the original repository's words
    "layernorm_before": "norm1",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


def theirs(seed: int = 0, **settings: Any) -> ASTForAudioClassification:
    """A network of transformers whose every weight is random, and large enough to be missed."""
    shape: dict[str, Any] = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"intermediate_size": 256, "num_labels": 5, "layer_norm_eps": 1e-6}
    model = ASTForAudioClassification(transformers.ASTConfig(**(shape | settings))).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            fan_in = weight[0].numel() if weight.dim() > 1 and "token" not in name else 1
            around = 1.0 if "layernorm" in name and name.endswith("weight") else 0.0
            weight.copy_(around + (noise / fan_in**0.5 if weight.dim() > 1 else 0.2 * noise))
    return model


def spectrograms(n_frames: int, n_mels: int = 128) -> Tensor:
    return 0.5 * torch.randn(2, n_frames, n_mels, generator=torch.Generator().manual_seed(1))


def saved(model: ASTForAudioClassification, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def logits(model: torch.nn.Module, features: Tensor) -> Tensor:
    found = model(features)
    out: Tensor = found if isinstance(found, Tensor) else found.logits
    return out


def ours(checkpoint: Checkpoint) -> AST:
    model = AST(checkpoint.config).eval()
    model.load_state_dict(checkpoint.state)
    return model


def in_original_names(folder: Path, prefix: str = "module.") -> dict[str, Tensor]:
    """The weights of a folder as the original repository writes them."""
    weights = load_file(folder / "model.safetensors")
    written = {
        "v.cls_token": weights.pop(f"{PREFIX}.embeddings.cls_token"),
        "v.dist_token": weights.pop(f"{PREFIX}.embeddings.distillation_token"),
        "v.pos_embed": weights.pop(f"{PREFIX}.embeddings.position_embeddings"),
        "v.head.weight": torch.zeros(1000, 128),
        "v.head.bias": torch.zeros(1000),
        "v.head_dist.weight": torch.zeros(1000, 128),
        "v.head_dist.bias": torch.zeros(1000),
    }
    for kind in ("weight", "bias"):
        patches = f"{PREFIX}.embeddings.patch_embeddings.projection.{kind}"
        written[f"v.patch_embed.proj.{kind}"] = weights.pop(patches)
        written[f"v.norm.{kind}"] = weights.pop(f"{PREFIX}.layernorm.{kind}")
        written[f"mlp_head.0.{kind}"] = weights.pop(f"classifier.layernorm.{kind}")
        written[f"mlp_head.1.{kind}"] = weights.pop(f"classifier.dense.{kind}")
        for n in range(2):
            block = f"{PREFIX}.encoder.layer.{n}"
            parts = [f"{block}.attention.attention.{p}.{kind}" for p in ("query", "key", "value")]
            qkv = torch.cat([weights.pop(part) for part in parts])
            written[f"v.blocks.{n}.attn.qkv.{kind}"] = qkv
            for one, name in IN_BLOCKS.items():
                written[f"v.blocks.{n}.{name}.{kind}"] = weights.pop(f"{block}.{one}.{kind}")
    assert not weights
    return {prefix + key: tensor for key, tensor in written.items()}


# -- folders of Hugging Face ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_length": 100},
        {"max_length": 90, "num_mel_bins": 80, "patch_size": 8},
        {"max_length": 64, "frequency_stride": 16, "time_stride": 16, "num_attention_heads": 4},
    ],
    ids=["full", "short", "other size", "stride 16"],
)
def test_read_folder_gives_the_logits_of_transformers(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    model = theirs(**settings)
    features = spectrograms(model.config.max_length, model.config.num_mel_bins)
    found = read_checkpoint(saved(model, tmp_path))
    expected = logits(model, features)
    assert expected.std() > 0.1
    assert (expected[0] - expected[1]).abs().max() > 0.01
    torch.testing.assert_close(logits(ours(found), features), expected, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_read_folder_of_base_size_gives_the_logits_of_transformers(tmp_path: Path) -> None:
    base = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    model = theirs(**base, intermediate_size=3072, num_labels=527, layer_norm_eps=1e-12)
    found = read_checkpoint(saved(model, tmp_path))
    assert found.config == ASTConfig(norm_eps=1e-12)
    expected = logits(model, spectrograms(1024))
    torch.testing.assert_close(logits(ours(found), spectrograms(1024)), expected, atol=1e-4, rtol=0)


def test_parity_detects_any_misplaced_weight(tmp_path: Path) -> None:
    model = theirs(max_length=64, num_hidden_layers=1)
    found, features = read_checkpoint(saved(model, tmp_path)), spectrograms(64)
    network, expected = ours(found), logits(model, features)
    for key, weight in found.state.items():
        network.load_state_dict(found.state | {key: weight.flatten().roll(1).view_as(weight)})
        off = (logits(network, features) - expected).abs().max()
        assert off > 1e-2, key


def test_read_folder_describes_the_network(tmp_path: Path) -> None:
    model = theirs(max_length=100, hidden_dropout_prob=0.1, layer_norm_eps=1e-5)
    found = read_checkpoint(saved(model, tmp_path))
    assert found.config == ASTConfig(
        num_classes=5,
        embedding_dim=128,
        num_layers=2,
        num_heads=2,
        target_length=100,
        mlp_ratio=2.0,
        dropout=0.1,
        multi_label=False,
        norm_eps=1e-5,
    )
    assert found.spectrogram == SpectrogramConfig.kaldi(found.config)
    assert found.labels is None


@pytest.mark.parametrize(
    ("num_classes", "problem", "expected"),
    [
        (527, None, True),
        (527, "single_label_classification", False),
        (35, None, False),
        (35, "multi_label_classification", True),
    ],
)
def test_read_folder_reads_whether_classes_exclude_each_other(
    tmp_path: Path, num_classes: int, problem: str | None, expected: bool
) -> None:
    model = theirs(max_length=64, num_labels=num_classes, problem_type=problem)
    assert read_checkpoint(saved(model, tmp_path)).config.multi_label is expected


def test_read_folder_keeps_labels_in_order(tmp_path: Path) -> None:
    saved(theirs(max_length=64, num_labels=12), tmp_path)
    names = {str(n): f"sound {n:x}" for n in range(12)}
    change(tmp_path / "config.json", id2label=dict(sorted(names.items())))  # "0", "1", "10", ...
    assert read_checkpoint(tmp_path).labels == tuple(names.values())


def test_read_folder_takes_the_front_end_from_the_preprocessor(tmp_path: Path) -> None:
    saved(theirs(max_length=128), tmp_path)
    save_preprocessor(tmp_path, max_length=128, mean=-6.8, std=5.6)
    found = read_checkpoint(tmp_path)
    assert (found.spectrogram.mean, found.spectrogram.deviation) == (-6.8, 5.6)
    change(tmp_path / "preprocessor_config.json", sampling_rate=8000, do_normalize=False)
    found = read_checkpoint(tmp_path)
    assert found.config.sample_rate == found.spectrogram.sample_rate == 8000
    assert (found.spectrogram.mean, found.spectrogram.deviation) == (0.0, 0.5)


def save_preprocessor(folder: Path, **settings: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one mel filter has all zero values")
        ASTFeatureExtractor(**settings).save_pretrained(folder)


def change(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(theirs(max_length=64), tmp_path / "folder")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "vit"}, "model_type"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"problem_type": "regression"}, "problem_type"),
        ({"time_stride": 16}, "10 along frequency, 16 along time"),
        ({"id2label": {"0": "dog"}}, "5 classes"),
        ({"max_length": 128}, "positions"),
        ({"num_hidden_layers": 3}, r"blocks\.2"),
        ({"intermediate_size": 512}, r"mlp\.0"),
        ({"num_attention_heads": 3}, "num_heads"),
        ({"num_hidden_layers": 10**9}, "invalid num_layers=1000000000: must be at most 1000"),
        ({"num_hidden_layers": "2"}, "invalid num_layers='2': must be of type int"),
        ({"layer_norm_eps": float("inf")}, "invalid norm_eps=inf"),
        ({"hidden_size": None}, "not a published checkpoint"),
        ({"hidden_size": 0}, "not a published checkpoint"),
        ({"hidden_size": "128"}, "not a published checkpoint"),
        ({"patch_size": [16, 16]}, "not a published checkpoint"),
        ({"id2label": ["dog"]}, "not a published checkpoint"),
    ],
)
def test_read_folder_of_another_kind_is_refused(
    folder: Path, settings: dict[str, Any], words: str
) -> None:
    read_checkpoint(folder)
    change(folder / "config.json", **settings)
    with pytest.raises(ModelError, match=words):
        read_checkpoint(folder)


def test_read_folder_preprocessor_of_another_length_is_refused(folder: Path) -> None:
    save_preprocessor(folder)
    with pytest.raises(ModelError, match="differ in max_length"):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000])
def test_read_folder_damaged_is_a_model_error(
    folder: Path, name: str, content: bytes | None
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_read_folder_lost_or_foreign_tensors_are_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"rotary": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="rotary is \\(1,\\), the network's absent"):
        read_checkpoint(folder)
    del weights["classifier.layernorm.bias"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"classifier\.0\.bias is absent"):
        read_checkpoint(folder)


def test_read_folder_of_half_precision_gives_single(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({k: v.half() for k, v in weights.items()}, folder / "model.safetensors")
    assert {tensor.dtype for tensor in read_checkpoint(folder).state.values()} == {torch.float32}


def test_read_leaves_the_random_numbers_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    read_checkpoint(folder)
    assert torch.equal(torch.get_rng_state(), before)


# -- files of the original repository ------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize(
    ("stride", "n_frames", "mean"),
    [(10, 1024, -4.2677393), (16, 512, -6.6268077), (10, 128, -6.845978)],
)
def test_read_original_gives_the_logits_of_transformers(
    tmp_path: Path, prefix: str, stride: int, n_frames: int, mean: float
) -> None:
    model = theirs(max_length=n_frames, frequency_stride=stride, time_stride=stride)
    path = tmp_path / "audioset.pth"
    torch.save(in_original_names(saved(model, tmp_path), prefix), path)
    found = read_checkpoint(path)
    features = spectrograms(n_frames)
    expected = logits(model, features)
    torch.testing.assert_close(logits(ours(found), features), expected, atol=1e-4, rtol=0)
    assert (found.config.stride, found.config.target_length) == (stride, n_frames)
    assert (found.spectrogram.mean, found.spectrogram.sample_rate) == (mean, 16000)
    assert found.labels is None


@pytest.fixture
def original(folder: Path, tmp_path: Path) -> Callable[[int], Path]:
    def make(n_patches: int, num_classes: int = 5) -> Path:
        weights = in_original_names(folder)
        weights["module.v.pos_embed"] = torch.zeros(1, n_patches + 2, 128)
        weights["module.mlp_head.1.weight"] = torch.zeros(num_classes, 128)
        weights["module.mlp_head.1.bias"] = torch.zeros(num_classes)
        torch.save(weights, tmp_path / "original.pth")
        return tmp_path / "original.pth"

    return make


@pytest.mark.parametrize(
    ("n_patches", "stride", "n_frames"),
    [
        (1212, 10, 1024),
        (850, 12, 1024),
        (657, 14, 1024),
        (512, 16, 1024),
        (144, 10, 128),
        (600, 10, 512),
    ],
)
def test_read_original_infers_the_published_shapes(
    original: Callable[..., Path], n_patches: int, stride: int, n_frames: int
) -> None:
    config = read_checkpoint(original(n_patches, num_classes=527)).config
    assert (config.stride, config.target_length, config.num_mel_bands) == (stride, n_frames, 128)
    assert (config.embedding_dim, config.num_layers, config.num_heads) == (128, 2, 2)
    assert (config.mlp_ratio, config.num_classes, config.multi_label) == (2.0, 527, True)


@pytest.mark.parametrize("n_patches", [0, 1, 575, 1211, 1213])
def test_read_original_of_unknown_shape_says_what_is_known(
    original: Callable[..., Path], n_patches: int
) -> None:
    with pytest.raises(ModelError, match=rf"{n_patches} patches.*144.*512.*657.*850.*1212"):
        read_checkpoint(original(n_patches))


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "among tensors"])
def test_read_original_runs_no_code(folder: Path, tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "harmed"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Malicious(target)))
    elif kind == "among tensors":
        torch.save(in_original_names(folder) | {"module.v.extra": Malicious(target)}, path)
    else:
        torch.save({"v": Malicious(target)}, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path)
    assert not target.exists()
    assert "weights_only" not in str(caught.value)
    with suppress(RuntimeError):
        torch.load(path, weights_only=False)
    assert target.exists()  # there was code


@pytest.mark.parametrize(
    "content",
    [
        *(torch.zeros(3), [torch.zeros(3)], {}, {"v.pos_embed": 3}, {3: torch.zeros(3)}),
        *({"model": {"v.pos_embed": torch.zeros(3)}}, {"v.pos_embed": torch.zeros(3)}),
        {"v.cls_token": torch.zeros(1), "v.dist_token": torch.zeros(1, 1, 1)},
    ],
)
def test_read_original_of_other_tensors_is_a_model_error(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ModelError):
        read_checkpoint(tmp_path / "other.pth")


def test_read_original_cut_short_is_a_model_error(
    original: Callable[..., Path],
) -> None:
    path = original(144)
    whole = path.read_bytes()
    for size in (0, 1, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError) as caught:
            read_checkpoint(path)
        assert "\n" not in str(caught.value)
    for content in (b"\x80\x02.", b"RIFF" + bytes(1000), whole[:2] + bytes(500)):
        path.write_bytes(content)
        with pytest.raises(ModelError):
            read_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_read_original_any_bytes_give_nothing_but_model_errors(
    tmp_path: Path, rng: np.random.Generator, zipped: bool
) -> None:
    path = tmp_path / "damaged.pth"
    torch.save({"v.norm.bias": torch.zeros(4)}, path, _use_new_zipfile_serialization=zipped)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(150):
        damaged = whole[: rng.integers(len(whole) // 2, len(whole) + 1)].copy()
        damaged[rng.integers(0, min(len(damaged), 600), 2)] = rng.integers(0, 256, 2)
        path.write_bytes(damaged.tobytes())
        with pytest.raises(ModelError):
            read_checkpoint(path)


def test_read_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file or folder"):
        read_checkpoint(tmp_path / "nowhere.pth")


# -- other shapes --------------------------------------------------------------------------------


def test_adapt_shorter_equals_transformers_with_positions_cut_by_hand(tmp_path: Path) -> None:
    long, short = theirs(), theirs(seed=1, max_length=100)
    weights = long.state_dict()
    positions = f"{PREFIX}.embeddings.position_embeddings"
    grid = weights[positions][:, 2:].reshape(1, 12, 101, 128)[:, :, 50 - 4 : 50 - 4 + 9]
    cut = torch.cat([weights[positions][:, :2], grid.reshape(1, 12 * 9, 128)], dim=1)
    short.load_state_dict(weights | {positions: cut})
    found = read_checkpoint(saved(long, tmp_path))
    target = replace(found.config, target_length=100)
    state = adapt(found.state, found.config, target)
    adapted = ours(Checkpoint(target, found.spectrogram, state, None))
    expected = logits(short, spectrograms(100))
    torch.testing.assert_close(logits(adapted, spectrograms(100)), expected, atol=1e-4, rtol=0)


def fresh(config: ASTConfig) -> dict[str, Tensor]:
    return {key: torch.randn(tensor.shape) for key, tensor in AST(config).state_dict().items()}


SOURCE = replace(TINY_AST, target_length=128, num_classes=7)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target_length": 300},
        {"target_length": 40, "num_mel_bands": 200},
        {"target_length": 300, "num_mel_bands": 64},  # fewer bands and more times
        {"stride": 10},
        {"stride": 24},
        {"patch_size": 8},
        {"patch_size": 24, "stride": 10},
        {"use_distillation": False},
    ],
)
def test_adapt_fits_the_target(changes: dict[str, Any]) -> None:
    target = replace(SOURCE, **changes)
    state = adapt(fresh(SOURCE), SOURCE, target)
    AST(target).load_state_dict(state)
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


def test_adapt_to_the_same_changes_nothing() -> None:
    state = fresh(SOURCE)
    adapted = adapt(state, SOURCE, SOURCE)
    assert adapted.keys() == state.keys()
    assert all(torch.equal(adapted[key], state[key]) for key in state)


def ramp(config: ASTConfig, axis: int) -> dict[str, Tensor]:
    """Weights whose positions say where they lie on one axis of the grid, as 0, 1, 2, ..."""
    n_bands, n_times = config.n_patches
    values = torch.arange(config.n_patches[axis]).float()
    grid = values.view([-1, 1] if axis == 0 else [1, -1]).expand(n_bands, n_times)
    state = fresh(config)
    state["positions"][0, config.n_class_tokens :] = grid.reshape(-1, 1)
    return state


def positions_of(state: dict[str, Tensor], config: ASTConfig) -> Tensor:
    return state["positions"][0, config.n_class_tokens :, 0].view(config.n_patches)


def test_adapt_cuts_the_middle_of_bands_while_times_are_interpolated() -> None:
    target = replace(SOURCE, num_mel_bands=48, target_length=256)  # 8 x 8 to 3 x 16
    bands = positions_of(adapt(ramp(SOURCE, 0), SOURCE, target), target)
    torch.testing.assert_close(bands, torch.tensor([[3.0], [4.0], [5.0]]).expand(3, 16))
    times = positions_of(adapt(ramp(SOURCE, 1), SOURCE, target), target)
    expected = ((torch.arange(16) + 0.5) / 2 - 0.5).clamp(0, 7)
    torch.testing.assert_close(times, expected.expand(3, 16))


def test_adapt_cuts_the_middle_of_times_while_bands_are_interpolated() -> None:
    target = replace(SOURCE, num_mel_bands=256, target_length=80)  # 8 x 8 to 16 x 5
    times = positions_of(adapt(ramp(SOURCE, 1), SOURCE, target), target)
    torch.testing.assert_close(times, torch.arange(2.0, 7.0).expand(16, 5))
    bands = positions_of(adapt(ramp(SOURCE, 0), SOURCE, target), target)
    expected = ((torch.arange(16) + 0.5) / 2 - 0.5).clamp(0, 7)[:, None]
    torch.testing.assert_close(bands, expected.expand(16, 5))


def test_adapt_keeps_what_the_class_tokens_are() -> None:
    state, one = fresh(SOURCE), replace(SOURCE, use_distillation=False)
    without = adapt(state, SOURCE, one)
    assert torch.equal(without["class_tokens"], state["class_tokens"][:, :1])
    assert torch.equal(without["positions"][:, :1], state["positions"][:, :1])
    assert torch.equal(without["positions"][:, 1:], state["positions"][:, 2:])
    again = adapt(without, one, SOURCE)
    assert torch.equal(again["class_tokens"], state["class_tokens"][:, :1].expand(-1, 2, -1))
    assert torch.equal(again["positions"][:, :2], state["positions"][:, :1].expand(-1, 2, -1))
    assert torch.equal(again["positions"][:, 2:], state["positions"][:, 2:])


@pytest.mark.parametrize("size", [17, 24, 32])
def test_adapt_patches_enlarged_give_the_token_of_what_they_were(size: int) -> None:
    state = fresh(SOURCE)
    target = replace(SOURCE, patch_size=size)
    kernel = adapt(state, SOURCE, target)["patches.weight"]
    patch = torch.randn(3, 1, 16, 16)
    enlarged = F.interpolate(patch, (size, size), mode="bilinear")
    expected = F.conv2d(patch, state["patches.weight"])
    torch.testing.assert_close(F.conv2d(enlarged, kernel), expected, atol=1e-3, rtol=1e-3)


def test_adapt_smaller_patches_keep_the_level() -> None:
    state = fresh(SOURCE)
    state["patches.weight"] = torch.rand(32, 1, 1, 1).expand(-1, 1, 16, 16).clone()
    kernel = adapt(state, SOURCE, replace(SOURCE, patch_size=8))["patches.weight"]
    expected = state["patches.weight"].sum(dim=(1, 2, 3))
    torch.testing.assert_close(kernel.sum(dim=(1, 2, 3)), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"num_classes": 7, "fingerprint_dim": 16}, {"classifier", "projection"}),
        ({"num_classes": 8}, {"projection"}),
        ({"num_classes": 0}, {"projection"}),
        ({"fingerprint_dim": 8}, {"classifier"}),
        ({"fingerprint_dim": 0}, {"classifier"}),
        ({"projection_dim": 8}, {"classifier"}),
    ],
)
def test_adapt_leaves_heads_of_another_size_to_the_network(
    changes: dict[str, Any], left: set[str]
) -> None:
    target = replace(SOURCE, **changes)
    state = adapt(fresh(SOURCE), SOURCE, target)
    assert {key.split(".")[0] for key in state} & {"classifier", "projection"} == left
    missing, unexpected = AST(target).load_state_dict(state, strict=False)
    assert not unexpected
    assert {key.split(".")[0] for key in missing} <= {"classifier", "projection"} - left


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"embedding_dim": 64}, "embedding_dim is 32, which cannot become 64"),
        ({"num_layers": 3}, "num_layers is 2, which cannot become 3"),
        ({"num_heads": 4}, "num_heads is 2, which cannot become 4"),
        ({"mlp_ratio": 2.0}, "mlp_ratio is 4.0, which cannot become 2.0"),
    ],
)
def test_adapt_to_another_transformer_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        adapt(fresh(SOURCE), SOURCE, replace(SOURCE, **changes))
