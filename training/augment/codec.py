"""Encode and decode some examples of a batch with real lossy codecs at low bit rates."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.augment.config import AugmentConfig
from training.augment.rng import Rng


class Codec(NamedTuple):
    """An encoder of FFmpeg, the file format for it, and the bit rates of the degradation."""

    encoder: str
    container: str
    bit_rates: tuple[int, ...]


OPUS = Codec("libopus", "ogg", (6_000, 8_000, 12_000))
CODECS = (
    Codec("libmp3lame", "mp3", (8_000, 16_000, 24_000)),
    OPUS,
    Codec("aac", "mp4", (8_000, 12_000, 20_000)),
)


def encode(waveforms: Tensor, rng: Rng, config: AugmentConfig, sample_rate: int) -> Tensor:
    """Encode some of the waveforms with MP3, Opus or AAC, and decode them.

    Parameters
    ----------
    waveforms : float32 tensor of shape (n, n_samples)
    rng : Rng
    config : AugmentConfig
    sample_rate : int
        Hz; 8000, 12000, 16000, 24000 or 48000, which all three codecs support.

    Returns
    -------
    float32 tensor of shape (n, n_samples)
    """
    selected = rng.select(len(waveforms), config.codec_prob)
    if not len(selected):
        return waveforms
    codec = CODECS[int(rng.generator.integers(len(CODECS)))]
    bit_rate = int(rng.generator.choice(codec.bit_rates))
    sound = waveforms[selected]
    peaks = sound.abs().amax(dim=1, keepdim=True).clamp(min=1e-6)
    # One stream for all, because an encoder takes longer to start than to run.
    joined = (0.5 * sound / peaks).flatten().cpu().numpy()
    coded = _round_trip(joined, codec, bit_rate, sample_rate)
    decoded = torch.from_numpy(coded).view(sound.shape).to(waveforms.device)
    return waveforms.index_copy(0, selected, decoded * peaks * 2)


def to_bytes(samples: NDArray[np.float32], codec: Codec, sample_rate: int, bit_rate: int) -> bytes:
    """Encode a waveform as a file.

    Parameters
    ----------
    samples : float32 array of shape (n_samples,)
    codec : Codec
    sample_rate : int
        Hz.
    bit_rate : int
        Bits per second.
    """
    file = io.BytesIO()
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = sample_rate, 0, Fraction(1, sample_rate)
    with av.open(file, "w", format=codec.container) as out:
        stream = out.add_stream(codec.encoder, rate=sample_rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate = bit_rate
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def _round_trip(
    samples: NDArray[np.float32], codec: Codec, bit_rate: int, sample_rate: int
) -> NDArray[np.float32]:
    file = io.BytesIO(to_bytes(samples, codec, sample_rate, bit_rate))
    with av.open(file, "r") as source:
        mono = av.AudioResampler("flt", "mono", sample_rate)
        frames = [part for frame in source.decode(audio=0) for part in mono.resample(frame)]
        frames += mono.resample(None)
    decoded = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return np.pad(decoded, (0, max(len(samples) - len(decoded), 0)))[: len(samples)]
