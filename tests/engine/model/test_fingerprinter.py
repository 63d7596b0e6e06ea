from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine import device
from engine.device import resolve_device
from engine.errors import AudioTooShortError, ConfigError, ModelError, SilentAudioError
from engine.model.encoder import Encoder
from engine.model.fingerprinter import Fingerprinter
from engine.model.network import AST, new_models
from engine.model.onnx_encoder import OnnxEncoder
from engine.model.weights import Weights, to_bytes
from engine.model.weights_file import parse_weights
from engine.recipe import Recipe
from engine.records import Fingerprint, Vectors
from tests.audio_files import Waveform, cached_tune

RATE = 8000
SEGMENT = 7324
HOP_S = 0.125
HOP = 1000


@pytest.fixture(scope="module")
def fingerprinter(tiny_model: Path) -> Fingerprinter:
    return Fingerprinter.load(tiny_model, "cpu")


@pytest.fixture(scope="module")
def whole(fingerprinter: Fingerprinter) -> Fingerprint:
    """Fingerprint of ten seconds of music in one block."""
    return fingerprinter.fingerprint([cached_tune(1, 10.0)], HOP_S)


def worst_cosine(first: Vectors, second: Vectors) -> float:
    """Lowest cosine between the rows of two arrays of unit vectors."""
    assert first.shape == second.shape
    return float(np.sum(first * second, axis=1).min())


@given(cuts=st.lists(st.integers(0, 10 * RATE), max_size=12))
@settings(max_examples=15)
def test_fingerprint_blocks_cut_anywhere_change_nothing(
    fingerprinter: Fingerprinter, whole: Fingerprint, cuts: list[int]
) -> None:
    blocks = np.split(cached_tune(1, 10.0), sorted(cuts))
    pieces = fingerprinter.fingerprint(blocks, HOP_S)
    assert worst_cosine(pieces.embeddings, whole.embeddings) > 0.9999
    assert worst_cosine(pieces.clip_embeddings, whole.clip_embeddings) > 0.9999
    assert pieces.duration_s == whole.duration_s == 10.0


def test_fingerprint_tiny_blocks_change_nothing(
    fingerprinter: Fingerprinter, whole: Fingerprint
) -> None:
    blocks = np.array_split(cached_tune(1, 10.0)[: 2 * RATE], 300)
    pieces = fingerprinter.fingerprint(blocks, HOP_S)
    n = len(pieces.embeddings)
    assert n == 9
    assert worst_cosine(pieces.embeddings, whole.embeddings[:n]) > 0.9999


@pytest.mark.parametrize("first", [1, 8, 40])
def test_fingerprint_same_second_in_track_and_clip_is_the_same(
    fingerprinter: Fingerprinter, whole: Fingerprint, first: int
) -> None:
    clip = cached_tune(1, 10.0)[first * HOP : first * HOP + 2 * RATE]
    alone = fingerprinter.fingerprint([clip], HOP_S).embeddings
    assert worst_cosine(alone, whole.embeddings[first : first + len(alone)]) > 0.9999


def test_fingerprint_other_seconds_differ(whole: Fingerprint) -> None:
    far = np.sum(whole.embeddings[:-24] * whole.embeddings[24:], axis=1)
    assert far.min() < 0.99


def test_fingerprint_contains_its_settings(
    fingerprinter: Fingerprinter, whole: Fingerprint
) -> None:
    assert whole.embeddings.dtype == whole.clip_embeddings.dtype == np.float32
    assert whole.embeddings.shape == (math.floor((10 * RATE - SEGMENT) / HOP) + 1, 16)
    assert whole.segment_hop_s == HOP_S
    assert whole.segment_s == SEGMENT / RATE
    assert whole.recipe_id == fingerprinter.recipe.recipe_id
    np.testing.assert_allclose(np.linalg.norm(whole.embeddings, axis=1), 1, atol=1e-4)


