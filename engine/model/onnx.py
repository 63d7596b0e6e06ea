"""Trace the network with torch.export, write it as an ONNX graph, and run that graph."""

from __future__ import annotations

import copy
import dataclasses
import errno
import hashlib
import importlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as tracing

from engine.config import load
from engine.errors import AstoundError, ConfigError, ModelError
from engine.files import atomic_write
from engine.model.network import AST, check_features
from engine.recipe import ASTConfig
from engine.validation import parse_json

TOLERANCE = 1e-4
MAX_WEIGHTS_BYTES = 2_000_000_000  # a protobuf file is limited to 2 GiB, everything included

Shape = tuple[int | str, ...]

_FLOAT = "tensor(float)"

# The last bytes of a file are an entry of its metadata: the SHA-256 of all bytes before. Protocol
# buffers allow to append it: field 14 of the model has fields 1 (key) and 2 (value).
_HASH_KEY = "sha256"
_HASH_ENTRY = b"\x72\x4a\x0a\x06" + _HASH_KEY.encode() + b"\x12\x40"
_N_HASH_BYTES = len(_HASH_ENTRY) + 64
_DAMAGED = "damaged: its content does not match the hash at its end; export it again"


class _Outputs(nn.Module):
    """Computes all outputs of a network in one pass."""

    def __init__(self, network: AST) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Map features (n, n_frames, n_mels) to the outputs of :func:`_output_shapes`."""
        summary = self.network.summary(features)
        outputs = {"summary": summary, "embedding": self.network.project(summary)}
        if self.network.config.num_classes:
            outputs["logits"] = self.network.classifier(summary)
        return outputs


def export_program(network: AST) -> ExportedProgram:
    """Trace the network with torch.export, in float32 and without dropout.

    Parameters
    ----------
    network : AST
        Not modified; the program has its own copy of the weights, on the same device.

    Returns
    -------
    ExportedProgram
        Maps features, a float32 tensor of shape (n, n_frames, n_mels), to a dict of "summary"
        (n, embedding_dim), "embedding" (n, fingerprint_length) and, if there are classes, "logits"
        (n, num_classes). n is arbitrary, n_frames is from `patch_size` to `target_length`.
    """
    config = network.config
    network = copy.deepcopy(network).float().eval()
    example = torch.zeros(
        2, config.target_length, config.num_mel_bands, device=network.positions.device
    )
    n_frames: Any = Dim.STATIC
    if _has_variable_length(config):
        n_frames = Dim("n_frames", min=config.patch_size, max=config.target_length)
    # Otherwise torch would specialise the program for sizes of 1 along time or the batch.
    with tracing.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]  # set at import
        return torch.export.export(
            _Outputs(network), (example,), dynamic_shapes=({0: Dim("batch"), 1: n_frames},)
        )


def export_graph(network: AST, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the network as one ONNX file and verify its outputs; :class:`Graph` reads it.

    Parameters
    ----------
    network : AST
        Not modified.
    path : Path
        Written atomically; an existing file stays if the export fails.
    metadata : mapping of str to str
        Stored in the file, next to the network's configuration under "config".

    Raises
    ------
    ModelError
        The graph's outputs differ from the network's, or its weights do not fit into one file.
    AstoundError
        The library of the extra ``onnx`` is not installed.
    """
    _require_onnxscript()
    if sum(weight.numel() for weight in network.parameters()) * 4 > MAX_WEIGHTS_BYTES:
        raise ModelError(path, "the weights exceed 2 GB, the limit of an ONNX file")
    network = copy.deepcopy(network).cpu().float().eval()
    with atomic_write(path) as partial:
        _write(network, partial, metadata)
        _compare(network, Graph(partial), path)


class Graph:
    """A network in an ONNX file, run by onnxruntime; a :class:`engine.model.network.Network`.

    Parameters
    ----------
    path : Path
        A file of :func:`export_graph`.
    providers : sequence of str, optional
        Names of onnxruntime's execution providers, the preferred first; the CPU by default.
    session_options : onnxruntime.SessionOptions, optional

    Attributes
    ----------
    config : ASTConfig
    metadata : dict of str to str
        The metadata passed to :func:`export_graph`, and "config".

    Raises
    ------
    FileNotFoundError
    ModelError
        The file is not an ONNX file, is damaged, or contains another graph.
    ConfigError
        A provider is not available. Raised by the methods: the features have another shape than
        the network reads, or there is no classification head.
    """

    def __init__(
        self,
        path: Path,
        providers: Sequence[str] | None = None,
        session_options: Any = None,
    ) -> None:
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "no such ONNX file", str(path))
        found = _stored_hash(path)
        if found is not None and found != _hash(path):
            raise ModelError(path, _DAMAGED)
        providers = _require_available(
            providers or ["CPUExecutionProvider"], onnxruntime.get_available_providers()
        )
        try:
            self._session = onnxruntime.InferenceSession(path, session_options, providers)
        except Exception as error:  # onnxruntime has no narrower base class
            raise ModelError(path, f"not an ONNX graph, or damaged ({error})") from error
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.config = _config_of(self.metadata, path)
        _check_nodes("input", _input_shapes(self.config), self._session.get_inputs(), path)
        _check_nodes("outputs", _output_shapes(self.config), self._session.get_outputs(), path)
        if self.metadata.pop(_HASH_KEY, None) is None or found is None:
            raise ModelError(path, _DAMAGED)

    def summary(self, features: Tensor) -> Tensor:
        """Mean of the class tokens; see :meth:`AST.summary`."""
        return self._run("summary", features)

    def embed(self, features: Tensor) -> Tensor:
        """Unit-norm embeddings; see :meth:`AST.embed`."""
        return self._run("embedding", features)

    def __call__(self, features: Tensor) -> Tensor:
        """Logits; see :meth:`AST.forward`."""
        if not self.config.num_classes:
            raise ConfigError("num_classes", "the graph has no classification head")
        return self._run("logits", features)

    def _run(self, name: str, features: Tensor) -> Tensor:
        check_features(features, self.config)
        array = features.detach().to("cpu", torch.float32).numpy()
        (output,) = self._session.run([name], {"features": array})
        return torch.from_numpy(output).to(features.device)


