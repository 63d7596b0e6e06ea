"""What a file says about itself: title, artist, album, ISRC."""

from __future__ import annotations

import os

import mutagen

from engine.records import Tags


def read_tags(path: str | os.PathLike[str]) -> Tags:
    """Read a file's tags; what it does not say, or says in a broken way, is None.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Tags
    """
    try:
        found = mutagen.File(path, easy=True)
    except (mutagen.MutagenError, OSError, ValueError, KeyError, IndexError):
        # Tags are a courtesy: a file that plays is not refused for a damaged label.
        return Tags()
    if found is None or not found.tags:
        return Tags()
    return Tags(**{name: _first(found.tags, name) for name in ("title", "artist", "album", "isrc")})


def _first(tags: object, name: str) -> str | None:
    try:
        values = tags[name]  # type: ignore[index]
    except (KeyError, ValueError):
        return None
    text = str(values[0] if isinstance(values, list) and values else values)
    text = text.replace("\0", "").encode("utf-8", "replace").decode("utf-8").strip()
    return text or None