def test_fingerprint_coarse_hop_is_the_fine_one_thinned(
    fingerprinter: Fingerprinter, whole: Fingerprint
) -> None:
    coarse = fingerprinter.fingerprint([cached_tune(1, 10.0)], 0.5)
    assert worst_cosine(coarse.embeddings, whole.embeddings[::4]) > 0.9999
    assert worst_cosine(coarse.clip_embeddings, whole.clip_embeddings) > 0.9999


@pytest.mark.parametrize("n_hops", [2, 3])
def test_fingerprint_at_a_multiple_of_the_clip_hop_has_clips_with_gaps(
    fingerprinter: Fingerprinter, whole: Fingerprint, n_hops: int
) -> None:
    coarse = fingerprinter.fingerprint([cached_tune(1, 10.0)], 0.5 * n_hops)
    assert worst_cosine(coarse.embeddings, whole.embeddings[:: 4 * n_hops]) > 0.9999
    # As a recording whose other segments are silent.
    padded = whole.embeddings[::4].copy()
    padded[np.arange(len(padded)) % n_hops != 0] = 0
    absent = np.asarray(~padded.any(axis=1))[None]
    expected = fingerprinter.encoder.embed_clips(padded[None], absent)
    assert worst_cosine(coarse.clip_embeddings[:1], expected) > 0.9999


@pytest.mark.parametrize(
    ("n_samples", "n_segments"),
    [(SEGMENT, 1), (SEGMENT + 1, 1), (SEGMENT + HOP - 1, 1), (SEGMENT + HOP, 2)],
)
def test_fingerprint_counts_only_whole_segments(
    fingerprinter: Fingerprinter, n_samples: int, n_segments: int
) -> None:
    fingerprint = fingerprinter.fingerprint([cached_tune(2, 2.0)[:n_samples]], HOP_S)
    assert len(fingerprint.embeddings) == n_segments
    assert len(fingerprint.clip_embeddings) == 1
    assert fingerprint.duration_s == n_samples / RATE


@pytest.mark.parametrize(
    "blocks", [[], [np.zeros(0, np.float32)], [cached_tune(2, 2.0)[: SEGMENT - 1]]]
)
def test_fingerprint_less_than_a_segment_is_too_short(
    fingerprinter: Fingerprinter, blocks: list[Waveform]
) -> None:
    with pytest.raises(AudioTooShortError, match=r"clip\.wav.*0\.92 s needed") as caught:
        fingerprinter.fingerprint(blocks, HOP_S, "clip.wav")
    assert caught.value.duration_s == sum(map(len, blocks)) / RATE
    assert caught.value.minimum_s == SEGMENT / RATE


def test_fingerprint_nothing_audible_is_refused(fingerprinter: Fingerprinter) -> None:
    hiss = 1e-5 * np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32)
    for silence in (np.zeros(3 * RATE, np.float32), hiss):
        with pytest.raises(SilentAudioError, match=r"clip\.wav"):
            fingerprinter.fingerprint([silence], HOP_S, "clip.wav")


def test_fingerprint_silence_within_gives_zero_rows(fingerprinter: Fingerprinter) -> None:
    waveform = np.concatenate([cached_tune(1, 3.0), np.zeros(24 * RATE, np.float32)])
    fingerprint = fingerprinter.fingerprint([waveform], HOP_S)
    lengths = np.linalg.norm(fingerprint.embeddings, axis=1)
    assert np.allclose(lengths[:20], 1, atol=1e-4)
    assert not lengths[24:].any()  # from second 3 on
    assert fingerprint.audible.sum() in range(21, 25)
    assert np.linalg.norm(fingerprint.clip_embeddings, axis=1).round(3).tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("n_spaced", "n_clips"), [(1, 1), (19, 1), (20, 2), (29, 2), (30, 3), (39, 3), (40, 4)]
)
def test_fingerprint_clips_overlap_and_leave_no_end_out(
    fingerprinter: Fingerprinter, n_spaced: int, n_clips: int
) -> None:
    """A clip begins every ten segments while at least ten segments remain for it."""
    waveform = np.resize(cached_tune(3, 10.0), SEGMENT + (n_spaced - 1) * 4 * HOP)
    fingerprint = fingerprinter.fingerprint([waveform], 0.5)
    assert len(fingerprint.embeddings) == n_spaced
    assert fingerprint.clip_embeddings.shape == (n_clips, 16)
    np.testing.assert_allclose(np.linalg.norm(fingerprint.clip_embeddings, axis=1), 1, atol=1e-4)


