"""Every setting with its default, written once.

Two families: what changes a fingerprint's numbers (the :class:`Recipe`, hashed and stored with
weights, shards and database) and what only tunes index, search and alignment.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from engine.errors import ConfigError

T = TypeVar("T")

FRONT_ENDS = ("segment", "kaldi")


def _require(condition: bool, key: str, value: object, wanted: str) -> None:
    if not condition:
        raise ConfigError(key, f"{value!r} does not work; {wanted}")


@dataclass(frozen=True, kw_only=True)
class SpectrogramConfig:
    """How a waveform becomes a log-mel spectrogram, and how long a segment is.

    The defaults give 64 frames of 128 ms every 12.5 ms: a segment of 0.9155 s. 4 kHz carries what
    survives phones, codecs and rooms, and the long window separates tones from noise
    (Chang et al. 2021 use the same 1024 samples at 8 kHz).

    Parameters
    ----------
    sample_rate : int
        Hz; everything is resampled to it.
    n_fft, hop_length : int
        Window length and distance between frames, in samples.
    n_mels, f_min_hz, f_max_hz : int, float, float
        Number and range of the mel bands.
    n_frames : int
        Frames in one segment.
    floor_db : float
        Log power is floored this far below the segment's own maximum.
    silence_db : float
        A segment whose loudest frame has a power below this (dB re full scale) is silent.
    front_end : {"segment", "kaldi"}
        "segment" gives each segment zero mean and unit variance; "kaldi" is the filter bank of the
        published models, see :mod:`engine.model.filter_bank`, with a fixed mean and deviation.
    mean, deviation : float
        What "kaldi" subtracts, and what it divides by twice of; those of AudioSet by default.
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
        for key in ("sample_rate", "n_fft", "hop_length", "n_mels", "n_frames"):
            _require(getattr(self, key) > 0, key, getattr(self, key), "it must be positive")
        nyquist = self.sample_rate / 2
        _require(
            0 <= self.f_min_hz < self.f_max_hz <= nyquist,
            "f_max_hz",
            (self.f_min_hz, self.f_max_hz),
            f"0 <= f_min_hz < f_max_hz <= {nyquist:g} is needed",
        )
        _require(self.floor_db > 0, "floor_db", self.floor_db, "it must be positive")
        _require(
            self.front_end in FRONT_ENDS, "front_end", self.front_end, f"known are {FRONT_ENDS}"
        )
        _require(self.deviation > 0, "deviation", self.deviation, "it must be positive")

    @classmethod
    def kaldi(cls, encoder: ASTConfig) -> SpectrogramConfig:
        """Windows of 25 ms every 10 ms, as the published models read them."""
        return cls(
            sample_rate=encoder.sample_rate,
            n_fft=round(0.025 * encoder.sample_rate),
            hop_length=round(0.010 * encoder.sample_rate),
            n_mels=encoder.n_mels,
            f_min_hz=20.0,
            f_max_hz=encoder.sample_rate / 2,
            n_frames=encoder.target_length,
            front_end="kaldi",
        )

    @property
    def samples_per_segment(self) -> int:
        """Samples one segment reads: its frames overlap, and none reaches beyond it."""
        return (self.n_frames - 1) * self.hop_length + self.n_fft

    @property
    def segment_s(self) -> float:
        """Length of one segment in seconds."""
        return self.samples_per_segment / self.sample_rate

    def frames_per_hop(self, hop_s: float) -> int:
        """Spectrogram frames in `hop_s` seconds; ConfigError unless it is a whole number."""
        frames = hop_s * self.sample_rate / self.hop_length
        _require(
            frames >= 1 and abs(frames - round(frames)) < 1e-6,
            "hop_s",
            hop_s,
            f"it must be a multiple of {self.hop_length / self.sample_rate:g} s",
        )
        return round(frames)

    def hop_within(self, hop_s: float, whole_s: float) -> float:
        """Find the longest hop of whole frames, at most `hop_s`, that fits evenly into `whole_s`.

        Parameters
        ----------
        hop_s, whole_s : float
            Seconds; `whole_s` must be a whole number of frames.

        Returns
        -------
        float
        """
        whole = self.frames_per_hop(whole_s)
        frame_s = self.hop_length / self.sample_rate
        at_most = max(int(hop_s / frame_s + 1e-6), 1)
        return frame_s * max(n for n in range(1, min(at_most, whole) + 1) if whole % n == 0)


