"""Convert waveforms to fingerprints, block by block: spectrogram, encoder, clip head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.audio.decode import Waveform
from engine.audio.source import AudioSource
from engine.errors import AudioTooShortError, ConfigError, ModelError, SilentAudioError
from engine.model import spectrogram
from engine.model.network import ClipHead, Network
from engine.model.weights import SHIPPED_WEIGHTS, load_weights
from engine.recipe import Recipe
from engine.records import Fingerprint, Vectors

PIECE_S = 60.0
"""Longest spectrogram computed at once, in seconds, however long a block is."""

BATCH_SIZE = 128
"""Segments encoded at once: a larger batch is not faster on a CPU, and needs more memory."""

CLIP_BATCH_SIZE = 256
"""Clips pooled at once, so that a day of audio needs no more memory than an hour."""


class Encoder:
    """The network and the clip head on a device, with the recipe they belong to.

    Parameters
    ----------
    network : Network
    clip_head : ClipHead
    recipe : Recipe
    device : str or torch.device

    Attributes
    ----------
    half : bool
        Whether segments are encoded in bfloat16; by default if the device is fast at it.
    """

    def __init__(
        self, network: Network, clip_head: ClipHead, recipe: Recipe, device: str | torch.device
    ) -> None:
        self.device = torch.device(device)
        # Only modules can be moved; an ONNX graph chooses its own device.
        self.network = network.to(self.device).eval() if isinstance(network, nn.Module) else network
        self.clip_head = clip_head.to(self.device).eval()
        self.recipe = recipe
        self.half = _has_fast_bfloat16(self.device)

    @classmethod
    def load(cls, path: Path | None = None, device: str = "auto") -> Encoder:
        """Read a weights file; see :meth:`Fingerprinter.load`."""
        weights = load_weights(path or SHIPPED_WEIGHTS)
        return cls(weights.network, weights.clip_head, weights.recipe, resolve_device(device))

    @torch.inference_mode()
    def embed_segments(self, features: Tensor) -> Tensor:
        """Embed normalised segments.

        Parameters
        ----------
        features : float32 tensor of shape (n, n_frames, n_mels)

        Returns
        -------
        float32 tensor of shape (n, fingerprint_length), unit norm, on the CPU
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.network.embed(features.to(self.device)).cpu()

    @torch.inference_mode()
    def embed_clips(self, embeddings: Tensor, absent: Tensor) -> Tensor:
        """Pool clips of consecutive segment embeddings; see :meth:`ClipHead.forward`.

        Returns
        -------
        float32 tensor of shape (n_clips, fingerprint_length), unit norm, on the CPU
        """
        batches = zip(embeddings.split(CLIP_BATCH_SIZE), absent.split(CLIP_BATCH_SIZE), strict=True)
        return torch.cat(
            [self.clip_head(e.to(self.device), a.to(self.device)).cpu() for e, a in batches]
        )


