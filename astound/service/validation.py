"""What is wrong with the values in a request, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import printable

_MAX_SHOWN = 60

# By the type of pydantic's error, with what is in its context.
_REQUIREMENTS: Mapping[str, str] = {
    "missing": "must be given",
    "extra_forbidden": "there is no such option",
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "int_parsing": "must be an integer",
    "int_parsing_size": "must be an integer of 64 bits",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "literal_error": "must be {expected}",
    "string_type": "must be text",
    "string_unicode": "must be valid text",
    "string_too_long": "must have {max_length} characters at most",
    "string_too_short": "must have {min_length} characters at least",
    "too_long": "must have {max_length} entries at most",
    "too_short": "must not be empty",  # no list needs more than one entry
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "json_invalid": "must be JSON",
    "not_sent_as_json": "must be JSON, with the header `content-type: application/json`",
}
_WITHOUT_VALUE = ("missing", "json_invalid", "too_long", "string_too_long")


def describe(error: Mapping[str, Any]) -> str:
    """Describe an error of pydantic in one sentence, as those of astound.

    Parameters
    ----------
    error : mapping
        Its first part of `loc` is the part of the request, such as "query" or "body".
    """
    kind = error["type"]
    if kind == "model_attributes_type" and isinstance(error.get("input"), bytes):
        kind = "not_sent_as_json"
    context = {key: _shown(value) for key, value in (error.get("ctx") or {}).items()}
    requirement = _REQUIREMENTS.get(kind, "is not valid").format_map(context)
    if kind == "value_error":  # of a function of astound, which names the value
        requirement = context["error"].rpartition(": ")[2]
    names = [part for part in error["loc"][1:] if isinstance(part, str)]  # a number is a position
    name, value = ".".join(names) or "body", error.get("input")
    if kind in _WITHOUT_VALUE or not isinstance(value, (str, int, float)):
        return printable(f"invalid {name}: {requirement}")
    shown = f"{value}" if len(f"{value}") <= _MAX_SHOWN else f"{value}"[:_MAX_SHOWN] + "…"
    return printable(f"invalid {name}={shown}: {requirement}")


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
