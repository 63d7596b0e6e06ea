"""Read a file's tags: title, artist, album, ISRC."""

from __future__ import annotations

import os

import mutagen
import mutagen.id3

from engine.records import Tags

MAX_CHARACTERS = 1000
"""Longer texts are cut."""

_ID3 = {"title": "TIT2", "artist": "TPE1", "album": "TALB", "isrc": "TSRC"}


def read_tags(path: str | os.PathLike[str]) -> Tags:
    """Read a file's tags; a tag that is missing or damaged is None.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Tags
    """
    try:
        return _read(path)
    except Exception:  # noqa: BLE001 - mutagen raises anything, MemoryError on huge tags
        # Tags are optional: a file that plays is not refused because of a damaged tag.
        return Tags()


def _read(path: str | os.PathLike[str]) -> Tags:
    found = mutagen.File(path, easy=True)
    if found is None or not found.tags:
        return Tags()
    # Mutagen has no easy names for the ID3 frames in WAV and AIFF files.
    has_frames = isinstance(found.tags, mutagen.id3.ID3)
    return Tags(
        **{name: _first(found.tags, frame if has_frames else name) for name, frame in _ID3.items()}
    )


def _first(tags: object, name: str) -> str | None:
    try:
        values = tags[name]  # type: ignore[index]
    except (KeyError, ValueError):
        return None
    values = getattr(values, "text", values)
    text = str(values[0] if isinstance(values, list) and values else values)[:MAX_CHARACTERS]
    text = text.replace("\0", "").encode("utf-8", "replace").decode("utf-8").strip()
    return text or None
