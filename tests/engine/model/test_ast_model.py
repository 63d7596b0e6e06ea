from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional as F

from engine.errors import (
    AudioError,
    AudioTooShortError,
    ConfigError,
    ModelError,
    RecipeMismatchError,
    SilentAudioError,
)
from engine.model.ast_model import ASTModel
from engine.model.fingerprinter import Fingerprinter
from engine.model.onnx import seal
from engine.model.weights import load_weights
from engine.model.weights_file import SHIPPED_WEIGHTS
from engine.protocol import AudioFingerprinter
from engine.recipe import ASTConfig, SpectrogramConfig
from engine.records import Fingerprint
from tests.audio_files import cached_tune

SMALL = ASTConfig(
    num_classes=5, embedding_dim=32, num_layers=2, num_heads=2, num_mel_bands=32, target_length=100
)
RATE = SMALL.sample_rate
SEGMENT = 99 * 160 + 400


def small(seed: int = 0, **changes: Any) -> ASTModel:
    torch.manual_seed(seed)
    settings = {key: changes.pop(key) for key in ("labels", "optimizer", "loss") if key in changes}
    return ASTModel(dataclasses.replace(SMALL, **changes), device="cpu", **settings)


def noise(n_samples: int, batch: int | None = None, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (n_samples,) if batch is None else (batch, n_samples)
    return 0.1 * torch.randn(shape, generator=generator)


# -- what it is ----------------------------------------------------------------------------------


def test_config_defaults_are_those_described() -> None:
    config = ASTConfig()
    assert (config.sample_rate, config.num_classes, config.embedding_dim) == (16000, 527, 768)
    assert (config.num_layers, config.num_heads, config.patch_size) == (12, 12, 16)
    assert (config.num_mel_bands, config.target_length, config.mlp_ratio) == (128, 1024, 4.0)
    assert (config.dropout, config.use_distillation) == (0.0, True)


def test_properties_are_those_of_the_config() -> None:
    model = small(fingerprint_dim=8)
    assert (model.embedding_dimension, model.fingerprint_length) == (32, 8)
    assert (model.num_classes, model.num_layers, model.patch_size) == (5, 2, 16)
    assert model.name == "Audio Spectrogram Transformer"
    assert small().fingerprint_length == 32


def test_metadata_is_complete() -> None:
    model = small(labels=list("abcde"))
    about = model.metadata()
    assert about["name"] == model.name
    assert about["config"]["embedding_dim"] == 32
    assert about["n_parameters"] == len(model.parameters_vector())
    assert about["recipe_id"] == model.recipe_id
    assert about["labels"] == list("abcde")
    assert about["training"] == {}


@pytest.mark.parametrize("labels", [["a"], list("abcdef")])
def test_labels_of_another_number_are_refused(labels: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"len\(labels\)=\d: must be 5, one"):
        small(labels=labels)


def test_new_weights_are_drawn_as_published() -> None:
    network: Any = small(embedding_dim=128).network
    weight = network.blocks[0].mlp[0].weight.detach()
    assert float(weight.std()) == pytest.approx(0.02, rel=0.1)
    assert float(weight.abs().max()) <= 2.0


# -- inference -----------------------------------------------------------------------------------


def test_predict_takes_a_waveform_a_batch_or_features() -> None:
    model, audio = small(), noise(SEGMENT, 3)
    together = model.predict(audio)
    assert together.shape == (3, 5)
    torch.testing.assert_close(model.predict(audio[1]), together[1:2], atol=1e-5, rtol=0)
    torch.testing.assert_close(model.predict(model.preprocess(audio)), together)
    torch.testing.assert_close(model.predict(audio.numpy()), together)
    torch.testing.assert_close(model.predict(audio.double().tolist()), together)


def test_predict_averages_over_the_segments_of_a_long_waveform() -> None:
    model, audio = small(), noise(2 * SEGMENT + 500)
    parts = [audio[:SEGMENT], audio[SEGMENT : 2 * SEGMENT], audio[-SEGMENT:]]
    expected = torch.stack([model.predict(part) for part in parts]).mean(0)
    torch.testing.assert_close(model.predict(audio), expected)


def test_preprocess_pads_nothing() -> None:
    model = small()
    assert model.preprocess(noise(SEGMENT)).shape == (1, 100, 32)
    assert model.preprocess(noise(SEGMENT - 160, 2)).shape == (2, 99, 32)
    short = model.predict(noise(SEGMENT)[: 50 * 160 + 400])
    assert short.shape == (1, 5)


@pytest.mark.parametrize(
    ("audio", "said"),
    [
        (np.zeros((2, 3, 4, 5), np.float32), "shape"),
        (np.zeros(0, np.float32), "shape"),
        (np.zeros(20000, np.int16), "int16"),
        (torch.zeros(20000, dtype=torch.int32), "int32"),
        (np.full(20000, np.nan, np.float32), "not finite"),
        (["a", "b"], "not a waveform"),
        ([[0.0, 1.0], [0.0]], "not a waveform"),
    ],
    ids=["dimensions", "empty", "int16", "int32", "nan", "words", "ragged"],
)
def test_predict_refuses_other_than_waveforms(audio: Any, said: str) -> None:
    with pytest.raises(AudioError, match=said):
        small().predict(audio)


def test_predict_refuses_less_than_a_patch() -> None:
    needed = 15 * 160 + 400
    assert small().predict(noise(needed)).shape == (1, 5)
    with pytest.raises(AudioTooShortError, match=r"0\.17 s needed|0\.18 s needed"):
        small().predict(noise(needed - 1))


@pytest.mark.parametrize("shape", [(1, 101, 32), (1, 15, 32), (1, 100, 31)])
def test_predict_refuses_features_that_do_not_fit(shape: tuple[int, int, int]) -> None:
    with pytest.raises(
        ConfigError, match=r"features.shape=.*\(batch, n_frames, 32\) with 16 to 100"
    ):
        small().predict(torch.zeros(shape))


@pytest.mark.parametrize("multi_label", [True, False])
def test_classify_returns_the_most_probable(multi_label: bool) -> None:
    model = small(multi_label=multi_label, labels=list("abcde"))
    audio = noise(SEGMENT)
    logits = model.predict(audio)[0]
    every = logits.sigmoid() if multi_label else logits.exp() / logits.exp().sum()
    found = model.classify(audio, top_k=3)
    order = every.argsort(descending=True)[:3].tolist()
    assert [label for label, _ in found] == ["abcde"[index] for index in order]
    assert [p for _, p in found] == pytest.approx([float(every[index]) for index in order])
    assert len(model.classify(audio, top_k=9)) == 5


def test_classify_invalid_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="top_k=0"):
        small().classify(noise(SEGMENT), top_k=0)
    with pytest.raises(AudioError, match="got 2 waveforms, but classify takes one"):
        small().classify(noise(SEGMENT, 2))
    with pytest.raises(ModelError, match="has no classes"):
        small(num_classes=0).classify(noise(SEGMENT))


