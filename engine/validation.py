"""Values from files as frozen records: each field is checked, and named if it is wrong."""

from __future__ import annotations

import json
import math
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError

T = TypeVar("T")

_MAX_INT = 2**63 - 1
_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)", re.ASCII)


def parse_time(text: str) -> float:
    """Parse a time in seconds, ``m:ss`` or ``h:mm:ss``.

    Raises
    ------
    ValueError
        The text is no such time, or minutes or seconds after a colon exceed 59.
    """
    found = _TIME.fullmatch(text.strip())
    hours, minutes, seconds = map(float, found.groups("0")) if found else (0.0, 0.0, math.nan)
    is_valid = seconds < (60 if ":" in text else math.inf) and not (hours and minutes >= 60)
    if not is_valid:
        raise ValueError(f"invalid time {text!r}: must be seconds, m:ss or h:mm:ss")
    return hours * 3600 + minutes * 60 + seconds


def parse_json(text: str | bytes) -> Any:
    """Parse JSON from a file; ValueError for whatever is wrong with it, deep nesting included."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def to_record(kind: type[T], values: object) -> T:
    """Build a dataclass from a parsed JSON object.

    Parameters
    ----------
    kind : type
        A dataclass whose fields are str, int, float, bool, literals, tuples or mappings of them,
        arrays as :func:`to_values` writes them, optional values or dataclasses.
    values : object
        Keys that are no fields are an error; fields with a default may be missing.

    Returns
    -------
    object
        An instance of `kind`. An integer for a float stays one, so that it is written as it was.

    Raises
    ------
    ValueError
        Names the first field that is missing, unknown, of the wrong type, not finite, not
        valid text, or an integer beyond 64 bits.
    """
    record: T = _dataclass(kind, values, "")
    return record


def to_values(record: Any) -> Any:
    """Return the JSON value from which :func:`to_record` builds a record.

    Parameters
    ----------
    record : dataclass, mapping, sequence, array or scalar
        The bytes of an array are in base64, so that its numbers stay the same.
    """
    if isinstance(record, np.ndarray):
        little = record.astype(record.dtype.newbyteorder("<"), copy=False)
        text = b64encode(np.ascontiguousarray(little).tobytes()).decode()
        return {"shape": list(record.shape), "base64": text}
    if isinstance(record, np.generic):
        return record.item()
    if is_dataclass(record):
        return {field.name: to_values(getattr(record, field.name)) for field in fields(record)}
    if isinstance(record, Mapping):
        return {key: to_values(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_values(value) for value in record]
    return record


def check_value(kind: Any, value: object, name: str) -> Any:
    """Return a value of a type that a field of :func:`to_record` may have.

    Lists become tuples, and objects dataclasses.

    Raises
    ------
    ConfigError
        The value is of another type; the message contains `name`.
    """
    return _value(kind, value, name)


def _dataclass(kind: Any, values: object, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"invalid {prefix.rstrip('.') or 'content'}: must be an object")
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    if unknown := values.keys() - known.keys():
        raise ValueError(f"unknown field {prefix}{min(map(str, unknown))}")
    for name, field in known.items():
        is_optional = field.default is not MISSING or field.default_factory is not MISSING
        if name not in values and not is_optional:
            raise ValueError(f"field {prefix}{name} is missing")
    return kind(**{name: _value(hints[name], values[name], prefix + name) for name in values})


def _value(kind: Any, value: object, name: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in get_args(kind):
            return None
        (kind,) = (one for one in get_args(kind) if one is not NoneType)
        return _value(kind, value, name)
    if is_dataclass(kind):
        return _dataclass(kind, value, f"{name}.")
    if origin is np.ndarray:
        return _array(kind, value, name)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        _require(isinstance(value, dict), name, value, "an object")
        inner = get_args(kind)[1]
        return {
            _value(str, key, name): _value(inner, one, f"{name}.{key}")
            for key, one in dict(value).items()  # type: ignore[call-overload]
        }
    if origin is tuple:
        _require(isinstance(value, (list, tuple)), name, value, "a list")
        values: list[Any] = list(value)  # type: ignore[call-overload]
        inner, *others = get_args(kind)
        if others != [...]:
            n_values = 1 + len(others)
            _require(len(values) == n_values, name, value, f"a list of {n_values} values")
        return tuple(_value(inner, one, name) for one in values)
    return _scalar(kind, value, name)


def _array(kind: Any, value: object, name: str) -> NDArray[Any]:
    _require(isinstance(value, dict), name, value, "an object")
    given: Any = value
    shape = _value(tuple[int, ...], given.get("shape"), f"{name}.shape")
    text = _value(str, given.get("base64"), f"{name}.base64")
    dtype = np.dtype(get_args(get_args(kind)[1])[0])
    _require(min(shape, default=0) >= 0, f"{name}.shape", list(shape), "of 0 or more")
    try:
        flat = np.frombuffer(b64decode(text, validate=True), dtype.newbyteorder("<"))
        return flat.astype(dtype).reshape(shape)
    except ValueError as error:
        requirement = f"must be base64 of {dtype.name} of shape {shape}"
        raise ConfigError(f"{name}.base64", requirement) from error


def _scalar(kind: Any, value: Any, name: str) -> Any:
    if get_origin(kind) is Literal:
        names = get_args(kind)
        _require(value in names, name, value, f"one of {', '.join(map(str, names))}")
        return value
    if kind is float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # An integer beyond the range of a float raises OverflowError in isfinite.
        is_finite = is_number and abs(value) < 1e300 and math.isfinite(value)
        _require(is_finite, name, value, "a finite number")
        return value
    _require(type(value) is kind, name, value, f"of type {kind.__name__}")
    if kind is int:
        _require(abs(value) <= _MAX_INT, name, value, "an integer of 64 bits")
    if kind is str:
        _require(_is_text(value), name, value, "valid text")
    return value


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _require(condition: bool, name: str, value: object, requirement: str) -> None:
    if not condition:
        raise ConfigError.invalid(name, value, f"must be {requirement}")
