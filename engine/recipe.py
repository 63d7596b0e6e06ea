"""The recipe: every setting that changes a fingerprint's numbers.

The recipe id is a hash over names and values. Renaming a field changes the id, so that existing
catalogs and weights no longer match. Settings of index, search and alignment are in
:mod:`engine.config`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from engine.config import load, require, require_positive

FRONT_ENDS = ("segment", "kaldi")

# See :func:`engine.config.require_positive`.
_MAX_RATE, _MAX_MELS, _MAX_FRAMES, _MAX_DIM = 1_000_000, 1024, 65_536, 16_384
_LARGEST_SPECTROGRAM = {
    "sample_rate": _MAX_RATE,
    "n_fft": 65_536,
    "hop_length": 65_536,
    "n_mels": _MAX_MELS,
    "n_frames": _MAX_FRAMES,
}
_LARGEST_NETWORK = {
    "sample_rate": _MAX_RATE,
    "embedding_dim": _MAX_DIM,
    "num_layers": 1000,
    "num_heads": _MAX_DIM,
    "patch_size": _MAX_MELS,
    "stride": _MAX_FRAMES,
    "num_mel_bands": _MAX_MELS,
    "target_length": _MAX_FRAMES,
    "mlp_ratio": 1000.0,
    "projection_dim": _MAX_DIM,
    "norm_eps": 1.0,
}
_LARGEST_HEADS = {"num_classes": 1_000_000, "fingerprint_dim": _MAX_DIM}
_LARGEST_CLIP = {
    "n_segments": _MAX_FRAMES,
    "segment_hop_s": 1000.0,
    "hop_segments": _MAX_FRAMES,
    "n_heads": _MAX_DIM,
}


@dataclass(frozen=True, kw_only=True)
class SpectrogramConfig:
    """Settings of the log-mel spectrogram, and the length of a segment.

    The defaults give 64 frames of 128 ms every 12.5 ms, a segment of 0.9155 s. Phones, codecs and
    rooms preserve little above 4 kHz, and the long window separates tones from noise (Chang et al.
    2021 use the same 1024 samples at 8 kHz).

    Parameters
    ----------
    sample_rate : int
        Hz; all audio is resampled to it.
    n_fft, hop_length : int
        Window length and distance of the frames, in samples.
    n_mels, f_min_hz, f_max_hz : int, float, float
        Number and range of the mel bands.
    n_frames : int
        Frames in one segment.
    floor_db : float
        Log power is limited to this range below the segment's own maximum.
    silence_db : float
        A segment whose loudest frame has a power below this (dB re full scale) is silent.
    front_end : {"segment", "kaldi"}
        "segment" gives each segment zero mean and unit variance. "kaldi" is the filter bank of the
        published models with a fixed mean and deviation; see :mod:`engine.model.spectrogram`.
    mean, deviation : float
        For "kaldi": the mean to subtract, and half the divisor; by default those of AudioSet.
    """

    sample_rate: int = 8000
    n_fft: int = 1024
    hop_length: int = 100
    n_mels: int = 128
    f_min_hz: float = 100.0
    f_max_hz: float = 4000.0
    n_frames: int = 64
    floor_db: float = 78.0
    silence_db: float = -70.0
    front_end: str = "segment"
    mean: float = -4.2677393
    deviation: float = 4.5689974

    def __post_init__(self) -> None:
        require_positive(self, _LARGEST_SPECTROGRAM)
        nyquist = self.sample_rate / 2
        require(
            0 <= self.f_min_hz < self.f_max_hz <= nyquist,
            "(f_min_hz, f_max_hz)",
            (self.f_min_hz, self.f_max_hz),
            f"must satisfy 0 <= f_min_hz < f_max_hz <= {nyquist:g}",
        )
        require(self.floor_db > 0, "floor_db", self.floor_db, "must be positive")
        require(
            self.front_end in FRONT_ENDS,
            "front_end",
            self.front_end,
            f"must be one of {FRONT_ENDS}",
        )
        require(self.deviation > 0, "deviation", self.deviation, "must be positive")

    @classmethod
    def kaldi(cls, encoder: ASTConfig) -> SpectrogramConfig:
        """Build the front end of the published models: windows of 25 ms every 10 ms."""
        return cls(
            sample_rate=encoder.sample_rate,
            n_fft=round(0.025 * encoder.sample_rate),
            hop_length=round(0.010 * encoder.sample_rate),
            n_mels=encoder.num_mel_bands,
            f_min_hz=20.0,
            f_max_hz=encoder.sample_rate / 2,
            n_frames=encoder.target_length,
            front_end="kaldi",
        )

    @property
    def samples_per_segment(self) -> int:
        """Length of one segment in samples, from its first frame to the end of its last."""
        return (self.n_frames - 1) * self.hop_length + self.n_fft

    @property
    def segment_s(self) -> float:
        """Length of one segment in seconds."""
        return self.samples_per_segment / self.sample_rate

    def frames_per_hop(self, hop_s: float) -> int:
        """Convert a hop to frames; ConfigError unless it is a whole number of frames."""
        frames = hop_s * self.sample_rate / self.hop_length
        require(
            frames >= 1 and abs(frames - round(frames)) < 1e-6,
            "hop_s",
            hop_s,
            f"must be a multiple of {self.hop_length / self.sample_rate:g} s",
        )
        return round(frames)


@dataclass(frozen=True, kw_only=True)
class ASTConfig:
    """Shape of an Audio Spectrogram Transformer; the defaults are the published base model.

    Gong, Chung, Glass: AST: Audio Spectrogram Transformer. Interspeech 2021 (arXiv 2104.01778).

    Parameters
    ----------
    sample_rate : int
        Sample rate of the audio in Hz.
    num_classes : int
        Size of the classification head; 0 for no head.
    embedding_dim, num_layers, num_heads : int
        Size of a token, number of transformer layers, attention heads of each layer.
    patch_size, stride : int
        Side of a square patch, and distance between patches: 10 overlaps, 16 does not.
    num_mel_bands, target_length : int
        Mel bands and frames of the input spectrogram.
    mlp_ratio : float
        Hidden width of each layer's perceptron, relative to `embedding_dim`.
    dropout : float
        Probability that an activation is dropped in training.
    use_distillation : bool
        Whether there is a second class token, averaged with the first.
    multi_label : bool
        Whether the classes are independent (sigmoid); else exactly one is right (softmax).
    fingerprint_dim : int
        Size of the projection head's unit-norm embedding; 0 for no head.
    projection_dim : int
        Hidden width of the projection head.
    norm_eps : float
        Added to the variance in layer normalisation.
    """

    sample_rate: int = 16000
    num_classes: int = 527
    embedding_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    patch_size: int = 16
    stride: int = 10
    num_mel_bands: int = 128
    target_length: int = 1024
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    use_distillation: bool = True
    multi_label: bool = True
    fingerprint_dim: int = 0
    projection_dim: int = 512
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        require_positive(self, _LARGEST_NETWORK)
        require(
            self.embedding_dim % self.num_heads == 0,
            "embedding_dim",
            self.embedding_dim,
            f"must be a multiple of num_heads={self.num_heads}",
        )
        require(0 <= self.dropout < 1, "dropout", self.dropout, "must be in [0, 1)")
        require(
            self.patch_size <= min(self.num_mel_bands, self.target_length),
            "patch_size",
            self.patch_size,
            f"must not exceed the spectrogram ({self.num_mel_bands} x {self.target_length})",
        )
        for key, most in _LARGEST_HEADS.items():
            value = getattr(self, key)
            require(0 <= value <= most, key, value, f"must be in [0, {most}]")

    @property
    def n_patches(self) -> tuple[int, int]:
        """Patches along frequency and along time."""
        return (
            (self.num_mel_bands - self.patch_size) // self.stride + 1,
            (self.target_length - self.patch_size) // self.stride + 1,
        )

    @property
    def n_class_tokens(self) -> int:
        """Number of tokens before the patches."""
        return 2 if self.use_distillation else 1

    @property
    def fingerprint_length(self) -> int:
        """Length of the embedding of one segment."""
        return self.fingerprint_dim or self.embedding_dim


FINGERPRINT_AST = ASTConfig(
    sample_rate=8000,
    num_classes=0,
    embedding_dim=192,
    num_layers=6,
    num_heads=3,
    stride=16,
    target_length=64,
    fingerprint_dim=128,
    norm_eps=1e-5,
)


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Settings of the clip head, which pools segment embeddings to one clip-level embedding.

    Parameters
    ----------
    n_segments : int
        Segments in one clip; 19 segments at 0.5 s span 9.9 s.
    segment_hop_s : float
        Distance of these segments in seconds.
    hop_segments : int
        Segments between the starts of two clips.
    n_heads : int
        Attention heads.
    """

    n_segments: int = 19
    segment_hop_s: float = 0.5
    hop_segments: int = 10
    n_heads: int = 4

    def __post_init__(self) -> None:
        require_positive(self, _LARGEST_CLIP)


