"""Files of weights and ONNX graphs with damaged bytes or fields."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.torch import load, save_file

from benchmarks.queries.mutations import MUTATIONS, VALUES
from engine.errors import AstoundError
from engine.model.ast_model import ASTModel
from engine.model.onnx import seal
from engine.model.weights import load_weights
from engine.recipe import ASTConfig

_SMALL = ASTConfig(
    num_classes=3,
    embedding_dim=32,
    num_layers=2,
    num_heads=2,
    num_mel_bands=32,
    target_length=100,
    fingerprint_dim=16,
    projection_dim=32,
)
_NESTED = "[" * 20_000


class MutatedWeights:
    """A small random network as a weights file and as a graph, and what mutations make of them.

    Parameters
    ----------
    home : Path
        Folder for the files.
    """

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self._path = home / "mutated"
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = ASTModel(_SMALL, device="cpu")
        self._audio = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) / 10
        self._expected = model.extract_embedding(self._audio)
        model.export_onnx(home / "graph.onnx")
        self._graph = (home / "graph.onnx").read_bytes()
        self._weights = model.to_bytes()

    def try_one(self, rng: np.random.Generator) -> tuple[str, str, str]:
        """Mutate a file and use it; return kind, outcome and detail."""
        name, load_model, content, put = (
            ("weights", _from_weights, self._weights, _put_into_weights),
            ("ONNX graph", ASTModel.from_onnx, self._graph, _put_into_graph),
        )[int(rng.integers(2))]
        if rng.integers(2):
            what = str(rng.choice(list(MUTATIONS)))
            self._path.write_bytes(MUTATIONS[what].apply(bytearray(content), rng))
        else:
            what = "field"
            put(self._path, content, rng)
        outcome, detail = self._use(load_model)
        if outcome == "used" and what != "field":  # other bytes are no other network
            outcome = "wrong answer"
        return f"{name}: {what}", outcome, detail

    def _use(self, load_model: Callable[[Path], ASTModel]) -> tuple[str, str]:
        try:
            found = load_model(self._path).extract_embedding(self._audio)
        except AstoundError as error:
            return "refused", str(error)[:200]
        except Exception as error:  # noqa: BLE001 - counted, whatever it is
            return "exception", f"{type(error).__name__}: {error}"
        is_same = found.shape == self._expected.shape and torch.allclose(
            found, self._expected, atol=1e-3
        )
        return ("used, right" if is_same else "used"), ""


def _from_weights(path: Path) -> ASTModel:
    return ASTModel.from_weights(load_weights(path), device="cpu")


def _put_into_weights(path: Path, content: bytes, rng: np.random.Generator) -> None:
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    save_file(load(content), path, _damaged(metadata, rng))


def _put_into_graph(path: Path, content: bytes, rng: np.random.Generator) -> None:
    model = onnx.load_from_string(content)
    metadata = {one.key: one.value for one in model.metadata_props if one.key != "sha256"}
    onnx.helper.set_model_props(model, _damaged(metadata, rng))
    onnx.save(model, path)
    seal(path)


def _damaged(metadata: dict[str, str], rng: np.random.Generator) -> dict[str, str]:
    """Put a value that it should not have into a field, at any depth."""
    key = str(rng.choice(sorted(metadata)))
    try:
        root: Any = json.loads(metadata[key])
    except ValueError:
        return metadata | {key: str(VALUES[int(rng.integers(len(VALUES)))])}
    if not isinstance(root, dict) or not root or not rng.integers(8):
        return metadata | {key: _NESTED}
    within = root
    while True:
        name = str(rng.choice(sorted(within)))
        if not isinstance(within[name], dict) or not within[name]:
            break
        within = within[name]
    values = [one for one in VALUES if not isinstance(one, bytes)]
    within[name] = values[int(rng.integers(len(values)))]
    return metadata | {key: json.dumps(root)}
