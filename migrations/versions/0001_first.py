"""First schema: settings, shards, tracks and their free metadata."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create all tables and the counter of changes."""
    settings = op.create_table(
        "settings",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_settings"),
    )
    op.bulk_insert(settings, [{"key": "n_changes", "value": "0"}])
    _create_shards()
    _create_tracks()
    op.create_table(
        "track_metadata",
        sa.Column("track_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["track_id"],
            ["tracks.id"],
            name="fk_track_metadata_track_id_tracks",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("track_id", "key", name="pk_track_metadata"),
    )


def downgrade() -> None:
    """Drop all tables."""
    op.drop_table("track_metadata")
    op.drop_index("ix_tracks_shard_id", table_name="tracks")
    op.drop_table("tracks")
    op.drop_table("shards")
    op.drop_table("settings")


def _create_shards() -> None:
    op.create_table(
        "shards",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("n_segments", sa.Integer(), nullable=False),
        sa.Column("n_clips", sa.Integer(), nullable=False),
        sa.Column("n_bytes", sa.BigInteger(), nullable=False),
        sa.Column("recipe_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_shards"),
        sa.UniqueConstraint("name", name="uq_shards_name"),
    )


def _create_tracks() -> None:
    op.create_table(
        "tracks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("shard_id", sa.Integer(), nullable=False),
        sa.Column("first_row", sa.Integer(), nullable=False),
        sa.Column("n_segments", sa.Integer(), nullable=False),
        sa.Column("first_clip", sa.Integer(), nullable=False),
        sa.Column("n_clips", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("n_bytes", sa.BigInteger(), nullable=False),
        sa.Column("modified_ns", sa.BigInteger(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("duration_s", sa.Double(), nullable=False),
        sa.Column("title", sa.Text()),
        sa.Column("artist", sa.Text()),
        sa.Column("album", sa.Text()),
        sa.Column("isrc", sa.Text()),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["shard_id"], ["shards.id"], name="fk_tracks_shard_id_shards"),
        sa.PrimaryKeyConstraint("id", name="pk_tracks"),
        sa.UniqueConstraint("path", name="uq_tracks_path"),
        sa.UniqueConstraint("content_hash", name="uq_tracks_content_hash"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_tracks_shard_id", "tracks", ["shard_id"])
