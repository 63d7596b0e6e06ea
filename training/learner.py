"""One optimizer step of contrastive learning, on one device or on several.

A segment and its degraded version attract each other, all other segments of the batch repel (Chang
et al. 2021, arXiv 2010.11910).
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from engine.device import has_fast_bfloat16
from engine.errors import ModelError
from engine.files import atomic_write
from engine.model import spectrogram
from engine.model.network import AST, Attention, Block
from engine.model.supervised import optimizer_state, optimizer_tensors
from engine.recipe import Recipe
from training import loss
from training.augment import channel
from training.augment.rng import Rng
from training.config import TrainConfig
from training.dataset import Pairs
from training.muon import Float32Muon


class StepMetrics(NamedTuple):
    """Loss and hit rate in the batch, before the step."""

    loss: float
    hit_rate: float


class Learner:
    """A model with its optimizers.

    The weights are float32; a copy of the model computes embeddings and gradients, in bfloat16
    where the device is faster with it.

    Parameters
    ----------
    model : AST
        In training mode, on the device to train on.
    config : TrainConfig
    recipe : Recipe
    """

    def __init__(self, model: AST, config: TrainConfig, recipe: Recipe) -> None:
        self.model, self.config, self.recipe = model, config, recipe
        self.device = next(model.parameters()).device
        self.optimizers = optimizers(model, config)
        self._loss = loss.choose(config)
        is_fast = has_fast_bfloat16(self.device.type)
        self._dtype = torch.bfloat16 if is_fast else torch.float32
        self._working = copy.deepcopy(model).train().to(self._dtype)
        for block in self._working.blocks:
            assert isinstance(block, Block)
            if self.device.type == "cpu":
                block.attention.mix = partial(_mix, block.attention)  # type: ignore[method-assign]
            if config.gradient_checkpointing:
                block.forward = partial(_checkpointed, block.forward)  # type: ignore[method-assign]
        self._embed_working: Callable[[Tensor], Tensor] = self._working.embed
        if config.compiled:
            self._embed_working = torch.compile(self._working.embed)

    def features(self, pairs: Pairs, rng: Rng) -> Tensor:
        """Compute the features of both views, the clean ones first.

        Parameters
        ----------
        pairs : Pairs
        rng : Rng
            Draws the masks of the degraded views.

        Returns
        -------
        float32 tensor of shape (2 * n_pairs, n_frames, n_mels)
        """
        settings = self.recipe.spectrogram
        clean, degraded = (
            spectrogram.normalise(spectrogram.log_mel(view, settings), settings)
            for view in (pairs.clean, pairs.degraded)
        )
        return torch.cat([clean, channel.mask(degraded, rng, self.config.augment)])

    def step(self, features: Tensor, rate: float) -> StepMetrics:
        """Take one step.

        Parameters
        ----------
        features : float32 tensor of shape (2 * n_pairs, n_frames, n_mels)
            This process's part of the batch.
        rate : float
            Learning rate.

        Returns
        -------
        StepMetrics
        """
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        self._copy_weights()
        fits = len(features) <= 2 * self.config.n_pairs_per_chunk
        value, embeddings = self._backward(features) if fits else self._backward_in_chunks(features)
        self._copy_gradients()
        if n_processes() > 1:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        return StepMetrics(value, loss.hit_rate(embeddings))

    def _backward(self, features: Tensor) -> tuple[float, Tensor]:
        """Compute gradients; returns the loss and the embeddings of all processes."""
        embeddings = _gather(self._embed(features))
        value = self._loss(embeddings)
        value.backward()
        return float(value.detach()), embeddings.detach()

    def _backward_in_chunks(self, features: Tensor) -> tuple[float, Tensor]:
        """Embed all chunks, compute the loss's gradient, then embed each chunk again with it."""
        chunks = features.split(2 * self.config.n_pairs_per_chunk)
        with torch.no_grad():
            own = torch.cat([self._embed(chunk) for chunk in chunks])
        own.requires_grad_()
        embeddings = _gather(own)
        value = self._loss(embeddings)
        (gradient,) = torch.autograd.grad(value, own)
        for chunk, part in zip(chunks, gradient.split(len(chunks[0])), strict=True):
            self._embed(chunk).backward(part)
        return float(value.detach()), embeddings.detach()

    def _embed(self, features: Tensor) -> Tensor:
        return self._embed_working(features.to(self._dtype))

    @torch.no_grad()
    def _copy_weights(self) -> None:
        """Round the weights for the working copy, and forget its gradients."""
        self._working.zero_grad(set_to_none=True)
        for own, working in zip(self.model.parameters(), self._working.parameters(), strict=True):
            working.copy_(own)

    def _copy_gradients(self) -> None:
        for own, working in zip(self.model.parameters(), self._working.parameters(), strict=True):
            own.grad = None if working.grad is None else working.grad.to(own.dtype)

    def save(self, path: Path, n_steps: int) -> None:
        """Write weights, optimizer states, the number of steps done, config and recipe."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            tensors |= optimizer_tensors(optimizer, f"optimizer.{i}.")
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        metadata = {
            "n_steps": str(n_steps),
            "config": json.dumps(dataclasses.asdict(self.config)),
            "recipe": json.dumps(self.recipe.to_dict()),
        }
        with atomic_write(path) as partial:
            save_file(tensors, partial, metadata)

    def load(self, path: Path) -> int:
        """Restore what :meth:`save` wrote.

        Returns
        -------
        int
            Number of steps done.

        Raises
        ------
        ModelError
            The file is damaged, or belongs to a model of another shape.
        """
        try:
            tensors = load_file(path)
            self.model.load_state_dict(
                {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
            )
        except (SafetensorError, RuntimeError) as error:
            reason = "not a checkpoint of this model; use another folder for another run"
            raise ModelError(path, reason) from error
        for i, optimizer in enumerate(self.optimizers):
            state = optimizer_state(tensors, f"optimizer.{i}.")
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        with safe_open(path, framework="pt") as file:
            return int(file.metadata()["n_steps"])


def time_left(config: TrainConfig, elapsed_s: float) -> float:
    """Compute the share of the run's time that is left, in [0, 1]; 1 without a time limit."""
    return max(1 - elapsed_s / (60 * config.max_minutes), 0.0) if config.max_minutes else 1.0


