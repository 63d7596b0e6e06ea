"""The encoder without torch computes what the one in torch computes."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import save

from engine.errors import ModelError
from engine.model import features, onnx_encoder, spectrogram
from engine.model.encoder import Encoder
from engine.model.graph_writer import GraphWriter
from engine.model.graphs import clip_graph, mel_graph, segment_graph
from engine.model.network import new_models
from engine.model.onnx_encoder import OnnxEncoder
from engine.model.weights import Weights, from_bytes, to_bytes
from engine.model.weights_file import SHIPPED_WEIGHTS, parse_weights, read_weights, tensor_shapes
from engine.recipe import FINGERPRINT_AST, ASTConfig, ClipConfig, Recipe, SpectrogramConfig
from engine.records import Vectors
from tests.audio_files import Waveform, cached_tune
from tests.encoders import TINY_AST

any_max_weight = pytest.mark.parametrize(
    ("max_weight", "least"),
    [
        pytest.param(
            127,
            0.999,
            marks=pytest.mark.skipif(
                onnx_encoder._max_weight() < 127, reason="this processor saturates sums of bytes"
            ),
        ),
        (63, 0.997),
    ],
)
KALDI_AST = dataclasses.replace(TINY_AST, sample_rate=16000, target_length=50)

RECIPES = {
    "tiny": Recipe(encoder=TINY_AST),
    "fingerprint": Recipe(encoder=FINGERPRINT_AST),
    "overlapping": Recipe(encoder=dataclasses.replace(TINY_AST, stride=10)),
    "classes": Recipe(encoder=dataclasses.replace(TINY_AST, num_classes=5, fingerprint_dim=0)),
    "one class token": Recipe(encoder=dataclasses.replace(TINY_AST, use_distillation=False)),
    "one layer": Recipe(encoder=dataclasses.replace(TINY_AST, num_layers=1, mlp_ratio=2.5)),
    "other clips": Recipe(encoder=TINY_AST, clip=ClipConfig(n_segments=3, n_heads=2)),
    "kaldi": Recipe(encoder=KALDI_AST, spectrogram=SpectrogramConfig.kaldi(KALDI_AST)),
}


def weights(recipe: Recipe) -> bytes:
    """Random weights, large enough that all layers matter."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, clip_head = new_models(recipe)
        with torch.no_grad():
            for one in (*network.parameters(), *clip_head.parameters()):
                one.add_(0.1 * torch.randn_like(one))
    return to_bytes(Weights(network, clip_head, recipe))


def both(content: bytes) -> tuple[OnnxEncoder, Encoder]:
    """The same weights in onnxruntime and in torch, in single precision."""
    theirs = from_bytes(content)
    encoder = Encoder(theirs.network, theirs.clip_head, theirs.recipe, "cpu")
    encoder.half = False
    return OnnxEncoder(parse_weights(content), quantised=False), encoder


def sound(seed: int) -> Waveform:
    """Music, silence and noise."""
    noise = np.random.default_rng(seed).standard_normal(8000).astype(np.float32)
    silence = np.zeros(12_000, np.float32)
    return np.concatenate([cached_tune(seed, 3.0), silence, 0.1 * noise, 1e-4 * noise])


def worst_cosine(first: Vectors, second: Vectors) -> float:
    """Lowest cosine of the rows that are not zero, which must be the same in both."""
    assert first.shape == second.shape
    assert first.dtype == second.dtype == np.float32
    silent = ~second.any(axis=1)
    assert np.array_equal(~first.any(axis=1), silent)
    cosines = np.sum(first * second, axis=1)[~silent]
    np.testing.assert_allclose(np.linalg.norm(first[~silent], axis=1), 1, atol=1e-4)
    return float(cosines.min())


@pytest.mark.parametrize("name", RECIPES)
def test_encoder_of_any_shape_equals_that_in_torch(name: str) -> None:
    ours, theirs = both(weights(RECIPES[name]))
    waveform = sound(1)
    found, expected = ours.embed(waveform, 10), theirs.embed(waveform, 10)
    assert len(found) > 20
    assert worst_cosine(found, expected) >= 0.9999
    assert found[0] @ found[15] < 0.999


@pytest.mark.parametrize("name", RECIPES)
def test_clip_head_equals_that_in_torch(name: str) -> None:
    ours, theirs = both(weights(RECIPES[name]))
    rng = np.random.default_rng(0)
    n, dim = ours.recipe.clip.n_segments, ours.recipe.encoder.fingerprint_length
    embeddings = rng.standard_normal((4, n, dim)).astype(np.float32)
    absent = rng.random((4, n)) < 0.5
    absent[:, 0] = False
    found, expected = (one.embed_clips(embeddings, absent) for one in (ours, theirs))
    assert worst_cosine(found, expected) >= 0.9999


