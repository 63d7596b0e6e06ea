"""The encoder on the CPU: front end in numpy, networks in onnxruntime, no torch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engine.config import n_threads
from engine.model import features
from engine.model.graph_writer import FLOAT, GraphWriter
from engine.model.graphs import clip_graph, mel_graph, segment_graph
from engine.model.weights_file import SHIPPED_WEIGHTS, StoredWeights, read_weights
from engine.recipe import Recipe
from engine.records import Vectors, Waveform

BATCH_SIZES = 4, 16
"""Fewest and most segments that a thread encodes at once. Fewer take longer each, and the values
between the layers of more leave the processor's cache."""

_QUANTISED = frozenset({"ff342501ed2c780bed9f8cd97ca005a5cfb041168a59e47fc920b51e72abc345"})
"""Hashes of the weights whose layers multiply in 8 bits: the shipped ones, whose embeddings have
been compared with those in float32. Other weights may have outliers that 8 bits do not resolve."""


class OnnxEncoder:
    """Both networks as graphs on the CPU; an :class:`engine.model.fingerprinter.SegmentEncoder`.

    Any number of threads may use it at once.

    Parameters
    ----------
    stored : StoredWeights
    quantised : bool, optional
        Whether the transformer layers multiply in 8 bits; by default for the shipped weights.

    Attributes
    ----------
    recipe : Recipe
    quantised : bool
    """

    def __init__(self, stored: StoredWeights, *, quantised: bool | None = None) -> None:
        self.recipe: Recipe = stored.recipe
        if quantised is None:
            quantised = self.recipe.weights_sha256 in _QUANTISED
        self.quantised: bool = quantised
        self._mel = _session(mel_graph(stored.recipe.spectrogram))
        max_weight = _max_weight() if quantised else None
        graph = segment_graph(stored.recipe, stored.tensors, max_weight=max_weight)
        self._segments = _session(graph)
        # A thread for each batch is faster than several threads for each layer.
        self._n_threads = n_threads()
        self._pool = ThreadPoolExecutor(self._n_threads)
        self._clips = _session(clip_graph(stored.recipe, stored.tensors))

    @classmethod
    def load(cls, path: Path | None = None) -> OnnxEncoder:
        """Read a weights file; see :meth:`engine.model.fingerprinter.Fingerprinter.load`."""
        return cls(read_weights(path or SHIPPED_WEIGHTS))

    def embed(self, waveform: Waveform, hop_frames: int) -> Vectors:
        """Embed all segments of a waveform; see :class:`SegmentEncoder`."""
        config = self.recipe.spectrogram
        (log_mel,) = self._mel.run(None, {"power": features.power_spectra(waveform, config)})
        raw = features.segments(log_mel, hop_frames, config)
        size = int(np.clip(-(-len(raw) // self._n_threads), *BATCH_SIZES))
        batches = np.array_split(raw, -(-len(raw) // size))
        return np.concatenate(list(self._pool.map(self._embed_batch, batches)))

    def _embed_batch(self, raw: NDArray[np.float32]) -> Vectors:
        """Normalise and embed segments; silent ones get zeros."""
        config = self.recipe.spectrogram
        embeddings = self.embed_segments(features.normalise(raw, config))
        return np.where(features.silent(raw, config)[:, None], np.float32(0), embeddings)

    def embed_segments(self, features: NDArray[np.float32]) -> Vectors:
        """Embed normalised segments.

        Parameters
        ----------
        features : float32 array of shape (n, n_frames, n_mels)

        Returns
        -------
        float32 array of shape (n, fingerprint_length), unit norm
        """
        (embeddings,) = self._segments.run(None, {"features": features})
        return np.asarray(embeddings)

    def embed_clips(self, embeddings: Vectors, absent: NDArray[np.bool_]) -> Vectors:
        """Pool clips of consecutive segments; see :class:`SegmentEncoder`."""
        (pooled,) = self._clips.run(None, {"embeddings": embeddings, "absent": absent})
        return np.asarray(pooled)


def _session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])


@cache
def _max_weight() -> int:
    """Largest signed byte that this processor multiplies by other bytes without error.

    x86 processors without VNNI add two products in 16 bits, which hold 2 x 255 x 63.
    """
    return 127 if _is_product_exact(127) else 63


def _is_product_exact(weight: int) -> bool:
    n = 64  # no layer has fewer, and a smaller product may use another kernel
    graph = GraphWriter()
    columns = graph.constant(np.full((n, n), weight, np.int8))
    product = graph.node("MatMulInteger", "bytes", columns)
    output = graph.node("Cast", product, to=FLOAT)
    content = graph.to_bytes({"bytes": ("uint8", [n, n])}, {output: ("float32", [n, n])})
    (found,) = _session(content).run(None, {"bytes": np.full((n, n), 255, np.uint8)})
    return bool(np.all(found == 255 * weight * n))
