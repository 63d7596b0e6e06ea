"""Run revisions on the connection of ``astound.migrate``, inside its transaction."""

from __future__ import annotations

from alembic import context

from engine.store.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
