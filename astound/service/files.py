"""The files that jobs read: uploads in the catalog's folder, and those below a media folder."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from astound.results import JsonObject
from astound.service.schemas import RefusedError
from astound.service.uploads import LEFT_AFTER_S, UPLOADS
from astound.storage import RECORDINGS
from engine.audio import child
from engine.audio.walk import is_audio, is_searched
from engine.errors import AudioError, ConfigError, printable


class JobFiles:
    """The files that the jobs of a service read.

    Parameters
    ----------
    catalog : Path
        Folder of the catalog.
    media : Path or None
        Folder whose files jobs may name.
    """

    def __init__(self, catalog: Path, media: Path | None) -> None:
        self._uploads = (catalog / UPLOADS).absolute()
        self._recordings = (catalog / RECORDINGS).absolute()
        self._media = None if media is None else Path(os.path.abspath(media))

    # -- files of the machine --------------------------------------------------------------------

    def media_path(self, given: str) -> str:
        """Return the absolute path of a file or folder that a client names.

        Parameters
        ----------
        given : str
            Relative to the media folder, or absolute.

        Raises
        ------
        RefusedError
            There is no media folder, the path leads out of it, or there is nothing.
        """
        if self._media is None:
            reason = "the service reads no files of its machine; start it with --media DIR"
            raise RefusedError(403, "no_media", reason)
        try:
            path = os.path.abspath(self._media / given)
            is_inside = Path(path).is_relative_to(self._media) and self.is_media(path)
            exists = os.path.exists(path)
        except ValueError as error:  # NUL
            raise RefusedError(422, "invalid_request", f"invalid path {given!r}") from error
        if not is_inside:
            reason = f"{given!r} leads out of the media folder"
            raise RefusedError(403, "outside_media", reason)
        if not exists:
            raise RefusedError(422, "no_such_file", f"{given!r} is not in the media folder")
        return path

    def shown(self, text: str) -> str:
        """Return a text without the folders of the service's machine that precede its files."""
        folders = [self._uploads, self._recordings]
        for folder in folders:  # one folder of each job is between
            text = re.sub(f"{re.escape(str(folder))}/[^/]+/", "", text)
        return text if self._media is None else text.replace(f"{str(self._media).rstrip('/')}/", "")

    def require_recording(self, given: str) -> None:
        """Raise an error unless a path that a client names is a file with sound.

        Raises
        ------
        RefusedError
            Also of a folder, or a file without sound that can be decoded.
        """
        path = self.media_path(given)
        if os.path.isdir(path):
            reason = f"invalid path={given!r}: must be a file, not a folder; scan one at a time"
            raise RefusedError(422, "invalid_request", printable(reason))
        _require_sound(path, given)

    def require_uploaded_recording(self, upload: str, name: str) -> None:
        """Raise an error unless the only upload of a job is a file with sound.

        Parameters
        ----------
        upload : str
        name : str
            What the client calls it.

        Raises
        ------
        AudioError
        """
        (path,) = self.uploaded(upload)
        _require_sound(path, name)

    def is_media(self, path: str) -> bool:
        """Return whether a path, with all links followed, lies in the media folder."""
        if self._media is None:
            return False
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self._media))

    def media_page(self, given: str, after: int, n_most: int) -> JsonObject:
        """Return the JSON object of some entries of a folder: its folders, then its audio files.

        Parameters
        ----------
        given : str
            As in :meth:`media_path`.
        after : int
            Number of entries to leave out.
        n_most : int
            Maximum number of entries.

        Raises
        ------
        RefusedError
            Also of a path that is no folder, or cannot be read.
        """
        folder = self.media_path(given)
        try:
            with os.scandir(folder) as found:
                entries = sorted(filter(self._is_shown, found), key=_place)
        except OSError as error:
            reason = f"cannot list {given!r}: {error.strerror}"
            raise RefusedError(422, "no_such_file", reason) from error
        shown = entries[after : after + n_most]
        last = after + len(shown)
        return {
            "path": self.relative(folder),
            "entries": [self._entry_object(entry) for entry in shown],
            "next": last if last < len(entries) else None,
        }

    def _is_shown(self, entry: os.DirEntry[str]) -> bool:
        """Return whether an entry has a name that JSON can contain, and does not lead outside."""
        if printable(entry.name) != entry.name:
            return False
        is_wanted = is_searched(entry.name) if _is_folder(entry) else is_audio(entry.name)
        return is_wanted and (not entry.is_symlink() or self.is_media(entry.path))

    def _entry_object(self, entry: os.DirEntry[str]) -> JsonObject:
        is_folder, n_bytes = _is_folder(entry), None
        if not is_folder:
            with suppress(OSError):  # removed meanwhile
                n_bytes = entry.stat().st_size
        return {
            "name": entry.name,
            "path": self.relative(entry.path),
            "is_folder": is_folder,
            "size_bytes": n_bytes,
        }

    def relative(self, path: str) -> str:
        """Return a path below the media folder, relative to it; empty for itself."""
        assert self._media is not None
        relative = Path(path).relative_to(self._media).as_posix()
        return "" if relative == "." else relative

    # -- uploads ---------------------------------------------------------------------------------

    def new_upload(self) -> Path:
        """Create the folder of the uploads of a job.

        Raises
        ------
        RefusedError
            The catalog's folder cannot be written.
        """
        try:
            self._uploads.mkdir(exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=f"{datetime.now(UTC):%Y%m%d-}", dir=self._uploads))
        except OSError as error:
            reason = f"cannot store the upload: {error.strerror or error}"
            raise RefusedError(507, "insufficient_storage", reason) from error

    def uploaded(self, upload: str) -> list[str]:
        """Return the absolute paths of the uploads of a job.

        Raises
        ------
        ConfigError
            They are gone: the catalog was copied without them.
        """
        return _files_of(self._uploads / upload)

    def keep(self, upload: str) -> list[str]:
        """Move the uploads of a job to where those of tracks stay, unless they are there already.

        Returns
        -------
        list of str
            Their absolute paths.

        Raises
        ------
        ConfigError
            They are gone: the catalog was copied without them.
        """
        kept = self._recordings / upload
        if not kept.exists():
            self.uploaded(upload)
            self._recordings.mkdir(exist_ok=True)
            (self._uploads / upload).rename(kept)
        return _files_of(kept)

    def discard(self, upload: str, taken: Callable[[list[str]], Collection[str]]) -> None:
        """Delete the uploads of a job, except for files of tracks.

        Parameters
        ----------
        upload : str
        taken : callable
            Returns those of some absolute paths that tracks have.
        """
        folders = (self._uploads / upload, self._recordings / upload)
        files = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
        kept = taken([str(path) for path in files])
        with suppress(OSError):
            for path in files:
                if str(path) not in kept:
                    path.unlink()
        for folder in folders:
            with suppress(OSError):  # a file is left, or there is none
                folder.rmdir()

    def sweep(self, needed: Iterable[str]) -> None:
        """Delete old uploads that no job needs, which a killed service left."""
        names = set(needed)
        with suppress(OSError):
            for folder in self._uploads.iterdir():
                is_old = time.time() - folder.stat().st_mtime > LEFT_AFTER_S
                if folder.is_dir() and folder.name not in names and is_old:
                    shutil.rmtree(folder, ignore_errors=True)


def _place(entry: os.DirEntry[str]) -> tuple[bool, str, str]:
    """Return what a list of a folder is sorted by: folders first."""
    return not _is_folder(entry), entry.name.casefold(), entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder; a link that leads in a circle is none."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _require_sound(path: str, name: str) -> None:
    """Raise AudioError with the name a client gave unless a file has sound that can be decoded."""
    try:
        child.measure(path)
    except AudioError as error:
        raise AudioError(name, error.reason) from error


def _files_of(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise ConfigError("upload", "the files of the job are gone; upload them again")
    return sorted(str(path) for path in folder.iterdir())