@pytest.mark.parametrize("use_distillation", [True, False])
def test_extract_embedding_is_the_mean_of_the_class_tokens(use_distillation: bool) -> None:
    model = small(use_distillation=use_distillation)
    audio = noise(SEGMENT, 2)
    network: Any = model.network
    with torch.inference_mode():
        x = network.tokens(model.preprocess(audio))
        for block in network.blocks:
            x = block(x)
        x = network.norm(x)
    expected = (x[:, 0] + x[:, 1]) / 2 if use_distillation else x[:, 0]
    torch.testing.assert_close(model.extract_embedding(audio), expected)


# -- fingerprints --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> ASTModel:
    return ASTModel.shipped(device="cpu")


def test_fingerprint_equals_that_of_the_fingerprinter(shipped: ASTModel) -> None:
    tune = cached_tune(1, 12.0)
    expected = Fingerprinter.load(device="cpu").fingerprint([tune], 0.5)
    forms: list[Any] = [
        tune,
        torch.from_numpy(tune.copy()),
        tune.tolist(),
        iter([tune[:5000], tune[5000:]]),
    ]
    for form in forms:
        found = shipped.fingerprint(form)
        for ours, theirs in (
            (found.embeddings, expected.embeddings),
            (found.clip_embeddings, expected.clip_embeddings),
        ):
            assert np.sum(ours * theirs, axis=1).min() >= 0.999  # torch and onnxruntime
        assert (found.segment_hop_s, found.duration_s) == (0.5, 12.0)
        assert found.recipe_id == expected.recipe_id


