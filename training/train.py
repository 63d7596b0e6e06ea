"""Train the encoder, then the clip head; a run can be interrupted and resumed.

Step `n` draws all random numbers from ``(seed, n)``, so that an interrupted run gives the same
losses as an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from engine.device import resolve_device
from engine.errors import ConfigError, ModelError
from engine.model.ast_model import ASTModel
from engine.model.network import AST, ClipHead, new_clip_head, new_models
from engine.model.weights import Weights, load_weights, save_weights
from engine.recipe import Recipe
from engine.search.calibration import SHIPPED_CALIBRATION
from training.augment.composed import compose_pool
from training.augment.noise import NoiseMixer
from training.augment.pool import AudioPool, audio_paths
from training.augment.reverb import Reverb
from training.augment.rng import Rng
from training.calibrate import calibrate
from training.clip_head import train_clip_head
from training.config import TrainConfig
from training.dataset import PairSampler
from training.learner import Learner, learning_rate, n_processes, time_left
from training.memory import keep_freed_memory
from training.packed import CHECKPOINT, pack
from training.run_log import RunLog
from training.sources import Sources
from training.validate import retrieval_hit_rates

log = logging.getLogger(__name__)

# Changes to a published checkpoint: segments of 1.02 s, a projection instead of the classes.
_CHECKPOINT_CHANGES: dict[str, Any] = {
    "target_length": 100,
    "num_classes": 0,
    "fingerprint_dim": 128,
}
_COMPOSED_KEY = (0, 0, 1)  # no step has it


class Samplers(NamedTuple):
    """Samplers of the tracks to train on and of those kept for validation."""

    training: PairSampler
    held_out: PairSampler


def train(  # noqa: PLR0913 - one argument per option
    sources: Sources,
    out: Path,
    config: TrainConfig,
    recipe: Recipe | None = None,
    *,
    init_from: Path | None = None,
    packed: Path | None = None,
    device: str = "auto",
) -> Path:
    """Run or resume a training run.

    Under ``torchrun``, each process computes a part of every batch. The trained encoder, still
    without a trained clip head, and the packed run are written before the last validation, so that
    they are there if what follows is cut off.

    Parameters
    ----------
    sources : Sources
    out : Path
        Folder for the decoded audio, the log, the checkpoints, ``weights.safetensors`` and
        ``calibration.json``.
    config : TrainConfig
    recipe : Recipe, optional
        By default that of `init_from`, or without it that of the shipped model.
    init_from : Path, optional
        Initial weights: a weights file, or a published checkpoint as
        :meth:`engine.model.ast_model.ASTModel.from_pretrained` reads it, which is cut to segments
        of one second. Random weights by default.
    packed : Path, optional
        Also pack the run to this file; see :func:`training.packed.pack`.
    device : {"auto", "cpu", "cuda"}

    Returns
    -------
    Path
        The file of the trained weights.

    Raises
    ------
    ConfigError
        There is too little music, or a folder has no audio.
    ModelError
        `init_from`, or the checkpoint in `out`, has another shape.
    """
    started_at = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    own_device = _join_processes(resolve_device(device))
    if config.n_pairs % n_processes():
        requirement = f"must be a multiple of the number of processes ({n_processes()})"
        raise ConfigError.invalid("n_pairs", config.n_pairs, requirement)
    if own_device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(config.seed)
    model, clip_head, recipe = _initial_models(init_from, recipe)
    samplers = open_samplers(sources, out / "cache", config, recipe, own_device)
    learner = Learner(model.to(own_device), config, recipe)
    run_log = RunLog(out)
    n_steps = train_encoder(learner, samplers, out, run_log, started_at)
    weights = out / "weights.safetensors"
    if _leave_processes():
        record: dict[str, Any] = {"config": dataclasses.asdict(config)}
        clip_head = clip_head.to(own_device)
        save_weights(weights, Weights(model.eval(), clip_head, recipe, record))
        if packed is not None:
            pack(out, packed)
        _validate(learner, samplers, run_log, n_steps)
        record["validations"] = run_log.validations()
        record |= train_clip_head(model.eval(), clip_head, samplers.training, config, recipe)
        save_weights(weights, Weights(model, clip_head, recipe, record))
        calibration = calibrate(weights, samplers.held_out, config.seed, device)
        calibration.save(out / SHIPPED_CALIBRATION.name)
    return weights


def held_out_tracks(n_tracks: int, config: TrainConfig) -> list[int]:
    """Choose the tracks that are kept for validation."""
    order = np.random.default_rng(config.seed).permutation(n_tracks)
    return sorted(map(int, order[: config.n_held_out]))


def open_samplers(
    sources: Sources,
    cache: Path,
    config: TrainConfig,
    recipe: Recipe,
    device: torch.device | str = "cpu",
) -> Samplers:
    """Decode the audio unless it is cached, compose noise, and split the music into two parts.

    One part is for training, with the synthetic tunes, the other for validation. Held-out tracks
    are used nowhere in training, not even as noise. On a GPU all samples are in its memory, two
    bytes each.

    Raises
    ------
    ConfigError
        A folder has no audio, or there are too few tracks to split.
    """
    for folder in sources.folders().values():
        audio_paths(folder)  # refuses an empty folder before the others are decoded
    rate = recipe.spectrogram.sample_rate

    def pool(folder: Path, more: Path | None = None) -> AudioPool:
        own = AudioPool.from_folder(folder, cache, rate)
        return (own if more is None else own.concatenate(pool(more))).to(device)

    music, noise, rooms = map(pool, (sources.music, sources.noise, sources.rooms))
    speech = pool(sources.speech, sources.voices)
    all_music = music if sources.tunes is None else music.concatenate(pool(sources.tunes))
    held_out = held_out_tracks(len(music), config)
    rest = [track for track in range(len(music)) if track not in held_out]
    composed = None
    if config.augment.composed_noise_prob:
        generator = np.random.default_rng((config.seed, *_COMPOSED_KEY))
        composed = compose_pool(generator, config.augment.composed_minutes, rate, speech).to(device)
    mixer = NoiseMixer(noise, speech, music.subset(rest), composed)
    reverb = Reverb.from_pool(rooms, rate)
    trained = [*rest, *range(len(music), len(all_music))]
    samplers = Samplers(
        PairSampler(all_music, np.array(trained), mixer, reverb, config.augment),
        PairSampler(music, np.array(held_out), mixer, reverb, config.augment),
    )
    if not all(len(sampler.tracks) for sampler in samplers):
        reason = f"{sources.music} has too few recordings to hold out {config.n_held_out} of them"
        raise ConfigError("n_held_out", reason)
    return samplers


def train_encoder(
    learner: Learner, samplers: Samplers, out: Path, run_log: RunLog, started_at: float
) -> int:
    """Train the encoder for the remaining steps, from the last checkpoint if there is one.

    The time limit counts from `started_at`, which includes decoding. The last checkpoint is
    written, but not validated.

    Returns
    -------
    int
        Number of steps done.
    """
    config, checkpoint = learner.config, out / CHECKPOINT
    first_step = learner.load(checkpoint) if checkpoint.exists() else 0
    if _rank() == 0:
        run_log.truncate(first_step)
    learner.model.train()
    saved_at = time.monotonic()
    for step, features in _batches(learner, samplers.training, first_step):
        elapsed_s = _of_first_process(time.monotonic() - started_at, learner.device)
        rate = learning_rate(step, config, elapsed_s)
        metrics = learner.step(features, rate)
        is_last = step + 1 == config.n_steps or not time_left(config, elapsed_s)
        if _rank() == 0:
            run_log.log_step(step, **metrics._asdict(), learning_rate=rate, elapsed_s=elapsed_s)
            if time.monotonic() - saved_at > config.checkpoint_every_s or is_last:
                learner.save(checkpoint, step + 1)
                saved_at = time.monotonic()
            if (step + 1) % config.validate_every == 0 and not is_last:
                _validate(learner, samplers, run_log, step + 1)
        if is_last:
            return step + 1
    return first_step


def _validate(learner: Learner, samplers: Samplers, run_log: RunLog, n_steps: int) -> None:
    """Validate the encoder after `n_steps`, unless the log has that already."""
    if n_steps in dict(run_log.validations()):
        return
    rates = retrieval_hit_rates(learner.model, samplers.held_out, samplers.training, learner.recipe)
    run_log.log_validation(n_steps - 1, rates)


def _of_first_process(value: float, device: torch.device) -> float:
    """Return the value that the first process has, so that all of them stop at the same step."""
    if n_processes() == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(shared, 0)
    return float(shared)


def _batches(
    learner: Learner, sampler: PairSampler, first_step: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield the number and the features of each step; prepare the next while one is processed."""
    config = learner.config
    n_pairs = config.n_pairs // n_processes()
    n_samples = learner.recipe.spectrogram.samples_per_segment

    def prepare(step: int) -> Tensor:
        rng = Rng((config.seed, step, _rank()), learner.device)
        return learner.features(sampler.draw(rng, n_pairs, n_samples), rng)

    with ThreadPoolExecutor(1) as executor:
        prepared = executor.submit(prepare, first_step)
        for step in range(first_step, config.n_steps):
            features = prepared.result()
            prepared = executor.submit(prepare, step + 1)
            yield step, features


def _initial_models(path: Path | None, recipe: Recipe | None) -> tuple[AST, ClipHead, Recipe]:
    """Build or load the models that a run starts with, and their recipe."""
    if path is None:
        recipe = recipe or Recipe()
        return *new_models(recipe), recipe
    weights = _load_any(path)
    initial = dataclasses.replace(weights.recipe, weights_sha256="")
    if recipe not in (None, initial):
        raise ModelError(path, f"it has another shape than the run: {initial.encoder}")
    return weights.network, new_clip_head(initial), initial


def _load_any(path: Path) -> Weights:
    """Load a weights file or a published checkpoint."""
    if path.suffix == ".safetensors":
        return load_weights(path)
    return ASTModel.from_pretrained(path, device="cpu", **_CHECKPOINT_CHANGES).weights()


def _join_processes(device: str) -> torch.device:
    """Join the other processes of ``torchrun``, if there are any; returns this one's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return torch.device(device)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    if device == "cpu":
        return torch.device(device)
    own = torch.device(device, int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(own)
    return own


def _leave_processes() -> bool:
    """Dissolve the process group; returns whether this process is the first and continues.

    The others must not wait for it, because its remaining work exceeds the group's time limit.
    """
    is_first = _rank() == 0
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
    return is_first


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0
