"""Writer for the keys of the service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import IO

from astound.output.terminal import write_csv, write_json, write_table
from astound.results import key_object
from engine.records import ServiceKey

_COLUMNS = [field.name for field in fields(ServiceKey)]


def write_keys(keys: Sequence[ServiceKey], form: str, out: IO[str]) -> None:
    """Write keys in one of RECORD_FORMATS, a row each."""
    rows = [key_object(key) for key in keys]
    if form == "json":
        write_json(rows, out)
    elif form == "csv":
        write_csv(_COLUMNS, rows, out)
    else:
        write_table(
            _COLUMNS, ([row[name] for name in _COLUMNS] for row in rows), out, right=("id",)
        )
