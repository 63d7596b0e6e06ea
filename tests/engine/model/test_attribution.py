from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.errors import AstoundError, ConfigError
from engine.model import attribution
from engine.model.attribution import (
    Score,
    attention_rollout,
    embedding_score,
    gradient_times_input,
    occlusion,
    rollout,
)
from engine.model.network import AST, Block
from engine.recipe import ASTConfig
from tests.encoders import TINY_AST

SMALL = dataclasses.replace(
    TINY_AST, num_mel_bands=24, target_length=40, patch_size=8, stride=8, num_classes=3
)
OVERLAPPING = dataclasses.replace(SMALL, stride=5, use_distillation=False)
PLANTED = (slice(16, 24), slice(8, 16))  # one patch of SMALL


@pytest.fixture
def network() -> AST:
    return _network(SMALL)


@pytest.fixture
def features() -> Tensor:
    return torch.randn(2, 40, 24, generator=torch.Generator().manual_seed(1))


def _network(config: ASTConfig) -> AST:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AST(config)
        for parameter in network.parameters():  # attention that prefers some tokens by far
            torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def _planted(features: Tensor) -> Tensor:
    """Rest on one patch only, and not linearly."""
    return (features[:, *PLANTED].clamp(min=0) ** 2).sum(dim=(1, 2))


def _linear(weights: Tensor) -> Score:
    return lambda features: (features * weights).sum(dim=(1, 2))


def _share_of_planted(found: attribution.Importance) -> np.ndarray:
    magnitude = np.abs(found)
    return magnitude[:, *PLANTED].sum(axis=(1, 2)) / magnitude.sum(axis=(1, 2))


# -- gradient × input ------------------------------------------------------------------------


def test_gradient_finds_the_patch_that_the_score_rests_on(features: Tensor) -> None:
    found = gradient_times_input(_planted, features)
    assert (found.shape, str(found.dtype)) == ((2, 40, 24), "float32")
    assert _share_of_planted(found) == pytest.approx(1)


def test_gradient_times_input_sums_to_a_linear_score(features: Tensor) -> None:
    score = _linear(torch.randn(40, 24, generator=torch.Generator().manual_seed(2)))
    found = gradient_times_input(score, features)
    assert found.sum(axis=(1, 2)) == pytest.approx(score(features).numpy(), rel=1e-4)
    assert (found < 0).any()


def test_gradient_of_a_network_agrees_with_small_changes(network: AST, features: Tensor) -> None:
    network, features = network.double(), features.double()

    def score(x: Tensor) -> Tensor:
        return network(x)[:, 1]

    found = gradient_times_input(score, features)
    for frame, band in [(0, 0), (20, 11), (39, 23)]:
        step = torch.zeros_like(features)
        step[:, frame, band] = 1e-5
        with torch.no_grad():
            slope = (score(features + step) - score(features - step)) / 2e-5
        expected = slope * features[:, frame, band]
        assert found[:, frame, band] == pytest.approx(expected.numpy(), rel=1e-3, abs=1e-6)


def test_gradient_leaves_network_and_features_alone(network: AST, features: Tensor) -> None:
    before = features.clone()
    with torch.inference_mode():  # and needs no gradients switched on around it
        gradient_times_input(lambda x: network(x)[:, 0], features)
    assert torch.equal(features, before)
    assert not features.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("fingerprint_dim", [16, 0])
def test_embedding_score_follows_the_embedding(features: Tensor, fingerprint_dim: int) -> None:
    network = _network(dataclasses.replace(SMALL, fingerprint_dim=fingerprint_dim))
    with torch.inference_mode():
        score = embedding_score(network, features[:1])
    with torch.no_grad():
        summary = network.summary(features)
        lengths = (network.projection(summary) if fingerprint_dim else summary).norm(dim=1)
        cosines = network.embed(features) @ network.embed(features[:1])[0]
        torch.testing.assert_close(score(features), lengths * cosines)
    found = gradient_times_input(score, features[:1])
    cosine = gradient_times_input(
        lambda x: network.embed(x) @ network.embed(x)[0].detach(), features[:1]
    )
    assert np.abs(found).max() > 1000 * np.abs(cosine).max()


