"""The encoder in torch: on a GPU, and for networks that are no weights file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.device import has_fast_bfloat16, resolve_device
from engine.model import spectrogram
from engine.model.network import ClipHead, Network
from engine.model.weights import load_weights
from engine.model.weights_file import SHIPPED_WEIGHTS
from engine.recipe import Recipe
from engine.records import Vectors, Waveform

BATCH_SIZE = 128
"""Segments encoded at once: a larger batch is not faster on a CPU, and needs more memory."""


class Encoder:
    """The network and the clip head on a device, with the recipe they belong to.

    Implements :class:`engine.model.fingerprinter.SegmentEncoder`.

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
        self.half = has_fast_bfloat16(self.device.type)

    @classmethod
    def load(cls, path: Path | None = None, device: str = "auto") -> Encoder:
        """Read a weights file; see :meth:`engine.model.fingerprinter.Fingerprinter.load`."""
        weights = load_weights(path or SHIPPED_WEIGHTS)
        return cls(weights.network, weights.clip_head, weights.recipe, resolve_device(device))

    def embed(self, waveform: Waveform, hop_frames: int) -> Vectors:
        """Embed all segments of a waveform; see :class:`SegmentEncoder`."""
        config = self.recipe.spectrogram
        # Copies only arrays that torch cannot share: read-only or strided ones.
        samples = torch.from_numpy(np.require(waveform, np.float32, ["C", "W"]))
        raw = spectrogram.segments(spectrogram.log_mel(samples, config), hop_frames, config)
        embeddings = torch.cat(
            [
                self.embed_segments(spectrogram.normalise(batch, config))
                for batch in raw.split(BATCH_SIZE)
            ]
        )
        silent = spectrogram.silent(raw, config).numpy()
        return np.where(silent[:, None], np.float32(0), embeddings.numpy())

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
    def embed_clips(self, embeddings: Vectors, absent: NDArray[np.bool_]) -> Vectors:
        """Pool clips of consecutive segments; see :class:`SegmentEncoder`."""
        inputs = (torch.from_numpy(array).to(self.device) for array in (embeddings, absent))
        pooled: Vectors = self.clip_head(*inputs).cpu().numpy()
        return pooled
