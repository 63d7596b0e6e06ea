"""Everything that can go wrong, under one root: a sentence for people, attributes for programs."""

from __future__ import annotations

import os
from typing import Any


class AstoundError(Exception):
    """Root of every error astound raises on purpose; ``str(error)`` is one sentence."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes: subclasses are made of other arguments than the sentence."""
        return _rebuilt, (type(self), self.args, self.__dict__)


class ConfigError(AstoundError, ValueError):
    """A setting has a value that cannot work, or a name that does not exist.

    Parameters
    ----------
    key : str
        Name of the setting.
    reason : str
        What is wrong and what would be right.
    """

    def __init__(self, key: str, reason: str) -> None:
        self.key, self.reason = key, reason
        super().__init__(f"{key}: {reason}")


class AudioError(AstoundError):
    """A source of audio cannot be opened or decoded.

    Parameters
    ----------
    source : path-like or str
        The file, or a word for an array ("array").
    reason : str
        What is wrong with it.
    """

    def __init__(self, source: str | os.PathLike[str], reason: str) -> None:
        self.source, self.reason = source, reason
        super().__init__(f"{printable(source)}: {reason}")


class AudioTooShortError(AudioError):
    """Audio shorter than what can be fingerprinted.

    Parameters
    ----------
    source : path-like or str
        The file, or a word for an array.
    duration_s, minimum_s : float
        What it has, what it needs, in seconds.
    """

    def __init__(self, source: str | os.PathLike[str], duration_s: float, minimum_s: float) -> None:
        self.duration_s, self.minimum_s = duration_s, minimum_s
        super().__init__(
            source, f"too short: {duration_s:.2f} s of audio, at least {minimum_s:.2f} s needed"
        )


class SilentAudioError(AudioError):
    """Audio without a single audible segment."""


class ModelError(AstoundError):
    """Weights are missing, damaged or not astound's."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{printable(path)}: {reason}")


class RecipeMismatchError(AstoundError):
    """Two things made under different recipes were brought together.

    Parameters
    ----------
    expected, found : str
        The two recipe ids.
    where : str
        What carries the id that does not fit.
    """

    def __init__(self, expected: str, found: str, where: str) -> None:
        self.expected, self.found, self.where = expected, found, where
        super().__init__(
            f"{where} was made with recipe {found}, but recipe {expected} is in use; "
            "fingerprints of different recipes cannot be compared: use the model it was made with"
        )


class ShardError(AstoundError):
    """A shard's files are missing, truncated or not a shard."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{printable(path)}: {reason}")


class NewerShardError(AstoundError):
    """A shard was written by a newer astound; it is whole, and nothing may mend or drop it."""

    def __init__(self, path: str | os.PathLike[str], found: int, known: int) -> None:
        self.path, self.found, self.known = path, found, known
        super().__init__(
            f"{printable(path)}: format version {found}, this astound reads {known}; update astound"
        )


class StoreError(AstoundError):
    """The catalog's database refuses or cannot be reached."""


class CatalogBusyError(StoreError):
    """Another process is writing to the catalog."""


class TrackNotFoundError(StoreError):
    """No track has one of these ids or paths."""

    def __init__(self, *tracks: int | str) -> None:
        self.track, self.tracks = tracks[0], tracks
        named = ", ".join(map(repr, tracks))
        super().__init__(f"no track {named} in the catalog; `astound list` shows what there is")


class DuplicateTrackError(StoreError):
    """The same audio is in the catalog already."""

    def __init__(self, content_hash: str, track_id: int) -> None:
        self.content_hash, self.track_id = content_hash, track_id
        super().__init__(f"already in the catalog as track {track_id}")


class SchemaError(StoreError):
    """The database's schema is not the one this version works with."""

    def __init__(self, found: str | None, head: str) -> None:
        self.found, self.head = found, head
        super().__init__(
            f"the database has schema {found or 'none'}, this astound works with {head}; "
            "if a newer astound wrote it, update astound"
        )


def printable(path: Any) -> str:
    """Show a path whose name may not be valid UTF-8 without losing or breaking the line."""
    text = os.fsdecode(path) if isinstance(path, (bytes, os.PathLike)) else str(path)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _rebuilt(cls: type[AstoundError], args: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(attributes)
    return error
