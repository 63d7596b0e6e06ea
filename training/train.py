"""Train the encoder, then the clip head on top of it; stop at any time and go on later.

Step `n` draws all its randomness from ``(seed, n)``, so a run that was interrupted gives the same
losses as one that was not.
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

from engine.errors import ConfigError, ModelError
from engine.model.ast_model import ASTModel
from engine.model.fingerprinter import resolve_device
from engine.model.network import AST, ClipHead, new_clip_head, new_models
from engine.model.weights import Weights, load_weights, save_weights
from engine.recipe import Recipe
from engine.search.calibration import SHIPPED_CALIBRATION
from training.augment.noise import Noises
from training.augment.pool import AudioPool
from training.augment.reverb import Rooms
from training.augment.rng import Chance
from training.calibrate import calibrate
from training.clip_head import train_clips
from training.config import TrainConfig
from training.dataset import PairSampler
from training.learner import Learner, learning_rate, n_processes
from training.run_log import Journal
from training.validate import retrieve

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"
# What a published checkpoint becomes: segments of 1.02 s, a projection instead of the classes.
_CUT: dict[str, Any] = {"target_length": 100, "num_classes": 0, "fingerprint_dim": 128}


class Sources(NamedTuple):
    """Folders of audio to train on."""

    music: Path
    noise: Path
    speech: Path
    rooms: Path


class Samplers(NamedTuple):
    """What is learned from, and what is kept for validation."""

    training: PairSampler
    held_out: PairSampler


def train(
    sources: Sources,
    out: Path,
    config: TrainConfig,
    recipe: Recipe | None = None,
    *,
    init_from: Path | None = None,
    device: str = "auto",
) -> Path:
    """Run or resume a training run.

    Started by ``torchrun`` it uses all its processes, each with its share of every batch.

    Parameters
    ----------
    sources : Sources
    out : Path
        Folder for the decoded audio, the log, the checkpoints, ``weights.safetensors`` and
        ``calibration.json``.
    config : TrainConfig
    recipe : Recipe, optional
        That of `init_from` by default, and the shipped model's without.
    init_from : Path, optional
        Weights to begin with instead of random ones: astound's, or a published checkpoint as
        :meth:`engine.model.ast_model.ASTModel.from_pretrained` reads it, cut to segments of one
        second.
    device : {"auto", "cpu", "cuda"}

    Returns
    -------
    Path
        The finished weights.

    Raises
    ------
    ConfigError
        There is too little to train on, or a folder holds nothing.
    ModelError
        `init_from`, or the checkpoint in `out`, has another shape.
    """
    out.mkdir(parents=True, exist_ok=True)
    place = _join_processes(resolve_device(device))
    if config.n_pairs % n_processes():
        requirement = f"must be a multiple of the number of processes ({n_processes()})"
        raise ConfigError.invalid("n_pairs", config.n_pairs, requirement)
    torch.manual_seed(config.seed)
    model, clip_head, recipe = _beginning(init_from, recipe)
    samplers = open_samplers(sources, out / "cache", config, recipe)
    learner = Learner(model.to(place), config, recipe)
    journal = train_segments(learner, samplers, out)
    weights = out / "weights.safetensors"
    if _goes_on_alone():
        record = {"config": dataclasses.asdict(config), "validations": journal.validations()}
        clip_head = clip_head.to(place)
        clips = train_clips(model.eval(), clip_head, samplers.training, config, recipe)
        save_weights(weights, Weights(model, clip_head, recipe, record | clips))
        calibration = calibrate(weights, samplers.held_out, config.seed, device)
        calibration.save(out / SHIPPED_CALIBRATION.name)
    return weights


def held_out_tracks(n_tracks: int, config: TrainConfig) -> list[int]:
    """Choose the tracks that are kept for validation."""
    chosen = np.random.default_rng(config.seed).permutation(n_tracks)[: config.n_held_out]
    return sorted(int(track) for track in chosen)


def open_samplers(sources: Sources, cache: Path, config: TrainConfig, recipe: Recipe) -> Samplers:
    """Decode what is not decoded yet and part training from validation.

    Held-out tracks are heard nowhere in training, not even as noise.

    Raises
    ------
    ConfigError
        A folder holds nothing, or there is too little music to part.
    """
    rate = recipe.spectrogram.sample_rate
    music, noise, speech, rooms = (AudioPool.of(folder, cache, rate) for folder in sources)
    held_out = held_out_tracks(len(music), config)
    rest = [track for track in range(len(music)) if track not in held_out]
    noises = Noises(noise, speech, music.only(rest))
    responses = Rooms.of(rooms, rate)
    samplers = Samplers(
        *(
            PairSampler(music, np.array(tracks), noises, responses, config.augment)
            for tracks in (rest, held_out)
        )
    )
    if not all(len(sampler.tracks) for sampler in samplers):
        reason = f"{sources.music} has too few recordings to keep {config.n_held_out} of them back"
        raise ConfigError("n_held_out", reason)
    return samplers


def train_segments(learner: Learner, samplers: Samplers, out: Path) -> Journal:
    """Train the encoder to the end of its steps, from the last checkpoint if there is one."""
    config, checkpoint = learner.config, out / CHECKPOINT
    journal = Journal(out)
    first_step = learner.load(checkpoint) if checkpoint.exists() else 0
    if _rank() == 0:
        journal.forget_from(first_step)
    learner.model.train()
    began = saved = time.monotonic()
    for step, features in _batches(learner, samplers.training, first_step):
        rate = learning_rate(step, config)
        progress = learner.learn(features, rate)
        if _rank():
            continue
        elapsed_s = time.monotonic() - began
        journal.note(step, **progress._asdict(), learning_rate=rate, elapsed_s=elapsed_s)
        if (step + 1) % config.validate_every == 0 or step + 1 == config.n_steps:
            rates = retrieve(learner.model, samplers.held_out, samplers.training, learner.recipe)
            journal.note_validation(step, rates)
        if time.monotonic() - saved > config.checkpoint_every_s or step + 1 == config.n_steps:
            learner.save(checkpoint, step + 1)
            saved = time.monotonic()
    return journal


def _batches(
    learner: Learner, sampler: PairSampler, first_step: int
) -> Iterator[tuple[int, Tensor]]:
    """Prepare each batch while the one before is learned from."""
    config = learner.config
    n_pairs = config.n_pairs // n_processes()
    n_samples = learner.recipe.spectrogram.samples_per_segment

    def prepare(step: int) -> Tensor:
        chance = Chance((config.seed, step, _rank()), learner.device)
        return learner.features(sampler.draw(chance, n_pairs, n_samples), chance)

    with ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(prepare, first_step)
        for step in range(first_step, config.n_steps):
            features = waiting.result()
            waiting = beside.submit(prepare, step + 1)
            yield step, features


def _beginning(path: Path | None, recipe: Recipe | None) -> tuple[AST, ClipHead, Recipe]:
    """Make the models a run begins with, and the recipe they are of."""
    if path is None:
        recipe = recipe or Recipe()
        return *new_models(recipe), recipe
    network, found = _network_of(path)
    found = dataclasses.replace(found, weights_sha256="")
    if recipe not in (None, found):
        raise ModelError(path, f"it has another shape than the run: {found.encoder}")
    return network, new_clip_head(found), found


def _network_of(path: Path) -> tuple[AST, Recipe]:
    if path.suffix == ".safetensors":
        network, _, recipe, _, _ = load_weights(path)
        return network, recipe
    network, _, recipe, _, _ = ASTModel.from_pretrained(path, device="cpu", **_CUT).weights()
    return network, recipe


def _join_processes(device: str) -> torch.device:
    """Meet the other processes of ``torchrun``, if there are any; gives this one's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return torch.device(device)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    if device == "cpu":
        return torch.device(device)
    own = torch.device(device, int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(own)
    return own


def _goes_on_alone() -> bool:
    """Let all processes go but the first, for what one does alone takes longer than they wait."""
    is_first = _rank() == 0
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
    return is_first


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0
