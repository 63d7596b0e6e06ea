"""Files of tracks, sent in whole or in ranges."""

from __future__ import annotations

import mimetypes
import re
from pathlib import Path

from starlette.responses import FileResponse, Response

from astound.service.schemas import RefusedError

_RANGES = re.compile(r"bytes\s*=\s*\d{0,18}-\d{0,18}(\s*,\s*\d{0,18}-\d{0,18})*\s*", re.ASCII)
_RANGE = re.compile(r"(\d*)-(\d*)", re.ASCII)
_PLAYABLE = ("audio/", "video/")


def audio_response(path: Path, ranges: str | None) -> Response:
    """Return the response with a file.

    Parameters
    ----------
    path : Path
    ranges : str or None
        Header Range of the request, which the response obeys.

    Raises
    ------
    RefusedError
        A range is not in the file.
    """
    status = path.stat()
    if ranges is not None:
        _require_satisfiable(ranges, status.st_size)
    # No other type: a browser must not take what a track contains for a page.
    kind = mimetypes.guess_type(path.name)[0] or ""
    media_type = kind if kind.startswith(_PLAYABLE) else "application/octet-stream"
    return FileResponse(path, media_type=media_type, stat_result=status)


def _require_satisfiable(ranges: str, n_bytes: int) -> None:
    """Refuse what FileResponse would refuse in plain text."""
    is_valid = _RANGES.fullmatch(ranges.lower()) is not None
    for first, last in _RANGE.findall(ranges) if is_valid else [("", "")]:
        is_suffix = not first and int(last or 0) > 0
        is_part = bool(first) and int(first) < n_bytes and int(first) <= int(last or n_bytes)
        if not (is_suffix or is_part):
            reason = f"invalid range {ranges!r}: must be bytes=FIRST-LAST in {n_bytes} bytes"
            raise RefusedError(416, "invalid_range", reason)
