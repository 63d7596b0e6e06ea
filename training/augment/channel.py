"""Degradations by loudspeakers, microphones and transmission, for whole batches at once.

Each function returns new waveforms of shape ``(n, n_samples)``. The :class:`Rng` selects the
examples to change and draws the strengths.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.augment.config import AugmentConfig
from training.augment.rng import Rng

_MIN_LEVEL = 1e-6
_GAIN_FRAME_S = 0.01
_MAX_GAIN_DB = 30.0
_SUPPRESS_FRAME_S = 0.032
_NOISE_QUANTILE = 0.2  # of the frames of a band: what is softer is its noise
_PACKET_S = 0.02
_MAX_BURST = 4  # packets lost in a row
_SILENT_PROB = 0.3  # of streams that replace lost packets by silence
_FADE = (0.4, 1.0)  # gain of each further repetition


def filter_band(waveforms: Tensor, rng: Rng, config: AugmentConfig, sample_rate: int) -> Tensor:
    """Apply a high-pass, a low-pass and a spectral tilt to some of the waveforms."""
    selected = rng.select(len(waveforms), config.band_prob)
    n = len(selected)
    if not n:
        return waveforms
    octave = _octaves(waveforms, sample_rate)
    low, high = (rng.uniform(edge, n).log2()[:, None] for edge in (config.low_hz, config.high_hz))
    slopes = [rng.uniform(config.slope_db, n)[:, None] for _ in range(2)]
    gain_db = -slopes[0] * (low - octave).clamp(min=0) - slopes[1] * (octave - high).clamp(min=0)
    gain_db += rng.uniform(config.tilt_db, n)[:, None] * (octave - 10.0)
    return waveforms.index_copy(0, selected, _apply_gain(waveforms[selected], gain_db))


def equalise(waveforms: Tensor, rng: Rng, config: AugmentConfig, sample_rate: int) -> Tensor:
    """Apply the uneven response of a small speaker or microphone to some of the waveforms.

    The response is a sum of a few resonances and dips, each a bell in dB over log frequency.
    """
    selected = rng.select(len(waveforms), config.device_prob)
    n = len(selected)
    if not n:
        return waveforms
    octave = _octaves(waveforms, sample_rate)
    gain_db = torch.zeros(n, octave.shape[1], device=waveforms.device)
    for _ in range(config.n_resonances):
        centre = rng.uniform((6.5, 12.0), n)[:, None]  # 90 to 4096 Hz
        width = rng.uniform((0.1, 0.8), n)[:, None]
        height = rng.uniform(config.resonance_db, n)[:, None]
        gain_db += height * torch.exp(-0.5 * ((octave - centre) / width).square())
    return waveforms.index_copy(0, selected, _apply_gain(waveforms[selected], gain_db))


def compress(waveforms: Tensor, rng: Rng, config: AugmentConfig, sample_rate: int) -> Tensor:
    """Reduce the dynamic range of some of the waveforms within a moment."""
    selected = rng.select(len(waveforms), config.compress_prob)
    if not len(selected):
        return waveforms
    sound = waveforms[selected]
    width = int(config.compress_s * sample_rate)
    energy = torch.nn.functional.pad(sound.square(), (width, 0)).cumsum(dim=1)
    level = (energy[:, width:] - energy[:, :-width]).clamp(min=_MIN_LEVEL**2).sqrt()
    strength = rng.uniform(config.compression, len(selected))[:, None]
    gain = (level / level.amax(dim=1, keepdim=True)).clamp(min=1e-2) ** -strength
    return waveforms.index_copy(0, selected, sound * gain)


def control_gain(waveforms: Tensor, rng: Rng, config: AugmentConfig, sample_rate: int) -> Tensor:
    """Let the gain of some of the waveforms follow their level, late, as a microphone's does."""
    selected = rng.select(len(waveforms), config.gain_control_prob)
    n = len(selected)
    if not n:
        return waveforms
    sound = waveforms[selected]
    size = int(_GAIN_FRAME_S * sample_rate)
    power = torch.nn.functional.avg_pool1d(sound.square()[:, None], size, ceil_mode=True)[:, 0]
    levels_db = 10 * power.clamp(min=_MIN_LEVEL**2).log10()
    attack, release = (
        torch.exp(-_GAIN_FRAME_S / rng.log_uniform(bounds, n))
        for bounds in (config.attack_s, config.release_s)
    )
    followed = [levels_db[:, 0]]
    for level_db in levels_db.unbind(dim=1):
        inertia = torch.where(level_db > followed[-1], attack, release)
        followed.append(level_db + inertia * (followed[-1] - level_db))
    excess_db = torch.stack(followed[1:], dim=1) - levels_db.mean(dim=1, keepdim=True)
    gain_db = -rng.uniform(config.gain_control, n)[:, None] * excess_db
    gain_db = torch.nn.functional.interpolate(
        gain_db.clamp(-_MAX_GAIN_DB, _MAX_GAIN_DB)[:, None], size=sound.shape[1], mode="linear"
    )[:, 0]
    return waveforms.index_copy(0, selected, sound * 10 ** (gain_db / 20))


