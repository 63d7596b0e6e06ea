"""The Audio Spectrogram Transformer as a library: classify, embed, fingerprint, train, export.

Gong, Chung, Glass: AST: Audio Spectrogram Transformer. Interspeech 2021 (arXiv 2104.01778).
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from engine.compare import passages
from engine.config import require
from engine.device import resolve_device
from engine.errors import AudioError, AudioTooShortError, ConfigError, ModelError
from engine.model import attribution, checkpoint, onnx, spectrogram
from engine.model.encoder import Encoder
from engine.model.fingerprinter import Fingerprinter
from engine.model.network import (
    AST,
    ClipHead,
    Network,
    check_features,
    new_clip_head,
    new_models,
    with_state,
)
from engine.model.supervised import Loss, OptimizerFactory, TrainableModel
from engine.model.weights import (
    Weights,
    from_bytes,
    load_weights,
    save_weights,
    to_bytes,
    with_weights_hash,
)
from engine.model.weights_file import SHIPPED_WEIGHTS, parse_labels
from engine.recipe import ASTConfig, Recipe, SpectrogramConfig
from engine.records import Fingerprint, Passage
from engine.validation import parse_json

Audio: TypeAlias = "Tensor | NDArray[Any] | Sequence[float] | Sequence[Sequence[float]]"
"""A waveform in [-1, 1] at the model's sample rate, (n_samples,) or (batch, n_samples)."""


