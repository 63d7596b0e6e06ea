"""A picture drawn with matplotlib: begun, and written to a file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import AstoundError, ConfigError, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf")
"""Endings of the files that can be written."""


def begin(path: Path, width: float = 9.0, height: float = 9.0) -> Figure:
    """Begin a picture; before the work, to fail early.

    Parameters
    ----------
    path : Path
        Where it is going to be written; one of PICTURES by its ending.
    width, height : float
        Inches.

    Raises
    ------
    ConfigError
        The ending of the path is of no picture.
    AstoundError
        matplotlib is not installed.
    """
    if path.suffix.lower() not in PICTURES:
        raise ConfigError.invalid("path", path.name, f"must end in one of {', '.join(PICTURES)}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise AstoundError("pictures need matplotlib: pip install 'astound[plot]'") from error
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write a picture.

    Raises
    ------
    AstoundError
        It cannot be written.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # titles in any script
        try:
            figure.savefig(path)
        except OSError as error:
            raise AstoundError(f"{printable(path)}: {error.strerror or error}") from error
