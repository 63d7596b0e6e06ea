"""The Audio Spectrogram Transformer, layer by layer, and the head that pools clips.

Gong, Chung, Glass: AST: Audio Spectrogram Transformer. Interspeech 2021 (arXiv 2104.01778).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import ConfigError
from engine.recipe import ASTConfig, ClipConfig, Recipe

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Network(Protocol):
    """The computations of an :class:`AST`, by torch or by another runtime."""

    def summary(self, features: Tensor) -> Tensor:
        """Mean of the class tokens, float tensor of shape (n, embedding_dim)."""

    def embed(self, features: Tensor) -> Tensor:
        """Unit-norm embeddings, float32 tensor of shape (n, fingerprint_length)."""

    def __call__(self, features: Tensor) -> Tensor:
        """Logits, float tensor of shape (n, num_classes)."""


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, n_out: int) -> Tensor:
        """Mix tokens, (n, n_tokens, width) to the first n_out of them, (n, n_out, width)."""
        n, t, w = x.shape  # n segments, t tokens, w width
        if n_out == t:
            q, k, v = self.qkv(x).split(w, dim=2)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            first = x[:, :n_out].clone(memory_format=torch.contiguous_format)
            q = F.linear(first, weight[:w], bias[:w])
            k, v = F.linear(x, weight[w:], bias[w:]).split(w, dim=2)
        q, k, v = (y.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for y in (q, k, v))
        out: Tensor = self.out(self.mix(q, k, v).transpose(1, 2).reshape(n, n_out, w))
        return out

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Mix the values of each head, all of shape (n, num_heads, n_tokens, width of a head)."""
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: ASTConfig) -> None:
        super().__init__()
        hidden = int(config.embedding_dim * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(config.embedding_dim, config.norm_eps)
        self.attention = Attention(config.embedding_dim, config.num_heads, config.dropout)
        self.norm2 = nn.LayerNorm(config.embedding_dim, config.norm_eps)
        self.mlp = nn.Sequential(
            nn.Linear(config.embedding_dim, hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, config.embedding_dim),
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Tensor, n_out: int | None = None) -> Tensor:
        """Transform tokens, (n, n_tokens, width) to the same shape, or to the first n_out only."""
        n_out = n_out or x.shape[1]
        x = x[:, :n_out] + self.attention(self.norm1(x), n_out)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class AST(nn.Module):
    """Patches of a spectrogram, class tokens, transformer layers, and up to two heads.

    Reads spectrograms of up to `config.target_length` frames. For shorter ones the position
    embeddings are cut; the input is never padded.

    Parameters
    ----------
    config : ASTConfig
    """

    def __init__(self, config: ASTConfig) -> None:
        super().__init__()
        self.config = config
        n_tokens = config.n_patches[0] * config.n_patches[1] + config.n_class_tokens
        self.patches = nn.Conv2d(1, config.embedding_dim, config.patch_size, config.stride)
        self.class_tokens = nn.Parameter(
            torch.zeros(1, config.n_class_tokens, config.embedding_dim)
        )
        self.positions = nn.Parameter(torch.zeros(1, n_tokens, config.embedding_dim))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.embedding_dim, config.norm_eps)
        if config.num_classes:
            self.classifier = nn.Sequential(
                nn.LayerNorm(config.embedding_dim, config.norm_eps),
                nn.Linear(config.embedding_dim, config.num_classes),
            )
        if config.fingerprint_dim:
            self.projection = nn.Sequential(
                nn.Linear(config.embedding_dim, config.projection_dim),
                nn.GELU(),
                nn.Linear(config.projection_dim, config.fingerprint_dim),
            )
        self.apply(initialise)
        nn.init.trunc_normal_(self.class_tokens, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def tokens(self, features: Tensor) -> Tensor:
        """Cut features into patches, prepend the class tokens and add the positions.

        Parameters
        ----------
        features : float tensor of shape (n, n_frames, n_mels)
            At least one patch and at most `config.target_length` frames.

        Returns
        -------
        float tensor of shape (n, n_class_tokens + n_bands * n_times, embedding_dim)
            The class tokens first, then the patches, frequency-major.
        """
        x = self._embed_patches(features)
        n_times = x.shape[1] // self.config.n_patches[0]
        positions = cut_positions(self.positions, self.config, n_times)
        x = torch.cat([self.class_tokens.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)
        out: Tensor = self.dropout(x + positions)
        return out

    def _embed_patches(self, features: Tensor) -> Tensor:
        """Compute the convolution, (n, n_frames, n_mels) to (n, n_bands * n_times, embedding_dim).

        In training as a matrix product, whose backward pass takes a fraction of the time on CPUs.
        """
        if not self.training:
            x: Tensor = self.patches(features.transpose(1, 2).unsqueeze(1))
            return x.flatten(2).transpose(1, 2)
        size, stride = self.config.patch_size, self.config.stride
        blocks = features.unfold(1, size, stride).unfold(2, size, stride)
        blocks = blocks.permute(0, 2, 1, 4, 3).reshape(len(features), -1, size * size)
        return F.linear(blocks, self.patches.weight.flatten(1), self.patches.bias)

    def summary(self, features: Tensor) -> Tensor:
        """Compute the mean of the class tokens after the last layer.

        Parameters
        ----------
        features : float tensor of shape (n, n_frames, n_mels)

        Returns
        -------
        float tensor of shape (n, embedding_dim)
        """
        x = self.tokens(features)
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x)
        # Only the class tokens of the last layer are used.
        tokens: Tensor = self.norm(last(x, self.config.n_class_tokens))
        return tokens.mean(dim=1)

    def embed(self, features: Tensor) -> Tensor:
        """Compute unit-norm embeddings: the projected summary, or the summary without that head.

        Parameters
        ----------
        features : float tensor of shape (n, n_frames, n_mels)

        Returns
        -------
        float32 tensor of shape (n, config.fingerprint_length)
        """
        return self.project(self.summary(features))

    def project(self, summary: Tensor) -> Tensor:
        """Compute the unit-norm embeddings of summaries.

        Parameters
        ----------
        summary : float tensor of shape (n, embedding_dim)

        Returns
        -------
        float32 tensor of shape (n, config.fingerprint_length)
        """
        projected = self.projection(summary) if self.config.fingerprint_dim else summary
        return F.normalize(projected.float(), dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the logits of the classification head.

        Parameters
        ----------
        features : float tensor of shape (n, n_frames, n_mels)

        Returns
        -------
        float tensor of shape (n, num_classes)
        """
        logits: Tensor = self.classifier(self.summary(features))
        return logits


class ClipHead(nn.Module):
    """Pools consecutive segment embeddings into one clip-level embedding by attention.

    Parameters
    ----------
    dim : int
        Size of the segment embeddings and of the result.
    config : ClipConfig
    """

    def __init__(self, dim: int, config: ClipConfig) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, config.n_segments, dim))
        self.query = nn.Parameter(torch.zeros(1, 1, dim))
        self.attention = nn.MultiheadAttention(dim, config.n_heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.apply(initialise)
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(self, embeddings: Tensor, absent: Tensor) -> Tensor:
        """Pool clips.

        Parameters
        ----------
        embeddings : float tensor of shape (n_clips, n_segments, dim)
        absent : bool tensor of shape (n_clips, n_segments)
            True where a clip has no (audible) segment; each clip needs at least one.

        Returns
        -------
        float32 tensor of shape (n_clips, dim), unit norm
        """
        pooled = self._attend(embeddings, absent)
        # The mean alone is a fair summary; attention and perceptron learn the rest.
        present = (~absent).unsqueeze(-1)
        mean = (embeddings * present).sum(1) / present.sum(1)
        x = mean + pooled[:, 0]
        return F.normalize((x + self.mlp(x)).float(), dim=-1)

    def _attend(self, embeddings: Tensor, absent: Tensor) -> Tensor:
        """Compute `self.attention`; its own forward imports sympy, half a second on first use."""
        attention = self.attention
        keys = embeddings + self.positions[:, : embeddings.shape[1]]
        inputs = self.query.expand(len(embeddings), -1, -1), keys, embeddings
        assert attention.in_proj_weight is not None
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip(inputs, weights, biases, strict=True)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=~absent[:, None, None])
        pooled: Tensor = attention.out_proj(mixed.transpose(1, 2).flatten(2))
        return pooled


def new_models(recipe: Recipe) -> tuple[AST, ClipHead]:
    """Build both networks of a recipe with fresh weights."""
    return AST(recipe.encoder), new_clip_head(recipe)


def new_clip_head(recipe: Recipe) -> ClipHead:
    """Build the clip head of a recipe with fresh weights."""
    return ClipHead(recipe.encoder.fingerprint_length, recipe.clip)


def with_state(build: Callable[[], ModuleT], state: Mapping[str, Tensor]) -> ModuleT:
    """Build a network and load its weights.

    Nothing is allocated but copies of the weights, whatever the shape of the network.

    Parameters
    ----------
    build : callable
        Returns a network, such as ``lambda: AST(config)``.
    state : mapping of str to tensor

    Raises
    ------
    RuntimeError
        The weights are those of another network.
    """
    with torch.device("meta"):
        network = build()
    copies = {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}
    network.load_state_dict(copies, assign=True)
    return network


def cut_positions(positions: Tensor, config: ASTConfig, n_times: int) -> Tensor:
    """Keep the middle of the position embeddings, as published for shorter inputs.

    Parameters
    ----------
    positions : float tensor of shape (1, n_class_tokens + n_bands * n_known, embedding_dim)
        For the shape of `config`.
    config : ASTConfig
    n_times : int
        Patches along time, at most those of `config`.

    Returns
    -------
    float tensor of shape (1, n_class_tokens + n_bands * n_times, embedding_dim)
    """
    n_bands, n_known = config.n_patches
    classes, patches = positions.split([config.n_class_tokens, n_bands * n_known], dim=1)
    # Not a slice, because torch.export cannot prove that its end is inside for every length.
    times = n_known // 2 - n_times // 2 + torch.arange(n_times, device=positions.device)
    kept = patches.unflatten(1, (n_bands, n_known)).index_select(2, times)
    return torch.cat([classes, kept.flatten(1, 2)], dim=1)


def initialise(module: nn.Module) -> None:
    """Draw the weights of a linear layer from a truncated normal distribution, as published."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def check_features(features: Tensor, config: ASTConfig) -> None:
    """Raise ConfigError unless a network of this shape can read the features."""
    n_bands, shortest, longest = config.num_mel_bands, config.patch_size, config.target_length
    shape = tuple(features.shape)
    if len(shape) != 3 or shape[2] != n_bands or not shortest <= shape[1] <= longest:
        requirement = f"must be (batch, n_frames, {n_bands}) with {shortest} to {longest} frames"
        raise ConfigError.invalid("features.shape", shape, requirement)
