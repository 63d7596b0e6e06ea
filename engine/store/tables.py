"""The tables of a catalog's database.

There is no row for each vector: the row of a track contains the shard and the rows of its vectors.
A vector is searched as long as its track has a row.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import BigInteger, DateTime, Double, ForeignKey, MetaData, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from engine.files import path_from_text, path_to_text

SCHEMA_HEAD = "0001"
"""Revision of the schema described here; the newest file in ``migrations/versions``."""

# SQLite can only change constraints that have names.
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC; SQLite does not store time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert a time to UTC before it is written."""
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Add the time zone that SQLite drops."""
        if value is None or value.tzinfo:
            return value and value.astimezone(UTC)
        return value.replace(tzinfo=UTC)


class PathText(TypeDecorator[str]):
    """A path; neither database stores one that is not valid UTF-8 as it is."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Convert a path to text before it is written or compared."""
        return value and path_to_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Convert the text back."""
        return value and path_from_text(value)


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {str: Text, datetime: UtcDateTime}  # noqa: RUF012


class SettingRow(Base):
    """A setting of the whole catalog, such as its recipe."""

    __tablename__ = "settings"

    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class ShardRow(Base):
    """A shard; its counts include vectors of deleted tracks."""

    __tablename__ = "shards"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    n_segments: Mapped[int]
    n_clips: Mapped[int]
    n_bytes: Mapped[int] = mapped_column(BigInteger)
    recipe_id: Mapped[str]
    created_at: Mapped[datetime]


class TrackRow(Base):
    """A track, and its rows in a shard."""

    __tablename__ = "tracks"
    # Ids are never reused: vectors of deleted tracks stay in their shards until compaction.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    shard_id: Mapped[int] = mapped_column(ForeignKey("shards.id"), index=True)
    first_row: Mapped[int]
    n_segments: Mapped[int]
    first_clip: Mapped[int]
    n_clips: Mapped[int]
    path: Mapped[str] = mapped_column(PathText, unique=True)
    n_bytes: Mapped[int] = mapped_column(BigInteger)
    modified_ns: Mapped[int] = mapped_column(BigInteger)
    content_hash: Mapped[str] = mapped_column(unique=True)
    duration_s: Mapped[float] = mapped_column(Double)
    title: Mapped[str | None]
    artist: Mapped[str | None]
    album: Mapped[str | None]
    isrc: Mapped[str | None]
    added_at: Mapped[datetime]


class MetadataRow(Base):
    """A key and value of the free metadata of a track."""

    __tablename__ = "track_metadata"

    track_id: Mapped[int] = mapped_column(
        ForeignKey("tracks.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
