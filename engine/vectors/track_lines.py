"""Tracks as lines of JSON, as shards and exports have them beside the vectors."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from engine.files import is_path, path_from_text, path_to_text
from engine.records import NewTrack
from engine.validation import parse_json, to_record


def to_line(track: NewTrack) -> str:
    """Format a track as a line of JSON."""
    return json.dumps(asdict(track) | {"path": path_to_text(track.path)}) + "\n"


def from_line(line: bytes) -> NewTrack:
    """Parse a line of :func:`to_line`; ValueError names the field that is wrong."""
    track = to_record(NewTrack, parse_json(line))
    path = path_from_text(track.path)
    if not is_path(path):
        raise ValueError(f"invalid path={track.path!r}: must be that of a file")
    return replace(track, path=path)