def suppress_noise(waveforms: Tensor, rng: Rng, config: AugmentConfig, sample_rate: int) -> Tensor:
    """Subtract the steady part of the spectrum of some of the waveforms, as telephones do."""
    selected = rng.select(len(waveforms), config.suppress_prob)
    n = len(selected)
    if not n:
        return waveforms
    sound = waveforms[selected]
    n_fft = 2 * round(_SUPPRESS_FRAME_S * sample_rate / 2)
    window = torch.hann_window(n_fft, device=waveforms.device)
    spectra = torch.stft(sound, n_fft, n_fft // 2, window=window, return_complex=True)
    loudness = spectra.abs()
    rank = max(int(_NOISE_QUANTILE * loudness.shape[2]), 1)
    noise = loudness.kthvalue(rank, dim=2, keepdim=True).values
    noise = noise * rng.uniform(config.suppress_factor, n)[:, None, None]
    floor = 10 ** (rng.uniform(config.suppress_floor_db, n)[:, None, None] / 20)
    gain = (1 - noise / loudness.clamp(min=_MIN_LEVEL)).maximum(floor)
    cleaned = torch.istft(spectra * gain, n_fft, n_fft // 2, window=window, length=sound.shape[1])
    return waveforms.index_copy(0, selected, cleaned)


def clip(waveforms: Tensor, rng: Rng, config: AugmentConfig) -> Tensor:
    """Clip the loudest samples of some of the waveforms."""
    selected = rng.select(len(waveforms), config.clip_prob)
    if not len(selected):
        return waveforms
    loudness = waveforms[selected].abs()
    rank = rng.uniform(config.clip_quantile, len(selected)) * (loudness.shape[1] - 1)
    limit = loudness.sort(dim=1).values.gather(1, rank.long()[:, None])
    return waveforms.index_copy(0, selected, waveforms[selected].clamp(-limit, limit))


def drop_samples(waveforms: Tensor, rng: Rng, config: AugmentConfig, sample_rate: int) -> Tensor:
    """Set short gaps in some of the waveforms to zero, as lost packets do."""
    selected = rng.select(len(waveforms), config.drop_prob)
    n, n_samples = len(selected), waveforms.shape[1]
    if not n:
        return waveforms
    at = torch.arange(n_samples, device=waveforms.device)
    kept = torch.ones(n, n_samples, device=waveforms.device)
    for _ in range(config.n_drops):
        length = rng.uniform(config.drop_s, n)[:, None] * sample_rate
        start = rng.uniform((0.0, 1.0), n)[:, None] * n_samples
        kept *= ~((at >= start) & (at < start + length))
    return waveforms.index_copy(0, selected, waveforms[selected] * kept)


def lose_packets(waveforms: Tensor, rng: Rng, config: AugmentConfig, sample_rate: int) -> Tensor:
    """Replace packets of some of the waveforms by fading repetitions of the last one or silence.

    At least one packet is lost, the first one never.
    """
    selected = rng.select(len(waveforms), config.packet_loss_prob)
    n, n_samples = len(selected), waveforms.shape[1]
    size = int(_PACKET_S * sample_rate)
    n_packets = -(-n_samples // size)
    if not n or n_packets < 2:
        return waveforms
    padded = torch.nn.functional.pad(waveforms[selected], (0, n_packets * size - n_samples))
    packets = padded.view(n, n_packets, size)
    lost = _lost_packets(rng, n, n_packets, config)
    # A lost packet 0 is its own repetition, so it stays as it is.
    number = torch.arange(n_packets, device=waveforms.device)
    last = torch.where(lost, 0, number).cummax(dim=1).values
    is_silent = rng.uniform((0.0, 1.0), n) < _SILENT_PROB
    fade = rng.uniform(_FADE, n).masked_fill(is_silent, 0.0)[:, None]
    repeated = packets.gather(1, last[:, :, None].expand_as(packets))
    received = repeated * (fade ** (number - last))[:, :, None]
    return waveforms.index_copy(0, selected, received.flatten(1)[:, :n_samples])


def _lost_packets(rng: Rng, n: int, n_packets: int, config: AugmentConfig) -> Tensor:
    """Draw which packets are lost, in bursts, bool tensor of shape (n, n_packets)."""
    mean_burst = (1 + _MAX_BURST) / 2
    start_prob = rng.uniform(config.lost_fraction, n)[:, None] / mean_burst
    starts = rng.uniform((0.0, 1.0), n * n_packets).view(n, n_packets) < start_prob
    starts[torch.arange(n, device=rng.device), rng.integers(1, n_packets, n)] = True
    lengths = rng.integers(1, _MAX_BURST + 1, n * n_packets).view(n, n_packets)
    lost = starts.clone()
    for k in range(1, min(_MAX_BURST, n_packets)):
        lost[:, k:] |= starts[:, :-k] & (lengths[:, :-k] > k)
    return lost


def mask(features: Tensor, rng: Rng, config: AugmentConfig) -> Tensor:
    """Mask one range of frames and one of bands in some of the features.

    SpecAugment (Park et al. 2019, arXiv 1904.08779).

    Parameters
    ----------
    features : float32 tensor of shape (n, n_frames, n_mels), normalised
    rng : Rng
    config : AugmentConfig

    Returns
    -------
    float32 tensor of the same shape
        Masked values are 0, the mean of the features.
    """
    selected = rng.select(len(features), config.mask_prob)
    n = len(selected)
    if not n:
        return features
    masked = torch.zeros(n, 1, 1, dtype=torch.bool, device=features.device)
    for axis in (1, 2):
        size = features.shape[axis]
        width = rng.uniform(config.mask_width, n) * size
        start = rng.uniform((0.0, 1.0), n) * (size - width)
        at = torch.arange(size, device=features.device)
        stripe = (at >= start[:, None]) & (at < (start + width)[:, None])
        masked = masked | (stripe[:, :, None] if axis == 1 else stripe[:, None, :])
    return features.index_copy(0, selected, features[selected].masked_fill(masked, 0.0))


def _octaves(waveforms: Tensor, sample_rate: int) -> Tensor:
    hz = torch.fft.rfftfreq(waveforms.shape[1], 1 / sample_rate, device=waveforms.device)
    octaves: Tensor = hz.clamp(min=20.0).log2()[None]
    return octaves


def _apply_gain(waveforms: Tensor, gain_db: Tensor) -> Tensor:
    spectrum = torch.fft.rfft(waveforms) * 10 ** (gain_db.clamp(-80, 40) / 20)
    filtered: Tensor = torch.fft.irfft(spectrum, waveforms.shape[1])
    return filtered
