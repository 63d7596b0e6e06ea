"""Settings of a training run, each default written once; they travel with the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.errors import ConfigError

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to music between the loudspeaker and the fingerprint.

    Each degradation strikes an example with its own probability (``*_share``), its strength is
    drawn uniformly from its range.

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
    room_share, recorded_room_share, room_s, direct_db : float, float, Range, Range
        Reverberation; how much of it recorded; reverberation time and direct-to-reverberant
        ratio of the synthesised rest.
    noise_share, snr_db : float, Range
        Anything else that sounds.
    band_share, low_hz, high_hz, slope_db : float, Range, Range, Range
        High- and low-pass at random edges, dB per octave.
    tilt_db : Range
        Spectral tilt, dB per octave.
    clip_share, clip_quantile : float, Range
        Samples louder than this quantile are cut off.
    """

    shift_s: float = 0.25
    context_s: float = 1.0
    transpose: Range = (0.8, 1.25)
    transpose_share: float = 0.5
    mix_share: float = 0.15
    mix_db: Range = (-9.0, 3.0)
    speed: Range = (0.95, 1.05)
    speed_share: float = 0.25
    room_share: float = 0.65
    recorded_room_share: float = 0.3
    room_s: Range = (0.1, 1.2)
    direct_db: Range = (-8.0, 8.0)
    noise_share: float = 0.92
    snr_db: Range = (-8.0, 15.0)
    band_share: float = 0.6
    low_hz: Range = (50.0, 600.0)
    high_hz: Range = (1800.0, 4000.0)
    slope_db: Range = (12.0, 60.0)
    tilt_db: Range = (-4.0, 4.0)
    clip_share: float = 0.15
    clip_quantile: Range = (0.9, 1.0)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run.

    Parameters
    ----------
    n_pairs : int
        Pairs of views in a batch, each from another track.
    n_steps, n_warmup_steps : int
        Length of the run; the learning rate rises, then falls as a cosine.
    learning_rate, weight_decay, max_norm : float
        AdamW, with clipped gradients.
    temperature : float
        Of NT-Xent.
    n_clip_steps, n_clip_pairs, clip_learning_rate : int, int, float
        Second stage: the clip head on top of the finished encoder.
    n_held_out : int
        Tracks kept out of training for validation.
    checkpoint_every, validate_every : int
        Steps between two.
    seed : int
    """

    n_pairs: int = 128
    n_steps: int = 6000
    n_warmup_steps: int = 200
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    max_norm: float = 1.0
    temperature: float = 0.05
    n_clip_steps: int = 200
    n_clip_pairs: int = 48
    clip_learning_rate: float = 1e-3
    n_held_out: int = 32
    checkpoint_every: int = 100
    validate_every: int = 500
    seed: int = 0
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        for key in ("n_pairs", "n_steps", "n_clip_pairs", "checkpoint_every", "validate_every"):
            if getattr(self, key) < 1:
                raise ConfigError(key, f"{getattr(self, key)} does not work; it must be positive")
        if self.temperature <= 0:
            raise ConfigError("temperature", f"{self.temperature} must be positive")