class ASTModel(TrainableModel):
    """An Audio Spectrogram Transformer with its front end, labels and optimizer.

    Parameters
    ----------
    config : ASTConfig
        The published base model by default.
    spectrogram : SpectrogramConfig, optional
        The front end; by default the published one (windows of 25 ms every 10 ms, kaldi's filter
        bank).
    labels : sequence of str, optional
        Names of the classes; "class 0", "class 1", ... by default.
    optimizer : callable, optional
        Builds an optimizer of parameters; the published Adam by default.
    loss : callable, optional
        Computes the loss from (logits, targets). By default binary cross-entropy if
        `config.multi_label`, else cross-entropy.
    device : {"auto", "cpu", "cuda"}

    Raises
    ------
    ConfigError
        Labels and classes differ in number, or the front end does not fit the network.

    Examples
    --------
    >>> model = ASTModel(ASTConfig(num_layers=2, embedding_dim=32, num_heads=2, num_classes=10))
    >>> model.predict(np.zeros(16000, np.float32)).shape
    torch.Size([1, 10])
    """

    name = "Audio Spectrogram Transformer"

    def __init__(
        self,
        config: ASTConfig | None = None,
        *,
        spectrogram: SpectrogramConfig | None = None,
        labels: Sequence[str] | None = None,
        optimizer: OptimizerFactory | None = None,
        loss: Loss | None = None,
        device: str = "auto",
    ) -> None:
        encoder = config or ASTConfig()
        front_end = spectrogram or SpectrogramConfig.kaldi(encoder)
        recipe = Recipe(spectrogram=front_end, encoder=encoder)
        super().__init__(optimizer, loss)
        self._set_networks(*new_models(recipe), recipe, device)
        self._describe({}, labels)

    def _set_networks(
        self, network: Network, clip_head: ClipHead, recipe: Recipe, device: str
    ) -> None:
        self.device = torch.device(resolve_device(device))
        self._network: Network | None = network
        if isinstance(network, nn.Module):
            network.to(self.device).eval()
        self.clip_head = clip_head.to(self.device).eval()
        self._recipe, self._hashed_version = recipe, -1

    def _describe(
        self, training_record: Mapping[str, Any], labels: Sequence[str] | None
    ) -> ASTModel:
        self.training_record: dict[str, Any] = dict(training_record)
        self.labels = _labels(labels, self.config)
        return self

    # -- constructors ---------------------------------------------------------------------------

    @classmethod
    def from_weights(cls, weights: Weights, *, device: str = "auto") -> ASTModel:
        """Build a model of weights in memory."""
        model = cls._from_networks(weights.network, weights.clip_head, weights.recipe, device)
        return model._describe(weights.training_record, weights.labels)

    @classmethod
    def shipped(cls, *, device: str = "auto") -> ASTModel:
        """Load the fingerprint model astound ships."""
        return cls.from_weights(load_weights(SHIPPED_WEIGHTS), device=device)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        labels: Sequence[str] | None = None,
        device: str = "auto",
        **changes: Any,
    ) -> ASTModel:
        """Read a published checkpoint.

        Parameters
        ----------
        path : path-like
            A folder of Hugging Face's ``ASTForAudioClassification``, a ``.pth`` of the original
            repository (no code in it is run), or a file of :meth:`save`.
        labels : sequence of str, optional
            Names of the classes, for a checkpoint without names.
        device : {"auto", "cpu", "cuda"}
        changes
            Fields of :class:`ASTConfig` to override. With ``target_length=100`` the positions are
            cut or interpolated to one second, and no input is padded. Another `num_classes` or
            `fingerprint_dim` starts with a new head.

        Raises
        ------
        ModelError
            The checkpoint is missing or damaged, or cannot be adapted to that shape.
        """
        source = _read_checkpoint(Path(path))
        config = _override(source.config, changes)
        front_end = dataclasses.replace(source.spectrogram, n_frames=config.target_length)
        if not labels and config.num_classes == source.config.num_classes:
            labels = source.labels
        return cls(config, spectrogram=front_end, labels=labels, device=device).init_from(source)

    @classmethod
    def from_onnx(
        cls,
        path: str | os.PathLike[str],
        *,
        providers: Sequence[str] | None = None,
        session_options: Any = None,
    ) -> ASTModel:
        """Load a graph that :meth:`export_onnx` wrote and run it on onnxruntime.

        Everything but training works. The parameters are those of
        :class:`engine.model.onnx.Graph`.

        Raises
        ------
        FileNotFoundError
        ModelError
            The file is not such a graph.
        """
        network = onnx.Graph(Path(path), providers, session_options)
        try:
            recipe = Recipe.from_dict(parse_json(network.metadata["recipe"]))
            is_same = recipe.encoder == network.config
            require(is_same, "config", network.config, "must be the encoder of recipe")
            labels = parse_labels(network.metadata["labels"], recipe)
            state = load(base64.b64decode(network.metadata["clip_head"]))
            clip_head = with_state(lambda: new_clip_head(recipe), state)
        except (KeyError, ValueError, RuntimeError, SafetensorError) as error:
            reason = f"its metadata are not those that export_onnx writes ({error})"
            raise ModelError(path, reason) from error
        return cls._from_networks(network, clip_head, recipe, "cpu")._describe({}, labels)

    @classmethod
    def _from_networks(
        cls, network: Network, clip_head: ClipHead, recipe: Recipe, device: str
    ) -> ASTModel:
        model = cls.__new__(cls)
        TrainableModel.__init__(model)
        model._set_networks(network, clip_head, recipe, device)
        return model

    def new_instance(self) -> ASTModel:
        """Build a model of the same configuration with fresh weights."""
        return self._with_weights(Weights(*new_models(self._recipe), self._recipe))

    def clone(self) -> ASTModel:
        """Build an independent model with the same weights."""
        return self._with_weights(from_bytes(self.to_bytes()))

    def _with_weights(self, weights: Weights) -> ASTModel:
        weights = weights._replace(labels=self.labels)
        other = type(self).from_weights(weights, device=self.device.type)
        other._optimizer_factory, other._loss = self._optimizer_factory, self._loss
        return other

    def init_from(self, source: str | os.PathLike[str] | checkpoint.Checkpoint) -> ASTModel:
        """Load the weights of a checkpoint, with patches and positions adapted to this shape.

        Parameters
        ----------
        source : path-like or Checkpoint
            As for :meth:`from_pretrained`.

        Returns
        -------
        ASTModel
            This model.

        Raises
        ------
        ModelError
            The checkpoint has another width, or another number of layers or heads.
        """
        if not isinstance(source, checkpoint.Checkpoint):
            source = _read_checkpoint(Path(source))
        state = checkpoint.adapt(source.state, source.config, self.config)
        self._trainable_network().load_state_dict(state, strict=False)
        return self

    # -- properties -----------------------------------------------------------------------------

    @property
    def network(self) -> Network:
        """The network; ModelError after :meth:`close`."""
        if self._network is None:
            raise ModelError(self.name, "it is closed; create or load another model")
        return self._network

    @property
    def config(self) -> ASTConfig:
        """Shape of the network."""
        return self._recipe.encoder

    @property
    def embedding_dimension(self) -> int:
        """Length of an embedding of :meth:`extract_embedding`."""
        return self.config.embedding_dim

    @property
    def fingerprint_length(self) -> int:
        """Length of the fingerprint of one segment."""
        return self.config.fingerprint_length

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without a classification head."""
        return self.config.num_classes

    @property
    def num_layers(self) -> int:
        """Number of transformer layers."""
        return self.config.num_layers

    @property
    def patch_size(self) -> int:
        """Side of a patch, in frames and mel bands."""
        return self.config.patch_size

    @property
    def n_parameters(self) -> int:
        """Number of weights of the network."""
        return sum(parameter.numel() for parameter in self._trainable_network().parameters())

    @property
    def recipe(self) -> Recipe:
        """The recipe with the hash of the current weights."""
        if isinstance(self.network, nn.Module):
            parameters = [*self.network.parameters(), *self.clip_head.parameters()]
            # torch counts the in-place changes of each tensor.
            version = sum(parameter._version for parameter in parameters)
            if self._hashed_version != version:
                self._recipe = with_weights_hash(self.weights()).recipe
                self._hashed_version = version
        return self._recipe

    @property
    def recipe_id(self) -> str:
        """Id of the recipe; see :attr:`Recipe.recipe_id`."""
        return self.recipe.recipe_id

    @property
    def sample_rate(self) -> int:
        """Required sample rate of the audio in Hz."""
        return self.config.sample_rate

    @property
    def segment_s(self) -> float:
        """Longest input of the network, in seconds."""
        return self._recipe.spectrogram.segment_s

    def metadata(self) -> dict[str, Any]:
        """Return name, shape, number of parameters, recipe, labels and training record."""
        return {
            "name": self.name,
            "config": dataclasses.asdict(self.config),
            "n_parameters": self.n_parameters if isinstance(self.network, nn.Module) else None,
            "recipe_id": self.recipe_id,
            "recipe": self.recipe.to_dict(),
            "labels": list(self.labels),
            "training": self.training_record,
        }

    # -- inference ------------------------------------------------------------------------------

    def preprocess(self, audio: Audio) -> Tensor:
        """Convert waveforms to the features that the network reads.

        Parameters
        ----------
        audio : array of shape (n_samples,) or (batch, n_samples), in [-1, 1]
            Not longer than :attr:`segment_s` if segments are normalised individually.

        Returns
        -------
        float32 tensor of shape (batch, n_frames, n_mels)
            On the model's device, with as many frames as fit. Nothing is padded.

        Raises
        ------
        AudioError
            The audio is not numeric, not finite, or has another shape.
        AudioTooShortError
            The audio is shorter than one patch.
        """
        front_end = self._recipe.spectrogram
        waveforms = _waveforms(audio).to(self.device)
        features = spectrogram.log_mel(waveforms, front_end)
        if features.shape[1] < self.patch_size:
            minimum = (self.patch_size - 1) * front_end.hop_length + front_end.n_fft
            durations_s = waveforms.shape[1] / self.sample_rate, minimum / self.sample_rate
            raise AudioTooShortError("array", *durations_s)
        return spectrogram.normalise(features, front_end)

    def predict(self, audio: Audio) -> Tensor:
        """Compute logits.

        Parameters
        ----------
        audio : array of shape (n_samples,) or (batch, n_samples), or (batch, n_frames, n_mels)
            Waveforms, or features of :meth:`preprocess`. A waveform longer than
            :attr:`segment_s` is read in consecutive segments whose logits are averaged.

        Returns
        -------
        float32 tensor of shape (batch, num_classes), on the CPU

        Raises
        ------
        ModelError
            The model has no classes.
        """
        self._require_classes()
        return self._average(audio, self.network)

    def postprocess(self, logits: Tensor) -> Tensor:
        """Convert logits to probabilities: independent ones if multi-label, else summing to 1.

        Parameters
        ----------
        logits : float tensor of shape (..., num_classes)

        Returns
        -------
        float tensor of the same shape
        """
        return logits.sigmoid() if self.config.multi_label else logits.softmax(dim=-1)

    def classify(self, audio: Audio, top_k: int = 5) -> list[tuple[str, float]]:
        """Find the most probable classes.

        Parameters
        ----------
        audio : array of shape (n_samples,)
        top_k : int
            Number of classes to return, at most.

        Returns
        -------
        list of (label, probability)
            Most probable first.
        """
        if top_k < 1:
            raise ConfigError.invalid("top_k", top_k, "must be at least 1")
        logits = self.predict(_one_waveform(audio, "classify"))
        best = self.postprocess(logits)[0].topk(min(top_k, self.num_classes))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(self.labels[index], probability) for index, probability in pairs]

    def extract_embedding(self, audio: Audio) -> Tensor:
        """Compute one embedding of the whole audio: the mean of the class tokens.

        Parameters
        ----------
        audio : array
            As for :meth:`predict`.

        Returns
        -------
        float32 tensor of shape (batch, embedding_dim), on the CPU
        """
        return self._average(audio, self.network.summary)

    def _average(self, audio: Audio, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Average what a function computes from each segment."""
        with torch.inference_mode():
            outputs = [function(features).float() for features in self._segments(audio)]
            return torch.stack(outputs).mean(0).cpu()

    def _segments(self, audio: Audio) -> Iterator[Tensor]:
        """Yield the features of consecutive segments; the last one ends where the audio ends."""
        if getattr(audio, "ndim", 0) == 3:
            yield self._features(audio)
            return
        waveforms = _waveforms(audio)
        n_samples, n_segment = waveforms.shape[1], self._recipe.spectrogram.samples_per_segment
        last = max(n_samples - n_segment, 0)
        for start in sorted({*range(0, last + 1, n_segment), last}):
            yield self.preprocess(waveforms[:, start : start + n_segment])

    def _one_segment(self, audio: Any) -> Tensor:
        features, front_end = self.preprocess(audio), self._recipe.spectrogram
        if features.shape[1] > front_end.n_frames:
            duration_s = np.shape(audio)[-1] / self.sample_rate
            reason = (
                f"too long: {duration_s:.2f} s of audio, must be {self.segment_s:.2f} s at most"
            )
            raise AudioError("array", reason)
        return features

    def _features(self, audio: Any) -> Tensor:
        features = torch.as_tensor(audio, dtype=torch.float32, device=self.device)
        check_features(features, self.config)
        return features

    # -- fingerprints ---------------------------------------------------------------------------

    def fingerprint(
        self,
        audio: Audio | Iterable[NDArray[np.float32]],
        segment_hop_s: float = 0.5,
        source: str = "array",
    ) -> Fingerprint:
        """Fingerprint one recording as a catalog stores it.

        Parameters
        ----------
        audio : array of shape (n_samples,), or iterable of such arrays
            The waveform, at once or in blocks.
        segment_hop_s : float
            Distance of the segments in seconds; a whole number of frames, and a divisor of 0.5.
        source : str
            The recording's name in error messages.

        Returns
        -------
        Fingerprint

        Raises
        ------
        AudioTooShortError, SilentAudioError
        """
        if isinstance(audio, (str, bytes, os.PathLike)):
            raise AudioError(
                os.fspath(audio), "this is a path, not a waveform; read the file first"
            )
        blocks = [_one_waveform(audio, "fingerprint")] if _is_array(audio) else audio
        return self._fingerprinter().fingerprint(blocks, segment_hop_s, source)  # type: ignore[arg-type]

    def hop_within(self, hop_s: float, whole_s: float) -> float:
        """Find the longest possible hop; see :meth:`Recipe.hop_within`."""
        return self._recipe.hop_within(hop_s, whole_s)

    def compute_similarity(self, first: Fingerprint, second: Fingerprint) -> float:
        """Compute how much two recordings share; see :func:`engine.compare.passages.similarity`."""
        return passages.similarity(first, second)

    def find_matches(
        self,
        query: Fingerprint,
        reference: Fingerprint,
        min_match_length: int = passages.MIN_MATCH_LENGTH,
    ) -> list[Passage]:
        """Find the passages two recordings share; see :func:`engine.compare.passages.passages`."""
        return passages.passages(query, reference, min_match_length)

    def _fingerprinter(self) -> Fingerprinter:
        return Fingerprinter(Encoder(self.network, self.clip_head, self.recipe, self.device))

    # -- attribution ----------------------------------------------------------------------------

    def feature_importance(
        self, audio: Audio, method: str = "gradient", target: str | int | None = None
    ) -> NDArray[np.float32]:
        """Compute how much each time and frequency contributes to an output.

        Parameters
        ----------
        audio : array of shape (n_samples,), not longer than one segment
        method : {"gradient", "rollout", "occlusion"}
            Gradient times input, attention rollout (Abnar, Zuidema 2020), or the loss of score when
            a patch is masked.
        target : str or int, optional
            Label or index of the class to attribute; the most probable one by default. A model
            without classes attributes its embedding. Rollout ignores the target.

        Returns
        -------
        float32 array of shape (n_frames, n_mels), aligned with :meth:`preprocess`

        Raises
        ------
        AudioError
            The audio is longer than one segment.
        """
        features = self._one_segment(audio)
        network = self._trainable_network()
        if method == "rollout":
            batch = attribution.attention_rollout(network, features)
        elif method == "gradient":
            batch = attribution.gradient_times_input(self._score(features, target), features)
        elif method == "occlusion":
            score, size = self._score(features, target), self.patch_size
            batch = attribution.occlusion(score, features, size, size)
        else:
            raise ConfigError.invalid(
                "method", method, "must be one of gradient, rollout, occlusion"
            )
        importance: NDArray[np.float32] = batch[0]
        return importance

    def plot_importance(
        self,
        audio: Audio,
        path: str | os.PathLike[str],
        method: str = "gradient",
        target: str | int | None = None,
    ) -> None:
        """Plot :meth:`feature_importance` below the spectrogram; the suffix sets the format."""
        importance = self.feature_importance(audio, method, target)
        front_end = self._recipe.spectrogram
        attribution.plot(
            self.preprocess(audio)[0].cpu().numpy(),
            importance,
            front_end.hop_length / front_end.sample_rate,
            spectrogram.band_centres_hz(front_end).numpy(),
            Path(path),
            f"{self.name}: {method}",
        )

    def _score(self, features: Tensor, target: str | int | None) -> Callable[[Tensor], Tensor]:
        network = self._trainable_network()
        if not self.num_classes:
            return attribution.embedding_score(network, features)
        if target is not None:
            index = self._class_index(target)
        else:
            with torch.no_grad():
                index = int(network(features)[0].argmax())
        return lambda batch: network(batch)[:, index]

    def _class_index(self, target: str | int) -> int:
        if isinstance(target, str) and target in self.labels:
            return self.labels.index(target)
        if isinstance(target, int) and 0 <= target < self.num_classes:
            return target
        raise ConfigError.invalid(
            "target", target, f"must be one of the {self.num_classes} classes of the model"
        )

    # -- files and exports ----------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """Serialise weights, recipe, labels and training record as safetensors."""
        return to_bytes(self.weights())

    @classmethod
    def from_bytes(cls, content: bytes, *, device: str = "auto") -> ASTModel:
        """Read what :meth:`to_bytes` wrote; ModelError if it is damaged or something else."""
        return cls.from_weights(from_bytes(content), device=device)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a weights file, as ``astound --model`` reads it."""
        save_weights(Path(path), self.weights())

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto") -> ASTModel:
        """Read a weights file; ModelError if it is damaged or another file."""
        return cls.from_weights(load_weights(Path(path)), device=device)

    def export_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write an ONNX graph for any batch size and any length up to a segment.

        The file is kept only if its outputs equal this model's within 1e-4.
        """
        clip_head = {k: v.cpu().contiguous() for k, v in self.clip_head.state_dict().items()}
        metadata = {
            "recipe": json.dumps(self.recipe.to_dict()),
            "labels": json.dumps(self.labels),
            "clip_head": base64.b64encode(save(clip_head)).decode(),
        }
        onnx.export_graph(self._trainable_network(), Path(path), metadata)

    def export(self) -> torch.export.ExportedProgram:
        """Trace the network with torch.export, for any batch size and length up to a segment."""
        return onnx.export_program(self._trainable_network())

    def compile(self, **options: Any) -> ASTModel:
        """Compile the network with torch.compile; the outputs stay the same.

        Parameters
        ----------
        options
            Those of :func:`torch.compile`.

        Returns
        -------
        ASTModel
            This model.
        """
        network = self._trainable_network()
        network.summary = torch.compile(network.summary, **options)  # type: ignore[method-assign]
        return self

    def close(self) -> None:
        """Release the weights and their memory on the device."""
        self._network, self._optimizer = None, None
        self.clip_head.to("meta")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def __enter__(self) -> ASTModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def weights(self) -> Weights:
        """Return the content of the model's weights file."""
        network = self._trainable_network()
        return Weights(network, self.clip_head, self._recipe, self.training_record, self.labels)

    def _trainable_network(self) -> AST:
        if not isinstance(self.network, AST):
            raise ModelError(self.name, "an ONNX graph has no weights to read or to change")
        return self.network


