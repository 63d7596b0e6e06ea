"""Read what a program holds in memory: arrays, lists and tensors of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.audio.gain import quiet_gain
from engine.audio.mix import MAX_CHANNELS, mix, without_bad_samples
from engine.audio.report import ReadReport
from engine.errors import AudioError
from engine.records import Waveform

_NAME = "array"
# No format stores 64 bits: such arrays hold samples of another width.
_WIDTHS = (16, 24, 32, 64)


def mono(samples: Any, sample_rate: int, report: ReadReport | None = None) -> Waveform:
    """Convert an array of samples to a mono waveform.

    Parameters
    ----------
    samples : array, sequence of numbers, or tensor
        Of shape (n_samples,), (n_samples, n_channels) or (n_channels, n_samples): the shorter axis
        holds the channels. Floats in [-1, 1], or signed integers scaled to the full range of their
        type; 64-bit integers to that of the narrowest type that holds them.
    sample_rate : int
        Hz.
    report : ReadReport, optional
        Collects what is wrong with the samples.

    Returns
    -------
    float32 array of shape (n_samples,), in [-1, 1]
        Amplified by :func:`engine.audio.gain.quiet_gain`.

    Raises
    ------
    AudioError
        Another shape or type, or no finite sample.
    """
    array = _as_array(samples)
    if not array.size:
        return np.zeros(0, np.float32)
    channels, is_fine = _as_floats(array), array.dtype.itemsize > 2
    good, n_bad = without_bad_samples(channels)
    if n_bad:
        if n_bad == good.size:
            raise AudioError(_NAME, "it contains no finite number")
        if report:
            report.warn("samples that are not finite numbers were replaced by 0")
    if good.ndim == 2:
        good = good if np.argmin(good.shape) == 1 else good.T
        if good.shape[1] > MAX_CHANNELS:
            reason = f"invalid shape {array.shape}: must be (n_samples,) or (n_samples, n_channels)"
            raise AudioError(_NAME, f"{reason}, with {MAX_CHANNELS} channels at most")
    waveform = mix(good.reshape(len(good), -1), sample_rate)
    gain = quiet_gain(float(np.abs(waveform).max(initial=0.0)), is_fine=is_fine)
    return np.ascontiguousarray(waveform if gain == 1.0 else waveform * np.float32(gain))


def _as_array(samples: Any) -> NDArray[Any]:
    if hasattr(samples, "detach"):  # a torch tensor, on any device
        samples = samples.detach().cpu()
        samples = (samples.float() if samples.is_floating_point() else samples).numpy()
    try:
        array = np.asarray(samples)
    except (ValueError, TypeError) as error:
        raise AudioError(_NAME, f"not an array of samples ({error})") from error
    if array.ndim not in (1, 2):
        reason = f"invalid shape {array.shape}: must be (n_samples,) or (n_samples, n_channels)"
        raise AudioError(_NAME, reason if array.ndim else f"not audio: {type(samples).__name__}")
    return array


def _as_floats(array: NDArray[Any]) -> NDArray[np.float32]:
    if np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore"):  # becomes infinite, and is replaced
            return array.astype(np.float32)
    if np.issubdtype(array.dtype, np.signedinteger):
        return array.astype(np.float32) / np.float32(_full_scale(array))
    requirement = "must be floats in [-1, 1] or signed integers"
    if array.dtype == np.uint8:
        requirement += "; 8-bit samples become floats by (samples - 128.0) / 128"
    raise AudioError(_NAME, f"invalid dtype {array.dtype}: {requirement}")


def _full_scale(array: NDArray[np.signedinteger[Any]]) -> float:
    if array.dtype.itemsize < 8:
        return float(2 ** (8 * array.dtype.itemsize - 1))
    peak = max(abs(int(array.min())), abs(int(array.max())))
    return float(2 ** (next(bits for bits in _WIDTHS if peak <= 2 ** (bits - 1)) - 1))
