"""Create a matplotlib figure and write it to a file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import AstoundError, ConfigError, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_SUFFIXES = (".png", ".svg", ".pdf")
"""Suffixes of the files that can be written."""


def new_figure(path: Path, width: float = 9.0, height: float = 9.0) -> Figure:
    """Create a figure; call it before the work it shows, to fail early.

    Parameters
    ----------
    path : Path
        The file to write later; its suffix must be one of FIGURE_SUFFIXES.
    width, height : float
        Inches.

    Raises
    ------
    ConfigError
        The path has another suffix.
    AstoundError
        matplotlib is not installed.
    """
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        requirement = f"must end in one of {', '.join(FIGURE_SUFFIXES)}"
        raise ConfigError.invalid("path", path.name, requirement)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise AstoundError("plots need matplotlib: pip install 'astound[plot]'") from error
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure to a file.

    Raises
    ------
    AstoundError
        The file cannot be written.
    """
    with warnings.catch_warnings():
        # Titles may be in any script, but the fonts are not.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        try:
            figure.savefig(path)
        except OSError as error:
            raise AstoundError(f"{printable(path)}: {error.strerror or error}") from error