def test_fingerprint_clip_of_a_track_equals_the_clip_alone(fingerprinter: Fingerprinter) -> None:
    track = np.resize(cached_tune(3, 10.0), 30 * RATE)
    inside = fingerprinter.fingerprint([track], 0.5).clip_embeddings[1]
    alone = fingerprinter.fingerprint([track[5 * RATE : 5 * RATE + 79324]], 0.5).clip_embeddings
    assert len(alone) == 1
    assert worst_cosine(inside[None], alone) > 0.9999


@pytest.mark.parametrize("hop_s", [0.0, 0.13, 0.2, 0.75, 1.25])
def test_fingerprint_hop_that_does_not_fit_is_refused(
    fingerprinter: Fingerprinter, hop_s: float
) -> None:
    with pytest.raises(ConfigError):
        fingerprinter.fingerprint([cached_tune(1, 3.0)], hop_s)


def test_fingerprint_takes_read_only_and_strided_arrays(
    fingerprinter: Fingerprinter, whole: Fingerprint
) -> None:
    """A warning would be an error here."""
    waveform = cached_tune(1, 10.0)
    assert not waveform.flags.writeable
    stereo = np.stack([waveform, waveform], axis=1)
    fingerprint = fingerprinter.fingerprint([stereo[:, 0]], HOP_S)
    assert worst_cosine(fingerprint.embeddings, whole.embeddings) > 0.9999


def test_fingerprint_leaves_the_waveform_as_it_was(fingerprinter: Fingerprinter) -> None:
    waveform = cached_tune(1, 3.0).copy()
    fingerprinter.fingerprint([waveform], HOP_S)
    np.testing.assert_array_equal(waveform, cached_tune(1, 3.0))


# -- encoder ----------------------------------------------------------------------------------


def segments_like_music(n: int) -> Tensor:
    """Normalised features: each segment has its own tones that come and go."""
    torch.manual_seed(3)
    bands, times = torch.rand(n, 1, 128).pow(8), torch.rand(n, 64, 4)
    shapes = torch.rand(n, 4, 128).pow(8)
    raw = 4 * bands + 8 * times @ shapes + 0.5 * torch.randn(n, 64, 128)
    return (raw - raw.mean((1, 2), keepdim=True)) / raw.std((1, 2), keepdim=True)


def worst_cosine_of(first: Tensor, second: Tensor) -> float:
    return worst_cosine(first.numpy(), second.numpy())


def in_onnxruntime(encoder: Encoder) -> OnnxEncoder:
    """The same weights in the other runtime."""
    assert isinstance(encoder.network, AST)
    weights = Weights(encoder.network, encoder.clip_head, encoder.recipe)
    return OnnxEncoder(parse_weights(to_bytes(weights)))


@pytest.fixture(scope="module", params=["tiny", "fingerprint"])
def encoder(request: pytest.FixtureRequest, tiny_model: Path) -> Encoder:
    if request.param == "tiny":
        return Encoder.load(tiny_model, "cpu")
    torch.manual_seed(0)
    return Encoder(*new_models(Recipe()), Recipe(), "cpu")