def test_shipped_encoder_equals_that_in_torch() -> None:
    ours, theirs = both(SHIPPED_WEIGHTS.read_bytes())
    for seed in range(3):
        assert worst_cosine(ours.embed(sound(seed), 10), theirs.embed(sound(seed), 10)) >= 0.9999


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("name", ["tiny", "fingerprint"])
def test_embed_segments_batch_changes_nothing(name: str, quantised: bool) -> None:
    encoder = OnnxEncoder(parse_weights(weights(RECIPES[name])), quantised=quantised)
    segments = np.random.default_rng(0).standard_normal((33, 64, 128)).astype(np.float32)
    together = encoder.embed_segments(segments)
    for size in (1, 2, 7, 32):
        parts = [segments[i : i + size] for i in range(0, 33, size)]
        apart = np.concatenate([encoder.embed_segments(part) for part in parts])
        assert worst_cosine(apart, together) >= 0.9999


@any_max_weight
@pytest.mark.parametrize("name", RECIPES)
def test_quantised_encoder_is_close_to_the_exact_one(
    name: str, max_weight: int, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_encoder, "_max_weight", lambda: max_weight)
    content = parse_weights(weights(RECIPES[name]))
    found, expected = (
        OnnxEncoder(content, quantised=quantised).embed(sound(1), 10) for quantised in (True, False)
    )
    assert not np.array_equal(found, expected)
    assert worst_cosine(found, expected) >= least


def test_only_the_shipped_encoder_is_quantised() -> None:
    assert OnnxEncoder(read_weights(SHIPPED_WEIGHTS)).quantised
    assert not OnnxEncoder(parse_weights(weights(RECIPES["fingerprint"]))).quantised


@pytest.mark.parametrize(("is_exact", "expected"), [(True, 127), (False, 63)])
def test_weights_are_smaller_where_products_saturate(
    monkeypatch: pytest.MonkeyPatch, is_exact: bool, expected: int
) -> None:
    monkeypatch.setattr(onnx_encoder, "_is_product_exact", lambda _: is_exact)
    assert onnx_encoder._max_weight.__wrapped__() == expected


def test_products_with_weights_of_seven_bits_are_exact() -> None:
    assert onnx_encoder._is_product_exact(63)


@any_max_weight
def test_shipped_encoder_quantised_is_close_to_the_exact_one(
    max_weight: int, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_encoder, "_max_weight", lambda: max_weight)
    shipped = read_weights(SHIPPED_WEIGHTS)
    quantised, exact = (OnnxEncoder(shipped, quantised=one) for one in (True, False))
    time_s = np.arange(16_000) / 8000
    rng = np.random.default_rng(0)
    waveforms = [
        *(sound(seed) for seed in range(4)),
        *(np.sin(2 * np.pi * hz * time_s) for hz in (110, 1000, 3900)),  # tones
        np.sign(np.sin(2 * np.pi * 220 * time_s)),
        np.sin(2 * np.pi * (200 + 900 * time_s) * time_s),  # a rising tone
        rng.standard_normal(16_000) * np.exp(-20 * (time_s % 0.25)),  # beats
        (rng.random(16_000) < 1e-3).astype(np.float32),  # clicks
    ]
    for waveform in waveforms:
        one = waveform.astype(np.float32)
        assert worst_cosine(quantised.embed(one, 5), exact.embed(one, 5)) >= least


def test_embed_many_threads_at_once_give_the_same() -> None:
    encoder = OnnxEncoder(parse_weights(weights(RECIPES["tiny"])))
    tunes = [cached_tune(seed, 3.0) for seed in range(4)] * 4
    alone = [encoder.embed(tune, 10) for tune in tunes]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda tune: encoder.embed(tune, 10), tunes))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


# -- front end ---------------------------------------------------------------------------------

FRONT_ENDS = pytest.mark.parametrize("recipe", [RECIPES["tiny"], RECIPES["kaldi"]])


@FRONT_ENDS
def test_log_mel_equals_that_in_torch(recipe: Recipe) -> None:
    config, waveform = recipe.spectrogram, sound(2)
    session = onnx_encoder._session(mel_graph(config))
    (found,) = session.run(None, {"power": features.power_spectra(waveform, config)})
    expected = spectrogram.log_mel(torch.from_numpy(waveform), config).numpy()
    assert found.shape == expected.shape
    loud = expected > expected.max() - 10  # rounding errors of the transform hide the others
    np.testing.assert_allclose(found[loud], expected[loud], atol=1e-3)
    assert np.quantile(np.abs(found - expected), 0.99) < 1e-3


@FRONT_ENDS
def test_power_spectra_less_than_a_window_gives_none(recipe: Recipe) -> None:
    config = recipe.spectrogram
    n_bins = features.fft_length(config) // 2 + 1
    short = np.zeros(config.n_fft - 1, np.float32)
    assert features.power_spectra(short, config).shape == (0, n_bins)
    whole = np.zeros(config.n_fft + config.hop_length, np.float32)
    assert features.power_spectra(whole, config).shape == (2, n_bins)


