"""Find the audio files in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

EXTENSIONS = frozenset(
    (
        *("3g2", "3gp", "aac", "ac3", "aif", "aiff", "alac", "amr", "ape", "asf", "au", "avi"),
        *("caf", "dts", "flac", "flv", "m4a", "m4b", "m4v", "mka", "mkv", "mov", "mp1", "mp2"),
        *("mp3", "mp4", "mpc", "mpeg", "mpg", "oga", "ogg", "ogv", "opus", "ra", "rf64", "snd"),
        *("spx", "tak", "ts", "tta", "w64", "wav", "webm", "wma", "wmv", "wv"),
    )
)
"""File name extensions that a search in a folder accepts; an explicit path may have any."""

# What macOS, Windows and network storage put beside music: copies of metadata, and waste baskets.
_SYSTEM_FOLDERS = {
    "__macosx",
    ".appledouble",
    ".trash",
    ".trashes",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}
_APPLE_DOUBLE = "._"  # begins the name of a file's metadata, which has the file's extension


def audio_files(
    folder: str | os.PathLike[str], on_error: Callable[[OSError], None] | None = None
) -> Iterator[str]:
    """Search a folder recursively for files with an extension of audio or video.

    Parameters
    ----------
    folder : path-like
    on_error : callable, optional
        Called with the error of each folder that cannot be read; ignored by default.

    Yields
    ------
    str
        Sorted by name, the files of a folder before its subfolders. What operating systems put
        there is left out: ``._*``, ``.DS_Store``, ``Thumbs.db``, waste baskets and the like.
    """
    for parent, subfolders, names in os.walk(os.fspath(folder), onerror=on_error):
        subfolders[:] = filter(is_searched, sorted(subfolders))
        yield from (os.path.join(parent, name) for name in sorted(names) if is_audio(name))


def is_searched(folder_name: str) -> bool:
    """Return whether a folder is searched; what operating systems keep for themselves is not."""
    return folder_name.lower() not in _SYSTEM_FOLDERS


def is_audio(file_name: str) -> bool:
    """Return whether a search in a folder finds a file of this name."""
    return has_extension(file_name) and not file_name.startswith(_APPLE_DOUBLE)


def has_extension(name: str | os.PathLike[str]) -> bool:
    """Decide whether a file's name ends as that of audio or video."""
    return Path(name).suffix[1:].lower() in EXTENSIONS
