from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from engine.model.network import ClipHead, new_models
from tests.audio_files import cached_tune
from tests.training.sounds import CONFIG, RECIPE, only, pool_of, sampler_of
from training import clip_head
from training.clip_head import train_clip_head

DIM, N_SEGMENTS = RECIPE.encoder.fingerprint_dim, RECIPE.clip.n_segments
TUNES = sampler_of(pool_of(*(cached_tune(seed, 6.0) for seed in range(4))), only())


def separable(n_clips: int = 200) -> tuple[Tensor, Tensor]:
    """Clips told apart by the first half of their numbers; the other half is loud and random."""
    signal = torch.randn(n_clips, N_SEGMENTS, DIM // 2)
    return tuple(  # type: ignore[return-value]
        torch.cat([signal, 3 * torch.randn(n_clips, N_SEGMENTS, DIM // 2)], dim=2) for _ in range(2)
    )


def test_head_learns_what_tells_clips_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    views = separable()
    monkeypatch.setattr(clip_head, "_embed_pairs", lambda *_: views)
    rates = []
    for n_clip_steps in (1, 60):
        torch.manual_seed(0)
        model, head = new_models(RECIPE)
        config = dataclasses.replace(
            CONFIG, n_clip_steps=n_clip_steps, n_clip_pairs=64, clip_learning_rate=1e-2
        )
        rates.append(train_clip_head(model, head, TUNES, config, RECIPE)["clip_hit_rate"])
    assert rates[1] > 2 * rates[0]
    assert rates[1] > 0.3


def test_head_is_trained_and_the_encoder_is_not() -> None:
    torch.manual_seed(0)
    model, head = new_models(RECIPE)
    before = [one.clone() for one in (*model.parameters(), *head.parameters())]
    record = train_clip_head(model, head, TUNES, CONFIG, RECIPE)
    after = [*model.parameters(), *head.parameters()]
    n_frozen = len(list(model.parameters()))
    assert all(map(torch.equal, before[:n_frozen], after[:n_frozen]))
    assert not all(map(torch.equal, before[n_frozen:], after[n_frozen:]))
    assert set(record) == {"clip_loss", "clip_hit_rate"}
    assert not head.training


def test_same_seed_gives_the_same_head() -> None:
    heads: list[ClipHead] = []
    for noise in (1, 2):
        torch.manual_seed(0)
        model, head = new_models(RECIPE)
        torch.manual_seed(noise)
        train_clip_head(model, head, TUNES, CONFIG, RECIPE)
        heads.append(head)
    assert all(map(torch.equal, *(one.parameters() for one in heads)))
