from __future__ import annotations

import dataclasses
import json
import logging
import sys
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from engine.errors import AstoundError, ConfigError, ModelError
from engine.model.network import AST
from engine.model.onnx import Graph, export_graph, export_program
from engine.recipe import ASTConfig

# Overlapping patches: as many along time as lengths from 16 to 60 allow, which are 1 to 5.
SMALL = ASTConfig(
    num_classes=5,
    embedding_dim=24,
    num_layers=1,
    num_heads=3,
    num_mel_bands=32,
    target_length=64,
    dropout=0.5,
    fingerprint_dim=8,
    projection_dim=16,
)
ONE_PATCH = dataclasses.replace(
    SMALL,
    num_classes=0,
    fingerprint_dim=0,
    target_length=16,
    num_mel_bands=16,
    use_distillation=False,
)


def network_of(config: ASTConfig) -> AST:
    torch.manual_seed(0)
    return AST(config).eval()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of :data:`SMALL`."""
    path = tmp_path_factory.mktemp("graph") / "small.onnx"
    export_graph(network_of(SMALL), path, {"labels": "[]"})
    return path


def edited(path: Path, metadata: dict[str, str], out: Path) -> Path:
    """Copy a graph, with other metadata."""
    model = onnx.load(path)
    del model.metadata_props[:]
    helper.set_model_props(model, metadata)
    onnx.save(model, out)
    return out


def foreign(path: Path, metadata: dict[str, str]) -> Path:
    """Write a graph that is none of ours."""
    audio = helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["batch", 16000])
    same = helper.make_tensor_value_info("same", TensorProto.FLOAT, ["batch", 16000])
    nodes = [helper.make_node("Identity", ["audio"], ["same"])]
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(
        helper.make_graph(nodes, "foreign", [audio], [same]), opset_imports=opsets, ir_version=10
    )
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def as_json(config: ASTConfig) -> dict[str, str]:
    return {"config": json.dumps(dataclasses.asdict(config))}


# -- outputs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "n_frames"), [(0, 64), (1, 16), (2, 16), (1, 45), (5, 26), (3, 64)])
@torch.inference_mode()
def test_graph_any_batch_and_length_gives_the_networks_outputs(
    small: Path, n: int, n_frames: int
) -> None:
    network, graph = network_of(SMALL), Graph(small)
    features = torch.randn(n, n_frames, 32)
    found = graph(features), graph.summary(features), graph.embed(features)
    expected = network(features), network.summary(features), network.embed(features)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [SMALL, ONE_PATCH], ids=["small", "one patch"])
@torch.inference_mode()
def test_program_any_batch_and_length_gives_the_networks_outputs(config: ASTConfig) -> None:
    network = network_of(config)
    program = export_program(network.train()).module()
    network.eval()
    lengths = [n for n in (16, 25, 26, 45, 64) if n <= config.target_length]
    for n, n_frames in [(n, n_frames) for n in (1, 2, 5) for n_frames in lengths]:
        features = torch.randn(n, n_frames, config.num_mel_bands)
        outputs = program(features)
        expected = {"summary": network.summary(features), "embedding": network.embed(features)}
        if config.num_classes:
            expected["logits"] = network(features)
        torch.testing.assert_close(outputs, expected)


def test_program_has_weights_of_its_own() -> None:
    network = network_of(ONE_PATCH)
    before = export_program(network)
    torch.nn.init.zeros_(network.norm.weight)
    assert before.state_dict["network.norm.weight"].all()


# -- export ----------------------------------------------------------------------------------


def test_export_graph_writes_one_file_that_holds_config_and_metadata(small: Path) -> None:
    assert list(small.parent.iterdir()) == [small]
    graph = Graph(small)
    assert graph.config == SMALL
    assert graph.metadata == {"labels": "[]"} | as_json(SMALL)
    dims = onnx.load(small).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", "n_frames", 32]


def test_export_graph_is_quiet_and_leaves_the_network_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    network = network_of(ONE_PATCH).train().to(torch.bfloat16)
    before = {name: one.clone() for name, one in network.state_dict().items()}
    path = tmp_path / "one.onnx"
    path.write_text("an older one")
    export_graph(network, path, {})
    assert capfd.readouterr() == ("", "")
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert network.training
    assert all(torch.equal(before[name], one) for name, one in network.state_dict().items())
    features = torch.randn(3, 16, 16)
    with torch.inference_mode():
        expected = network.float().eval().embed(features)
    torch.testing.assert_close(Graph(path).embed(features), expected, rtol=1e-4, atol=1e-4)


def test_export_graph_that_differs_leaves_what_was_there(tmp_path: Path) -> None:
    network = network_of(ONE_PATCH)
    torch.nn.init.constant_(network.norm.bias, float("nan"))
    path = tmp_path / "one.onnx"
    path.write_text("an older one")
    with pytest.raises(ModelError, match=r"one\.onnx: the graph's summary differs by nan"):
        export_graph(network, path, {})
    assert path.read_text() == "an older one"
    assert list(tmp_path.iterdir()) == [path]


def test_export_graph_too_large_for_one_file_is_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = AST(ASTConfig(embedding_dim=3072))
    with pytest.raises(ModelError, match="2 GB"):
        export_graph(network, tmp_path / "large.onnx", {})


# -- files that do not fit -------------------------------------------------------------------


def test_graph_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.onnx"):
        Graph(tmp_path / "absent.onnx")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_graph_truncated_file_is_refused(small: Path, tmp_path: Path, share: float) -> None:
    content = small.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=r"cut\.onnx"):
        Graph(path)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9])
def test_graph_changed_bit_is_refused(small: Path, tmp_path: Path, share: float) -> None:
    content = bytearray(small.read_bytes())
    content[int(share * len(content))] ^= 1
    (tmp_path / "changed.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="does not match the hash"):
        Graph(tmp_path / "changed.onnx")


def test_graph_without_its_hash_is_refused(small: Path, tmp_path: Path) -> None:
    metadata = {one.key: one.value for one in onnx.load(small).metadata_props}
    path = edited(small, metadata | {"labels": "5"}, tmp_path / "edited.onnx")
    with pytest.raises(ModelError, match="does not match the hash"):
        Graph(path)
    del metadata["sha256"]
    with pytest.raises(ModelError, match="does not match the hash"):
        Graph(edited(small, metadata, tmp_path / "none.onnx"))


def test_graph_other_kinds_of_file_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("not a graph at all")
    for path in (text, tmp_path):
        with pytest.raises(ModelError, match="not an ONNX graph, or damaged"):
            Graph(path)


def test_graph_without_config_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match='metadata have no "config" with an ASTConfig as JSON'):
        Graph(foreign(tmp_path / "foreign.onnx", {}))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "5",
        "[]",
        "[1]",
        '{"layers": 3}',
        '{"num_mel_bands": "many"}',
        "[" * 100_000,
        '{"num_layers": 1000000000}',
        '{"num_layers": 9223372036854775808}',
        '{"norm_eps": Infinity}',
    ],
)
def test_graph_with_another_config_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ModelError, match='"config" in its metadata is not an ASTConfig'):
        Graph(foreign(tmp_path / "foreign.onnx", {"config": text}))


def test_graph_of_other_inputs_says_what_is_expected_and_found(tmp_path: Path) -> None:
    path = foreign(tmp_path / "foreign.onnx", as_json(SMALL))
    with pytest.raises(ModelError) as caught:
        Graph(path)
    assert "input expected: features of shape (batch, n_frames, 32)" in str(caught.value)
    assert "found: audio of shape (batch, 16000)" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_mel_bands": 64}, r"features of shape \(batch, n_frames, 64\)"),
        ({"target_length": 16}, r"features of shape \(batch, 16, 32\)"),
        ({"num_classes": 6}, r"logits of shape \(batch, 6\)"),
        ({"num_classes": 0}, r"outputs expected: summary .*embedding .*found: .*logits"),
        ({"embedding_dim": 12}, r"summary of shape \(batch, 12\)"),
        ({"fingerprint_dim": 9}, r"embedding of shape \(batch, 9\)"),
    ],
)
def test_graph_of_other_sizes_says_what_is_expected(
    small: Path, tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    config = dataclasses.replace(SMALL, **changes)
    with pytest.raises(ModelError, match=expected):
        Graph(edited(small, as_json(config), tmp_path / "other.onnx"))


# -- use -------------------------------------------------------------------------------------


def test_graph_unknown_provider_is_refused_naming_those_there_are(small: Path) -> None:
    with pytest.raises(ConfigError, match=r"'AbacusExecutionProvider': .*CPUExecutionProvider"):
        Graph(small, ["CPUExecutionProvider", "AbacusExecutionProvider"])


def test_graph_takes_session_options(small: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    Graph(small, ["CPUExecutionProvider"], options)
    assert (tmp_path / "optimised.onnx").exists()


@pytest.mark.parametrize("shape", [(64, 32), (1, 64, 31), (1, 15, 32), (1, 65, 32), (1, 1, 64, 32)])
def test_graph_features_of_another_shape_are_refused(small: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"\(batch, n_frames, 32\) with 16 to 64 frames"):
        Graph(small).embed(torch.zeros(shape))


def test_graph_takes_features_that_learn_and_other_precisions(small: Path) -> None:
    graph = Graph(small)
    features = torch.randn(2, 64, 32).to(torch.bfloat16)
    expected = graph.embed(features.float())
    torch.testing.assert_close(graph.embed(features.requires_grad_()), expected)


def test_graph_without_classes_has_no_logits(small: Path) -> None:
    graph = Graph(small)
    graph.config = dataclasses.replace(SMALL, num_classes=0)
    with pytest.raises(ConfigError, match="no classification head"):
        graph(torch.zeros(1, 64, 32))


def test_missing_library_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(AstoundError, match=r"needs onnxscript: pip install 'astound\[onnx\]'"):
        export_graph(network_of(ONE_PATCH), tmp_path / "one.onnx", {})
