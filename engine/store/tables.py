"""The tables of a catalog's database.

There is no row for each vector: the row of a track contains the shard and the rows of its vectors.
A vector is searched as long as its track has a row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, DateTime, Double, ForeignKey, Integer, MetaData, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from engine.files import path_from_text, path_to_text

SCHEMA_HEAD = "0003"
"""Revision of the schema described here; the newest file in ``migrations/versions``."""

LARGEST_ID = 2**31 - 1

_MAX_SHOWN = 80  # characters of a value in a message

# SQLite can only change constraints that have names.
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class InvalidRowError(ValueError):
    """A row contains a value that no astound has written."""


class _Checked(TypeDecorator[Any]):
    """A column whose values are checked when they are read: SQLite stores any type in any column.

    Attributes
    ----------
    requirement : str
        What a value must be, for the message.
    name : str
        Table and column.
    nullable : bool
    """

    requirement: ClassVar[str]
    name = ""
    nullable = False

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Return a function that converts a stored value, or raises InvalidRowError."""
        convert = super().result_processor(dialect, coltype)
        assert convert is not None

        def checked(value: Any) -> Any:
            if value is None and self.nullable:
                return None
            try:
                return convert(value)
            except (TypeError, ValueError, OverflowError) as error:
                shown = repr(value)[:_MAX_SHOWN]
                reason = f"invalid {self.name}={shown}: must be {self.requirement}"
                raise InvalidRowError(reason) from error

        return checked


class UtcDateTime(_Checked):
    """A time in UTC; SQLite does not store time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True
    requirement = "a time"

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert a time to UTC before it is written."""
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime:
        """Add the time zone that SQLite drops."""
        if value is None:
            raise TypeError
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Words(_Checked):
    """Text."""

    impl = Text
    cache_ok = True
    requirement = "text"

    def process_result_value(self, value: object, dialect: Dialect) -> str:
        """Refuse anything else."""
        if type(value) is not str:
            raise TypeError
        return value


class Count(_Checked):
    """An integer."""

    impl = Integer
    cache_ok = True
    requirement = "an integer"

    def process_result_value(self, value: object, dialect: Dialect) -> int:
        """Refuse anything else."""
        if type(value) is not int:
            raise TypeError
        return value


class BigCount(Count):
    """An integer that may exceed 32 bits in PostgreSQL."""

    impl = BigInteger
    cache_ok = True


class RowId(Count):
    """A primary key, or a reference to one."""

    cache_ok = True
    requirement = f"an integer from 1 to {LARGEST_ID}"

    def process_result_value(self, value: object, dialect: Dialect) -> int:
        """Refuse numbers that do not fit into addresses."""
        number = super().process_result_value(value, dialect)
        if not 0 < number <= LARGEST_ID:
            raise ValueError
        return number


class Seconds(_Checked):
    """A length of time."""

    impl = Double
    cache_ok = True
    requirement = "a number of seconds"

    def process_result_value(self, value: Any, dialect: Dialect) -> float:
        """Refuse what is negative, infinite or no number."""
        if not 0 <= value < math.inf:
            raise ValueError
        return float(value)


class PathText(Words):
    """A path; neither database stores one that is not valid UTF-8 as it is."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Convert a path to text before it is written or compared."""
        return value and path_to_text(value)

    def process_result_value(self, value: object, dialect: Dialect) -> str:
        """Convert the text back."""
        return path_from_text(super().process_result_value(value, dialect))


class JsonText(_Checked):
    """A JSON object, as text without any character that a database does not store."""

    impl = Text
    cache_ok = True
    requirement = "a JSON object"

    def process_bind_param(self, value: dict[str, Any] | None, dialect: Dialect) -> str | None:
        """Convert an object to text before it is written."""
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> dict[str, Any]:
        """Convert the text back; refuse anything but an object."""
        found = json.loads(value)
        if not isinstance(found, dict):
            raise TypeError
        return found


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {str: Words, int: Count, datetime: UtcDateTime}  # noqa: RUF012


class SettingRow(Base):
    """A setting of the whole catalog, such as its recipe."""

    __tablename__ = "settings"

    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class ShardRow(Base):
    """A shard; its counts include vectors of deleted tracks."""

    __tablename__ = "shards"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    n_segments: Mapped[int]
    n_clips: Mapped[int]
    n_bytes: Mapped[int] = mapped_column(BigCount)
    recipe_id: Mapped[str]
    created_at: Mapped[datetime]


class TrackRow(Base):
    """A track, and its rows in a shard."""

    __tablename__ = "tracks"
    # Ids are never reused: vectors of deleted tracks stay in their shards until compaction.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    shard_id: Mapped[int] = mapped_column(RowId, ForeignKey("shards.id"), index=True)
    first_row: Mapped[int]
    n_segments: Mapped[int]
    first_clip: Mapped[int]
    n_clips: Mapped[int]
    path: Mapped[str] = mapped_column(PathText, unique=True)
    n_bytes: Mapped[int] = mapped_column(BigCount)
    modified_ns: Mapped[int] = mapped_column(BigCount)
    content_hash: Mapped[str] = mapped_column(unique=True)
    duration_s: Mapped[float] = mapped_column(Seconds)
    title: Mapped[str | None]
    artist: Mapped[str | None]
    album: Mapped[str | None]
    isrc: Mapped[str | None]
    added_at: Mapped[datetime]


class MetadataRow(Base):
    """A key and value of the free metadata of a track."""

    __tablename__ = "track_metadata"

    track_id: Mapped[int] = mapped_column(
        RowId, ForeignKey("tracks.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class KeyRow(Base):
    """A key of the service; its secret is stored as a hash only."""

    __tablename__ = "api_keys"
    # Ids are never reused: a revoked one must not become that of another key.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    scope: Mapped[str]
    note: Mapped[str | None]
    secret_hash: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]


class JobRow(Base):
    """A job of the service."""

    __tablename__ = "jobs"
    # Ids are never reused: a client may wait for one that was deleted.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    kind: Mapped[str]
    status: Mapped[str] = mapped_column(index=True)
    key_id: Mapped[int | None] = mapped_column(RowId)
    options: Mapped[dict[str, Any]] = mapped_column(JsonText)
    upload: Mapped[str | None]
    n_starts: Mapped[int]
    progress: Mapped[dict[str, Any] | None] = mapped_column(JsonText)
    result: Mapped[dict[str, Any] | None] = mapped_column(JsonText)
    error: Mapped[dict[str, Any] | None] = mapped_column(JsonText)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


for _table in Base.metadata.tables.values():
    for _column in _table.columns:
        if isinstance(_column.type, _Checked):
            _column.type.name = f"{_table.name}.{_column.name}"
            _column.type.nullable = bool(_column.nullable)