@dataclass(frozen=True, kw_only=True)
class ASTConfig:
    """Shape of an Audio Spectrogram Transformer; the defaults are the published base model.

    Gong, Chung, Glass: AST: Audio Spectrogram Transformer. Interspeech 2021 (arXiv 2104.01778).

    Parameters
    ----------
    sample_rate : int
        Hz of the audio it hears.
    n_classes : int
        Size of the classification head; 0 for none.
    embedding_dim, n_layers, n_heads, mlp_ratio, dropout : int, int, int, float, float
        The transformer: size of its tokens, layers, heads of each, hidden width of each layer's
        perceptron relative to the tokens', share of activations dropped in training.
    patch_size, stride : int
        Side of a square patch, distance between patches (10 overlaps, 16 does not).
    n_mels, target_length : int
        Mel bands and frames of the spectrogram it reads.
    distillation : bool
        A second class token, averaged with the first.
    multi_label : bool
        Classes are independent of each other (sigmoid), else exactly one is right (softmax).
    fingerprint_dim : int
        Size of the projection head's unit-norm embedding; 0 for none.
    projection_dim : int
        Hidden width of the projection head.
    norm_eps : float
        Added to variances by the layer normalisations.
    """

    sample_rate: int = 16000
    n_classes: int = 527
    embedding_dim: int = 768
    n_layers: int = 12
    n_heads: int = 12
    patch_size: int = 16
    stride: int = 10
    n_mels: int = 128
    target_length: int = 1024
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    distillation: bool = True
    multi_label: bool = True
    fingerprint_dim: int = 0
    projection_dim: int = 512
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        for key in (
            *("sample_rate", "embedding_dim", "n_layers", "n_heads", "patch_size", "stride"),
            *("n_mels", "target_length", "mlp_ratio", "projection_dim", "norm_eps"),
        ):
            _require(getattr(self, key) > 0, key, getattr(self, key), "it must be positive")
        _require(
            self.embedding_dim % self.n_heads == 0,
            "embedding_dim",
            self.embedding_dim,
            f"it must be a multiple of n_heads ({self.n_heads})",
        )
        _require(0 <= self.dropout < 1, "dropout", self.dropout, "it must lie in [0, 1)")
        _require(
            self.patch_size <= min(self.n_mels, self.target_length),
            "patch_size",
            self.patch_size,
            f"it must not exceed the spectrogram ({self.n_mels} x {self.target_length})",
        )
        for key in ("n_classes", "fingerprint_dim"):
            _require(getattr(self, key) >= 0, key, getattr(self, key), "it must not be negative")

    @property
    def n_patches(self) -> tuple[int, int]:
        """Patches along frequency and along time."""
        return (
            (self.n_mels - self.patch_size) // self.stride + 1,
            (self.target_length - self.patch_size) // self.stride + 1,
        )

    @property
    def n_class_tokens(self) -> int:
        """How many tokens stand before the patches."""
        return 2 if self.distillation else 1

    @property
    def fingerprint_length(self) -> int:
        """Numbers in the embedding of one segment."""
        return self.fingerprint_dim or self.embedding_dim