# -- attention rollout -----------------------------------------------------------------------


def _rollout_by_loop(network: AST, one: Tensor) -> np.ndarray:
    """Layer by layer, head by head, token by token, as the paper has it."""
    x = network.tokens(one)
    n_tokens, width = x.shape[1:]
    rolled = np.eye(n_tokens)
    for block in network.blocks:
        assert isinstance(block, Block)
        num_heads = block.attention.num_heads
        size = width // num_heads
        qkv = block.attention.qkv(block.norm1(x))[0].double().numpy()
        attention = np.zeros((n_tokens, n_tokens))
        for head in range(num_heads):
            q = qkv[:, head * size : (head + 1) * size]
            k = qkv[:, width + head * size : width + (head + 1) * size]
            for i in range(n_tokens):
                raised = np.exp([q[i] @ k[j] / np.sqrt(size) for j in range(n_tokens)])
                attention[i] += raised / raised.sum() / num_heads
        mixed = attention + np.eye(n_tokens)
        rolled = mixed / mixed.sum(axis=1, keepdims=True) @ rolled
        x = block(x)
    return rolled


@pytest.mark.parametrize("config", [SMALL, OVERLAPPING], ids=["plain", "overlapping"])
@torch.no_grad()
def test_rollout_agrees_with_loops(config: ASTConfig, features: Tensor) -> None:
    network = _network(config)
    shares = rollout(network, features)
    torch.testing.assert_close(shares.sum(dim=2), torch.ones(shares.shape[:2]))
    for one, found in zip(features.split(1), shares, strict=True):
        assert found.numpy() == pytest.approx(_rollout_by_loop(network, one), abs=1e-5)


@pytest.mark.parametrize("n_frames", [40, 22], ids=["whole", "shorter"])
@pytest.mark.parametrize("config", [SMALL, OVERLAPPING], ids=["plain", "overlapping"])
@torch.no_grad()
def test_rollout_lies_where_its_patches_do(
    config: ASTConfig, features: Tensor, n_frames: int
) -> None:
    network, features = _network(config), features[:, :n_frames]
    found = attention_rollout(network, features)
    assert (found.shape, str(found.dtype)) == ((2, n_frames, 24), "float32")
    n_class_tokens, size, stride = config.n_class_tokens, config.patch_size, config.stride
    for one, spread in zip(features.split(1), found, strict=True):
        row = _rollout_by_loop(network, one)[:n_class_tokens, n_class_tokens:].mean(axis=0)
        over: list[list[list[float]]] = [[[] for _ in range(24)] for _ in range(n_frames)]
        tokens = iter(row)
        for band in range(0, 24 - size + 1, stride):
            for frame in range(0, n_frames - size + 1, stride):
                share = next(tokens)
                for i in range(frame, frame + size):
                    for j in range(band, band + size):
                        over[i][j].append(share)
        expected = [[np.mean(shares) if shares else 0.0 for shares in row] for row in over]
        assert spread == pytest.approx(np.array(expected), abs=1e-6)


def test_rollout_leaves_the_network_as_it_was(network: AST, features: Tensor) -> None:
    with torch.no_grad():
        before = network(features)
        attention_rollout(network, features)
        assert torch.equal(network(features), before)


# -- occlusion -------------------------------------------------------------------------------


def test_occlusion_finds_the_patch_that_the_score_rests_on(features: Tensor) -> None:
    found = occlusion(_planted, features, 8, 8)
    assert (found.shape, str(found.dtype)) == ((2, 40, 24), "float32")
    assert _share_of_planted(found) == pytest.approx(1)
    assert (found[:, *PLANTED] > 0).all()


