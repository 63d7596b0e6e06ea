from __future__ import annotations

import array
from typing import Any

import numpy as np
import pytest
import torch

from engine.audio.arrays import mono
from engine.audio.report import ReadReport
from engine.errors import AudioError
from tests.audio_files import Tune

RATE = 8000


def test_mono_averages_channels_of_either_orientation(rng: np.random.Generator) -> None:
    samples = rng.uniform(-1, 1, (100, 2)).astype(np.float32)
    np.testing.assert_allclose(mono(samples, RATE), samples.mean(axis=1), atol=1e-7)
    np.testing.assert_allclose(mono(samples.T, RATE), samples.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_mono_scales_integers_to_full_scale(dtype: type[np.signedinteger[Any]]) -> None:
    lowest = np.iinfo(dtype).min
    samples = np.array([lowest, 0, -(lowest // 2)], dtype)
    np.testing.assert_allclose(mono(samples, RATE), [-1.0, 0.0, 0.5])


@pytest.mark.parametrize("bits", [16, 24, 32, 64])
def test_mono_scales_64_bit_integers_to_the_width_they_have(bits: int) -> None:
    highest = 2 ** (bits - 1) - 1
    samples = np.array([-highest, 0, highest // 2], np.int64)
    np.testing.assert_allclose(mono(samples, RATE), [-1.0, 0.0, 0.5], atol=1e-4)


def as_lists(tune: np.ndarray) -> list[float]:
    return [float(sample) for sample in tune]


@pytest.mark.parametrize(
    "convert",
    [
        lambda tune: tune.astype(np.float64),
        as_lists,
        lambda tune: tuple(as_lists(tune)),
        lambda tune: [[sample, sample] for sample in as_lists(tune)],
        lambda tune: (tune * 32767).astype(np.int16),
        lambda tune: [int(32767 * sample) for sample in tune],
        lambda tune: array.array("h", (int(32767 * sample) for sample in tune)),
        lambda tune: torch.from_numpy(tune.copy()),
        lambda tune: torch.from_numpy(tune.copy()).double().requires_grad_(),
        lambda tune: torch.from_numpy(tune.copy()).expand(2, -1),
        lambda tune: (torch.from_numpy(tune.copy()) * 32767).short(),
        lambda tune: tune[::-1][::-1],
    ],
    ids=[
        *("double", "list", "tuple", "nested", "int16", "integers", "array.array", "tensor"),
        *("tensor with gradient", "stereo tensor", "tensor of int16", "strided"),
    ],
)
def test_mono_takes_what_holds_samples(convert: Any, tune: Tune) -> None:
    waveform = tune(1, 1.0)
    np.testing.assert_allclose(mono(convert(waveform), RATE), waveform, atol=2e-4)


def test_mono_tensor_of_half_precision_is_read(tune: Tune) -> None:
    waveform = tune(1, 1.0)
    tensor = torch.from_numpy(waveform.copy()).to(torch.bfloat16)
    np.testing.assert_allclose(mono(tensor, RATE), waveform, atol=1e-2)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros((2, 2, 2), np.float32), r"invalid shape \(2, 2, 2\)"),
        (np.zeros((1000, 500), np.float32), "64 channels at most"),
        (np.zeros(4, np.uint8), r"uint8: must be .*\(samples - 128.0\) / 128"),
        (np.zeros(4, np.uint16), "uint16: must be floats"),
        (np.zeros(4, bool), "bool: must be floats"),
        (np.zeros(4, complex), "complex128: must be floats"),
        (np.full(4, np.nan), "no finite number"),
        (np.array("text"), "not audio"),
        (["a", "b"], "invalid dtype"),
        ([[1.0, 2.0], [3.0]], "not an array of samples"),
        (None, "not audio: NoneType"),
        ({"a": 1}, "not audio: dict"),
        (7, "not audio: int"),
    ],
    ids=str,
)
def test_mono_of_what_is_not_sound_is_one_clear_error(samples: Any, reason: str) -> None:
    with pytest.raises(AudioError, match=f"^array: .*{reason}"):
        mono(samples, RATE)


@pytest.mark.parametrize("samples", [[], np.zeros(0), np.zeros((0, 2)), np.zeros((2, 0))])
def test_mono_of_nothing_is_empty(samples: Any) -> None:
    assert mono(samples, RATE).shape == (0,)


def test_mono_single_bad_samples_become_zero_with_a_warning(tune: Tune) -> None:
    waveform = tune(1, 1.0).copy()
    waveform[[100, 200, 300]] = np.nan, np.inf, 1e30
    report = ReadReport()
    samples = mono(waveform, RATE, report)
    assert np.isfinite(samples).all()
    assert not samples[[100, 200, 300]].any()
    assert report.warnings == ["samples that are not finite numbers were replaced by 0"]


@pytest.mark.parametrize("scale", [2.0**-14, 2.0**-18])
def test_mono_of_very_quiet_floats_is_amplified_by_a_power_of_two(scale: float, tune: Tune) -> None:
    waveform = tune(1, 1.0)
    samples = mono(waveform * np.float32(scale), RATE)
    assert 0.1 < np.abs(samples).max() <= 0.25
    gain = samples[4000] / (waveform[4000] * np.float32(scale))
    assert np.log2(gain) % 1 == 0
    np.testing.assert_array_equal(samples, waveform * np.float32(scale) * gain)


def test_mono_of_16_bit_samples_in_32_bit_integers_is_amplified(tune: Tune) -> None:
    samples = mono((tune(1, 1.0) * 32767).astype(np.int32), RATE)
    assert np.abs(samples).max() > 0.1


def test_mono_of_the_noise_of_a_converter_is_left_alone() -> None:
    samples = np.array([0, 1, -1, 2, -2] * 100, np.int16)
    np.testing.assert_array_equal(mono(samples, RATE), samples / np.float32(32768))