# Settings of the encoder that must equal those of the spectrogram.
_SHARED = {"sample_rate": "sample_rate", "num_mel_bands": "n_mels", "target_length": "n_frames"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting that changes a fingerprint's numbers.

    Parameters
    ----------
    spectrogram, encoder, clip
        The settings of the three stages.
    weights_sha256 : str
        Hash of the encoder's weights; empty before they exist.
    """

    spectrogram: SpectrogramConfig = field(default_factory=SpectrogramConfig)
    encoder: ASTConfig = FINGERPRINT_AST
    clip: ClipConfig = field(default_factory=ClipConfig)
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        for key, spectrogram_key in _SHARED.items():
            value, required = getattr(self.encoder, key), getattr(self.spectrogram, spectrogram_key)
            requirement = f"must equal spectrogram.{spectrogram_key} ({required})"
            require(value == required, f"encoder.{key}", value, requirement)
        dim = self.encoder.fingerprint_length
        is_divisor = dim % self.clip.n_heads == 0
        require(is_divisor, "clip.n_heads", self.clip.n_heads, f"must divide the embedding's {dim}")

    @cached_property
    def recipe_id(self) -> str:
        """Sixteen hex digits that identify this recipe."""
        canonical = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def hop_within(self, hop_s: float, whole_s: float) -> float:
        """Find the longest hop that is supported, at most `hop_s`, and divides `whole_s`.

        A hop is supported if it divides that of the clip head, or is a multiple of it.

        Parameters
        ----------
        hop_s, whole_s : float
            Seconds; `whole_s` must be a whole number of frames.

        Returns
        -------
        float
            Seconds.
        """
        config = self.spectrogram
        frame_s = config.hop_length / config.sample_rate
        whole, clip = map(config.frames_per_hop, (whole_s, self.clip.segment_hop_s))
        longest = min(max(int(hop_s / frame_s + 1e-6), 1), whole)
        return frame_s * max(
            hop
            for hop in range(1, longest + 1)
            if whole % hop == 0 and (clip % hop == 0 or hop % clip == 0)
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to a nested dict for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Rebuild from :meth:`to_dict`; ConfigError on unknown keys."""
        return load(cls, values)
