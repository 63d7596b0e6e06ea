"""Lists of paths, and playlists."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable
from typing import IO
from urllib.parse import unquote
from xml.etree import ElementTree

from engine.errors import ConfigError

_FILE_URL = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)
_PLS_FILE = re.compile(r"\s*file(\d+)\s*=\s*(.*)", re.IGNORECASE)


def read_list(stream: IO[bytes]) -> list[str]:
    """Read a list of paths or of ``file://`` URLs, or a playlist.

    Parameters
    ----------
    stream : binary file
        One path a line, in UTF-8, or in UTF-16 with a byte order mark; bytes that are not valid
        UTF-8 become surrogates, as Python's names of files. Each path may end with a NUL byte
        instead, as ``find -print0`` writes it. The name or the first line of a playlist says
        whether it is M3U, PLS or XSPF; its paths are relative to its own folder.

    Returns
    -------
    list of str
        Without empty lines.

    Raises
    ------
    ConfigError
        The list contains a NUL byte, but does not end with one; it is not valid UTF-16, or not
        valid XML.
    """
    name, raw = str(getattr(stream, "name", "-")), stream.read()
    ending = os.path.splitext(name)[1].lower()
    if ending == ".xspf" or _is_xspf(raw):
        return _in_folder(name, _xspf_locations(raw, name))
    text = _decode(raw, name)
    if "\0" in text:
        if not text.endswith("\0"):
            raise ConfigError(name, "contains a NUL byte; end every path with one, or none")
        return [_path(item) for item in text.split("\0") if item]
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if line]
    if ending == ".pls" or text[:10].lower() == "[playlist]":
        return _in_folder(name, _pls_files(lines))
    if ending in (".m3u", ".m3u8") or text.startswith("#EXTM3U"):
        return _in_folder(name, (line for line in lines if line[0] != "#"))
    return [_path(line) for line in lines]


def _decode(raw: bytes, name: str) -> str:
    if not raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-16")
    except UnicodeDecodeError as error:
        raise ConfigError(name, "begins as UTF-16, but is not valid UTF-16") from error


def _path(item: str) -> str:
    url = _FILE_URL.match(item)
    return unquote(item[url.end() :], errors="surrogateescape") if url else item


def _in_folder(name: str, items: Iterable[str]) -> list[str]:
    folder = os.path.dirname(name)
    return [os.path.join(folder, _path(item)) for item in items]


def _pls_files(lines: Iterable[str]) -> list[str]:
    """Values of File1, File2, ... in the order of their numbers."""
    found = [match.groups() for match in map(_PLS_FILE.fullmatch, lines) if match]
    return [file for _, file in sorted(found, key=lambda one: int(one[0])) if file]


def _is_xspf(raw: bytes) -> bool:
    return raw.removeprefix(codecs.BOM_UTF8).lstrip().startswith((b"<?xml", b"<playlist"))


def _xspf_locations(raw: bytes, name: str) -> list[str]:
    """Return the first location of each track; it is a URL, also where it is relative."""
    try:
        root = ElementTree.fromstring(raw)  # expat fetches nothing, and bounds entities
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise ConfigError(name, f"is not a valid XSPF playlist ({error})") from error
    locations = (track.findtext("{*}location") for track in root.findall("{*}trackList/{*}track"))
    urls = (location.strip() for location in locations if location)
    return [url if _FILE_URL.match(url) else unquote(url, errors="surrogateescape") for url in urls]