@pytest.mark.parametrize(("patch_size", "stride"), [(8, 8), (7, 5), (1, 1), (24, 24)])
def test_occlusion_agrees_with_loops(features: Tensor, patch_size: int, stride: int) -> None:
    score = _linear(torch.randn(40, 24, generator=torch.Generator().manual_seed(2)))
    total, n_over = np.zeros((2, 40, 24)), np.zeros((40, 24))
    for frame in sorted({*range(0, 41 - patch_size, stride), 40 - patch_size}):
        for band in sorted({*range(0, 25 - patch_size, stride), 24 - patch_size}):
            place = (slice(frame, frame + patch_size), slice(band, band + patch_size))
            hidden = features.clone()
            for before, after in zip(features, hidden, strict=True):
                after[place] = before.mean()
            total[:, *place] += (score(features) - score(hidden))[:, None, None].numpy()
            n_over[place] += 1
    found = occlusion(score, features, patch_size, stride)
    assert found == pytest.approx(total / n_over, abs=1e-3)


def test_occlusion_scores_few_at_once(features: Tensor) -> None:
    sizes = []

    def score(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return _planted(x)

    occlusion(score, features, 2, 2)
    assert max(sizes) == attribution.BATCH_SIZE
    assert sum(sizes) == 2 * (1 + 20 * 12)


def test_occlusion_and_gradient_agree_where_only_one_patch_reaches_the_network(
    features: Tensor,
) -> None:
    network = _network(dataclasses.replace(SMALL, target_length=8))

    def score(x: Tensor) -> Tensor:
        return network(x[:, 16:24])[:, 1]

    for found in (gradient_times_input(score, features), occlusion(score, features, 8, 8)):
        assert np.abs(found[:, 16:24]).max() > 0
        assert np.delete(found, np.s_[16:24], axis=1) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("patch_size", "stride", "key"), [(0, 1, "patch_size"), (25, 1, "patch_size"), (4, 5, "stride")]
)
def test_occlusion_refuses_patches_that_do_not_fit(
    features: Tensor, patch_size: int, stride: int, key: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{key}=\d+: must be from 1 to "):
        occlusion(_planted, features, patch_size, stride)


# -- the picture -----------------------------------------------------------------------------

MEL_HZ = np.linspace(100, 3900, 24)
BEGINNINGS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF", ".PNG": b"\x89PNG"}


@pytest.mark.parametrize("suffix", BEGINNINGS)
def test_plot_writes_the_format_of_the_suffix(
    tmp_path: Path, features: Tensor, suffix: str
) -> None:
    one, found = features[0].numpy(), occlusion(_planted, features, 8, 8)[0]
    path = tmp_path / f"picture{suffix}"
    attribution.plot(one, found, 0.0125, MEL_HZ, path, title=r"a $\song$ 音楽")
    assert path.read_bytes().startswith(BEGINNINGS[suffix])
    assert "matplotlib.pyplot" not in sys.modules


def test_plot_takes_an_importance_without_any(tmp_path: Path, features: Tensor) -> None:
    path = tmp_path / "picture.png"
    attribution.plot(features[0].numpy(), np.zeros((40, 24), np.float32), 0.0125, MEL_HZ, path)
    assert path.stat().st_size > 0


def test_plot_refuses_other_suffixes(tmp_path: Path) -> None:
    none = np.zeros((40, 24), np.float32)
    with pytest.raises(ConfigError, match=r"'x.txt': must end in one of .png, .svg, .pdf"):
        attribution.plot(none, none, 0.0125, MEL_HZ, tmp_path / "x.txt")


def test_plot_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    none = np.zeros((40, 24), np.float32)
    with pytest.raises(AstoundError, match=r"nowhere/x.png: No such file or directory"):
        attribution.plot(none, none, 0.0125, MEL_HZ, tmp_path / "nowhere" / "x.png")


def test_plot_without_matplotlib_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    none = np.zeros((40, 24), np.float32)
    with pytest.raises(AstoundError, match=r"pip install 'astound\[plot\]'"):
        attribution.plot(none, none, 0.0125, MEL_HZ, tmp_path / "x.png")
