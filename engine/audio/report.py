"""What was wrong with a recording that was read all the same."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ReadReport:
    """What was wrong with a recording that was read.

    Parameters
    ----------
    warnings : list of str
        A sentence each, without the name of the file.
    cut_off : str or None
        The sentence that says that the file ends before its header says.
    """

    warnings: list[str] = field(default_factory=list)
    cut_off: str | None = None

    def warn(self, sentence: str) -> None:
        """Add a warning, once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)
