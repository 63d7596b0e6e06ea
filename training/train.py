"""Train the encoder, then the clip head on top of it; stop at any time and go on later.

Contrastive learning after Chang et al. 2021 (arXiv 2010.11910): a segment and its degraded self
attract each other, everything else in the batch repels. Step `n` draws all its randomness from
``(seed, n)``, so a run that was interrupted gives the same losses as one that was not.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine import spectrogram
from engine.calibration import SHIPPED_CALIBRATION
from engine.config import Recipe
from engine.encoder import ASTModel, ClipHead, new_models, save_weights
from training.calibrate import calibrate
from training.config import TrainConfig
from training.dataset import AudioPool, Noises, PairSampler, room_responses
from training.loss import nt_xent
from training.validate import hit_rate

log = logging.getLogger(__name__)

MAX_ROOM_S = 2.0
LOG = "log.jsonl"


class Sources(NamedTuple):
    """Folders of audio to train on."""

    music: Path
    noise: Path
    speech: Path
    rooms: Path


def train(sources: Sources, out: Path, config: TrainConfig, recipe: Recipe) -> Path:
    """Run or resume a training run.

    Parameters
    ----------
    sources : Sources
    out : Path
        Folder for the decoded audio, the checkpoints, ``weights.safetensors`` and
        ``calibration.json``.
    config : TrainConfig
    recipe : Recipe

    Returns
    -------
    Path
        The finished weights.
    """
    out.mkdir(parents=True, exist_ok=True)
    training, held_out = _samplers(sources, out / "cache", config, recipe)
    torch.manual_seed(config.seed)
    model, clip_head = new_models(recipe)
    history = _train_segments(model, training, held_out, out, config, recipe)
    history |= _train_clips(model, clip_head, training, config, recipe)
    weights = out / "weights.safetensors"
    record = {"config": dataclasses.asdict(config), **history}
    save_weights(weights, model, clip_head, recipe, record)
    calibrate(weights, held_out, config.seed).save(out / SHIPPED_CALIBRATION.name)
    return weights


def held_out_tracks(n_tracks: int, config: TrainConfig) -> list[int]:
    """Choose the tracks that are kept for validation."""
    chosen = np.random.default_rng(config.seed).permutation(n_tracks)[: config.n_held_out]
    return sorted(int(track) for track in chosen)


def _samplers(
    sources: Sources, cache: Path, config: TrainConfig, recipe: Recipe
) -> tuple[PairSampler, PairSampler]:
    rate = recipe.spectrogram.sample_rate
    music, noise, speech, rooms = (AudioPool.of(folder, cache, rate) for folder in sources)
    responses = room_responses(rooms, MAX_ROOM_S, rate)
    held_out = held_out_tracks(len(music), config)
    rest = [track for track in range(len(music)) if track not in held_out]
    noises = Noises(noise, speech, music.only(rest))
    training, validation = (
        PairSampler(music, tracks, noises, responses, recipe.spectrogram, config.augment)
        for tracks in (rest, held_out)
    )
    return training, validation


def _train_segments(
    model: ASTModel,
    training: PairSampler,
    held_out: PairSampler,
    out: Path,
    config: TrainConfig,
    recipe: Recipe,
) -> dict[str, object]:
    optimizer = torch.optim.AdamW(
        model.parameters(), weight_decay=config.weight_decay, betas=(0.9, 0.98)
    )
    checkpoint = out / "checkpoint.safetensors"
    first_step = _resume(checkpoint, model, optimizer) if checkpoint.exists() else 0
    model.train()
    began = time.monotonic()
    for step in range(first_step, config.n_steps):
        loss, hits = _step(model, optimizer, training, step, config, recipe)
        _log_line(out, step=step, loss=loss, hit_rate=hits, elapsed_s=time.monotonic() - began)
        if (step + 1) % config.checkpoint_every == 0:
            _save_checkpoint(checkpoint, model, optimizer, step + 1)
        if (step + 1) % config.validate_every == 0:
            validated = hit_rate(model, held_out, recipe.spectrogram)
            _log_line(out, step=step, validation_hit_rate=validated)
    model.eval()
    return {"validation_hit_rate": _validations(out)}


def _validations(out: Path) -> list[tuple[int, float]]:
    """Read from the log, which earlier parts of the run have written to as well."""
    log_file = out / LOG
    lines = log_file.read_text().splitlines() if log_file.exists() else []
    rates = {one["step"] + 1: one.get("validation_hit_rate") for one in map(json.loads, lines)}
    return [(step, rate) for step, rate in sorted(rates.items()) if rate is not None]


def _step(
    model: ASTModel,
    optimizer: torch.optim.Optimizer,
    training: PairSampler,
    step: int,
    config: TrainConfig,
    recipe: Recipe,
) -> tuple[float, float]:
    rng = np.random.default_rng((config.seed, step))
    views = training.draw(rng, config.n_pairs, recipe.spectrogram.samples_per_segment)
    mel = spectrogram.log_mel(torch.cat(views), recipe.spectrogram)
    # On a CPU the backward pass of the fused attention takes 2.3 times as long as the plain one.
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        embeddings = model.embed(spectrogram.normalise(mel, recipe.spectrogram))
    loss, hits = nt_xent(embeddings, config.temperature)
    _descend(loss, model, optimizer, _learning_rate(step, config), config.max_norm)
    return float(loss.detach()), float(hits)


def _train_clips(
    model: ASTModel, clip_head: ClipHead, training: PairSampler, config: TrainConfig, recipe: Recipe
) -> dict[str, object]:
    """Teach the clip head on embeddings of the finished encoder."""
    optimizer = torch.optim.AdamW(clip_head.parameters(), weight_decay=config.weight_decay)
    clip, settings = recipe.clip, recipe.spectrogram
    hop = round(clip.segment_hop_s * settings.sample_rate)
    n_samples = (clip.n_segments - 1) * hop + settings.samples_per_segment
    hits = 0.0
    clip_head.train()
    for step in range(config.n_clip_steps):
        rng = np.random.default_rng((config.seed, 1, step))
        views = torch.cat(training.draw(rng, config.n_clip_pairs, n_samples))
        embeddings, absent = _embed_clip_segments(model, views, recipe)
        pooled = clip_head(embeddings, absent)
        loss, batch_hits = nt_xent(pooled, config.temperature)
        decay = 0.5 * (1 + math.cos(math.pi * step / config.n_clip_steps))
        _descend(loss, clip_head, optimizer, config.clip_learning_rate * decay, config.max_norm)
        hits = 0.95 * hits + 0.05 * float(batch_hits)
        if step % 20 == 0:
            log.info("clip step %d loss %.3f hit rate %.3f", step, loss.item(), float(batch_hits))
    clip_head.eval()
    return {"clip_batch_hit_rate": hits}


@torch.inference_mode()
def _embed_clip_segments(model: ASTModel, views: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    settings = recipe.spectrogram
    hop = settings.frames_per_hop(recipe.clip.segment_hop_s)
    mel = spectrogram.log_mel(views, settings)
    raw = torch.cat([spectrogram.segments(one, hop, settings) for one in mel])
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = model.embed(spectrogram.normalise(raw, settings))
    absent = spectrogram.silent(raw, settings).view(len(views), -1)
    absent[absent.all(dim=1)] = False
    return embeddings.view(len(views), recipe.clip.n_segments, -1).clone(), absent.clone()


def _descend(
    loss: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer, rate: float, max_norm: float
) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()


def _learning_rate(step: int, config: TrainConfig) -> float:
    if step < config.n_warmup_steps:
        return config.learning_rate * (step + 1) / config.n_warmup_steps
    done = (step - config.n_warmup_steps) / max(config.n_steps - config.n_warmup_steps, 1)
    return config.learning_rate * max(0.5 * (1 + math.cos(math.pi * min(done, 1.0))), 0.005)


def _save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, n_steps: int
) -> None:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, {"n_steps": str(n_steps)})
    partial.replace(path)


def _resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load a checkpoint into model and optimizer; returns the steps done."""
    tensors = load_file(path)
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    with safe_open(path, framework="pt") as file:
        return int(file.metadata()["n_steps"])


def _log_line(out: Path, **values: float) -> None:
    with (out / LOG).open("a") as file:
        file.write(json.dumps({k: round(v, 4) for k, v in values.items()}) + "\n")
    if values["step"] % 20 == 0 or "validation_hit_rate" in values:
        log.info(" ".join(f"{k} {v:.4g}" for k, v in values.items()))
