"""The folders of audio that a run trains on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Sources(NamedTuple):
    """Folders of audio to train on."""

    music: Path
    noise: Path
    speech: Path
    rooms: Path
