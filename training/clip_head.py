"""Train the clip head, which pools segment embeddings, on the finished encoder."""

from __future__ import annotations

import dataclasses
import logging

import torch
from torch import Tensor, nn

from engine.model.network import AST, ClipHead
from engine.recipe import Recipe
from training import loss
from training.augment.rng import Rng
from training.config import TrainConfig
from training.dataset import PairSampler
from training.validate import embed

log = logging.getLogger(__name__)

_N_CLIPS_PER_DRAW = 32
_ABSENT_PROB = 0.1


def train_clip_head(
    model: AST,
    clip_head: ClipHead,
    sampler: PairSampler,
    config: TrainConfig,
    recipe: Recipe,
) -> dict[str, float]:
    """Train the clip head to match clips of the same music.

    The encoder is frozen, so all clips are embedded once. Stored clips start every few seconds and
    a query starts anywhere, so the two views are shifted by up to half the hop of the clips.

    Parameters
    ----------
    model : AST
    clip_head : ClipHead
    sampler : PairSampler
        Over the tracks to train on.
    config : TrainConfig
    recipe : Recipe

    Returns
    -------
    dict of float
        "clip_loss" and "clip_hit_rate", the loss and the hit rate in the batch, averaged over the
        last steps.
    """
    clean, degraded = _embed_pairs(model, sampler, config, recipe)
    optimizer = torch.optim.AdamW(clip_head.parameters(), weight_decay=config.weight_decay)
    averages = {"clip_loss": 0.0, "clip_hit_rate": 0.0}
    clip_head.train()
    for step in range(config.n_clip_steps):
        rng = Rng((config.seed, 1, step), clean.device)
        rows = rng.tensor(
            rng.generator.choice(len(clean), min(config.n_clip_pairs, len(clean)), replace=False)
        )
        views = [clip_head(*_drop_segments(view[rows], rng)) for view in (clean, degraded)]
        embeddings = torch.cat(views)
        value = loss.nt_xent(embeddings, config.temperature)
        for group in optimizer.param_groups:
            group["lr"] = config.clip_learning_rate * (1 - step / config.n_clip_steps)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(clip_head.parameters(), config.max_grad_norm)
        optimizer.step()
        metrics = float(value.detach()), loss.hit_rate(embeddings)
        for key, metric in zip(averages, metrics, strict=True):
            averages[key] += (metric - averages[key]) / min(step + 1, 50)
        if step % 100 == 0:
            log.info("clip step %d %s", step, {k: round(v, 3) for k, v in averages.items()})
    clip_head.eval()
    return averages


@torch.inference_mode()
def _embed_pairs(
    model: AST, sampler: PairSampler, config: TrainConfig, recipe: Recipe
) -> tuple[Tensor, Tensor]:
    """Embed pairs of clips that are not silent, each view of shape (n_clips, n_segments, dim)."""
    clip, settings = recipe.clip, recipe.spectrogram
    hop = round(clip.segment_hop_s * settings.sample_rate)
    n_samples = (clip.n_segments - 1) * hop + settings.samples_per_segment
    shift_s = clip.hop_segments * clip.segment_hop_s / 2
    augment = dataclasses.replace(sampler.config, shift_s=shift_s)
    shifted = dataclasses.replace(sampler, config=augment)
    model.eval()
    views: tuple[list[Tensor], list[Tensor]] = ([], [])
    for batch in range(-(-config.n_clips // _N_CLIPS_PER_DRAW)):
        device = next(model.parameters()).device
        pairs = shifted.draw(Rng((config.seed, 2, batch), device), _N_CLIPS_PER_DRAW, n_samples)
        for view, out in zip((pairs.clean, pairs.degraded), views, strict=True):
            out.append(embed(model, view, clip.segment_hop_s, recipe))
        if batch % 20 == 0:
            log.info("embedded %d of %d clips", batch * _N_CLIPS_PER_DRAW, config.n_clips)
    clean, degraded = (torch.cat(view) for view in views)
    audible = clean.any(dim=2).any(dim=1) & degraded.any(dim=2).any(dim=1)
    return clean[audible].clone(), degraded[audible].clone()


def _drop_segments(clips: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
    """Drop some segments, as in silence and short clips; returns the clips and what is absent."""
    dropped = rng.tensor(rng.generator.random(clips.shape[:2]) < _ABSENT_PROB)
    absent = dropped | ~clips.any(dim=2)
    absent = torch.where(absent.all(dim=1, keepdim=True), ~clips.any(dim=2), absent)
    return clips.masked_fill(absent[:, :, None], 0.0), absent
