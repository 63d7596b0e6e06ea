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
        Synthetic music, which is only trained on, and synthetic speech, which is also noise.
    """

    music: Path
    noise: Path
    speech: Path
    rooms: Path
    tunes: Path | None = None
    voices: Path | None = None
