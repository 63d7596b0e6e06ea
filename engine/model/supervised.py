"""What a model needs to learn classes: steps, gradients, its weights as a vector, its state."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils.data import DataLoader

from engine.errors import ConfigError, ModelError
from engine.files import atomic_write
from engine.model import supervision
from engine.model.network import AST
from engine.recipe import ASTConfig

OptimizerOf = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Loss = Callable[[Tensor, Tensor], Tensor]


class Learning(ABC):
    """The half of :class:`engine.model.ast_model.ASTModel` that changes its weights.

    Parameters
    ----------
    optimizer : callable, optional
        Makes an optimizer of parameters; Adam with the published settings by default.
    loss : callable, optional
        Of (logits, targets); binary cross-entropy where classes are independent, else
        cross-entropy by default.
    """

    def __init__(self, optimizer: OptimizerOf | None = None, loss: Loss | None = None) -> None:
        self._optimizer_of, self._loss_of = optimizer or _published_adam, loss
        self._optimizer: torch.optim.Optimizer | None = None

    @property
    @abstractmethod
    def config(self) -> ASTConfig:
        """Its shape."""

    @abstractmethod
    def preprocess(self, audio: Any) -> Tensor:
        """Turn waveforms into what the network reads."""

    @abstractmethod
    def _learnable(self) -> AST:
        """Give the network; ModelError when it cannot learn."""

    # -- weights as one vector ------------------------------------------------------------------

    def parameters_vector(self) -> Tensor:
        """All weights of the network, one behind the other.

        Returns
        -------
        float32 tensor of shape (n_parameters,), on the CPU
        """
        return parameters_to_vector(self._learnable().parameters()).detach().cpu()

    def update_parameters(self, vector: Tensor) -> None:
        """Set all weights from what :meth:`parameters_vector` gave.

        Parameters
        ----------
        vector : float tensor of shape (n_parameters,)

        Raises
        ------
        ConfigError
            It has another size.
        """
        parameters = list(self._learnable().parameters())
        values = torch.as_tensor(vector, dtype=torch.float32, device=parameters[0].device)
        n_wanted = sum(one.numel() for one in parameters)
        if values.shape != (n_wanted,):
            raise ConfigError.invalid("vector.shape", tuple(values.shape), f"must be ({n_wanted},)")
        with torch.no_grad():
            copies = [torch.empty_like(one) for one in parameters]
            vector_to_parameters(values, copies)
            for parameter, value in zip(parameters, copies, strict=True):
                parameter.copy_(value)

    # -- gradients ------------------------------------------------------------------------------

    def compute_gradients(self, audio: Any, targets: Any) -> Tensor:
        """Compute the loss's gradient on all weights; nothing changes.

        Parameters
        ----------
        audio : array of shape (n_samples,) or (batch, n_samples)
        targets : array of shape (batch,) of class indices, or (batch, num_classes) in [0, 1]

        Returns
        -------
        float32 tensor of shape (n_parameters,), on the CPU
            In the order of :meth:`parameters_vector`; zero for weights the loss does not see.
        """
        parameters = list(self._learnable().parameters())
        loss = self.loss(self.preprocess(audio), targets)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        return torch.cat([one.flatten() for one in gradients]).cpu()

    def input_gradients(self, audio: Tensor, targets: Any) -> tuple[Tensor, Tensor]:
        """Compute the loss's gradient on what is heard.

        Parameters
        ----------
        audio : array of shape (n_samples,) or (batch, n_samples)
            No longer than one segment.
        targets : as for :meth:`compute_gradients`

        Returns
        -------
        of_features : float32 tensor of shape (batch, n_frames, n_mels)
        of_waveform : float32 tensor of the shape of `audio`
        """
        waveform = torch.as_tensor(audio, dtype=torch.float32).clone().requires_grad_()
        features = self.preprocess(waveform)
        loss = self.loss(features, targets)
        of_features, of_waveform = torch.autograd.grad(loss, [features, waveform])
        return of_features.cpu(), of_waveform.cpu()

    def loss(self, features: Tensor, targets: Any) -> Tensor:
        """Compute the loss of a batch, a tensor of no dimensions.

        Parameters
        ----------
        features : float32 tensor of shape (batch, n_frames, n_mels)
        targets : as for :meth:`compute_gradients`
        """
        network = self._learnable()
        self._require_classes()
        loss_of = self._loss_of or supervision.default_loss(self.config)
        wanted = supervision.as_targets(targets, self.config).to(features.device)
        return loss_of(network(features), wanted)

    # -- steps ----------------------------------------------------------------------------------

    def train_step(self, audio: Any, targets: Any) -> float:
        """Take one step of the optimizer.

        Parameters
        ----------
        audio : array of shape (batch, n_samples)
        targets : array of shape (batch,) of class indices, or (batch, num_classes) in [0, 1]

        Returns
        -------
        float
            The loss before the step.
        """
        return self._step(self.preprocess(audio), targets)

    def _step(self, features: Tensor, targets: Any) -> float:
        network, optimizer = self._learnable(), self._current_optimizer()
        network.train()
        try:
            loss = self.loss(features, targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        finally:
            network.eval()
        return float(loss.detach())

    def fit(  # noqa: PLR0913 - each is a setting of the published recipe
        self,
        dataset: Any,
        *,
        n_epochs: int = 5,
        batch_size: int = 12,
        mixup_share: float = 0.5,
        freq_mask: int = 48,
        time_mask: int = 192,
        seed: int = 0,
        on_step: Callable[[int, float], None] = lambda step, loss: None,
    ) -> list[float]:
        """Train on labelled audio, as Gong et al. 2021 do: mixup of waveforms, then SpecAugment.

        Parameters
        ----------
        dataset : sequence of (waveform, target)
            Waveforms of equal length, (n_samples,); targets are class indices or (num_classes,).
        n_epochs, batch_size : int
        mixup_share : float
            Share of the examples that are mixed with another.
        freq_mask, time_mask : int
            Mel bands and frames that are hidden at most.
        seed : int
            Of order, mixup and masks.
        on_step : callable
            Told the number of each step and its loss.

        Returns
        -------
        list of float
            Mean loss of each epoch.
        """
        generator = torch.Generator().manual_seed(seed)
        loader = DataLoader(dataset, batch_size, shuffle=True, generator=generator)
        means, step = [], 0
        for _ in range(n_epochs):
            losses = []
            for audio, targets in loader:
                wanted = supervision.as_targets(targets, self.config)
                mixed, wanted = supervision.mixup(audio.float(), wanted, generator, mixup_share)
                features = self.preprocess(mixed)
                hidden = supervision.spec_augment(features, generator, freq_mask, time_mask)
                losses.append(self._step(hidden, wanted))
                on_step(step, losses[-1])
                step += 1
            means.append(sum(losses) / max(len(losses), 1))
        return means

    def _require_classes(self) -> None:
        if not self.config.num_classes:
            raise ModelError(
                "the model", "it has no classes; num_classes in its config gives it some"
            )

    def _current_optimizer(self) -> torch.optim.Optimizer:
        if self._optimizer is None:
            self._optimizer = self._optimizer_of(self._learnable().parameters())
        return self._optimizer

    # -- state ----------------------------------------------------------------------------------

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Write weights and the optimizer's state, to go on later as if nothing had happened."""
        groups = self._current_optimizer().state_dict()["param_groups"]
        tensors = {f"network.{k}": v for k, v in self._learnable().state_dict().items()}
        tensors |= optimizer_tensors(self._current_optimizer(), "optimizer.")
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        with atomic_write(Path(path)) as partial:
            save_file(tensors, partial, {"param_groups": json.dumps(groups)})

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Go back to what :meth:`save_state` wrote.

        Raises
        ------
        ModelError
            The file is damaged, or of a model of another shape.
        """
        network = self._learnable()
        try:
            tensors = load_file(path)
            with safe_open(path, framework="pt") as file:
                groups = json.loads(file.metadata()["param_groups"])
            network.load_state_dict(
                {k.removeprefix("network."): v for k, v in tensors.items() if k[:8] == "network."}
            )
            self._current_optimizer().load_state_dict(
                {"state": optimizer_state(tensors, "optimizer."), "param_groups": groups}
            )
        except (
            OSError,
            SafetensorError,
            LookupError,
            TypeError,
            ValueError,
            RuntimeError,
        ) as error:
            raise ModelError(path, f"no state of this model ({error})") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """Name what an optimizer remembers of each parameter, for a file of tensors."""
    return {
        f"{prefix}{index}.{name}": torch.as_tensor(value)
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if value is not None
    }


def optimizer_state(tensors: Mapping[str, Tensor], prefix: str) -> dict[int, dict[str, Tensor]]:
    """Put together again what :func:`optimizer_tensors` named, the "state" of a state dict."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(prefix):
            index, name = key.removeprefix(prefix).split(".")
            state.setdefault(int(index), {})[name] = tensor
    return state


def _published_adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Make what the original repository trains on AudioSet with."""
    return torch.optim.Adam(parameters, lr=1e-5, weight_decay=5e-7, betas=(0.95, 0.999))
