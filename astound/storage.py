"""The settings file of a catalog, astound.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

from engine.errors import ConfigError, StoreError
from engine.files import atomic_write
from engine.vectors.storage import LocalStorage

SETTINGS_FILE = "astound.toml"
DATABASE_FILE = "catalog.db"


def local_shards(folder: Path) -> LocalStorage:
    """Return the storage of the shards in a catalog's folder."""
    return LocalStorage(folder / "shards")


def make_folder(folder: Path) -> None:
    """Make a catalog's folder, StoreError when that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: a catalog cannot be made there ({error.strerror})") from error


def write_settings(path: Path, database: str | None) -> None:
    """Note where the metadata lie: a Postgres URL, or None for a file beside the settings."""
    try:
        quoted = (database or "").replace("\\", "\\\\").replace('"', '\\"')
        with atomic_write(path) as partial:
            partial.write_text(
                "# `database` is a Postgres URL, or empty for catalog.db beside this file.\n"
                f'database = "{quoted}"\n'
            )
    except OSError as error:
        raise StoreError(
            f"{path.parent}: a catalog cannot be made there ({error.strerror})"
        ) from error


def read_settings(settings: Path) -> str | Path:
    """Tell where the metadata lie: a Postgres URL or a SQLite file.

    Raises
    ------
    ConfigError
        The file is damaged, or has settings that are not known.
    """
    try:
        values = tomllib.loads(settings.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(str(settings), f"cannot be read ({error})") from error
    for key in values:
        if key != "database":
            raise ConfigError(f"{settings}: {key}", "unknown setting; known are database")
    if not values.get("database"):
        return settings.parent / DATABASE_FILE
    return str(values["database"])