@pytest.mark.parametrize("half", [False, True])
def test_embed_segments_batch_changes_nothing(encoder: Encoder, half: bool) -> None:
    encoder.half = half
    features = segments_like_music(33)
    together = encoder.embed_segments(features)
    for size in (1, 2, 7, 32):
        apart = torch.cat([encoder.embed_segments(part) for part in features.split(size)])
        assert worst_cosine_of(apart, together) >= 0.9999


@pytest.mark.parametrize("half", [False, True])
def test_embed_segments_gives_unit_norm_float32(encoder: Encoder, half: bool) -> None:
    encoder.half = half
    embeddings = encoder.embed_segments(segments_like_music(5))
    assert embeddings.dtype == torch.float32
    assert embeddings.shape == (5, encoder.recipe.encoder.fingerprint_dim)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5), atol=1e-4, rtol=0)


def test_embed_segments_half_precision_is_close_to_single(encoder: Encoder) -> None:
    features = segments_like_music(16)
    embeddings = []
    for half in (False, True):
        encoder.half = half
        embeddings.append(encoder.embed_segments(features))
    assert not torch.equal(*embeddings)
    assert worst_cosine_of(*embeddings) >= 0.999


def test_embed_segments_twice_gives_the_same_bits(encoder: Encoder) -> None:
    features = segments_like_music(9)
    first, second = (encoder.embed_segments(features) for _ in range(2))
    assert torch.equal(first, second)


def test_embed_segments_none_gives_none(encoder: Encoder) -> None:
    dim = encoder.recipe.encoder.fingerprint_dim
    assert encoder.embed_segments(torch.zeros(0, 64, 128)).shape == (0, dim)


def test_embed_clips_ignores_absent_segments(encoder: Encoder) -> None:
    rng = np.random.default_rng(0)
    dim = encoder.recipe.encoder.fingerprint_dim
    segments = rng.standard_normal((4, 19, dim)).astype(np.float32)
    segments /= np.linalg.norm(segments, axis=2, keepdims=True)
    absent = np.zeros((4, 19), np.bool_)
    absent[:, 11:] = True
    other = np.where(absent[:, :, None], np.float32(7), segments)
    for one in (encoder, in_onnxruntime(encoder)):
        pooled = one.embed_clips(segments, absent)
        assert pooled.shape == (4, dim)
        np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), 1, atol=1e-4)
        np.testing.assert_allclose(one.embed_clips(other, absent), pooled, atol=1e-5)
        assert not np.allclose(one.embed_clips(segments, ~absent), pooled, atol=1e-3)


# -- device -----------------------------------------------------------------------------------


def test_load_on_a_gpu_or_the_cpu(tiny_model: Path) -> None:
    assert isinstance(Fingerprinter.load(tiny_model, "cpu").encoder, OnnxEncoder)
    if torch.cuda.is_available():
        assert isinstance(Fingerprinter.load(tiny_model, "cuda").encoder, Encoder)


def test_resolve_device_cuda_without_a_device_is_refused() -> None:
    assert resolve_device("cpu") == "cpu"
    if torch.cuda.is_available():
        assert resolve_device("auto") == resolve_device("cuda") == "cuda"
        return
    assert resolve_device("auto") == "cpu"
    with pytest.raises(ModelError, match="--device cpu"):
        resolve_device("cuda")


def test_resolve_device_auto_asks_torch_only_where_there_is_a_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for has_driver, has_cuda in itertools.product((False, True), repeat=2):
        monkeypatch.setattr(device, "_has_driver", lambda one=has_driver: one)
        monkeypatch.setattr(device, "torch_has_cuda", lambda one=has_cuda: one)
        assert resolve_device("auto") == ("cuda" if has_driver and has_cuda else "cpu")


def test_has_driver_missing_library_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(device, "_DRIVERS", ("no_such_driver.so",))
    monkeypatch.setattr(device, "_AMD_DEVICE", tmp_path / "kfd")
    assert not device._has_driver()
    (tmp_path / "kfd").touch()
    assert device._has_driver()
