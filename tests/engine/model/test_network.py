from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch

from engine.model.network import AST, ClipHead, cut_positions
from engine.recipe import FINGERPRINT_AST, ASTConfig, ClipConfig
from tests.encoders import TINY_AST


@pytest.mark.parametrize(
    "config",
    [
        TINY_AST,
        dataclasses.replace(TINY_AST, stride=10),
        dataclasses.replace(TINY_AST, use_distillation=False, num_classes=5),
        dataclasses.replace(TINY_AST, num_mel_bands=80, target_length=100, patch_size=8, stride=8),
        dataclasses.replace(
            TINY_AST, num_mel_bands=16, target_length=16, num_classes=1, fingerprint_dim=3
        ),
    ],
    ids=["plain", "overlapping", "classifier", "other size", "one patch"],
)
def test_model_any_shape_gives_its_heads(config: ASTConfig) -> None:
    model = AST(config).eval()
    features = torch.randn(3, config.target_length, config.num_mel_bands)
    with torch.inference_mode():
        assert model.summary(features).shape == (3, config.embedding_dim)
        embeddings = model.embed(features)
        assert embeddings.shape == (3, config.fingerprint_dim)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
        if config.num_classes:
            assert model(features).shape == (3, config.num_classes)


def test_model_without_head_does_not_carry_one() -> None:
    names = {name.split(".")[0] for name in AST(TINY_AST).state_dict()}
    assert "projection" in names
    assert "classifier" not in names


def test_model_default_is_the_published_base_model() -> None:
    with torch.device("meta"):
        model = AST(ASTConfig())
        assert model(torch.zeros(2, 1024, 128)).shape == (2, 527)
    assert model.positions.shape == (1, 12 * 101 + 2, 768)
    assert model.norm.eps == 1e-6
    n_parameters = sum(one.numel() for one in model.parameters())
    assert n_parameters == 86_594_063


def test_model_output_depends_on_the_place_of_a_patch() -> None:
    torch.manual_seed(0)
    model = AST(TINY_AST).eval()
    features = torch.randn(1, 64, 128)
    with torch.inference_mode():
        shifted = model.summary(features.roll(16, dims=1))
        higher = model.summary(features.roll(16, dims=2))
        assert not torch.allclose(model.summary(features), shifted, atol=1e-4)
        assert not torch.allclose(model.summary(features), higher, atol=1e-4)


def test_model_segments_of_a_batch_do_not_mix() -> None:
    torch.manual_seed(0)
    model = AST(TINY_AST).eval()
    features = torch.randn(3, 64, 128)
    changed = features.clone()
    changed[1] += 1
    with torch.inference_mode():
        before, after = model.embed(features), model.embed(changed)
    torch.testing.assert_close(before[[0, 2]], after[[0, 2]])
    assert not torch.allclose(before[1], after[1], atol=1e-4)


@pytest.mark.parametrize(("n_times", "first"), [(101, 0), (100, 0), (49, 26), (9, 46), (1, 50)])
def test_cut_positions_keeps_the_middle(n_times: int, first: int) -> None:
    config = ASTConfig(embedding_dim=12)
    positions = torch.arange(2 + 12 * 101).float()[None, :, None].expand(1, -1, 12)
    cut = cut_positions(positions, config, n_times)
    assert cut.shape == (1, 2 + 12 * n_times, 12)
    bands = cut[0, 2:, 0].view(12, n_times) - 2
    expected = 101 * torch.arange(12)[:, None] + first + torch.arange(n_times)
    torch.testing.assert_close(bands, expected.float())


def test_model_takes_a_shorter_input_as_a_model_of_that_length_would() -> None:
    torch.manual_seed(0)
    long = AST(dataclasses.replace(TINY_AST, target_length=128)).eval()
    short = AST(dataclasses.replace(TINY_AST, target_length=48)).eval()
    weights = long.state_dict()
    weights["positions"] = cut_positions(long.positions, long.config, 3)
    short.load_state_dict(weights)
    features = torch.randn(2, 48, 128)
    with torch.inference_mode():
        torch.testing.assert_close(long.summary(features), short.summary(features))


def test_model_without_projection_embeds_its_summary() -> None:
    model = AST(dataclasses.replace(TINY_AST, fingerprint_dim=0)).eval()
    features = torch.randn(2, 64, 128)
    with torch.inference_mode():
        embeddings, summary = model.embed(features), model.summary(features)
    torch.testing.assert_close(embeddings, torch.nn.functional.normalize(summary, dim=1))


def test_clip_head_attends_as_torch_does() -> None:
    torch.manual_seed(0)
    head = ClipHead(32, ClipConfig())
    torch.nn.init.normal_(head.query)
    embeddings, absent = torch.randn(5, 19, 32), torch.rand(5, 19) < 0.4
    absent[:, 0] = False
    query, keys = head.query.expand(5, -1, -1), embeddings + head.positions
    expected, _ = head.attention(query, keys, embeddings, key_padding_mask=absent)
    with torch.inference_mode():
        torch.testing.assert_close(head._attend(embeddings, absent), expected)


def test_encoding_does_not_import_sympy() -> None:
    code = (
        "import sys, numpy, astound;"
        "from engine.model.fingerprinter import Fingerprinter;"
        "one = Fingerprinter.load(device='cpu');"
        "one.fingerprint([numpy.random.rand(16000).astype('f')], 0.5);"
        "assert 'sympy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fingerprint_model_is_small() -> None:
    with torch.device("meta"):
        model = AST(FINGERPRINT_AST)
    assert sum(one.numel() for one in model.parameters()) < 4_000_000