def _read_checkpoint(path: Path) -> checkpoint.Checkpoint:
    """Read a weights file or a published checkpoint."""
    if path.suffix != ".safetensors":
        return checkpoint.read_checkpoint(path)
    network, _, recipe, _, labels = load_weights(path)
    return checkpoint.Checkpoint(recipe.encoder, recipe.spectrogram, network.state_dict(), labels)


def _override(config: ASTConfig, changes: Mapping[str, Any]) -> ASTConfig:
    """Replace fields of a config; ConfigError if there is no such field."""
    names = [field.name for field in dataclasses.fields(config)]
    for key in changes:
        if key not in names:
            raise ConfigError(key, f"unknown setting; choose from {', '.join(names)}")
    return dataclasses.replace(config, **changes)


def _labels(labels: Sequence[str] | None, config: ASTConfig) -> tuple[str, ...]:
    names = tuple(labels or (f"class {n}" for n in range(config.num_classes)))
    if len(names) != config.num_classes:
        requirement = f"must be {config.num_classes}, one for each class"
        raise ConfigError.invalid("len(labels)", len(names), requirement)
    return names


def _is_array(audio: Any) -> bool:
    """Distinguish an array, or a sequence of numbers, from an iterable of blocks."""
    if isinstance(audio, (Tensor, np.ndarray)):
        return True
    return isinstance(audio, Sequence) and (not audio or isinstance(audio[0], (int, float)))