class Fingerprinter:
    """Converts waveforms at the recipe's sample rate to fingerprints.

    Implements :class:`engine.protocol.AudioFingerprinter`.

    Parameters
    ----------
    encoder : Encoder
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.recipe: Recipe = encoder.recipe

    @classmethod
    def load(cls, path: Path | None = None, device: str = "auto") -> Fingerprinter:
        """Build one from a weights file.

        Parameters
        ----------
        path : Path, optional
            The weights astound ships by default.
        device : {"auto", "cpu", "cuda"}
            "auto" uses CUDA if it is available.

        Raises
        ------
        ModelError
            The file is missing, damaged or another file, or there is no CUDA device.
        """
        return cls(Encoder.load(path, device))

    @property
    def recipe_id(self) -> str:
        """Id of the recipe; see :attr:`Recipe.recipe_id`."""
        return self.recipe.recipe_id

    @property
    def sample_rate(self) -> int:
        """Required sample rate of the waveforms in Hz."""
        return self.recipe.spectrogram.sample_rate

    @property
    def segment_s(self) -> float:
        """Length of one segment in seconds."""
        return self.recipe.spectrogram.segment_s

    def metadata(self) -> dict[str, Any]:
        """Return the recipe as a nested dict."""
        return self.recipe.to_dict()

    def hop_within(self, hop_s: float, whole_s: float) -> float:
        """Find the longest possible hop; see :meth:`SpectrogramConfig.hop_within`."""
        return self.recipe.spectrogram.hop_within(hop_s, whole_s)

    def fingerprint(
        self, blocks: Iterable[Waveform], segment_hop_s: float, source: str = "array"
    ) -> Fingerprint:
        """Fingerprint one recording.

        Parameters
        ----------
        blocks : iterable of float32 arrays of shape (n_samples,)
            The waveform in blocks of any size, read as they come.
        segment_hop_s : float
            Distance of the segments in seconds.
        source : str
            The recording's name in error messages.

        Returns
        -------
        Fingerprint
            Silent segments and clips have zero vectors.

        Raises
        ------
        AudioTooShortError
            The recording is shorter than one segment.
        SilentAudioError
            No segment is audible.
        """
        recording = AudioSource(source, blocks, self.sample_rate)
        parts = list(self._embed(recording, segment_hop_s))
        if not parts:
            raise AudioTooShortError(source, recording.duration_s, self.segment_s)
        embeddings = np.concatenate(parts)
        if not embeddings.any():
            raise SilentAudioError(source, "silent from beginning to end")
        return Fingerprint(
            embeddings=embeddings,
            clip_embeddings=self._embed_clips(embeddings, segment_hop_s),
            segment_hop_s=segment_hop_s,
            segment_s=self.segment_s,
            duration_s=recording.duration_s,
            recipe_id=self.recipe_id,
        )

    def _embed(self, blocks: Iterable[Waveform], segment_hop_s: float) -> Iterator[Vectors]:
        """Embed all segments of a recording, in parts of shape (n_segments, dim)."""
        config = self.recipe.spectrogram
        hop_frames = config.frames_per_hop(segment_hop_s)
        hop = hop_frames * config.hop_length
        pending = np.zeros(0, np.float32)
        for block in _split(blocks, round(PIECE_S * self.sample_rate)):
            pending = np.concatenate([pending, block]) if len(pending) else block
            n_segments = (len(pending) - config.samples_per_segment) // hop + 1
            if n_segments > 0:
                n_samples = (n_segments - 1) * hop + config.samples_per_segment
                yield self._embed_piece(pending[:n_samples], hop_frames)
                pending = pending[n_segments * hop :]

    def _embed_piece(self, waveform: Waveform, hop_frames: int) -> Vectors:
        config = self.recipe.spectrogram
        # Copies only arrays that torch cannot share: read-only or strided ones.
        samples = torch.from_numpy(np.require(waveform, np.float32, ["C", "W"]))
        raw = spectrogram.segments(spectrogram.log_mel(samples, config), hop_frames, config)
        batches = [
            self.encoder.embed_segments(spectrogram.normalise(batch, config))
            for batch in raw.split(BATCH_SIZE)
        ]
        return _zero_where(spectrogram.silent(raw, config), torch.cat(batches))

    def _embed_clips(self, embeddings: Vectors, segment_hop_s: float) -> Vectors:
        """Pool overlapping clips; the last one may be shorter than the others."""
        clip = self.recipe.clip
        stride = round(clip.segment_hop_s / segment_hop_s)
        if abs(stride * segment_hop_s - clip.segment_hop_s) > 1e-6:
            raise ConfigError.invalid(
                "segment_hop_s",
                segment_hop_s,
                f"must divide {clip.segment_hop_s} s, the hop of the clip head",
            )
        spaced = embeddings[::stride]
        starts = range(0, max(len(spaced) - clip.n_segments // 2, 1), clip.hop_segments)
        padded = np.zeros((len(starts), clip.n_segments, embeddings.shape[1]), np.float32)
        for row, start in zip(padded, starts, strict=True):
            piece = spaced[start : start + clip.n_segments]
            row[: len(piece)] = piece
        absent: NDArray[np.bool_] = np.logical_not(padded.any(axis=2))
        silent: NDArray[np.bool_] = np.all(absent, axis=1)
        absent[silent] = False
        pooled = self.encoder.embed_clips(torch.from_numpy(padded), torch.from_numpy(absent))
        return _zero_where(torch.from_numpy(silent), pooled)


def resolve_device(device: str) -> str:
    """Replace "auto" by "cuda" or "cpu"; ModelError for "cuda" without a CUDA device."""
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ModelError(
            "cuda", "no CUDA device, or torch was installed without CUDA; use --device cpu"
        )
    return ("cuda" if available else "cpu") if device == "auto" else device


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())  # torch has no public test for it


def _split(blocks: Iterable[Waveform], n_samples: int) -> Iterator[Waveform]:
    """Split blocks that are longer than `n_samples`."""
    for block in blocks:
        for start in range(0, len(block), n_samples):
            yield block[start : start + n_samples]


def _zero_where(silent: Tensor, embeddings: Tensor) -> Vectors:
    """Replace embeddings of silence by the zero vector, whose cosine with anything is 0."""
    return np.where(silent.numpy()[:, None], np.float32(0), embeddings.numpy())
