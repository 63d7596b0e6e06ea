"""All errors astound raises on purpose, under one root.

``str(error)`` is one sentence for people; attributes and the stable ``code`` are for programs.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

_MAX_SHOWN = 200  # characters of a value in a message


class AstoundError(Exception):
    """Root of every error astound raises on purpose.

    Attributes
    ----------
    code : str
        Stable name of the kind of error in snake case, as it stands in JSON.
    """

    code: ClassVar[str] = "error"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the message and attributes; most constructors do not take the message."""
        return _rebuild, (type(self), self.args, self.__dict__)


class ConfigError(AstoundError, ValueError):
    """A setting has an invalid value, or does not exist.

    Parameters
    ----------
    key : str
        Name of the setting.
    reason : str
        What is wrong, and how to fix it.
    """

    code = "invalid_config"

    def __init__(self, key: str, reason: str) -> None:
        self.key, self.reason = key, reason
        super().__init__(f"{key}: {reason}")

    @classmethod
    def invalid(cls, key: str, value: object, requirement: str) -> ConfigError:
        """Build the error for a value that breaks a requirement.

        Parameters
        ----------
        key : str
            Name of the setting.
        value : object
            Its invalid value.
        requirement : str
            What the value must fulfil, such as "must be positive".

        Returns
        -------
        ConfigError
            Its message is ``invalid key=value: requirement``; a long value is shortened.
        """
        error = cls(key, requirement)
        shown = repr(value)
        if len(shown) > _MAX_SHOWN:
            shown = f"{shown[:_MAX_SHOWN]}…"
        error.args = (f"invalid {key}={shown}: {requirement}",)
        return error


class AudioError(AstoundError):
    """An audio source cannot be opened or decoded.

    Parameters
    ----------
    source : path-like or str
        The file, or a name for an array ("array").
    reason : str
        What is wrong with it.
    """

    code = "unreadable_audio"

    def __init__(self, source: str | os.PathLike[str], reason: str) -> None:
        self.source, self.reason = source, reason
        super().__init__(f"{printable(source)}: {reason}")


class AudioTooShortError(AudioError):
    """Audio is shorter than one segment.

    Parameters
    ----------
    source : path-like or str
        The file, or a name for an array.
    duration_s, minimum_s : float
        Length of the audio and the required length, in seconds.
    """

    code = "audio_too_short"

    def __init__(self, source: str | os.PathLike[str], duration_s: float, minimum_s: float) -> None:
        self.duration_s, self.minimum_s = duration_s, minimum_s
        super().__init__(
            source, f"too short: {duration_s:.2f} s of audio, at least {minimum_s:.2f} s needed"
        )


class AudioTooLongError(AudioError):
    """Audio is longer than the caller accepts.

    Parameters
    ----------
    source : path-like or str
    maximum_s : float
    """

    code = "audio_too_long"

    def __init__(self, source: str | os.PathLike[str], maximum_s: float) -> None:
        self.maximum_s = maximum_s
        super().__init__(source, f"longer than {maximum_s:g} s; send a shorter part")


class SilentAudioError(AudioError):
    """Audio has no audible segment."""

    code = "silent_audio"


class ModelError(AstoundError):
    """A file of weights is missing, damaged or not a model of astound."""

    code = "invalid_model"

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{printable(path)}: {reason}")


class RecipeMismatchError(AstoundError):
    """Fingerprints, weights or a calibration of different recipes meet.

    Parameters
    ----------
    expected, found : str
        The two recipe ids.
    where : str
        What was made with the recipe `found`.
    """

    code = "recipe_mismatch"

    def __init__(self, expected: str, found: str, where: str) -> None:
        self.expected, self.found, self.where = expected, found, where
        super().__init__(
            f"{where} was made with recipe {found}, but recipe {expected} is in use; "
            "fingerprints of different recipes cannot be compared: use the model it was made with"
        )


class ShardError(AstoundError):
    """Files of a shard are missing, damaged or not a shard."""

    code = "damaged_shard"

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{printable(path)}: {reason}")