def _one_waveform(audio: Any, method: str) -> NDArray[np.float32]:
    batch = _waveforms(audio)
    if len(batch) != 1:
        raise AudioError("array", f"got {len(batch)} waveforms, but {method} takes one")
    waveform: NDArray[np.float32] = batch[0].detach().cpu().numpy()
    return waveform


def _waveforms(audio: Any) -> Tensor:
    """Convert audio to a float32 batch of shape (batch, n_samples); AudioError if it is not."""
    if isinstance(audio, np.ndarray) and audio.dtype.kind in "iu":
        raise AudioError("array", f"invalid dtype {audio.dtype}: must be float in [-1, 1]")
    if not isinstance(audio, Tensor):
        try:
            audio = torch.from_numpy(np.array(audio, np.float32))
        except (ValueError, TypeError) as error:
            raise AudioError("array", f"not a waveform ({error})") from error
    if not audio.is_floating_point():
        raise AudioError("array", f"invalid dtype {audio.dtype}: must be float in [-1, 1]")
    batch = audio.float().unsqueeze(0) if audio.ndim == 1 else audio.float()
    if batch.ndim != 2 or not batch.numel():
        requirement = "must be (n_samples,) or (batch, n_samples)"
        raise AudioError("array", f"invalid shape {tuple(audio.shape)}: {requirement}")
    if not batch.isfinite().all():
        raise AudioError("array", "it contains samples that are not finite numbers")
    waveforms: Tensor = batch
    return waveforms
