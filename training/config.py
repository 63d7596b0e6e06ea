"""Settings of a training run, each default written once; they travel with the checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from engine.config import load
from engine.errors import ConfigError

Range = tuple[float, float]

_SHORTEST_ROOM_S = 0.1  # early reflections come within 60 ms


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to music between the loudspeaker and the fingerprint.

    Each degradation strikes an example with its own probability (``*_share``), its strength is
    drawn from its range.

    Parameters
    ----------
    shift_s : float
        The degraded view starts up to this much before or after the clean one.
    context_s : float
        Music before the segment that reverberates into it.
    transpose, transpose_share : Range, float
        Speed applied to both views: new music out of old.
    mix_share, mix_db : float, Range
        A second track summed into both views, at this level: again new music.
    speed, speed_share : Range, float
        Speed of the degraded view relative to the clean one.
    tempo, tempo_share : Range, float
        Its tempo at the same pitch.
    pitch, pitch_share : Range, float
        Its pitch at the same tempo, in semitones.
    room_share, recorded_room_share : float, float
        Reverberation; how much of it recorded.
    room_s, build_up_s, direct_db : Range, Range, Range
        Of the synthesised rest: reverberation time, how long reverberation takes to build up, and
        direct-to-reverberant ratio. A microphone far away in a hall hears little else.
    noise_share, snr_db : float, Range
        Anything else that sounds.
    noise_kinds : tuple of float
        Shares of recorded noise, voices, other music and coloured noise.
    two_noises_share : float
        Noises that are a sum of two.
    device_share, n_resonances, resonance_db : float, int, Range
        Uneven responses of small speakers and microphones.
    band_share, low_hz, high_hz, slope_db : float, Range, Range, Range
        High- and low-pass at random edges, dB per octave.
    tilt_db : Range
        Spectral tilt, dB per octave.
    compress_share, compress_s, compression : float, float, Range
        Loudness evened out over this time; 1 makes it constant.
    clip_share, clip_quantile : float, Range
        Samples louder than this quantile are cut off.
    codec_share : float
        MP3, Opus or AAC at low rates.
    drop_share, n_drops, drop_s : float, int, Range
        Short stretches of samples that are lost.
    mask_share, mask_width : float, Range
        A stripe of time and one of frequency hidden, as shares of the segment.
    """

    shift_s: float = 0.25
    context_s: float = 2.5
    transpose: Range = (0.8, 1.25)
    transpose_share: float = 0.5
    mix_share: float = 0.15
    mix_db: Range = (-9.0, 3.0)
    speed: Range = (0.965, 1.035)
    speed_share: float = 0.3
    tempo: Range = (0.8, 1.25)
    tempo_share: float = 0.1
    pitch: Range = (-0.5, 0.5)
    pitch_share: float = 0.05
    room_share: float = 0.6
    recorded_room_share: float = 0.3
    room_s: Range = (0.1, 5.0)
    build_up_s: Range = (0.0003, 0.1)
    direct_db: Range = (-25.0, 8.0)
    noise_share: float = 0.93
    snr_db: Range = (-10.0, 15.0)
    noise_kinds: tuple[float, float, float, float] = (0.62, 0.15, 0.1, 0.13)
    two_noises_share: float = 0.3
    device_share: float = 0.3
    n_resonances: int = 4
    resonance_db: Range = (-12.0, 12.0)
    band_share: float = 0.6
    low_hz: Range = (50.0, 600.0)
    high_hz: Range = (1800.0, 4000.0)
    slope_db: Range = (12.0, 60.0)
    tilt_db: Range = (-4.0, 4.0)
    compress_share: float = 0.1
    compress_s: float = 0.1
    compression: Range = (0.2, 0.8)
    clip_share: float = 0.15
    clip_quantile: Range = (0.9, 1.0)
    codec_share: float = 0.04
    drop_share: float = 0.04
    n_drops: int = 3
    drop_s: Range = (0.005, 0.06)
    mask_share: float = 0.1
    mask_width: Range = (0.05, 0.2)

    def __post_init__(self) -> None:
        for key in (one.name for one in fields(self)):
            value = getattr(self, key)
            if key.endswith("_share") and not 0 <= value <= 1:
                raise ConfigError.invalid(key, value, "must be in [0, 1]")
            if isinstance(value, tuple) and len(value) == 2 and value[0] > value[1]:
                raise ConfigError.invalid(key, value, "must give the smaller bound first")
        if not math.isclose(sum(self.noise_kinds), 1.0):
            raise ConfigError.invalid("noise_kinds", self.noise_kinds, "must sum to 1")
        if self.room_s[1] < _SHORTEST_ROOM_S:
            raise ConfigError.invalid(
                "room_s", self.room_s, f"must reach up to at least {_SHORTEST_ROOM_S}"
            )

    @classmethod
    def unharmed(cls) -> AugmentConfig:
        """Nothing happens, and nothing is made new."""
        shares = {one.name: 0.0 for one in fields(cls) if one.name.endswith("_share")}
        return load(cls, {**shares, "tilt_db": (0.0, 0.0)})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run.

    Parameters
    ----------
    n_pairs : int
        Pairs of views in a batch, each from another track while there are enough.
    n_pairs_at_once : int
        With fewer than `n_pairs` the gradient of the whole batch is gathered piece by piece: one
        forward pass more, and the memory of a piece only (Gao et al. 2021, arXiv 2101.06983).
    checkpointing : bool
        Forget activations and compute them again on the way back.
    n_steps, n_warmup_steps : int
        Length of the run, and of the rise of the learning rate.
    cooldown_share : float
        Part of the run at whose start the learning rate begins to fall; until then a run can be
        made longer and go on as if it had been so from the start.
    optimizer : {"adamw", "muon"}
        See :func:`training.learner.optimizers`.
    learning_rate, weight_decay, max_norm : float
        Of either, with clipped gradients.
    loss : {"nt_xent", "triplet", "decoupled"}
    temperature, margin : float
        Of NT-Xent and the decoupled loss; of the triplet loss.
    n_clips, n_clip_steps, n_clip_pairs, clip_learning_rate : int, int, int, float
        Second stage: the clip head on top of the finished encoder, on this many pairs of clips.
    n_held_out : int
        Tracks kept out of training for validation.
    checkpoint_every_s, validate_every : float, int
        Seconds and steps between two.
    seed : int
    """

    n_pairs: int = 128
    n_pairs_at_once: int = 512
    checkpointing: bool = False
    n_steps: int = 6000
    n_warmup_steps: int = 200
    cooldown_share: float = 0.4
    optimizer: str = "muon"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    max_norm: float = 1.0
    loss: str = "nt_xent"
    temperature: float = 0.05
    margin: float = 0.5
    n_clips: int = 4000
    n_clip_steps: int = 1500
    n_clip_pairs: int = 256
    clip_learning_rate: float = 1e-3
    n_held_out: int = 32
    checkpoint_every_s: float = 300.0
    validate_every: int = 500
    seed: int = 0
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        for key in (
            *("n_pairs_at_once", "n_steps", "n_clips", "n_clip_pairs", "n_held_out"),
            *("checkpoint_every_s", "validate_every", "temperature", "learning_rate"),
        ):
            if not getattr(self, key) > 0:
                raise ConfigError.invalid(key, getattr(self, key), "must be positive")
        if self.n_pairs < 2:
            raise ConfigError.invalid("n_pairs", self.n_pairs, "must be at least 2")
        if self.seed < 0:
            raise ConfigError.invalid("seed", self.seed, "must be 0 or more")
        if not 0 <= self.cooldown_share <= 1:
            raise ConfigError.invalid("cooldown_share", self.cooldown_share, "must be in [0, 1]")
        for key, known in {"loss": LOSSES, "optimizer": OPTIMIZERS}.items():
            if (value := getattr(self, key)) not in known:
                raise ConfigError.invalid(key, value, f"must be one of {', '.join(known)}")


LOSSES = ("nt_xent", "triplet", "decoupled")
OPTIMIZERS = ("adamw", "muon")