class ServiceError(AstoundError):
    """A service cannot be reached, or refuses a request.

    Parameters
    ----------
    url : str
        Its address.
    reason : str
    service_code : str, optional
        The code of its answer.
    """

    code = "service_error"

    def __init__(self, url: str, reason: str, service_code: str | None = None) -> None:
        self.url, self.reason, self.service_code = url, reason, service_code
        super().__init__(f"{url}: {reason}")


class NewerShardError(AstoundError):
    """A shard was written by a newer astound.

    It is no :class:`ShardError`: the shard is intact, and must not be repaired or dropped.

    Parameters
    ----------
    path : path-like or str
    found, known : int
        Format version of the shard, and the newest one that this version reads.
    """

    code = "newer_shard"

    def __init__(self, path: str | os.PathLike[str], found: int, known: int) -> None:
        self.path, self.found, self.known = path, found, known
        super().__init__(
            f"{printable(path)}: format version {found}, this astound reads {known}; update astound"
        )


class StoreError(AstoundError):
    """The catalog's database cannot be reached, or refuses an operation."""

    code = "store_error"


class CatalogBusyError(StoreError):
    """Another process is writing to the catalog."""

    code = "catalog_busy"


class TrackNotFoundError(StoreError):
    """The catalog has no track with one or more of the given ids or paths."""

    code = "track_not_found"

    def __init__(self, *tracks: int | str) -> None:
        self.track, self.tracks = tracks[0], tracks
        names = ", ".join(map(repr, tracks))
        super().__init__(f"not in the catalog: {names}; `astound list` shows all tracks")


class TrackChangedError(StoreError):
    """A track is not what the caller expects; somebody has changed it meanwhile."""

    code = "track_changed"

    def __init__(self, track_id: int) -> None:
        self.track_id = track_id
        super().__init__(f"track {track_id} has been changed meanwhile; read it again")


class TrackFileError(StoreError):
    """The file of a track is gone, cannot be read, or is not what was added.

    Parameters
    ----------
    track_id : int
    path : path-like
    reason : str
    """

    code = "audio_unavailable"

    def __init__(self, track_id: int, path: str | os.PathLike[str], reason: str) -> None:
        self.track_id, self.path, self.reason = track_id, path, reason
        super().__init__(f"track {track_id}: {printable(path)}: {reason}")


class KeyNotFoundError(StoreError):
    """The service has no key with this id."""

    code = "key_not_found"

    def __init__(self, key_id: int) -> None:
        self.key_id = key_id
        super().__init__(f"no key {key_id}; `astound key list` shows all keys")


class JobNotFoundError(StoreError):
    """The service has no job with this id."""

    code = "job_not_found"

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id
        super().__init__(f"no job {job_id}; `GET /v1/jobs` lists the last ones")


class DuplicateTrackError(StoreError):
    """The catalog already contains the same audio."""

    code = "duplicate_track"

    def __init__(self, content_hash: str, track_id: int) -> None:
        self.content_hash, self.track_id = content_hash, track_id
        super().__init__(f"already in the catalog as track {track_id}")


class SchemaError(StoreError):
    """The schema of the database is not the one this version uses.

    Parameters
    ----------
    found : str or None
        Revision of the database; None if it has no schema.
    head : str
        Revision this version uses.
    """

    code = "schema_mismatch"

    def __init__(self, found: str | None, head: str) -> None:
        self.found, self.head = found, head
        super().__init__(
            f"the database has schema {found or 'none'}, this astound uses {head}; "
            "if a newer astound wrote it, update astound"
        )


def rebuild(code: str, message: str, **attributes: Any) -> AstoundError | None:
    """Build an error of another process.

    Parameters
    ----------
    code : str
        Its stable code.
    message : str
    attributes
        Those that are known; others are missing.

    Returns
    -------
    AstoundError or None
        None if this version does not know the code.
    """
    classes = [AstoundError]
    for cls in classes:
        if cls.code == code:
            error: AstoundError = _rebuild(cls, (message,), attributes)
            return error
        classes += cls.__subclasses__()
    return None


def printable(path: Any) -> str:
    r"""Decode a path to text that is valid UTF-8; undecodable bytes become ``\udcXX`` escapes."""
    text = os.fsdecode(path) if isinstance(path, (bytes, os.PathLike)) else str(path)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _rebuild(cls: type[AstoundError], args: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(attributes)
    return error
