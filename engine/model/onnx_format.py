"""Write ONNX graphs: the messages of onnx.proto that need no more than arrays and numbers.

The library onnx would do, but its import takes 0.1 s, a sixth of a query from the command line.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Attribute: TypeAlias = "int | float | Sequence[int]"

Types: TypeAlias = "Mapping[str, tuple[str, Sequence[int | str]]]"
"""Types of the numbers, such as "float32", and shapes, by name; a name in a shape is any size."""

OPSET = 23
"""Version of ONNX's operators; the first one with Attention."""

_IR_VERSION = 11  # the oldest format of files that has these operators
FLOAT, BYTE = 1, 2
"""Numbers of the types float32 and uint8, to which ``Cast`` converts."""

_TYPES = {"float32": FLOAT, "uint8": BYTE, "int8": 3, "int64": 7, "bool": 9}


class GraphWriter:
    """Collects the nodes and constants of a graph; values are identified by their names."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []
        self._n_names = 0

    def constant(self, value: NDArray[Any] | np.uint8 | float | Sequence[int]) -> str:
        """Add a constant: an array, a float as float32, or integers as int64; return its name."""
        array = np.asarray(value, np.float32 if isinstance(value, float) else None)
        name = self._new_name()
        dims = b"".join(_field(1, size) for size in array.shape)
        kind = _field(2, _TYPES[array.dtype.name])
        # tobytes is in C order, whatever the order in memory.
        self._constants.append(dims + kind + _field(8, name) + _field(9, array.tobytes()))
        return name

    def node(
        self, operator: str, *inputs: str, output: str | None = None, **attributes: Attribute
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
        content = b"".join(_field(1, name) for name in inputs)
        content += _field(2, output) + _field(4, operator)
        content += b"".join(_field(5, _attribute(*pair)) for pair in attributes.items())
        self._nodes.append(content)
        return output

    def to_bytes(self, inputs: Types, outputs: Types) -> bytes:
        """Serialise the graph as an ONNX model; inputs and outputs have names and types."""
        graph = b"".join(_field(1, node) for node in self._nodes) + _field(2, "graph")
        graph += b"".join(_field(5, constant) for constant in self._constants)
        for number, values in ((11, inputs), (12, outputs)):
            for name, (kind, shape) in values.items():
                graph += _field(number, _value(name, kind, shape))
        return _field(1, _IR_VERSION) + _field(7, graph) + _field(8, _field(2, OPSET))

    def _new_name(self) -> str:
        self._n_names += 1
        return f"v{self._n_names}"


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, int):
        return _field(1, name) + _field(3, value) + _field(20, 2)
    if isinstance(value, float):
        return _field(1, name) + _tag(2, 5) + struct.pack("<f", value) + _field(20, 1)
    return _field(1, name) + b"".join(_field(8, one) for one in value) + _field(20, 7)


def _value(name: str, kind: str, shape: Sequence[int | str]) -> bytes:
    sizes = (_field(1, one) if isinstance(one, int) else _field(2, one) for one in shape)
    tensor = _field(1, _TYPES[kind]) + _field(2, b"".join(_field(1, size) for size in sizes))
    return _field(1, name) + _field(2, _field(1, tensor))


def _field(number: int, value: int | str | bytes) -> bytes:
    """Serialise one field of a message of protocol buffers."""
    if isinstance(value, int):
        return _tag(number, 0) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _tag(number, 2) + _varint(len(content)) + content


def _tag(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    """Serialise an integer in groups of 7 bits, the lowest first; a negative one in 64 bits."""
    value &= (1 << 64) - 1
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    groups.append(value)
    return bytes(groups)