def learning_rate(step: int, config: TrainConfig, elapsed_s: float = 0.0) -> float:
    """Compute a rate that rises and falls linearly, constant between (Hu et al. 2404.06395)."""
    fraction, n_steps = config.cooldown_fraction, config.n_steps
    rising = (step + 1) / max(config.n_warmup_steps, 1)
    falling = (n_steps - step) / max(fraction * n_steps, 1)
    if config.max_minutes and fraction:
        falling = min(falling, time_left(config, elapsed_s) / fraction)
    return config.learning_rate * min(1.0, rising, falling)


def optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Build AdamW; with "muon", also Muon for the matrices of the transformer's layers.

    Muon (Jordan et al. 2024) takes steps of equal length in all directions of a matrix. They are
    scaled to the length of AdamW's (Liu et al. 2025, arXiv 2502.16982), so that both share one
    learning rate.
    """
    inner: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_inner = name.startswith("blocks.") and parameter.ndim == 2
        (inner if is_inner and config.optimizer == "muon" else rest).append(parameter)
    decay = config.weight_decay
    adamw = torch.optim.AdamW(rest, weight_decay=decay, betas=(0.9, 0.98))
    if not inner:
        return [adamw]
    muon = torch.optim.Muon if has_fast_bfloat16(inner[0].device.type) else Float32Muon
    return [adamw, muon(inner, weight_decay=decay, adjust_lr_fn="match_rms_adamw")]


def n_processes() -> int:
    """Return the number of processes that share each batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _checkpointed(block: Callable[..., Tensor], x: Tensor, n_out: int | None = None) -> Tensor:
    """Run a block and compute its activations again in the backward pass."""
    if not torch.is_grad_enabled():
        return block(x, n_out)
    out: Tensor = checkpoint(block, x, n_out, use_reentrant=False)
    return out


def _mix(attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute :meth:`Attention.mix` step by step, because CPUs take half the time for that."""
    shares = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)).softmax(dim=-1)
    return F.dropout(shares, attention.dropout) @ v


def _gather(embeddings: Tensor) -> Tensor:
    """Concatenate the embeddings of all processes; gradients flow to this process's part.

    Returns
    -------
    float32 tensor of shape (2 * n_pairs of the batch, dim)
        The clean views of all processes, then the degraded ones.
    """
    if n_processes() == 1:
        return embeddings
    parts = [torch.empty_like(embeddings) for _ in range(n_processes())]
    dist.all_gather(parts, embeddings.detach().contiguous())
    parts[dist.get_rank()] = embeddings
    clean, degraded = zip(*(part.chunk(2) for part in parts), strict=True)
    return torch.cat([*clean, *degraded])