def _has_variable_length(config: ASTConfig) -> bool:
    """Whether the network reads inputs of different lengths."""
    return config.patch_size < config.target_length


# -- writing ---------------------------------------------------------------------------------


def _write(network: AST, path: Path, metadata: Mapping[str, str]) -> None:
    names = {0: "batch", 1: "n_frames"} if _has_variable_length(network.config) else {0: "batch"}
    with _quiet():
        program = torch.onnx.export(
            export_program(network),
            dynamo=True,
            verbose=False,
            output_names=list(_output_shapes(network.config)),
            dynamic_shapes=(names,),
        )
    assert program is not None
    config = json.dumps(dataclasses.asdict(network.config))
    program.model.metadata_props.update({**metadata, "config": config})
    program.save(path, external_data=False)
    seal(path)


def seal(path: Path) -> None:
    """Append the hash that :class:`Graph` requires to a file without one."""
    entry = _HASH_ENTRY + _hash(path, 0).encode()
    with path.open("ab") as file:
        file.write(entry)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the messages of the exporter."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)`", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@torch.inference_mode()
def _compare(network: AST, graph: Graph, path: Path) -> None:
    config = network.config
    random = torch.Generator().manual_seed(0)
    for n, n_frames in ((1, config.target_length), (3, config.patch_size)):
        features = torch.randn(n, n_frames, config.num_mel_bands, generator=random)
        for name, expected in _Outputs(network)(features).items():
            output = graph._run(name, features)
            if not torch.allclose(output, expected, rtol=TOLERANCE, atol=TOLERANCE):
                worst = float((output - expected).abs().max())
                raise ModelError(
                    path, f"the graph's {name} differs by {worst:.2g} from the network's"
                )


# -- checks ----------------------------------------------------------------------------------


def _stored_hash(path: Path) -> str | None:
    """Read the hash at the end of a file; None if there is none, as in one that is cut off."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - _N_HASH_BYTES, 0))
            entry = file.read()
    except OSError:  # onnxruntime says why
        return None
    if not entry.startswith(_HASH_ENTRY):
        return None
    return entry.removeprefix(_HASH_ENTRY).decode("ascii", "replace")


def _hash(path: Path, n_excluded: int = _N_HASH_BYTES) -> str:
    """Hash a file without its last bytes, which are the hash."""
    n_left = path.stat().st_size - n_excluded
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while n_left and (part := file.read(min(n_left, 1 << 20))):
            digest.update(part)
            n_left -= len(part)
    return digest.hexdigest()


def _require_onnxscript() -> None:
    """Raise AstoundError if the library that torch.onnx needs is missing."""
    try:
        importlib.import_module("onnxscript")
    except ImportError as error:
        raise AstoundError(f"ONNX needs {error.name}: pip install 'astound[onnx]'") from error


def _require_available(providers: Sequence[str], available: Sequence[str]) -> list[str]:
    for name in providers:
        if name not in available:
            raise ConfigError.invalid("providers", name, f"must be one of {', '.join(available)}")
    return list(providers)


def _config_of(metadata: Mapping[str, str], path: Path) -> ASTConfig:
    if "config" not in metadata:
        raise ModelError(path, 'its metadata have no "config" with an ASTConfig as JSON')
    try:
        return load(ASTConfig, parse_json(metadata["config"]))
    except ValueError as error:  # ConfigError is one
        raise ModelError(path, f'"config" in its metadata is not an ASTConfig ({error})') from error


def _input_shapes(config: ASTConfig) -> dict[str, Shape]:
    n_frames = "n_frames" if _has_variable_length(config) else config.target_length
    return {"features": ("batch", n_frames, config.num_mel_bands)}


def _output_shapes(config: ASTConfig) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        "summary": ("batch", config.embedding_dim),
        "embedding": ("batch", config.fingerprint_length),
    }
    if config.num_classes:
        shapes["logits"] = ("batch", config.num_classes)
    return shapes


def _check_nodes(kind: str, expected: dict[str, Shape], nodes: Sequence[Any], path: Path) -> None:
    """Raise ModelError unless a graph has the expected inputs or outputs."""
    fits = {node.name for node in nodes} == expected.keys() and all(
        node.type == _FLOAT and _fits(node.shape, expected[node.name]) for node in nodes
    )
    if not fits:
        needed = ", ".join(_describe(name, _FLOAT, shape) for name, shape in expected.items())
        found = ", ".join(_describe(node.name, node.type, node.shape) for node in nodes)
        raise ModelError(path, f"{kind} expected: {needed}; found: {found}")


def _fits(found: Sequence[int | str | None], expected: Shape) -> bool:
    """Whether sizes are as expected; a name stands for any size."""
    return len(found) == len(expected) and all(
        size == needed if isinstance(needed, int) else not isinstance(size, int)
        for size, needed in zip(found, expected, strict=True)
    )


def _describe(name: str, kind: str, shape: Sequence[int | str | None]) -> str:
    return f"{name} of shape ({', '.join(map(str, shape))}), {kind}"