def test_fingerprint_of_a_published_shape_has_its_own_recipe() -> None:
    model = small(num_classes=0)
    found = model.fingerprint(noise(3 * RATE), 0.1)
    assert found.embeddings.shape == (20, 32)
    np.testing.assert_allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-2)
    assert found.recipe_id == model.recipe_id != small(1, num_classes=0).recipe_id


def test_fingerprint_refuses_silence_and_what_is_too_short(shipped: ASTModel) -> None:
    with pytest.raises(AudioError, match="got 2 waveforms, but fingerprint takes one"):
        shipped.fingerprint(noise(16000, 2))
    with pytest.raises(SilentAudioError):
        shipped.fingerprint(np.zeros(16000, np.float32))
    with pytest.raises(AudioTooShortError):
        shipped.fingerprint(cached_tune(1, 12.0)[:4000])
    with pytest.raises(SilentAudioError):
        small().fingerprint(np.zeros(3 * RATE, np.float32))


def test_similarity_and_matches_of_two_recordings(shipped: ASTModel) -> None:
    tune, other = cached_tune(1, 30.0), cached_tune(2, 30.0)
    whole, stranger = shipped.fingerprint(tune), shipped.fingerprint(other)
    part = shipped.fingerprint(tune[8000 * 10 : 8000 * 22])
    assert shipped.compute_similarity(whole, whole) == pytest.approx(1.0, abs=0.01)
    assert shipped.compute_similarity(part, whole) > 0.9
    assert shipped.compute_similarity(whole, stranger) < 0.5
    (match,) = shipped.find_matches(part, whole)
    assert match.reference_start_s - match.query_start_s == pytest.approx(10.0, abs=0.25)
    assert shipped.find_matches(stranger, whole) == []


def test_fingerprints_of_two_recipes_are_not_compared(shipped: ASTModel) -> None:
    other = dataclasses.replace(shipped.fingerprint(cached_tune(1, 12.0)), recipe_id="other")
    with pytest.raises(RecipeMismatchError):
        shipped.compute_similarity(other, shipped.fingerprint(cached_tune(1, 12.0)))


def test_model_satisfies_the_protocol(shipped: ASTModel) -> None:
    assert isinstance(shipped, AudioFingerprinter)
    assert isinstance(Fingerprinter.load(device="cpu"), AudioFingerprinter)
    assert not isinstance(Fingerprint, AudioFingerprinter)


# -- learning ------------------------------------------------------------------------------------


def sgd(rate: float) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, rate)


def test_train_step_moves_against_the_gradient() -> None:
    model = small(optimizer=sgd(0.1))
    audio, targets = noise(SEGMENT, 2), torch.tensor([1, 3])
    before, gradient = model.parameters_vector(), model.compute_gradients(audio, targets)
    model.train_step(audio, targets)
    torch.testing.assert_close(model.parameters_vector(), before - 0.1 * gradient)


@pytest.mark.parametrize("multi_label", [True, False])
def test_compute_gradients_agree_with_differences(multi_label: bool) -> None:
    model = small(multi_label=multi_label)
    audio, targets = noise(SEGMENT, 2), [0, 2]
    gradient, weights = model.compute_gradients(audio, targets), model.parameters_vector()
    direction = gradient / gradient.norm()
    losses = []
    for step in (-0.01, 0.01):
        model.update_parameters(weights + step * direction)
        losses.append(float(model.loss(model.preprocess(audio), targets).detach()))
    assert (losses[1] - losses[0]) / 0.02 == pytest.approx(float(gradient.norm()), rel=0.02)


def test_input_gradients_agree_with_differences() -> None:
    model = small()
    audio = noise(SEGMENT)
    of_features, of_waveform = model.input_gradients(audio, [1])
    assert of_features.shape == (1, 100, 32)
    assert of_waveform.shape == audio.shape
    direction = of_waveform / of_waveform.norm()
    losses = [
        float(model.loss(model.preprocess(audio + step * direction), [1]).detach())
        for step in (-1e-3, 1e-3)
    ]
    assert (losses[1] - losses[0]) / 2e-3 == pytest.approx(float(of_waveform.norm()), rel=0.05)


