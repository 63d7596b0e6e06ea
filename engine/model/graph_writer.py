"""Write ONNX graphs whose values are identified by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Types: TypeAlias = "Mapping[str, tuple[str, Sequence[int | str]]]"
"""Types of the numbers, such as "float32", and shapes, by name; a name in a shape is any size."""

OPSET = 23
"""Version of ONNX's operators; the first one with Attention."""

FLOAT, BYTE = int(TensorProto.FLOAT), int(TensorProto.UINT8)
"""Numbers of the types float32 and uint8, to which ``Cast`` converts."""

_IR_VERSION = 11  # the oldest format of files that has these operators


class GraphWriter:
    """Collects the nodes and constants of a graph."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, value: NDArray[Any] | np.uint8 | float | Sequence[int]) -> str:
        """Add a constant: an array, a float as float32, or integers as int64; return its name."""
        array = np.asarray(value, np.float32 if isinstance(value, float) else None)
        name = self._new_name()
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def node(
        self, operator: str, *inputs: str, output: str | None = None, **attributes: Any
    ) -> str:
        """Add a node with one output.

        Parameters
        ----------
        operator : str
        inputs : str
            Names of values; "" leaves an optional input out.
        output : str, optional
            Name of the output; a new one by default.
        attributes : int, float or sequence of int

        Returns
        -------
        str
            Name of the output.
        """
        output = output or self._new_name()
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def to_bytes(self, inputs: Types, outputs: Types) -> bytes:
        """Serialise the graph as an ONNX model; inputs and outputs have names and types."""
        graph = helper.make_graph(
            self._nodes, "graph", _values(inputs), _values(outputs), self._constants
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, ir_version=_IR_VERSION, opset_imports=[opset])
        return bytes(model.SerializeToString())

    def _new_name(self) -> str:
        return f"v{len(self._nodes) + len(self._constants)}"


def _values(types: Types) -> list[Any]:
    return [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)
        for name, (kind, shape) in types.items()
    ]
