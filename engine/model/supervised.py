"""Training with labels: optimizer steps, gradients, mixup, SpecAugment, targets and losses.

The defaults are those of the published models (Gong, Chung, Glass 2021, arXiv 2104.01778): mixup
(Tokozume et al. 2018, arXiv 1711.10282) of half the inputs, and SpecAugment (Park et al. 2019,
arXiv 1904.08779) with one mask along each axis. Random numbers come from a generator on the CPU,
so one seed gives the same result on every device.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils.data import DataLoader

from engine.errors import ConfigError, ModelError
from engine.files import atomic_write
from engine.model.network import AST
from engine.recipe import ASTConfig

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Loss = Callable[[Tensor, Tensor], Tensor]


class TrainableModel(ABC):
    """The part of :class:`engine.model.ast_model.ASTModel` that changes its weights.

    Parameters
    ----------
    optimizer : callable, optional
        Builds an optimizer of parameters; Adam with the published settings by default.
    loss : callable, optional
        Computes the loss from (logits, targets). By default binary cross-entropy if
        `config.multi_label`, else cross-entropy.
    """

    def __init__(self, optimizer: OptimizerFactory | None = None, loss: Loss | None = None) -> None:
        self._optimizer_factory, self._loss = optimizer or _published_adam, loss
        self._optimizer: torch.optim.Optimizer | None = None

    @property
    @abstractmethod
    def config(self) -> ASTConfig:
        """Shape of the network."""

    @abstractmethod
    def preprocess(self, audio: Any) -> Tensor:
        """Convert waveforms to features."""

    @abstractmethod
    def _segments(self, audio: Any) -> Iterable[Tensor]:
        """Convert waveforms of any length to the features of consecutive segments."""

    @abstractmethod
    def _one_segment(self, audio: Any) -> Tensor:
        """Convert waveforms to features; AudioError if they are longer than one segment."""

    @abstractmethod
    def _trainable_network(self) -> AST:
        """Return the network; ModelError if it has no weights to train."""

    # -- weights as one vector ------------------------------------------------------------------

    def parameters_vector(self) -> Tensor:
        """Return all weights of the network, concatenated.

        Returns
        -------
        float32 tensor of shape (n_parameters,), on the CPU
        """
        return parameters_to_vector(self._trainable_network().parameters()).detach().cpu()

    def update_parameters(self, vector: Tensor) -> None:
        """Set all weights from a vector as :meth:`parameters_vector` returns it.

        Parameters
        ----------
        vector : float tensor of shape (n_parameters,)

        Raises
        ------
        ConfigError
            The vector has another size.
        """
        parameters = list(self._trainable_network().parameters())
        values = torch.as_tensor(vector, dtype=torch.float32, device=parameters[0].device)
        n_parameters = sum(parameter.numel() for parameter in parameters)
        if values.shape != (n_parameters,):
            raise ConfigError.invalid(
                "vector.shape", tuple(values.shape), f"must be ({n_parameters},)"
            )
        with torch.no_grad():
            copies = [torch.empty_like(parameter) for parameter in parameters]
            vector_to_parameters(values, copies)
            for parameter, value in zip(parameters, copies, strict=True):
                parameter.copy_(value)

    # -- gradients ------------------------------------------------------------------------------

    def compute_gradients(self, audio: Any, targets: Any) -> Tensor:
        """Compute the gradient of the loss with respect to all weights, without a step.

        Parameters
        ----------
        audio : array of shape (n_samples,) or (batch, n_samples)
            The logits of consecutive segments are averaged, as in prediction.
        targets : array of shape (batch,) of class indices, or (batch, num_classes) in [0, 1]

        Returns
        -------
        float32 tensor of shape (n_parameters,), on the CPU
            In the order of :meth:`parameters_vector`; zero for weights that the loss does not
            depend on.
        """
        parameters = list(self._trainable_network().parameters())
        loss = self._mean_loss(self._segments(audio), targets)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        return torch.cat([gradient.flatten() for gradient in gradients]).cpu()

    def input_gradients(self, audio: Tensor, targets: Any) -> tuple[Tensor, Tensor]:
        """Compute the gradient of the loss with respect to the input.

        Parameters
        ----------
        audio : array of shape (n_samples,) or (batch, n_samples)
            Not longer than one segment.
        targets : array
            As for :meth:`compute_gradients`.

        Returns
        -------
        feature_gradient : float32 tensor of shape (batch, n_frames, n_mels)
        waveform_gradient : float32 tensor of the shape of `audio`
        """
        waveform = torch.as_tensor(audio, dtype=torch.float32).clone().requires_grad_()
        features = self._one_segment(waveform)
        loss = self.loss(features, targets)
        of_features, of_waveform = torch.autograd.grad(loss, [features, waveform])
        return of_features.cpu(), of_waveform.cpu()

    def loss(self, features: Tensor, targets: Any) -> Tensor:
        """Compute the loss of a batch.

        Parameters
        ----------
        features : float32 tensor of shape (batch, n_frames, n_mels)
        targets : array
            As for :meth:`compute_gradients`.

        Returns
        -------
        float tensor of shape ()
        """
        return self._mean_loss([features], targets)

    def _mean_loss(self, segments: Iterable[Tensor], targets: Any) -> Tensor:
        """Compute the loss of the mean logits of all segments."""
        network = self._trainable_network()
        self._require_classes()
        compute = self._loss or default_loss(self.config)
        logits = torch.stack([network(features) for features in segments]).mean(0)
        return compute(logits, as_targets(targets, self.config).to(logits.device))

    # -- steps ----------------------------------------------------------------------------------

    def train_step(self, audio: Any, targets: Any) -> float:
        """Take one step of the optimizer.

        Parameters
        ----------
        audio : array of shape (batch, n_samples)
            The logits of consecutive segments are averaged, as in prediction.
        targets : array of shape (batch,) of class indices, or (batch, num_classes) in [0, 1]

        Returns
        -------
        float
            The loss before the step.
        """
        return self._step(self._segments(audio), targets)

    def _step(self, segments: Iterable[Tensor], targets: Any) -> float:
        network, optimizer = self._trainable_network(), self._current_optimizer()
        network.train()
        try:
            loss = self._mean_loss(segments, targets)
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
        mixup_prob: float = 0.5,
        freq_mask: int = 48,
        time_mask: int = 192,
        seed: int = 0,
        on_step: Callable[[int, float], None] = lambda step, loss: None,
    ) -> list[float]:
        """Train on labelled audio with mixup of the waveforms and SpecAugment of the features.

        Parameters
        ----------
        dataset : sequence of (waveform, target)
            Waveforms of equal length, (n_samples,), not longer than one segment; targets are class
            indices or (num_classes,).
        n_epochs, batch_size : int
        mixup_prob : float
            Probability that an example is mixed with another one.
        freq_mask, time_mask : int
            Maximum number of mel bands and frames to mask.
        seed : int
            Of the order, mixup and the masks.
        on_step : callable
            Called with the number of each step and its loss.

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
            for waveforms, labels in loader:
                targets = as_targets(labels, self.config)
                mixed, targets = mixup(waveforms.float(), targets, generator, mixup_prob)
                features = self._one_segment(mixed)
                masked = spec_augment(features, generator, freq_mask, time_mask)
                losses.append(self._step([masked], targets))
                on_step(step, losses[-1])
                step += 1
            means.append(sum(losses) / max(len(losses), 1))
        return means

    def _require_classes(self) -> None:
        if not self.config.num_classes:
            raise ModelError("the model", "it has no classes; set num_classes in its config")

    def _current_optimizer(self) -> torch.optim.Optimizer:
        if self._optimizer is None:
            self._optimizer = self._optimizer_factory(self._trainable_network().parameters())
        return self._optimizer

    # -- state ----------------------------------------------------------------------------------

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Write weights and optimizer state, so that training can be resumed exactly."""
        groups = self._current_optimizer().state_dict()["param_groups"]
        tensors = {f"network.{k}": v for k, v in self._trainable_network().state_dict().items()}
        tensors |= optimizer_tensors(self._current_optimizer(), "optimizer.")
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        with atomic_write(Path(path)) as partial:
            save_file(tensors, partial, {"param_groups": json.dumps(groups)})

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Restore what :meth:`save_state` wrote.

        Raises
        ------
        ModelError
            The file is damaged, or belongs to a model of another shape.
        """
        network = self._trainable_network()
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
            raise ModelError(path, f"not a saved state of this model ({error})") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """Name the state that an optimizer keeps for each parameter, for a file of tensors."""
    return {
        f"{prefix}{index}.{name}": torch.as_tensor(value)
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if value is not None
    }