FINGERPRINT_AST = ASTConfig(
    sample_rate=8000,
    n_classes=0,
    embedding_dim=192,
    n_layers=6,
    n_heads=3,
    stride=16,
    target_length=64,
    fingerprint_dim=128,
    norm_eps=1e-5,
)


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """How consecutive segment embeddings become one clip-level embedding.

    Parameters
    ----------
    n_segments : int
        Segments in one clip; 19 of them, 0.5 s apart, span 9.9 s.
    segment_hop_s : float
        Distance of these segments in seconds.
    hop_segments : int
        Segments between the starts of two clips.
    n_heads : int
        Heads of the attention that pools them.
    """

    n_segments: int = 19
    segment_hop_s: float = 0.5
    hop_segments: int = 10
    n_heads: int = 4

    def __post_init__(self) -> None:
        for key in ("n_segments", "segment_hop_s", "hop_segments", "n_heads"):
            _require(getattr(self, key) > 0, key, getattr(self, key), "it must be positive")


_SHARED = {"sample_rate": "sample_rate", "n_mels": "n_mels", "target_length": "n_frames"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that changes a fingerprint's numbers.

    Parameters
    ----------
    spectrogram, encoder, clip
        The settings of the three steps.
    weights_sha256 : str
        Hash of the encoder's weights; empty before they exist.
    """

    spectrogram: SpectrogramConfig = field(default_factory=SpectrogramConfig)
    encoder: ASTConfig = FINGERPRINT_AST
    clip: ClipConfig = field(default_factory=ClipConfig)
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        for key, of_spectrogram in _SHARED.items():
            wanted = getattr(self.spectrogram, of_spectrogram)
            _require(
                getattr(self.encoder, key) == wanted,
                f"encoder.{key}",
                getattr(self.encoder, key),
                f"the spectrogram has {wanted}",
            )

    @cached_property
    def recipe_id(self) -> str:
        """Sixteen hex digits that stand for this recipe."""
        canonical = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Rebuild from :meth:`to_dict`; ConfigError on unknown keys."""
        return load(cls, values)


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """What a catalog fixes for all its shards.

    Parameters
    ----------
    segment_hop_s : float
        Distance of the stored segments in seconds; shorter finds more and costs more.
    max_flat_segments : int
        Up to this many all are compared with every query; beyond, compaction makes large shards.
    max_shard_segments : int
        Compaction makes no larger shards of several.
    """

    segment_hop_s: float = 0.5
    max_flat_segments: int = 250_000
    max_shard_segments: int = 4_000_000

    def __post_init__(self) -> None:
        for key in ("segment_hop_s", "max_flat_segments", "max_shard_segments"):
            _require(getattr(self, key) > 0, key, getattr(self, key), "positive is needed")


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How a query is searched; may change per call.

    Parameters
    ----------
    query_hop_s : float
        Distance of the query's segments; finer than the catalog's, so that one of every few falls
        close to a stored one. The catalog's hop must be a multiple of it.
    top_k : int
        Neighbours looked up for each segment; the farthest tells what any music resembles.
    n_voters : int or None
        Neighbours of each segment that vote, where they are to be more than `top_k`.
    n_deep : int
        In a large catalog, as many of them vote in a second search where nothing sure was found;
        0 to leave that.
    n_rescored : int
        In a large shard, as many neighbours by their short codes are compared exactly.
    n_probe : int or None
        Lists of a large shard that are looked into; chosen by its size by default.
    n_coarse : int or None
        Search only so many tracks whose clip-level embeddings resemble the query's most; all by
        default.
    speeds : tuple of float
        How many times as fast a query is played when nothing sure was found as it is; empty to
        leave that. The encoder forgives half a semitone to either side, and what people transpose
        by is whole ones.
    speeds_hop_s : float
        Distance of the segments while choosing among `speeds`.
    speeds_s : float
        No more than this of a query's beginning is played at other speeds.
    resampled_weight : float
        What evidence counts at other speeds. Below 1, for where so many more tracks are compared
        the best of the wrong ones is better too.
    """

    query_hop_s: float = 0.125
    top_k: int = 50
    n_voters: int | None = None
    n_deep: int = 500
    n_rescored: int = 400
    n_probe: int | None = None
    n_coarse: int | None = None
    speeds: tuple[float, ...] = tuple(2 ** (n / 12) for n in (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0))
    speeds_hop_s: float = 0.25
    speeds_s: float = 30.0
    resampled_weight: float = 0.9

    def __post_init__(self) -> None:
        for key in (
            *("query_hop_s", "top_k", "n_voters", "n_rescored", "n_probe", "n_coarse"),
            *("speeds_hop_s", "speeds_s", "resampled_weight"),
        ):
            value = getattr(self, key)
            _require(value is None or value > 0, key, value, "it must be positive")
        _require(self.n_deep >= 0, "n_deep", self.n_deep, "0 or more is needed")
        _require(all(s > 0 for s in self.speeds), "speeds", self.speeds, "all must be positive")


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """How hits become candidates; may change per call.

    Parameters
    ----------
    max_candidates : int
        Diagonals with the most votes that are rescored exactly.
    max_tracks : int
        Tracks with the most evidence that a query may be answered with.
    vote_power : float
        A hit votes with its cosine to this power.
    common_s : float
        Length of a query of whose common part half is taken out; see
        :func:`engine.search.alignment.sharpen`.
    evidence_scale : float
        How far above the background a cosine must be to count as much more.
    least_background : float
        Cosine that unrelated music reaches in any catalog of some size. A small one has none that
        close, and without this anything would stand out in it.
    agreement : float
        A query segment agrees with the reference from this cosine on.
    n_tilted : int
        Candidates for which lines of other speeds than 1 are tried.
    max_tilt : float
        Speeds are tried up to this far from 1.
    tilted_weight : float
        What the evidence along such lines counts in queries of up to five seconds, and more in
        longer ones. Below 1, for so many more of them are tried.
    """

    max_candidates: int = 200
    max_tracks: int = 50
    vote_power: float = 4.0
    common_s: float = 4.0
    evidence_scale: float = 0.2
    least_background: float = 0.7
    agreement: float = 0.5
    n_tilted: int = 10
    max_tilt: float = 0.25
    tilted_weight: float = 0.9

    def __post_init__(self) -> None:
        for key in ("max_candidates", "max_tracks"):
            _require(getattr(self, key) > 0, key, getattr(self, key), "positive is needed")
        _require(self.n_tilted >= 0, "n_tilted", self.n_tilted, "0 or more is needed")
        _require(0 <= self.max_tilt < 1, "max_tilt", self.max_tilt, "0 <= max_tilt < 1 is needed")


@dataclass(frozen=True, kw_only=True)
class ScanConfig:
    """How a long recording is scanned; may change per call.

    Parameters
    ----------
    search, alignment : SearchConfig, AlignConfig
        How a window is searched. Windows are many and tracks last long, so each is looked at less
        closely than a query; of `search.speeds`, fewer are tried.
    window_s : float
        Length of a window; windows overlap by half.
    n_sighted : int
        Candidates of a window that are followed.
    probe_every : int
        Where nothing sure is found, one of so many windows is played at one of `search.speeds`,
        which take turns.
    history_s : float
        What is remembered of the recording, and how far before its first window a beginning is
        looked for.
    agreement : float
        Cosine above which a segment speaks for a track on its line, and below which against it.
        Unrelated music has a mean of 0.2 there and 0.47 at most in 19 of 20 segments, music 4 %
        too fast 0.75, with speech over it 0.6.
    max_drop : float
        How far the sum of what speaks for it may fall below its best before a track has ended: six
        seconds or more of something else.
    max_gap_s : float
        What a track may be unheard for and still be told as one.
    least_confidence : float
        Windows that are less sure are not followed.
    min_confidence : float
        Of an entry. More than a query needs: an hour has hundreds of windows that may be wrong.
    max_speed_change : float
        How far from 1 the speed of an entry may be.
    """

    search: SearchConfig = field(
        default_factory=lambda: SearchConfig(
            query_hop_s=0.25, speeds=tuple(2 ** (n / 12) for n in (-1.0, 1.0))
        )
    )
    alignment: AlignConfig = field(
        default_factory=lambda: AlignConfig(max_candidates=60, n_tilted=4, max_tilt=0.1)
    )
    window_s: float = 8.0
    n_sighted: int = 3
    probe_every: int = 2
    history_s: float = 64.0
    agreement: float = 0.45
    max_drop: float = 6.0
    max_gap_s: float = 20.0
    least_confidence: float = 0.2
    min_confidence: float = 0.999
    max_speed_change: float = 0.12

    def __post_init__(self) -> None:
        for key in ("window_s", "n_sighted", "probe_every", "agreement", "max_drop"):
            _require(getattr(self, key) > 0, key, getattr(self, key), "it must be positive")
        for key in ("least_confidence", "min_confidence"):
            _require(0 <= getattr(self, key) <= 1, key, getattr(self, key), "it is from 0 to 1")
        _require(self.max_gap_s >= 0, "max_gap_s", self.max_gap_s, "0 or more is needed")
        n_coarse = self.search.n_coarse
        _require(n_coarse is None, "search.n_coarse", n_coarse, "windows need all tracks")
        _require(
            self.history_s >= self.max_gap_s + 2 * self.window_s,
            "history_s",
            self.history_s,
            f"{self.max_gap_s + 2 * self.window_s:g} s are needed for these windows and gaps",
        )


@dataclass(frozen=True, kw_only=True)
class DedupConfig:
    """How duplicates are looked for in a catalog; may change per call.

    Parameters
    ----------
    min_length_s : float
        Length of the shortest passage that makes two tracks duplicates in part.
    full_only : bool
        Look for full duplicates only, which takes far fewer searches.
    full_share : float
        Two tracks are full duplicates if this share of what is audible in either lies in the other
        on one line.
    max_speed_change : float
        How far from 1 the speed may be.
    n_probes : int
        Segments searched within each `min_length_s`.
    n_full_probes : int
        Segments searched of each track with `full_only`.
    top_k : int
        Neighbours looked up for each of them; many, for a track's own repetitions come first.
    n_candidates : int
        Other tracks that a track is compared with at most.
    """

    min_length_s: float = 10.0
    full_only: bool = False
    full_share: float = 0.9
    max_speed_change: float = 0.05
    n_probes: int = 6
    n_full_probes: int = 32
    top_k: int = 64
    n_candidates: int = 20

    def __post_init__(self) -> None:
        for key in ("min_length_s", "n_probes", "n_full_probes", "top_k", "n_candidates"):
            _require(getattr(self, key) > 0, key, getattr(self, key), "it must be positive")
        _require(0 < self.full_share <= 1, "full_share", self.full_share, "above 0 up to 1 works")
        _require(
            0 <= self.max_speed_change < 1,
            "max_speed_change",
            self.max_speed_change,
            "0 or more, below 1, is needed",
        )


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """How files are taken in.

    Parameters
    ----------
    n_jobs : int or None
        Processes that decode; one for each core by default.
    commit_every_s : float
        What was fingerprinted is committed this often; a crash loses no more than that.
    max_segments : int
        It is also committed when this many segments wait, to bound memory.
    """

    n_jobs: int | None = None
    commit_every_s: float = 60.0
    max_segments: int = 200_000

    def __post_init__(self) -> None:
        _require(
            self.n_jobs is None or self.n_jobs > 0, "n_jobs", self.n_jobs, "1 or more is needed"
        )
        for key in ("commit_every_s", "max_segments"):
            _require(getattr(self, key) > 0, key, getattr(self, key), "it must be positive")


def load(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Build a config dataclass from nested plain values, refusing names it does not know."""
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ConfigError(prefix + key, f"unknown setting; known are {', '.join(known)}")
    defaults = {name: _default(f) for name, f in known.items()}
    built = {
        key: load(type(defaults[key]), value, f"{prefix}{key}.")
        if dataclasses.is_dataclass(defaults[key])
        else value
        for key, value in values.items()
    }
    return cls(**built)


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