@FRONT_ENDS
@pytest.mark.parametrize("hop_frames", [1, 40])
def test_segments_equal_those_in_torch(recipe: Recipe, hop_frames: int) -> None:
    config = recipe.spectrogram
    mel = spectrogram.log_mel(torch.from_numpy(sound(3)), config)
    expected = spectrogram.segments(mel, hop_frames, config)
    found = features.segments(mel.numpy(), hop_frames, config)
    np.testing.assert_array_equal(found, expected.numpy())
    silent = spectrogram.silent(expected, config).numpy()
    assert 0 < silent.sum() < len(silent)
    np.testing.assert_array_equal(features.silent(found, config), silent)
    normal = features.normalise(found, config), spectrogram.normalise(expected, config).numpy()
    np.testing.assert_allclose(normal[0][~silent], normal[1][~silent], atol=1e-4)
    np.testing.assert_allclose(normal[0], normal[1], atol=0.01)  # rounding, where all is equal


def test_segments_shorter_than_one_gives_none() -> None:
    config = RECIPES["tiny"].spectrogram
    few = np.zeros((config.n_frames - 1, config.n_mels), np.float32)
    assert features.segments(few, 1, config).shape == (0, config.n_frames, config.n_mels)


# -- files and graphs --------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_tensor_shapes_are_those_of_the_networks(name: str) -> None:
    recipe = RECIPES[name]
    network, clip_head = new_models(recipe)
    found = {f"model.{key}": tuple(one.shape) for key, one in network.state_dict().items()}
    found |= {f"clip_head.{key}": tuple(one.shape) for key, one in clip_head.state_dict().items()}
    assert tensor_shapes(recipe) == found


def test_tensor_shapes_of_the_published_model() -> None:
    recipe = Recipe(encoder=ASTConfig(), spectrogram=SpectrogramConfig.kaldi(ASTConfig()))
    shapes = {key: one for key, one in tensor_shapes(recipe).items() if key.startswith("model.")}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 86_594_063


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 1}, r"model\.blocks\.1\.\S+: \(.*\), must be left out"),
        ({"num_layers": 3}, r"model\.blocks\.2\.\S+: missing, must be \("),
        ({"projection_dim": 31}, r"model\.projection\.0\.bias: \(32,\), must be \(31,\)"),
    ],
)
def test_parse_weights_of_another_network_are_refused(change: dict[str, Any], message: str) -> None:
    stored = parse_weights(weights(RECIPES["tiny"]))
    encoder = dataclasses.replace(TINY_AST, **change)
    recipe = dataclasses.replace(stored.recipe, encoder=encoder)
    metadata = {"recipe": json.dumps(recipe.to_dict()), "training_record": "{}", "labels": "null"}
    content = save(dict(stored.tensors), metadata)
    for read in (parse_weights, from_bytes):
        with pytest.raises(ModelError, match=message):
            read(content)


def test_load_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such weights file"):
        OnnxEncoder.load(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("name", RECIPES)
def test_graphs_are_valid(name: str) -> None:
    stored = parse_weights(weights(RECIPES[name]))
    for graph in (
        mel_graph(stored.recipe.spectrogram),
        segment_graph(stored.recipe, stored.tensors),
        clip_graph(stored.recipe, stored.tensors),
    ):
        onnx.checker.check_model(graph, full_check=True)


def test_graph_writer_writes_what_the_library_reads() -> None:
    writer = GraphWriter()
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    small = np.array([-128, 127], np.int8)
    names = [writer.constant(one) for one in (array.T, 0.5, [-1, 300], small)]
    output = writer.node("Any", *names, "", axis=-1, epsilon=1e-5, perm=[0, -2, 1000], output="y")
    content = writer.to_bytes({"x": ("float32", ["n", 3])}, {output: ("bool", [])})
    graph = onnx.load_from_string(content).graph
    found = [onnx.numpy_helper.to_array(one) for one in graph.initializer]
    for one, expected in zip(found, (array.T, 0.5, [-1, 300], small), strict=True):
        np.testing.assert_array_equal(one, expected)
    (node,) = graph.node
    assert (node.op_type, list(node.input), list(node.output)) == ("Any", [*names, ""], ["y"])
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    assert attributes == {"axis": -1, "epsilon": pytest.approx(1e-5), "perm": [0, -2, 1000]}
    (given,) = graph.input
    assert [one.dim_param or one.dim_value for one in given.type.tensor_type.shape.dim] == ["n", 3]


# -- threads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_threads", ["1", "3", "40"])
def test_embeddings_do_not_depend_on_the_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, tiny_weights: Path, n_threads: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    hop_frames, waveform = 10, sound(3)
    expected = OnnxEncoder.load(tiny_weights).embed(waveform, hop_frames)
    monkeypatch.setenv("OMP_NUM_THREADS", n_threads)
    found = OnnxEncoder.load(tiny_weights).embed(waveform, hop_frames)
    np.testing.assert_allclose(found, expected, atol=1e-5)