def optimizer_state(tensors: Mapping[str, Tensor], prefix: str) -> dict[int, dict[str, Tensor]]:
    """Collect what :func:`optimizer_tensors` named into the "state" of a state dict."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(prefix):
            index, name = key.removeprefix(prefix).split(".")
            state.setdefault(int(index), {})[name] = tensor
    return state


def _published_adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Build Adam with the settings that the original repository uses on AudioSet."""
    return torch.optim.Adam(parameters, lr=1e-5, weight_decay=5e-7, betas=(0.95, 0.999))


# -- inputs ----------------------------------------------------------------------------------


def mixup(
    waveforms: Tensor, targets: Tensor, generator: Generator, prob: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Mix some waveforms of a batch with others of it, and their targets in the same way.

    A mixed waveform is ``weight * first + (1 - weight) * second`` with a weight from Beta(10, 10).

    Parameters
    ----------
    waveforms : float tensor of shape (n, n_samples)
    targets : float tensor of shape (n, num_classes)
        As :func:`as_targets` returns them.
    generator : torch.Generator
    prob : float
        Probability that a waveform is mixed, in [0, 1].

    Returns
    -------
    waveforms : float tensor of shape (n, n_samples)
    targets : float tensor of shape (n, num_classes)
    """
    if not 0 <= prob <= 1:
        raise ConfigError.invalid("prob", prob, "must be in [0, 1]")
    n = len(waveforms)
    partners = torch.randperm(n, generator=generator)
    # The median of 19 uniform numbers follows Beta(10, 10).
    weights = torch.rand(n, 19, generator=generator).median(dim=1).values
    weights[torch.rand(n, generator=generator) >= prob] = 1.0
    return _mix(waveforms, partners, weights), _mix(targets, partners, weights)


def _mix(values: Tensor, partners: Tensor, weights: Tensor) -> Tensor:
    weights = weights[:, None].to(values)
    return weights * values + (1 - weights) * values[partners.to(values.device)]


def spec_augment(
    features: Tensor, generator: Generator, freq_mask: int = 48, time_mask: int = 192
) -> Tensor:
    """Mask one range of bands and one range of frames in each input.

    Parameters
    ----------
    features : float tensor of shape (n, n_frames, n_mels), normalised
    generator : torch.Generator
    freq_mask, time_mask : int
        Maximum number of bands and frames to mask. The number is drawn uniformly from 0 on. The
        defaults are the published ones for 128 bands and 1024 frames.

    Returns
    -------
    float tensor of shape (n, n_frames, n_mels)
        Masked values are 0, the mean of normalised features.

    Raises
    ------
    ConfigError
        A mask is negative or larger than the features.
    """
    n, n_frames, n_mels = features.shape
    _require_mask_fits("time_mask", time_mask, n_frames)
    _require_mask_fits("freq_mask", freq_mask, n_mels)
    frames = _draw_range(n, n_frames, time_mask, generator)
    bands = _draw_range(n, n_mels, freq_mask, generator)
    masked = frames[:, :, None] | bands[:, None, :]
    return features.masked_fill(masked.to(features.device), 0.0)


def _require_mask_fits(key: str, mask: int, length: int) -> None:
    if not 0 <= mask <= length:
        raise ConfigError.invalid(key, mask, f"must be from 0 to {length}")


def _draw_range(n: int, length: int, max_size: int, generator: Generator) -> Tensor:
    """Draw n ranges of 0 to `max_size` of `length` positions, bool tensor of shape (n, length)."""
    size = torch.randint(max_size + 1, (n, 1), generator=generator)
    first = (torch.rand(n, 1, generator=generator) * (length - size + 1)).long()
    positions = torch.arange(length)
    return (positions >= first) & (positions < first + size)


# -- targets and losses ----------------------------------------------------------------------


def default_loss(config: ASTConfig) -> nn.Module:
    """Build binary cross-entropy for independent classes, else cross-entropy.

    Returns
    -------
    torch.nn.Module
        Computes the mean loss from logits and targets, both of shape (n, num_classes).
    """
    return nn.BCEWithLogitsLoss() if config.multi_label else nn.CrossEntropyLoss()


def as_targets(targets: Tensor | ArrayLike, config: ASTConfig) -> Tensor:
    """Convert class indices or probabilities to the form that losses and :func:`mixup` take.

    Parameters
    ----------
    targets : array-like of shape (n,) or (n, num_classes)
        The class index of each input, or the probability of each class in [0, 1]. The
        probabilities of an input sum to 1 unless `config.multi_label`.
    config : ASTConfig

    Returns
    -------
    float32 tensor of shape (n, num_classes)

    Raises
    ------
    ConfigError
        The targets are neither of both, or the model has no classes.
    """
    if not config.num_classes:
        raise ConfigError.invalid("num_classes", 0, "must be positive to learn from targets")
    try:
        values = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError("targets", f"must be numbers of one shape ({error})") from error
    if values.ndim == 1 and not values.is_floating_point():
        return _one_hot(values, config.num_classes)
    return _as_probabilities(values.float(), config)


def _one_hot(indices: Tensor, num_classes: int) -> Tensor:
    wrong = indices[(indices < 0) | (indices >= num_classes)]
    if len(wrong):
        raise ConfigError.invalid("targets", int(wrong[0]), f"must be from 0 to {num_classes - 1}")
    return F.one_hot(indices.long(), num_classes).float()


def _as_probabilities(values: Tensor, config: ASTConfig) -> Tensor:
    if values.ndim != 2 or values.shape[1] != config.num_classes:
        raise ConfigError.invalid(
            "targets.shape",
            tuple(values.shape),
            f"must be (n,) for indices or (n, {config.num_classes}) for probabilities",
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise ConfigError("targets", "must be in [0, 1]")
    if not config.multi_label and not torch.allclose(
        values.sum(dim=1), torch.ones_like(values[:, 0]), atol=1e-3
    ):
        raise ConfigError("targets", "each row must sum to 1, because exactly one class is right")
    return values
