"""The networks as ONNX graphs, built from a recipe and its tensors, without torch.

They compute what :mod:`engine.model.network` and the front end compute. A test compares them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.model import features
from engine.model.graph_writer import BYTE, FLOAT, GraphWriter, Types
from engine.model.weights_file import Arrays
from engine.recipe import ASTConfig, ClipConfig, Recipe, SpectrogramConfig

_MIN_NORM = 1e-12  # as torch's normalize

_MIN_GELU = -0.17


def mel_graph(config: SpectrogramConfig) -> bytes:
    """Build the graph from power spectra to a log-mel spectrogram.

    The input "power" has the shape (n_frames, n_bins), the output (n_frames, n_mels).
    """
    graph = GraphWriter()
    filters = features.filters(config).astype(np.float32)
    bands = graph.node("MatMul", "power", graph.constant(filters))
    floored = graph.node("Max", bands, graph.constant(features.min_power(config)))
    output = graph.node("Log", floored)
    n_bins, n_mels = filters.shape
    return graph.to_bytes(
        {"power": ("float32", ["n_frames", n_bins])}, {output: ("float32", ["n_frames", n_mels])}
    )


def segment_graph(recipe: Recipe, tensors: Arrays, *, max_weight: int | None = None) -> bytes:
    """Build the graph from normalised segments to embeddings.

    Parameters
    ----------
    recipe : Recipe
    tensors : mapping of str to array
        Those of :class:`engine.model.weights_file.StoredWeights`.
    max_weight : int, optional
        Integer, 127 at most, that the largest weight becomes: the transformer layers multiply in 8
        bits, with a scale for each token and each column of a weight. An embedding then still
        depends on its own segment only. By default they multiply in float32.

    Returns
    -------
    bytes
        An ONNX model. Its input "features" has the shape (n, n_frames, n_mels), its output
        (n, fingerprint_length).
    """
    config = recipe.encoder
    layers = _Layers(tensors, "model.", config.norm_eps)
    x = _tokens(layers, config)
    layers.max_weight = max_weight
    for i in range(config.num_layers):
        # Only the class tokens of the last layer are used.
        n_out = config.n_class_tokens if i == config.num_layers - 1 else None
        x = _block(layers, x, f"blocks.{i}.", config.num_heads, n_out)
    layers.max_weight = None
    graph = layers.graph
    x = graph.node("ReduceMean", layers.norm("norm", x), graph.constant([1]), keepdims=0)
    if config.fingerprint_dim:
        x = layers.perceptron("projection.0", "projection.2", x)
    inputs: Types = {"features": ("float32", ["n", config.target_length, config.num_mel_bands])}
    outputs: Types = {layers.unit_norm(x): ("float32", ["n", config.fingerprint_length])}
    return graph.to_bytes(inputs, outputs)


def clip_graph(recipe: Recipe, tensors: Arrays) -> bytes:
    """Build the graph of the clip head.

    Parameters
    ----------
    recipe : Recipe
    tensors : mapping of str to array
        Those of :class:`engine.model.weights_file.StoredWeights`.

    Returns
    -------
    bytes
        An ONNX model. Its inputs are "embeddings", of shape (n_clips, n_segments, dim), and
        "absent", a bool of shape (n_clips, n_segments). Its output has the shape (n_clips, dim).
    """
    dim, clip = recipe.encoder.fingerprint_length, recipe.clip
    layers = _Layers(tensors, "clip_head.", recipe.encoder.norm_eps)
    graph = layers.graph
    present = graph.node("Cast", graph.node("Not", "absent"), to=FLOAT)
    present = graph.node("Unsqueeze", present, graph.constant([2]))
    summed, n_present = (
        graph.node("ReduceSum", one, graph.constant([1]), keepdims=0)
        for one in (graph.node("Mul", "embeddings", present), present)
    )
    mean = graph.node("Div", summed, n_present)
    x = graph.node("Add", mean, _attend(layers, clip))
    x = graph.node("Add", x, layers.perceptron("mlp.0", "mlp.2", x))
    inputs: Types = {
        "embeddings": ("float32", ["n", clip.n_segments, dim]),
        "absent": ("bool", ["n", clip.n_segments]),
    }
    return graph.to_bytes(inputs, {layers.unit_norm(x): ("float32", ["n", dim])})


class _Layers:
    """Writes layers with the tensors of one network."""

    def __init__(self, tensors: Arrays, prefix: str, norm_eps: float) -> None:
        self.graph = GraphWriter()
        self.max_weight: int | None = None
        self._tensors, self._prefix, self._norm_eps = tensors, prefix, norm_eps
        self._bytes_of: dict[str, _Bytes] = {}

    def array(self, name: str) -> NDArray[np.float32]:
        """Return a tensor of the network in float32."""
        return self._tensors[self._prefix + name].astype(np.float32, copy=False)

    def tensor(self, name: str) -> str:
        """Add a tensor of the network as a constant."""
        return self.graph.constant(self.array(name))

    def linear(self, name: str, x: str) -> str:
        """Multiply by a weight of shape (n_out, n_in) and add the bias."""
        return self.affine(x, self.array(f"{name}.weight"), self.array(f"{name}.bias"))

    def affine(self, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        """Compute ``x @ weight.T + bias``."""
        if self.max_weight:
            if x not in self._bytes_of:
                self._bytes_of[x] = _to_bytes(self.graph, x)
            product = _byte_product(self.graph, self._bytes_of[x], weight, self.max_weight)
        else:
            product = self.graph.node("MatMul", x, self.graph.constant(weight.T))
        return self.graph.node("Add", product, self.graph.constant(bias))

    def perceptron(self, first: str, second: str, x: str) -> str:
        """Apply two linear layers with a GELU between them."""
        graph, hidden = self.graph, self.graph.node("Gelu", self.linear(first, x))
        if not self.max_weight:
            return self.linear(second, hidden)
        # GELU's values, few of them large, cause most of the error. Raised to be positive they use
        # all 256 steps; the bias takes the offset back.
        raised = graph.node("Add", hidden, graph.constant(-_MIN_GELU))
        weight, bias = self.array(f"{second}.weight"), self.array(f"{second}.bias")
        values = _to_bytes(graph, raised, is_positive=True)
        product = _byte_product(graph, values, weight, self.max_weight)
        return graph.node("Add", product, graph.constant(bias + _MIN_GELU * weight.sum(axis=1)))

    def norm(self, name: str, x: str) -> str:
        """Normalise the last axis, then scale and shift."""
        weight, bias = self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")
        return self.graph.node(
            "LayerNormalization", x, weight, bias, axis=-1, epsilon=self._norm_eps
        )

    def unit_norm(self, x: str) -> str:
        """Divide the vectors along axis 1 by their length."""
        length = self.graph.node("ReduceL2", x, self.graph.constant([1]), keepdims=1)
        length = self.graph.node("Max", length, self.graph.constant(_MIN_NORM))
        return self.graph.node("Div", x, length)


class _Bytes(NamedTuple):
    """Names of vectors in 8 bits: ``(values - zero) * scale``."""

    values: str
    scale: str
    zero: str


def _to_bytes(graph: GraphWriter, x: str, *, is_positive: bool = False) -> _Bytes:
    """Quantise each vector along the last axis with a scale of its own."""
    zero, steps = (np.uint8(0), 255) if is_positive else (np.uint8(128), 127)
    largest = x if is_positive else graph.node("Abs", x)
    largest = graph.node("ReduceMax", largest, graph.constant([-1]), keepdims=1)
    scale = graph.node("Mul", largest, graph.constant(1 / steps))
    scale = graph.node("Max", scale, graph.constant(_MIN_NORM))
    units = graph.node("Mul", x, graph.node("Reciprocal", scale))
    # Cast cuts the fraction off, so that 0.5 more rounds.
    offset = graph.node("Add", units, graph.constant(float(zero) + 0.5))
    return _Bytes(graph.node("Cast", offset, to=BYTE), scale, graph.constant(zero))


def _byte_product(
    graph: GraphWriter, x: _Bytes, weight: NDArray[np.float32], max_weight: int
) -> str:
    """Compute ``x @ weight.T`` with the weight in signed bytes and a scale for each row of it."""
    largest = np.maximum(np.abs(weight).max(axis=1, keepdims=True), np.float32(_MIN_NORM))
    scale = largest / max_weight
    columns = graph.constant(np.round(weight / scale).astype(np.int8).T)
    product = graph.node("MatMulInteger", x.values, columns, x.zero)
    scaled = graph.node("Mul", graph.node("Cast", product, to=FLOAT), x.scale)
    return graph.node("Mul", scaled, graph.constant(scale[:, 0]))


def _tokens(layers: _Layers, config: ASTConfig) -> str:
    """Cut features into patches, prepend the class tokens and add the positions."""
    graph, n_classes = layers.graph, config.n_class_tokens
    image = graph.node("Transpose", "features", perm=[0, 2, 1])
    image = graph.node("Unsqueeze", image, graph.constant([1]))
    x = graph.node(
        "Conv",
        image,
        layers.tensor("patches.weight"),
        layers.tensor("patches.bias"),
        kernel_shape=[config.patch_size] * 2,
        strides=[config.stride] * 2,
    )
    x = graph.node("Reshape", x, graph.constant([0, config.embedding_dim, -1]))
    x = graph.node("Transpose", x, perm=[0, 2, 1])
    # Zeros, to which positions and class tokens are added at once.
    x = graph.node("Pad", x, graph.constant([0, n_classes, 0, 0, 0, 0]))
    offsets = layers.array("positions").copy()
    offsets[:, :n_classes] += layers.array("class_tokens")
    return graph.node("Add", x, graph.constant(offsets))


def _block(layers: _Layers, x: str, prefix: str, num_heads: int, n_out: int | None) -> str:
    """Apply one transformer layer; return all tokens, or the first `n_out` only."""
    normal = layers.norm(f"{prefix}norm1", x)
    first = normal
    if n_out is not None:
        first, x = _first(layers.graph, normal, n_out), _first(layers.graph, x, n_out)
    mixed = _attention(layers, f"{prefix}attention.", (first, normal, normal), num_heads)
    x = layers.graph.node("Add", x, layers.linear(f"{prefix}attention.out", mixed))
    hidden = layers.norm(f"{prefix}norm2", x)
    return layers.graph.node(
        "Add", x, layers.perceptron(f"{prefix}mlp.0", f"{prefix}mlp.3", hidden)
    )


def _attention(layers: _Layers, prefix: str, inputs: tuple[str, str, str], num_heads: int) -> str:
    """Project to queries, keys and values, and mix the values of each head."""
    weights = np.split(layers.array(f"{prefix}qkv.weight"), 3)
    biases = np.split(layers.array(f"{prefix}qkv.bias"), 3)
    q, k, v = (layers.affine(*one) for one in zip(inputs, weights, biases, strict=True))
    return layers.graph.node("Attention", q, k, v, q_num_heads=num_heads, kv_num_heads=num_heads)


def _attend(layers: _Layers, clip: ClipConfig) -> str:
    """Mix the segments of a clip by the attention of the one query; shape (n_clips, dim)."""
    graph, dim = layers.graph, layers.array("query").size
    weights = np.split(layers.array("attention.in_proj_weight"), 3)
    biases = np.split(layers.array("attention.in_proj_bias"), 3)
    query = layers.array("query") @ weights[0].T + biases[0]
    n_clips = graph.node("Shape", "embeddings", start=0, end=1)
    shape = graph.node("Concat", n_clips, graph.constant([1, dim]), axis=0)
    q = graph.node("Expand", graph.constant(query), shape)
    keys = graph.node("Add", "embeddings", layers.tensor("positions"))
    k = layers.affine(keys, weights[1], biases[1])
    v = layers.affine("embeddings", weights[2], biases[2])
    mask = graph.node("Unsqueeze", graph.node("Not", "absent"), graph.constant([1, 2]))
    n_heads = clip.n_heads
    mixed = graph.node("Attention", q, k, v, mask, q_num_heads=n_heads, kv_num_heads=n_heads)
    return graph.node("Squeeze", layers.linear("attention.out_proj", mixed), graph.constant([1]))


def _first(graph: GraphWriter, x: str, n: int) -> str:
    """Return the first `n` tokens."""
    return graph.node("Slice", x, graph.constant([0]), graph.constant([n]), graph.constant([1]))
