"""The clip head: how consecutive segment embeddings become one, learned on the finished encoder."""

from __future__ import annotations

import dataclasses
import logging

import torch
from torch import Tensor, nn

from engine.model.network import AST, ClipHead
from engine.recipe import Recipe
from training import loss
from training.augment.rng import Chance
from training.config import TrainConfig
from training.dataset import PairSampler
from training.validate import embed

log = logging.getLogger(__name__)

_N_AT_ONCE = 32
_HIDDEN_SHARE = 0.1


def train_clips(
    model: AST,
    clip_head: ClipHead,
    sampler: PairSampler,
    config: TrainConfig,
    recipe: Recipe,
) -> dict[str, float]:
    """Teach the clip head which clips belong together.

    The encoder is frozen, so all clips are embedded once. A query begins anywhere, stored clips
    begin every few seconds: the views are shifted by up to half of that.

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
        Loss and hit rate in the batch, averaged over the last steps.
    """
    clean, degraded = _embedded(model, sampler, config, recipe)
    optimizer = torch.optim.AdamW(clip_head.parameters(), weight_decay=config.weight_decay)
    record = {"clip_loss": 0.0, "clip_hit_rate": 0.0}
    clip_head.train()
    for step in range(config.n_clip_steps):
        chance = Chance((config.seed, 1, step), clean.device)
        rows = chance.tensor(
            chance.rng.choice(len(clean), min(config.n_clip_pairs, len(clean)), replace=False)
        )
        both = torch.cat([clip_head(*_some(view[rows], chance)) for view in (clean, degraded)])
        value = loss.nt_xent(both, config.temperature)
        for group in optimizer.param_groups:
            group["lr"] = config.clip_learning_rate * (1 - step / config.n_clip_steps)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(clip_head.parameters(), config.max_norm)
        optimizer.step()
        for key, now in (
            ("clip_loss", float(value.detach())),
            ("clip_hit_rate", loss.hit_rate(both)),
        ):
            record[key] += (now - record[key]) / min(step + 1, 50)
        if step % 100 == 0:
            log.info("clip step %d %s", step, {k: round(v, 3) for k, v in record.items()})
    clip_head.eval()
    return record


@torch.inference_mode()
def _embedded(
    model: AST, sampler: PairSampler, config: TrainConfig, recipe: Recipe
) -> tuple[Tensor, Tensor]:
    """Embed pairs of clips, each of shape (n_clips, n_segments, dim)."""
    clip, settings = recipe.clip, recipe.spectrogram
    hop = round(clip.segment_hop_s * settings.sample_rate)
    n_samples = (clip.n_segments - 1) * hop + settings.samples_per_segment
    shift_s = clip.hop_segments * clip.segment_hop_s / 2
    config_shifted = dataclasses.replace(sampler.config, shift_s=shift_s)
    shifted = dataclasses.replace(sampler, config=config_shifted)
    model.eval()
    views: tuple[list[Tensor], list[Tensor]] = ([], [])
    for batch in range(-(-config.n_clips // _N_AT_ONCE)):
        device = next(model.parameters()).device
        pairs = shifted.draw(Chance((config.seed, 2, batch), device), _N_AT_ONCE, n_samples)
        for view, out in zip((pairs.clean, pairs.degraded), views, strict=True):
            out.append(embed(model, view, clip.segment_hop_s, recipe))
        if batch % 20 == 0:
            log.info("embedded %d of %d clips", batch * _N_AT_ONCE, config.n_clips)
    clean, degraded = (torch.cat(view) for view in views)
    heard = clean.any(dim=2).any(dim=1) & degraded.any(dim=2).any(dim=1)
    return clean[heard].clone(), degraded[heard].clone()


def _some(clips: Tensor, chance: Chance) -> tuple[Tensor, Tensor]:
    """Hide some segments, as silence and short clips do; gives clips and what is absent."""
    hidden = chance.tensor(chance.rng.random(clips.shape[:2]) < _HIDDEN_SHARE)
    absent = hidden | ~clips.any(dim=2)
    absent = torch.where(absent.all(dim=1, keepdim=True), ~clips.any(dim=2), absent)
    return clips.masked_fill(absent[:, :, None], 0.0), absent
