"""The folders of audio that a run trains on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

RECORDED = ("music", "noise", "speech", "rooms")
"""The folders that every run has."""


class Sources(NamedTuple):
    """Folders of audio to train on.

    Parameters
    ----------
    music, noise, speech, rooms : Path
        Recordings.
    tunes, voices : Path, optional
        More music, which is never held out, and more speech; usually synthetic.
    """

    music: Path
    noise: Path
    speech: Path
    rooms: Path
    tunes: Path | None = None
    voices: Path | None = None

    def folders(self) -> dict[str, Path]:
        """Return the folders that there are, by their names."""
        return {kind: folder for kind, folder in self._asdict().items() if folder is not None}
