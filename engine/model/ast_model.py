"""The Audio Spectrogram Transformer as a library of its own: classify, embed, fingerprint, train.

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
from engine.errors import AudioError, AudioTooShortError, ConfigError, ModelError
from engine.model import attribution, checkpoint, onnx, spectrogram
from engine.model.fingerprinter import Fingerprinter
from engine.model.network import AST, ClipHead, Network, check_features
from engine.model.supervised import Learning, Loss, OptimizerOf
from engine.model.weights import (
    SHIPPED_WEIGHTS,
    Encoder,
    Weights,
    from_bytes,
    load_weights,
    new_clip_head,
    new_models,
    resolve_device,
    save_weights,
    sealed,
    to_bytes,
)
from engine.recipe import ASTConfig, Recipe, SpectrogramConfig
from engine.records import Fingerprint, Passage

Audio: TypeAlias = "Tensor | NDArray[Any] | Sequence[float] | Sequence[Sequence[float]]"
"""A waveform in [-1, 1] at the model's sample rate, (n_samples,) or (batch, n_samples)."""


class ASTModel(Learning):
    """An Audio Spectrogram Transformer with its front end, labels and optimizer.

    Parameters
    ----------
    config : ASTConfig
        The published base model by default.
    spectrogram : SpectrogramConfig, optional
        Its front end; the published one (25-ms windows every 10 ms, kaldi's filter bank) by
        default.
    labels : sequence of str, optional
        Names of the classes; "class 0", "class 1", ... by default.
    optimizer : callable, optional
        Makes an optimizer of parameters; the published Adam by default.
    loss : callable, optional
        Of (logits, targets); binary cross-entropy where classes are independent, else
        cross-entropy by default.
    device : {"auto", "cpu", "cuda"}

    Raises
    ------
    ConfigError
        Labels and classes differ in number, or the front end does not fit.

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
        optimizer: OptimizerOf | None = None,
        loss: Loss | None = None,
        device: str = "auto",
    ) -> None:
        encoder = config or ASTConfig()
        front_end = spectrogram or SpectrogramConfig.kaldi(encoder)
        recipe = Recipe(spectrogram=front_end, encoder=encoder)
        super().__init__(optimizer, loss)
        self._take(*new_models(recipe), recipe, device)
        self._noted({}, labels)

    def _take(self, network: Network, clip_head: ClipHead, recipe: Recipe, device: str) -> None:
        self.device = torch.device(resolve_device(device))
        self._network: Network | None = network
        if isinstance(network, nn.Module):
            network.to(self.device).eval()
        self.clip_head = clip_head.to(self.device).eval()
        self._recipe, self._sealed_at = recipe, -1

    # -- other beginnings -----------------------------------------------------------------------

    @classmethod
    def of(cls, weights: Weights, *, device: str = "auto") -> ASTModel:
        """Make one of weights that are in memory."""
        network, clip_head, recipe, record, labels = weights
        return cls._of(network, clip_head, recipe, device)._noted(record, labels)

    @classmethod
    def shipped(cls, *, device: str = "auto") -> ASTModel:
        """Load the fingerprint model astound ships."""
        return cls.of(load_weights(SHIPPED_WEIGHTS), device=device)

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
            repository (read without running any of its code), or a file of :meth:`save`.
        labels : sequence of str, optional
            Names of the classes, for a checkpoint that has none.
        device : {"auto", "cpu", "cuda"}
        changes
            Fields of :class:`ASTConfig` to override. With ``target_length=100`` the positions are
            cut or interpolated to one second, and no input is padded. Another `num_classes` or
            `fingerprint_dim` starts with a new head.

        Raises
        ------
        ModelError
            There is no such checkpoint, it is damaged, or cannot be given that shape.
        """
        found = _checkpoint(Path(path))
        config = _changed(found.config, changes)
        front_end = dataclasses.replace(found.spectrogram, n_frames=config.target_length)
        kept = labels or (found.labels if config.num_classes == found.config.num_classes else None)
        model = cls(config, spectrogram=front_end, labels=kept, device=device)
        return model.init_from(found)

    @classmethod
    def from_onnx(
        cls,
        path: str | os.PathLike[str],
        *,
        providers: Sequence[str] | None = None,
        session_options: Any = None,
    ) -> ASTModel:
        """Run what :meth:`export_onnx` wrote, on onnxruntime.

        Everything but learning works; see :class:`engine.model.onnx.Graph` for the parameters.

        Raises
        ------
        FileNotFoundError
        ModelError
            Not a graph of this kind; says what was expected.
        """
        network = onnx.Graph(Path(path), providers, session_options)
        try:
            recipe = Recipe.from_dict(json.loads(network.metadata["recipe"]))
            labels = json.loads(network.metadata["labels"])
            clip_head = new_clip_head(recipe)
            clip_head.load_state_dict(load(base64.b64decode(network.metadata["clip_head"])))
        except (KeyError, ValueError, RuntimeError, SafetensorError) as error:
            reason = f"its metadata lack what export_onnx notes in them ({error!r})"
            raise ModelError(path, reason) from error
        return cls._of(network, clip_head, recipe, "cpu")._noted({}, labels)

    @classmethod
    def _of(cls, network: Network, clip_head: ClipHead, recipe: Recipe, device: str) -> ASTModel:
        model = cls.__new__(cls)
        Learning.__init__(model)
        model._take(network, clip_head, recipe, device)
        return model

    def _noted(self, record: Mapping[str, Any], labels: Sequence[str] | None) -> ASTModel:
        self.record: dict[str, Any] = dict(record)
        self.labels = _labels(labels, self.config)
        return self

    def new_instance(self) -> ASTModel:
        """Make one of the same configuration with fresh weights."""
        fresh = Weights(*new_models(self._recipe), self._recipe)
        return self._alike(fresh)

    def clone(self) -> ASTModel:
        """Make an independent one with the same weights."""
        return self._alike(from_bytes(self.to_bytes()))

    def _alike(self, weights: Weights) -> ASTModel:
        other = type(self).of(weights._replace(labels=self.labels), device=self.device.type)
        other._optimizer_of, other._loss_of = self._optimizer_of, self._loss_of
        return other

    def init_from(self, source: str | os.PathLike[str] | checkpoint.Checkpoint) -> ASTModel:
        """Begin with the weights of a checkpoint, its patches and positions adapted to this shape.

        Parameters
        ----------
        source : path-like or Checkpoint
            As for :meth:`from_pretrained`.

        Returns
        -------
        ASTModel
            This one.

        Raises
        ------
        ModelError
            Its width, layers or heads differ.
        """
        found = source if isinstance(source, checkpoint.Checkpoint) else _checkpoint(Path(source))
        state = checkpoint.adapt(found.state, found.config, self.config)
        self._learnable().load_state_dict(state, strict=False)
        return self

    # -- what it is -----------------------------------------------------------------------------

    @property
    def network(self) -> Network:
        """What computes; ModelError once it is closed."""
        if self._network is None:
            raise ModelError(self.name, "it is closed; make or load another")
        return self._network

    @property
    def config(self) -> ASTConfig:
        """Its shape."""
        return self._recipe.encoder

    @property
    def embedding_dimension(self) -> int:
        """Numbers in what :meth:`extract_embedding` gives."""
        return self.config.embedding_dim

    @property
    def fingerprint_length(self) -> int:
        """Numbers in the fingerprint of one segment."""
        return self.config.fingerprint_length

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 for none."""
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
        return sum(parameter.numel() for parameter in self._learnable().parameters())

    @property
    def recipe(self) -> Recipe:
        """All that changes a fingerprint's numbers, with the hash of the weights as they are."""
        if isinstance(self.network, nn.Module):
            parameters = [*self.network.parameters(), *self.clip_head.parameters()]
            changes = sum(one._version for one in parameters)  # counts changes in place
            if self._sealed_at != changes:
                self._recipe, self._sealed_at = sealed(self.weights()).recipe, changes
        return self._recipe

    @property
    def recipe_id(self) -> str:
        """Stands for the recipe."""
        return self.recipe.recipe_id

    @property
    def sample_rate(self) -> int:
        """Hz the audio must have."""
        return self.config.sample_rate

    @property
    def segment_s(self) -> float:
        """Seconds it reads at once."""
        return self._recipe.spectrogram.segment_s

    def metadata(self) -> dict[str, Any]:
        """Tell name, shape, number of parameters, recipe, labels and how it was trained."""
        return {
            "name": self.name,
            "config": dataclasses.asdict(self.config),
            "n_parameters": self.n_parameters if isinstance(self.network, nn.Module) else None,
            "recipe_id": self.recipe_id,
            "recipe": self.recipe.to_dict(),
            "labels": list(self.labels),
            "training": self.record,
        }

    # -- inference ------------------------------------------------------------------------------

    def preprocess(self, audio: Audio) -> Tensor:
        """Turn waveforms into what the network reads.

        Parameters
        ----------
        audio : array of shape (n_samples,) or (batch, n_samples), in [-1, 1]
            Of no more than :attr:`segment_s` where a segment is normalised by itself.

        Returns
        -------
        float32 tensor of shape (batch, n_frames, n_mels)
            On the model's device; as many frames as fit, nothing is padded.

        Raises
        ------
        AudioError
            Not numbers, not finite, or of another shape.
        AudioTooShortError
            Less than one patch.
        """
        front_end = self._recipe.spectrogram
        waveforms = _waveforms(audio).to(self.device)
        features = spectrogram.log_mel(waveforms, front_end)
        if features.shape[1] < self.patch_size:
            needed = (self.patch_size - 1) * front_end.hop_length + front_end.n_fft
            seconds = (waveforms.shape[1] / self.sample_rate, needed / self.sample_rate)
            raise AudioTooShortError("array", *seconds)
        return spectrogram.normalise(features, front_end)

    def predict(self, audio: Audio) -> Tensor:
        """Compute logits.

        Parameters
        ----------
        audio : array of shape (n_samples,) or (batch, n_samples), or (batch, n_frames, n_mels)
            Waveforms, or features of :meth:`preprocess`. Of a waveform that is longer than
            :attr:`segment_s` consecutive segments are heard, and their logits averaged.

        Returns
        -------
        float32 tensor of shape (batch, num_classes), on the CPU

        Raises
        ------
        ModelError
            It has no classes.
        """
        self._require_classes()
        return self._pooled(audio, self.network)

    def postprocess(self, logits: Tensor) -> Tensor:
        """Turn logits into probabilities: each by itself if multi-label, else summing to 1.

        Parameters
        ----------
        logits : float tensor of shape (..., num_classes)

        Returns
        -------
        float tensor of the same shape
        """
        return logits.sigmoid() if self.config.multi_label else logits.softmax(dim=-1)

    def classify(self, audio: Audio, top_k: int = 5) -> list[tuple[str, float]]:
        """Name the likeliest classes.

        Parameters
        ----------
        audio : array of shape (n_samples,)
        top_k : int
            How many; all there are if fewer.

        Returns
        -------
        list of (label, probability)
            The likeliest first.
        """
        if top_k < 1:
            raise ConfigError.invalid("top_k", top_k, "must be at least 1")
        logits = self.predict(_one_waveform(audio, "classify"))
        best = self.postprocess(logits)[0].topk(min(top_k, self.num_classes))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(self.labels[index], probability) for index, probability in pairs]

    def extract_embedding(self, audio: Audio) -> Tensor:
        """Embed audio as a whole: the class token, averaged with the distillation token.

        Parameters
        ----------
        audio : as for :meth:`predict`

        Returns
        -------
        float32 tensor of shape (batch, embedding_dim), on the CPU
        """
        return self._pooled(audio, self.network.summary)

    def _pooled(self, audio: Audio, function: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.inference_mode():
            return (
                torch.stack([function(one).float() for one in self._windows(audio)]).mean(0).cpu()
            )

    def _windows(self, audio: Audio) -> Iterator[Tensor]:
        """Cut waveforms into consecutive segments, the last one ending where they end."""
        if getattr(audio, "ndim", 0) == 3:
            yield self._features(audio)
            return
        waveforms = _waveforms(audio)
        n_samples, n_whole = waveforms.shape[1], self._recipe.spectrogram.samples_per_segment
        last = max(n_samples - n_whole, 0)
        for start in sorted({*range(0, last + 1, n_whole), last}):
            yield self.preprocess(waveforms[:, start : start + n_whole])

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
        """Fingerprint one recording, as the engine stores it.

        Parameters
        ----------
        audio : array of shape (n_samples,), or iterable of such arrays
            The waveform, at once or in blocks as they are decoded.
        segment_hop_s : float
            Distance of the segments; a whole number of frames, and a divisor of 0.5.
        source : str
            What errors call the recording.

        Returns
        -------
        Fingerprint

        Raises
        ------
        AudioTooShortError, SilentAudioError
        """
        if isinstance(audio, (str, bytes, os.PathLike)):
            raise AudioError(os.fspath(audio), "a path, not a waveform; read the file first")
        blocks = [_one_waveform(audio, "fingerprint")] if _is_array(audio) else audio
        return self._fingerprinter().fingerprint(blocks, segment_hop_s, source)  # type: ignore[arg-type]

    def hop_within(self, hop_s: float, whole_s: float) -> float:
        """Find the longest possible hop; see :meth:`SpectrogramConfig.hop_within`."""
        return self._recipe.spectrogram.hop_within(hop_s, whole_s)

    def compute_similarity(self, first: Fingerprint, second: Fingerprint) -> float:
        """Tell how much two fingerprints agree; see :func:`engine.compare.passages.similarity`."""
        return passages.similarity(first, second)

    def find_matches(
        self, query: Fingerprint, reference: Fingerprint, min_match_length: int = 10
    ) -> list[Passage]:
        """Find what two recordings have in common; see :func:`engine.compare.passages.passages`."""
        return passages.passages(query, reference, min_match_length)

    def _fingerprinter(self) -> Fingerprinter:
        return Fingerprinter(Encoder(self.network, self.clip_head, self.recipe, self.device))

    # -- what matters to it ---------------------------------------------------------------------

    def feature_importance(
        self, audio: Audio, method: str = "gradient", target: str | int | None = None
    ) -> NDArray[np.float32]:
        """Tell which times and frequencies an answer rests on.

        Parameters
        ----------
        audio : array of shape (n_samples,), no longer than one segment
        method : {"gradient", "rollout", "occlusion"}
            Gradient times input, attention rollout (Abnar, Zuidema 2020), or what is lost when a
            patch is hidden.
        target : str or int, optional
            Label or index of the class that is asked about: the likeliest one by default. Without
            classes it is where the embedding points. Rollout asks about none.

        Returns
        -------
        float32 array of shape (n_frames, n_mels), aligned with :meth:`preprocess`
        """
        features = self.preprocess(audio)
        network = self._learnable()
        if method == "rollout":
            found = attribution.attention_rollout(network, features)
        elif method == "gradient":
            found = attribution.gradient_times_input(self._score(features, target), features)
        elif method == "occlusion":
            score, size = self._score(features, target), self.patch_size
            found = attribution.occlusion(score, features, size, size)
        else:
            raise ConfigError.invalid(
                "method", method, "must be one of gradient, rollout, occlusion"
            )
        of_one: NDArray[np.float32] = found[0]
        return of_one

    def plot_importance(
        self,
        audio: Audio,
        path: str | os.PathLike[str],
        method: str = "gradient",
        target: str | int | None = None,
    ) -> None:
        """Draw :meth:`feature_importance` below the spectrogram; the suffix chooses the format."""
        weights = self.feature_importance(audio, method, target)
        front_end = self._recipe.spectrogram
        attribution.plot(
            self.preprocess(audio)[0].cpu().numpy(),
            weights,
            front_end.hop_length / front_end.sample_rate,
            spectrogram.band_centres_hz(front_end).numpy(),
            Path(path),
            f"{self.name}: {method}",
        )

    def _score(self, features: Tensor, target: str | int | None) -> Callable[[Tensor], Tensor]:
        network = self._learnable()
        if not self.num_classes:
            return attribution.agreement(network, features)
        if target is not None:
            index = self._class(target)
        else:
            with torch.no_grad():
                index = int(network(features)[0].argmax())
        return lambda some: network(some)[:, index]

    def _class(self, target: str | int) -> int:
        if isinstance(target, str) and target in self.labels:
            return self.labels.index(target)
        if isinstance(target, int) and 0 <= target < self.num_classes:
            return target
        raise ConfigError.invalid(
            "target", target, f"must be one of the {self.num_classes} classes of the model"
        )

    # -- other forms ----------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """Write weights, recipe, labels and training record as safetensors."""
        return to_bytes(self.weights())

    @classmethod
    def from_bytes(cls, content: bytes, *, device: str = "auto") -> ASTModel:
        """Read what :meth:`to_bytes` wrote; ModelError when it is anything else or damaged."""
        return cls.of(from_bytes(content), device=device)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a weights file, as ``astound --model`` takes it."""
        save_weights(Path(path), self.weights())

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto") -> ASTModel:
        """Read a weights file; ModelError when it is none or damaged."""
        return cls.of(load_weights(Path(path)), device=device)

    def export_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write an ONNX graph for any batch and any length up to a segment's.

        What it computes is compared with this model's to 1e-4 before it is kept.
        """
        clip_head = {k: v.cpu().contiguous() for k, v in self.clip_head.state_dict().items()}
        metadata = {
            "recipe": json.dumps(self.recipe.to_dict()),
            "labels": json.dumps(self.labels),
            "clip_head": base64.b64encode(save(clip_head)).decode(),
        }
        onnx.export_graph(self._learnable(), Path(path), metadata)

    def export(self) -> torch.export.ExportedProgram:
        """Trace the network with torch.export, for any batch and any length up to a segment's."""
        return onnx.export_program(self._learnable())

    def compile(self, **options: Any) -> ASTModel:
        """Compile the network with torch.compile; its outputs stay the same.

        Parameters
        ----------
        options
            Those of :func:`torch.compile`.

        Returns
        -------
        ASTModel
            This one.
        """
        network = self._learnable()
        network.summary = torch.compile(network.summary, **options)  # type: ignore[method-assign]
        return self

    def close(self) -> None:
        """Let go of the weights and of the memory they take on the device."""
        self._network, self._optimizer = None, None
        self.clip_head.to("meta")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def __enter__(self) -> ASTModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def weights(self) -> Weights:
        """All that a file of it holds."""
        return Weights(self._learnable(), self.clip_head, self._recipe, self.record, self.labels)

    def _learnable(self) -> AST:
        if not isinstance(self.network, AST):
            raise ModelError(self.name, "an ONNX graph has no weights to look at or to change")
        return self.network


def _checkpoint(path: Path) -> checkpoint.Checkpoint:
    """Read any kind of checkpoint."""
    if path.suffix != ".safetensors":
        return checkpoint.read_checkpoint(path)
    network, _, recipe, _, labels = load_weights(path)
    return checkpoint.Checkpoint(recipe.encoder, recipe.spectrogram, network.state_dict(), labels)


def _changed(config: ASTConfig, changes: Mapping[str, Any]) -> ASTConfig:
    known = [one.name for one in dataclasses.fields(config)]
    for key in changes:
        if key not in known:
            raise ConfigError(key, f"unknown setting; choose from {', '.join(known)}")
    return dataclasses.replace(config, **changes)


def _labels(labels: Sequence[str] | None, config: ASTConfig) -> tuple[str, ...]:
    given = tuple(labels or (f"class {n}" for n in range(config.num_classes)))
    if len(given) != config.num_classes:
        raise ConfigError.invalid(
            "labels", given, f"must be {config.num_classes} labels, one for each class"
        )
    return given


def _is_array(audio: Any) -> bool:
    """Tell an array, or a sequence of numbers, from an iterable of blocks."""
    if isinstance(audio, (Tensor, np.ndarray)):
        return True
    return isinstance(audio, Sequence) and (not audio or isinstance(audio[0], (int, float)))


def _one_waveform(audio: Any, asked: str) -> NDArray[np.float32]:
    batch = _waveforms(audio)
    if len(batch) != 1:
        raise AudioError("array", f"got {len(batch)} waveforms, but {asked} takes one")
    waveform: NDArray[np.float32] = batch[0].detach().cpu().numpy()
    return waveform


def _waveforms(audio: Any) -> Tensor:
    """Make a batch of waveforms of whatever is given."""
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
        raise AudioError("array", "it holds numbers that are not finite")
    waveforms: Tensor = batch
    return waveforms