@pytest.mark.parametrize("n_samples", [2 * SEGMENT, 2 * SEGMENT + 5000, 10 * SEGMENT])
def test_gradients_and_steps_on_long_audio_average_its_segments(n_samples: int) -> None:
    model = small(optimizer=sgd(0.1))
    audio, targets = noise(n_samples, 2), torch.tensor([1, 3])
    logits = model.predict(audio)
    expected = F.binary_cross_entropy_with_logits(logits, F.one_hot(targets, 5).float())
    before, gradient = model.parameters_vector(), model.compute_gradients(audio, targets)
    assert model.train_step(audio, targets) == pytest.approx(float(expected), rel=1e-5)
    torch.testing.assert_close(model.parameters_vector(), before - 0.1 * gradient)


@pytest.mark.parametrize("method", ["gradient", "rollout", "occlusion"])
def test_importance_of_long_audio_is_an_error_that_says_the_longest_length(
    method: str, tmp_path: Path
) -> None:
    model = small()
    message = r"^array: too long: 2\.03 s of audio, must be 1\.01 s at most$"
    with pytest.raises(AudioError, match=message):
        model.feature_importance(noise(2 * SEGMENT), method)
    with pytest.raises(AudioError, match=message):
        model.plot_importance(noise(2 * SEGMENT), tmp_path / "plot.png", method)


def test_input_gradients_and_fit_on_long_audio_are_errors() -> None:
    model = small()
    with pytest.raises(AudioError, match="at most"):
        model.input_gradients(noise(2 * SEGMENT), [1])
    with pytest.raises(AudioError, match="at most"):
        model.fit([(noise(2 * SEGMENT), 1)] * 2, n_epochs=1, batch_size=2)


def test_gradients_change_nothing() -> None:
    model = small()
    before = model.recipe_id
    model.compute_gradients(noise(SEGMENT, 2), [0, 1])
    model.input_gradients(noise(SEGMENT), [0])
    assert model.recipe_id == before


def test_fit_separates_two_sounds() -> None:
    times = torch.arange(SEGMENT) / RATE
    dataset = [
        (torch.sin(2 * torch.pi * hz * (1 + 0.01 * n) * times), label)
        for n in range(8)
        for label, hz in enumerate((300.0, 3000.0))
    ]
    model = small(multi_label=False, num_classes=2, optimizer=lambda p: torch.optim.Adam(p, 1e-3))
    told: list[int] = []
    losses = model.fit(
        dataset, n_epochs=6, batch_size=4, freq_mask=4, time_mask=10,
        on_step=lambda step, _: told.append(step),
    )  # fmt: skip
    assert losses[-1] < 0.7 * losses[0]
    assert told == list(range(24))
    audio = torch.stack([one for one, _ in dataset])
    assert model.predict(audio).argmax(1).tolist() == [label for _, label in dataset]


def test_loss_can_be_replaced() -> None:
    model = small(loss=lambda logits, targets: logits.sum() * 0 + 7)
    assert model.train_step(noise(SEGMENT, 2), [0, 1]) == 7.0


def test_parameters_vector_round_trip_is_exact() -> None:
    model, other = small(0), small(1)
    assert model.recipe_id != other.recipe_id
    other.clip_head.load_state_dict(model.clip_head.state_dict())
    other.update_parameters(model.parameters_vector())
    assert torch.equal(other.parameters_vector(), model.parameters_vector())
    assert other.recipe_id == model.recipe_id


@pytest.mark.parametrize("n_more", [-1, 1])
def test_update_parameters_of_another_size_is_refused(n_more: int) -> None:
    model = small()
    n_wrong = len(model.parameters_vector()) + n_more
    with pytest.raises(ConfigError, match=r"vector.shape=.*: must be"):
        model.update_parameters(torch.zeros(n_wrong))


def test_learning_without_classes_is_refused() -> None:
    with pytest.raises(ModelError, match="no classes"):
        small(num_classes=0).train_step(noise(SEGMENT, 2), [0, 1])


