"""Settings of the degradations that training applies, each with its default."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from engine.config import load
from engine.errors import ConfigError

Range = tuple[float, float]

_MIN_ROOM_S = 0.1  # early reflections arrive within 60 ms


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Degradations between the loudspeaker and the fingerprint, and ways to make new music.

    Each degradation is applied to an example with its own probability (``*_prob``); its strength
    is drawn uniformly from its range.

    Parameters
    ----------
    shift_s : float
        Maximum time shift of the degraded view, in either direction.
    context_s : float
        Seconds of music before the segment that reverberate into it.
    transpose, transpose_prob : Range, float
        Speed of both views, which makes new music.
    reverse_prob : float
        Music in reverse, in both views, which makes new music.
    mix_prob, mix_db : float, Range
        Sum with a second track at this level, in both views, which makes new music.
    speed, speed_prob : Range, float
        Speed of the degraded view relative to the clean one.
    wide_speed, wide_speed_prob : Range, float
        A wider range of the same for a few examples, in place of `speed`.
    tempo, tempo_prob : Range, float
        Tempo of the degraded view at the same pitch.
    pitch, pitch_prob : Range, float
        Pitch of the degraded view at the same tempo, in semitones.
    wide_pitch, wide_pitch_prob : Range, float
        A wider range of the same for a few examples, in place of `pitch`.
    room_prob, recorded_room_prob : float, float
        Reverberation, and the probability that its response is recorded instead of synthesised.
    room_s, build_up_s, direct_db : Range, Range, Range
        Synthesised responses: reverberation time, time until the reverberation has built up, and
        direct-to-reverberant ratio, which is low far away from the source in a hall.
    noise_prob, snr_db : float, Range
        Added noise and its signal-to-noise ratio.
    noise_kind_probs : tuple of float
        Probabilities of recorded noise, voices, other music and coloured noise.
    composed_noise_prob, composed_minutes : float, float
        Probability that a noise is composed where it would be recorded, and minutes of composed
        noise that a run makes at its start; see :mod:`training.augment.composed`.
    two_noises_prob : float
        Probability that a noise is the sum of two.
    device_prob, n_resonances, resonance_db : float, int, Range
        Uneven frequency response of small speakers and microphones.
    band_prob, low_hz, high_hz, slope_db : float, Range, Range, Range
        High-pass and low-pass filters with edges in Hz and slopes in dB per octave.
    tilt_db : Range
        Spectral tilt of the same examples, in dB per octave.
    compress_prob, compress_s, compression : float, float, Range
        Dynamic range compression over windows of `compress_s`; 1 makes the loudness constant.
    gain_control_prob, gain_control : float, Range
        Automatic gain of a microphone, which follows the level; 1 makes it constant in the end.
    attack_s, release_s : Range, Range
        Time in which automatic gain follows a level that rises, and one that falls.
    suppress_prob, suppress_factor, suppress_floor_db : float, Range, Range
        Noise suppression of a microphone: the estimated noise times a factor is subtracted from
        the spectrum, and no bin is attenuated by more than the floor.
    clip_prob, clip_quantile : float, Range
        Clipping of the samples that are louder than this quantile.
    codec_prob : float
        MP3, Opus or AAC at low bit rates.
    drop_prob, n_drops, drop_s : float, int, Range
        Gaps of lost samples.
    packet_loss_prob, lost_fraction : float, Range
        Streams that lose this fraction of their packets, which are replaced by fading repetitions
        of the last one, or by silence.
    mask_prob, mask_width : float, Range
        One masked range of frames and one of bands, as fractions of the segment.
    """

    shift_s: float = 0.25
    context_s: float = 2.5
    transpose: Range = (0.8, 1.25)
    transpose_prob: float = 0.5
    reverse_prob: float = 0.2
    mix_prob: float = 0.25
    mix_db: Range = (-9.0, 3.0)
    speed: Range = (0.965, 1.035)
    speed_prob: float = 0.3
    wide_speed: Range = (0.917, 1.091)
    wide_speed_prob: float = 0.04
    tempo: Range = (0.8, 1.25)
    tempo_prob: float = 0.07
    pitch: Range = (-0.5, 0.5)
    pitch_prob: float = 0.03
    wide_pitch: Range = (-1.5, 1.5)
    wide_pitch_prob: float = 0.08
    room_prob: float = 0.6
    recorded_room_prob: float = 0.3
    room_s: Range = (0.1, 5.0)
    build_up_s: Range = (0.0003, 0.1)
    direct_db: Range = (-25.0, 8.0)
    noise_prob: float = 0.93
    snr_db: Range = (-10.0, 15.0)
    noise_kind_probs: tuple[float, float, float, float] = (0.62, 0.15, 0.1, 0.13)
    composed_noise_prob: float = 0.4
    composed_minutes: float = 30.0
    two_noises_prob: float = 0.3
    device_prob: float = 0.3
    n_resonances: int = 4
    resonance_db: Range = (-12.0, 12.0)
    band_prob: float = 0.6
    low_hz: Range = (50.0, 600.0)
    high_hz: Range = (1800.0, 4000.0)
    slope_db: Range = (12.0, 60.0)
    tilt_db: Range = (-4.0, 4.0)
    compress_prob: float = 0.1
    compress_s: float = 0.1
    compression: Range = (0.2, 0.8)
    gain_control_prob: float = 0.1
    gain_control: Range = (0.4, 1.0)
    attack_s: Range = (0.005, 0.05)
    release_s: Range = (0.1, 1.0)
    suppress_prob: float = 0.08
    suppress_factor: Range = (1.0, 3.0)
    suppress_floor_db: Range = (-25.0, -6.0)
    clip_prob: float = 0.15
    clip_quantile: Range = (0.9, 1.0)
    codec_prob: float = 0.04
    drop_prob: float = 0.04
    n_drops: int = 3
    drop_s: Range = (0.005, 0.06)
    packet_loss_prob: float = 0.05
    lost_fraction: Range = (0.02, 0.2)
    mask_prob: float = 0.1
    mask_width: Range = (0.05, 0.2)

    def __post_init__(self) -> None:
        for key in (one.name for one in fields(self)):
            _check(key, getattr(self, key))
        if not math.isclose(sum(self.noise_kind_probs), 1.0):
            raise ConfigError.invalid("noise_kind_probs", self.noise_kind_probs, "must sum to 1")
        smallest = {"attack_s": self.attack_s[0], "release_s": self.release_s[0]}
        for key, value in {"composed_minutes": self.composed_minutes, **smallest}.items():
            if not 0 < value < math.inf:
                raise ConfigError.invalid(key, getattr(self, key), "must be positive")
        if self.room_s[1] < _MIN_ROOM_S:
            raise ConfigError.invalid(
                "room_s", self.room_s, f"must reach up to at least {_MIN_ROOM_S}"
            )

    @classmethod
    def disabled(cls) -> AugmentConfig:
        """Build a config that changes nothing."""
        probs = {one.name: 0.0 for one in fields(cls) if one.name.endswith("_prob")}
        return load(cls, {**probs, "tilt_db": (0.0, 0.0)})


def _check(key: str, value: object) -> None:
    if isinstance(value, int | float) and key.endswith("_prob") and not 0 <= value <= 1:
        raise ConfigError.invalid(key, value, "must be in [0, 1]")
    if isinstance(value, tuple) and len(value) == 2 and value[0] > value[1]:
        raise ConfigError.invalid(key, value, "must give the smaller bound first")
