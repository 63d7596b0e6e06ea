"""The Audio Spectrogram Transformer that turns segments into embeddings, and its weights file.

Gong, Chung, Glass: AST: Audio Spectrogram Transformer. Interspeech 2021 (arXiv 2104.01778).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config import ASTConfig, ClipConfig, Recipe
from engine.errors import AstoundError, ModelError

# Clips pooled at once, so that a day of audio takes no more memory than an hour.
CLIP_BATCH_SIZE = 256

_DAMAGES = (  # all that foreign or damaged bytes have been seen to raise
    SafetensorError,
    AstoundError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
)
SHIPPED_WEIGHTS = Path(__file__).parent / "weights" / "astound-v1.safetensors"


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens, (n, n_tokens, width) to the same shape."""
        n, t, w = x.shape  # n segments, t tokens, w width
        q, k, v = self.qkv(x).view(n, t, 3, self.n_heads, w // self.n_heads).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)  # (n, heads, t, w/heads)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(n, t, w))
        return out


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: ASTConfig) -> None:
        super().__init__()
        hidden = int(config.width * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.n_heads, config.dropout)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, config.width),
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens, (n, n_tokens, width) to the same shape."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ASTModel(nn.Module):
    """Patches of a spectrogram, class tokens, transformer layers, and up to two heads.

    Parameters
    ----------
    config : ASTConfig
    """

    def __init__(self, config: ASTConfig) -> None:
        super().__init__()
        self.config = config
        n_class_tokens = 2 if config.distillation else 1
        n_tokens = config.n_patches[0] * config.n_patches[1] + n_class_tokens
        self.patches = nn.Conv2d(1, config.width, config.patch_size, config.stride)
        self.class_tokens = nn.Parameter(torch.zeros(1, n_class_tokens, config.width))
        self.positions = nn.Parameter(torch.zeros(1, n_tokens, config.width))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.width)
        if config.n_classes:
            self.classifier = nn.Sequential(
                nn.LayerNorm(config.width), nn.Linear(config.width, config.n_classes)
            )
        if config.embedding_dim:
            self.projection = nn.Sequential(
                nn.Linear(config.width, config.projection_width),
                nn.GELU(),
                nn.Linear(config.projection_width, config.embedding_dim),
            )
        self.apply(_initialise)
        nn.init.trunc_normal_(self.class_tokens, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def summary(self, features: Tensor) -> Tensor:
        """Mean of the class tokens after the last layer.

        Parameters
        ----------
        features : float tensor of shape (n, n_frames, n_mels)

        Returns
        -------
        float tensor of shape (n, width)
        """
        x = self.patches(features.transpose(1, 2).unsqueeze(1))  # (n, width, n_freq, n_time)
        x = x.flatten(2).transpose(1, 2)  # (n, n_patches, width), frequency-major
        x = torch.cat([self.class_tokens.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)
        x = self.dropout(x + self.positions)
        for block in self.blocks:
            x = block(x)
        tokens: Tensor = self.norm(x[:, : self.class_tokens.shape[1]])
        return tokens.mean(dim=1)

    def embed(self, features: Tensor) -> Tensor:
        """Unit-norm embedding from the projection head.

        Parameters
        ----------
        features : float tensor of shape (n, n_frames, n_mels)

        Returns
        -------
        float32 tensor of shape (n, embedding_dim)
        """
        return F.normalize(self.projection(self.summary(features)).float(), dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        """Logits of the classification head.

        Parameters
        ----------
        features : float tensor of shape (n, n_frames, n_mels)

        Returns
        -------
        float tensor of shape (n, n_classes)
        """
        logits: Tensor = self.classifier(self.summary(features))
        return logits


class ClipHead(nn.Module):
    """Attention over consecutive segment embeddings that gives one clip-level embedding.

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
        self.apply(_initialise)
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(self, embeddings: Tensor, absent: Tensor) -> Tensor:
        """Pool clips.

        Parameters
        ----------
        embeddings : float tensor of shape (n_clips, n_segments, dim)
        absent : bool tensor of shape (n_clips, n_segments)
            True where a clip has no (audible) segment; at least one must be present.

        Returns
        -------
        float32 tensor of shape (n_clips, dim), unit norm
        """
        keys = embeddings + self.positions[:, : embeddings.shape[1]]
        query = self.query.expand(len(embeddings), -1, -1)
        pooled, _ = self.attention(query, keys, embeddings, key_padding_mask=absent)
        # The plain mean is already a fair summary; attention and perceptron learn what it lacks.
        present = (~absent).unsqueeze(-1)
        mean = (embeddings * present).sum(1) / present.sum(1)
        x = mean + pooled[:, 0]
        return F.normalize((x + self.mlp(x)).float(), dim=-1)


class Encoder:
    """The segment model and the clip head with the recipe they belong to.

    Parameters
    ----------
    model : ASTModel
    clip_head : ClipHead
    recipe : Recipe
    device : str or torch.device
    """

    def __init__(
        self, model: ASTModel, clip_head: ClipHead, recipe: Recipe, device: str | torch.device
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.clip_head = clip_head.to(self.device).eval()
        self.recipe = recipe
        self.half = _has_fast_bfloat16(self.device)

    @torch.inference_mode()
    def embed_segments(self, features: Tensor) -> Tensor:
        """Embed normalised segments.

        Parameters
        ----------
        features : float32 tensor of shape (n, n_frames, n_mels)

        Returns
        -------
        float32 tensor of shape (n, embedding_dim), unit norm, on the CPU
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.model.embed(features.to(self.device)).cpu()

    @torch.inference_mode()
    def embed_clips(self, embeddings: Tensor, absent: Tensor) -> Tensor:
        """Embed clips of consecutive segment embeddings; see :meth:`ClipHead.forward`."""
        batches = zip(embeddings.split(CLIP_BATCH_SIZE), absent.split(CLIP_BATCH_SIZE), strict=True)
        return torch.cat(
            [self.clip_head(some.to(self.device), no.to(self.device)).cpu() for some, no in batches]
        )


def new_models(recipe: Recipe) -> tuple[ASTModel, ClipHead]:
    """Make freshly initialised models of the recipe's shape."""
    return ASTModel(recipe.encoder), ClipHead(recipe.encoder.embedding_dim, recipe.clip)


def save_weights(
    path: Path, model: ASTModel, clip_head: ClipHead, recipe: Recipe, record: dict[str, Any]
) -> Recipe:
    """Write weights with their recipe and training record as safetensors.

    Returns
    -------
    Recipe
        The recipe with the hash of these weights.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"clip_head.{k}": v for k, v in clip_head.state_dict().items()}
    tensors = {k: v.detach().cpu().contiguous() for k, v in sorted(tensors.items())}
    recipe = dataclasses.replace(recipe, weights_sha256=_hash(tensors))
    metadata = {"recipe": json.dumps(recipe.to_dict()), "record": json.dumps(record)}
    path.write_bytes(save(tensors, metadata))
    return recipe


def load_weights(path: Path) -> tuple[ASTModel, ClipHead, Recipe]:
    """Read a file of :func:`save_weights`; ModelError when it is not one or is damaged."""
    if not path.is_file():
        raise ModelError(path, "no such weights file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        recipe = Recipe.from_dict(json.loads(metadata["recipe"]))
        model, clip_head = new_models(recipe)
        model.load_state_dict(_below("model.", tensors))
        clip_head.load_state_dict(_below("clip_head.", tensors))
    except _DAMAGES as error:
        raise ModelError(path, f"not astound weights, or damaged ({error})") from error
    if _hash(tensors) != recipe.weights_sha256:
        raise ModelError(path, "the weights do not have the hash their recipe states")
    return model, clip_head, recipe


def load_encoder(path: Path = SHIPPED_WEIGHTS, device: str = "auto") -> Encoder:
    """Load weights onto a device.

    Parameters
    ----------
    path : Path
    device : {"auto", "cpu", "cuda"}
        "auto" takes CUDA where it is available.
    """
    model, clip_head, recipe = load_weights(path)
    return Encoder(model, clip_head, recipe, resolve_device(device))


def resolve_device(device: str) -> str:
    """Turn "auto" into "cuda" or "cpu"; ModelError when CUDA is asked for and absent."""
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ModelError(
            "cuda", "no CUDA device, or torch was installed without CUDA; use --device cpu"
        )
    return ("cuda" if available else "cpu") if device == "auto" else device


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())  # no public test for it yet


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _hash(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode())
        digest.update(tensors[key].numpy().tobytes())
    return digest.hexdigest()