def test_state_resumes_training_exactly(tmp_path: Path) -> None:
    audio, targets = noise(SEGMENT, 2), [0, 1]
    through = small()
    for _ in range(2):
        through.train_step(audio, targets)
    through.save_state(tmp_path / "state.safetensors")
    again = small(7)
    again.load_state(tmp_path / "state.safetensors")
    for model in (through, again):
        model.train_step(audio, targets)
    assert torch.equal(through.parameters_vector(), again.parameters_vector())


def test_state_of_another_shape_is_refused(tmp_path: Path) -> None:
    small(num_layers=1).save_state(tmp_path / "state.safetensors")
    with pytest.raises(ModelError, match="not a saved state of this model"):
        small().load_state(tmp_path / "state.safetensors")
    (tmp_path / "x").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="not a saved state of this model"):
        small().load_state(tmp_path / "x")


# -- copies and files ----------------------------------------------------------------------------


def test_bytes_round_trip_is_exact(tmp_path: Path) -> None:
    model = small(labels=list("abcde"))
    model.training_record = {"seed": 3}
    model.save(tmp_path / "m.safetensors")
    for other in (
        ASTModel.from_bytes(model.to_bytes(), device="cpu"),
        ASTModel.load(tmp_path / "m.safetensors", device="cpu"),
    ):
        assert other.metadata() == model.metadata()
        assert torch.equal(other.predict(noise(SEGMENT)), model.predict(noise(SEGMENT)))


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[: len(b) // 2], lambda b: b"x"])
def test_damaged_bytes_are_refused(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ModelError, match="not astound weights, or damaged"):
        ASTModel.from_bytes(damage(small().to_bytes()))


def test_clone_is_independent_and_new_instance_is_fresh() -> None:
    model = small(labels=list("abcde"), optimizer=sgd(0.1))
    copy, fresh = model.clone(), model.new_instance()
    assert copy.recipe_id == model.recipe_id
    assert fresh.recipe_id != model.recipe_id
    assert fresh.config == model.config
    assert fresh.labels == copy.labels == model.labels
    copy.train_step(noise(SEGMENT, 2), [0, 1])
    assert copy.recipe_id != model.recipe_id


def test_from_pretrained_takes_its_own_file_in_another_shape(tmp_path: Path) -> None:
    small(labels=list("abcde")).save(tmp_path / "m.safetensors")
    changed = ASTModel.from_pretrained(
        tmp_path / "m.safetensors", target_length=50, num_classes=0, fingerprint_dim=8, device="cpu"
    )
    assert changed.config.target_length == 50
    assert changed.labels == ()
    assert changed.fingerprint(noise(3 * RATE), 0.1).embeddings.shape[1] == 8
    same = ASTModel.from_pretrained(tmp_path / "m.safetensors", device="cpu")
    assert same.labels == tuple("abcde")
    half = noise(49 * 160 + 400)
    torch.testing.assert_close(changed.extract_embedding(half), same.extract_embedding(half))


def test_from_pretrained_refuses_unknown_settings(tmp_path: Path) -> None:
    small().save(tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match="n_layer: unknown setting; choose from"):
        ASTModel.from_pretrained(tmp_path / "m.safetensors", n_layer=3)


def test_closed_model_is_refused() -> None:
    with small() as model:
        model.predict(noise(SEGMENT))
    with pytest.raises(ModelError, match="closed"):
        model.predict(noise(SEGMENT))


# -- other forms ---------------------------------------------------------------------------------


def test_compile_changes_no_output() -> None:
    model = small(fingerprint_dim=8)
    audio = noise(SEGMENT, 2)
    logits, embedding = model.predict(audio), model.extract_embedding(audio)
    model.compile(backend="eager")
    torch.testing.assert_close(model.predict(audio), logits)
    torch.testing.assert_close(model.extract_embedding(audio), embedding)


def test_export_gives_the_same_outputs() -> None:
    model = small()
    features = model.preprocess(noise(SEGMENT, 3))
    found = model.export().module()(features)
    assert any(torch.allclose(one, model.predict(features), atol=1e-5) for one in _tensors(found))


def _tensors(found: Any) -> list[torch.Tensor]:
    every = found.values() if isinstance(found, dict) else found
    return [one for one in every if one.shape == (3, 5)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of a small model of five classes; not to be changed."""
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    small(fingerprint_dim=8, labels=list("abcde")).export_onnx(path)
    return path


def test_onnx_round_trip(tmp_path: Path) -> None:
    model = small(fingerprint_dim=8, labels=list("abcde"))
    model.export_onnx(tmp_path / "m.onnx")
    again = ASTModel.from_onnx(tmp_path / "m.onnx")
    for audio in (noise(SEGMENT, 3), noise(SEGMENT - 3000), noise(3 * SEGMENT)):
        torch.testing.assert_close(again.predict(audio), model.predict(audio), atol=1e-4, rtol=0)
        torch.testing.assert_close(
            again.extract_embedding(audio), model.extract_embedding(audio), atol=1e-4, rtol=0
        )
    assert again.labels == model.labels
    ours, theirs = (one.fingerprint(noise(12 * RATE), 0.5) for one in (model, again))
    assert theirs.recipe_id == ours.recipe_id
    assert (ours.embeddings * theirs.embeddings).sum(1).min() > 0.999
    assert (ours.clip_embeddings * theirs.clip_embeddings).sum(1).min() > 0.999
    with pytest.raises(ModelError, match="no weights"):
        again.parameters_vector()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("recipe", "[" * 100_000, "nested too deeply"),
        ("recipe", '{"clip": {"n_segments": 1e12}}', "n_segments"),
        ("recipe", "{}", "must be the encoder of recipe"),
        ("labels", "5", "labels"),
        ("labels", '["a"]', "must be 5 names"),
        ("clip_head", "AAAA", "export_onnx"),
    ],
)
def test_from_onnx_hostile_metadata_are_named(
    exported: Path, tmp_path: Path, key: str, value: str, words: str
) -> None:
    model = onnx.load(exported)
    metadata = {one.key: one.value for one in model.metadata_props if one.key != "sha256"}
    onnx.helper.set_model_props(model, metadata | {key: value})
    onnx.save(model, tmp_path / "m.onnx")
    seal(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=words):
        ASTModel.from_onnx(tmp_path / "m.onnx")


def test_from_onnx_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx"):
        ASTModel.from_onnx("nowhere.onnx")


# -- what matters to it --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gradient", "rollout", "occlusion"])
@pytest.mark.parametrize("num_classes", [5, 0])
def test_feature_importance_is_aligned_with_the_spectrogram(method: str, num_classes: int) -> None:
    found = small(num_classes=num_classes).feature_importance(noise(SEGMENT), method)
    assert found.shape == (100, 32)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert np.abs(found).max() > 1e-4


def test_feature_importance_of_a_chosen_class() -> None:
    model = small(labels=list("abcde"))
    audio = noise(SEGMENT)
    of_b = model.feature_importance(audio, target="b")
    np.testing.assert_array_equal(of_b, model.feature_importance(audio, target=1))
    assert not np.array_equal(of_b, model.feature_importance(audio, target="c"))
    likeliest = model.classify(audio, 1)[0][0]
    np.testing.assert_array_equal(
        model.feature_importance(audio), model.feature_importance(audio, target=likeliest)
    )
    for unknown in ("f", 5, -1):
        with pytest.raises(ConfigError, match="must be one of the 5 classes"):
            model.feature_importance(audio, target=unknown)
    with pytest.raises(ConfigError, match="must be one of gradient, rollout, occlusion"):
        model.feature_importance(audio, "magic")


def test_plot_importance_draws(tmp_path: Path) -> None:
    small().plot_importance(noise(SEGMENT), tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_shipped_model_is_the_shipped_encoder(shipped: ASTModel) -> None:
    assert shipped.recipe_id == load_weights(SHIPPED_WEIGHTS).recipe.recipe_id
    assert SpectrogramConfig() == shipped.recipe.spectrogram


def test_fingerprint_of_a_path_is_refused(shipped: ASTModel) -> None:
    with pytest.raises(AudioError, match=r"clip\.wav: this is a path, not a waveform"):
        shipped.fingerprint("clip.wav")  # type: ignore[arg-type]
