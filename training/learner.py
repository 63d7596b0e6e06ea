"""One optimizer step of contrastive learning, on one device or on several.

Chang et al. 2021 (arXiv 2010.11910): a segment and its degraded self attract each other, everything
else in the batch repels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from engine.errors import ModelError
from engine.files import atomic_write
from engine.model import spectrogram
from engine.model.network import AST
from engine.model.supervised import optimizer_state, optimizer_tensors
from engine.recipe import Recipe
from training import loss
from training.augment import channel
from training.augment.rng import Chance
from training.config import TrainConfig
from training.dataset import Pairs


class Progress(NamedTuple):
    """What a step tells about itself."""

    loss: float
    hit_rate: float


class Learner:
    """A model with its optimizer.

    Parameters
    ----------
    model : AST
        On the device to train on.
    config : TrainConfig
    recipe : Recipe
    """

    def __init__(self, model: AST, config: TrainConfig, recipe: Recipe) -> None:
        self.model, self.config, self.recipe = model, config, recipe
        self.device = next(model.parameters()).device
        self.optimizers = optimizers(model, config)
        self._loss = loss.choose(config)
        if config.checkpointing:
            for block in model.blocks:
                block.forward = partial(_forgetting, block.forward, self.device)

    def features(self, pairs: Pairs, chance: Chance) -> Tensor:
        """Turn both views into what the model reads, the clean ones first.

        Returns
        -------
        float32 tensor of shape (2 * n_pairs, n_frames, n_mels)
        """
        settings = self.recipe.spectrogram
        clean, degraded = (
            spectrogram.normalise(spectrogram.log_mel(view, settings), settings)
            for view in (pairs.clean, pairs.degraded)
        )
        return torch.cat([clean, channel.mask(degraded, chance, self.config.augment)])

    def learn(self, features: Tensor, rate: float) -> Progress:
        """Take one step.

        Parameters
        ----------
        features : float32 tensor of shape (2 * n_pairs, n_frames, n_mels)
            Of this process's share of the batch.
        rate : float
            Learning rate.
        """
        for group in (group for one in self.optimizers for group in one.param_groups):
            group["lr"] = rate
        self.model.zero_grad(set_to_none=True)
        whole = len(features) <= 2 * self.config.n_pairs_at_once
        value, both = self._backward(features) if whole else self._backward_in_pieces(features)
        if n_processes() > 1:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        return Progress(value, loss.hit_rate(both))

    def _backward(self, features: Tensor) -> tuple[float, Tensor]:
        embeddings = self._embed(features)
        both = _of_all_processes(embeddings)
        value = self._loss(both)
        value.backward()
        return float(value.detach()), both.detach()

    def _backward_in_pieces(self, features: Tensor) -> tuple[float, Tensor]:
        """First all embeddings, then the loss's gradient on them, then each piece once more."""
        pieces = features.split(2 * self.config.n_pairs_at_once)
        with torch.no_grad():
            known = torch.cat([self._embed(piece) for piece in pieces])
        known.requires_grad_()
        both = _of_all_processes(known)
        value = self._loss(both)
        (gradient,) = torch.autograd.grad(value, known)
        for piece, part in zip(pieces, gradient.split(len(pieces[0])), strict=True):
            self._embed(piece).backward(part)
        return float(value.detach()), both.detach()

    def _embed(self, features: Tensor) -> Tensor:
        with _fast(self.device):
            return self.model.embed(features)

    def save(self, path: Path, n_steps: int) -> None:
        """Write weights and optimizer state after that many steps."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for which, optimizer in enumerate(self.optimizers):
            tensors |= optimizer_tensors(optimizer, f"optimizer.{which}.")
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        with atomic_write(path) as partial:
            save_file(tensors, partial, {"n_steps": str(n_steps)})

    def load(self, path: Path) -> int:
        """Go back to what :meth:`save` wrote; returns the steps done.

        Raises
        ------
        ModelError
            The file is damaged, or of a model of another shape.
        """
        try:
            tensors = load_file(path)
            self.model.load_state_dict(
                {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
            )
        except (SafetensorError, RuntimeError) as error:
            reason = "no checkpoint of this model; another run needs another folder"
            raise ModelError(path, reason) from error
        for which, optimizer in enumerate(self.optimizers):
            state = optimizer_state(tensors, f"optimizer.{which}.")
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        with safe_open(path, framework="pt") as file:
            return int(file.metadata()["n_steps"])


def learning_rate(step: int, config: TrainConfig) -> float:
    """Rise, stay, then fall to zero: linearly up, linearly down (Hu et al. 2024, 2404.06395)."""
    rising = (step + 1) / max(config.n_warmup_steps, 1)
    falling = (config.n_steps - step) / max(config.cooldown_share * config.n_steps, 1)
    return config.learning_rate * min(1.0, rising, falling)


def optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Make AdamW, and for "muon" Muon for the matrices inside the transformer's layers.

    Muon (Jordan et al. 2024) takes steps of equal length in all directions of a matrix; scaled
    as long as AdamW's are (Liu et al. 2025, arXiv 2502.16982), both share one learning rate.
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
    return [adamw, torch.optim.Muon(inner, weight_decay=decay, adjust_lr_fn="match_rms_adamw")]


def n_processes() -> int:
    """How many processes share each batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _forgetting(
    block: Callable[..., Tensor], device: torch.device, x: Tensor, n_wanted: int | None = None
) -> Tensor:
    """Run a block whose activations are computed again on the way back, in the same way."""

    def run(x: Tensor) -> Tensor:
        with _fast(device):
            return block(x, n_wanted)

    if not torch.is_grad_enabled():
        return block(x, n_wanted)
    out: Tensor = checkpoint(run, x, use_reentrant=False)
    return out


@contextmanager
def _fast(device: torch.device) -> Iterator[None]:
    """bfloat16, and on a CPU no fused attention, whose backward takes 2.3 times as long there."""
    with torch.autocast(device.type, torch.bfloat16):
        if device.type == "cpu":
            with sdpa_kernel(SDPBackend.MATH):
                yield
        else:
            yield


def _of_all_processes(embeddings: Tensor) -> Tensor:
    """Put together what all processes embedded; gradients flow to this one's part.

    Returns
    -------
    float32 tensor of shape (2 * n_pairs of all, dim)
        The first views of all, then the second ones.
    """
    if n_processes() == 1:
        return embeddings
    everyone = [torch.empty_like(embeddings) for _ in range(n_processes())]
    dist.all_gather(everyone, embeddings.detach().contiguous())
    everyone[dist.get_rank()] = embeddings
    first, second = zip(*(part.chunk(2) for part in everyone), strict=True)
    return torch.cat([*first, *second])
